# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintainer scripts of the stand-in packages, as debhelper and dh-dkms write them."""

from __future__ import annotations

_TOP = "#!/bin/sh\nset -e\n"
_UNIT_POSTINST = """\
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ]; then
  deb-systemd-helper unmask {unit} >/dev/null || true
  if deb-systemd-helper --quiet was-enabled {unit}; then
    deb-systemd-helper enable {unit} >/dev/null || true
  else
    deb-systemd-helper update-state {unit} >/dev/null || true
  fi
  if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then action=restart; else action=start; fi
    deb-systemd-invoke "$action" {unit} >/dev/null || true
  fi
fi
"""
_UNIT_PRERM = """\
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  deb-systemd-invoke stop {unit} >/dev/null || true
fi
"""
_UNIT_POSTRM = """\
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
  deb-systemd-helper purge {unit} >/dev/null || true
fi
"""
_DKMS_POSTINST = """\
if [ "$1" = configure ]; then
  /usr/lib/dkms/common.postinst {name} {version} /usr/share/{name} "" "$2"
fi
"""
_DKMS_PRERM = """\
if [ "$1" != upgrade ] || [ "$2" != {version} ]; then
  dkms remove -m {name} -v {version} --all || true
fi
"""
_LIBRARY = """\
if [ "$1" = configure ] || [ "$1" = remove ]; then
  ldconfig
fi
"""
_KERNEL_POSTINST = """\
if [ "$1" = configure ]; then
  depmod {kernel}
  if [ -d /etc/kernel/postinst.d ]; then
    DEB_MAINT_PARAMS="$*" run-parts --report --exit-on-error --arg={kernel} --arg=/boot/vmlinuz-{kernel} \\
      /etc/kernel/postinst.d
  fi
fi
"""
_KERNEL_PRERM = """\
if [ "$1" = remove ] && [ -d /etc/kernel/prerm.d ]; then
  DEB_MAINT_PARAMS="$*" run-parts --report --exit-on-error --arg={kernel} --arg=/boot/vmlinuz-{kernel} \\
    /etc/kernel/prerm.d
fi
"""
_KERNEL_POSTRM = """\
if [ "$1" = remove ] || [ "$1" = purge ]; then
  if [ -d /etc/kernel/postrm.d ]; then
    DEB_MAINT_PARAMS="$*" run-parts --report --exit-on-error --arg={kernel} --arg=/boot/vmlinuz-{kernel} \\
      /etc/kernel/postrm.d
  fi
  rm -f /lib/modules/{kernel}/modules.*
  find /lib/modules/{kernel} -depth -type d -empty -delete 2>/dev/null || true
fi
"""
_HEADERS_POSTINST = """\
if [ "$1" = configure ] && [ -d /etc/kernel/header_postinst.d ]; then
  DEB_MAINT_PARAMS="$*" run-parts --report --exit-on-error --arg={kernel} /etc/kernel/header_postinst.d
fi
"""
_DEPMOD = """\
if [ "$1" = configure ] || [ "$1" = remove ]; then
  if [ -d /lib/modules/{kernel} ]; then depmod {kernel}; fi
fi
"""


def unit(name: str) -> dict[str, str]:
    """Of a package with a service: enabled and started, unless the administrator has decided otherwise."""
    return _scripts(postinst=_UNIT_POSTINST, prerm=_UNIT_PRERM, postrm=_UNIT_POSTRM, unit=name)


def dkms(name: str, version: str) -> dict[str, str]:
    """Of a package with sources for dkms. A module that does not compile fails the package."""
    return _scripts(postinst=_DKMS_POSTINST, prerm=_DKMS_PRERM, name=name, version=version)


def library() -> dict[str, str]:
    """Of a package with shared libraries."""
    return _scripts(postinst=_LIBRARY, postrm=_LIBRARY)


def kernel(release: str) -> dict[str, str]:
    """Of a kernel, which lets dkms build for it."""
    return _scripts(postinst=_KERNEL_POSTINST, prerm=_KERNEL_PRERM, postrm=_KERNEL_POSTRM, kernel=release)


def headers(release: str) -> dict[str, str]:
    """Of a kernel's headers, with which dkms can build for it at last."""
    return _scripts(postinst=_HEADERS_POSTINST, kernel=release)


def modules(release: str) -> dict[str, str]:
    """Of a package with built modules for one kernel."""
    return _scripts(postinst=_DEPMOD, postrm=_DEPMOD, kernel=release)


def joined(*sets: dict[str, str]) -> dict[str, str]:
    """The scripts of a package that is several of these."""
    names = sorted({name for found in sets for name in found})
    return {
        name: _TOP + "".join(found[name].removeprefix(_TOP) for found in sets if name in found)
        for name in names
    }


def _scripts(postinst: str = "", prerm: str = "", postrm: str = "", **words: str) -> dict[str, str]:
    given = {"postinst": postinst, "prerm": prerm, "postrm": postrm}
    return {name: _TOP + text.format(**words) for name, text in given.items() if text}
