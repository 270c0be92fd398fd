# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for ZeroTier One as a Debian package, and the vendor's repository of it. SIMULATED."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from .debian import KEY_PATH, Archive, File, Link, Package, write, write_key
from .openpgp import SigningKey
from .private import write_private
from .zerotier_one.build import FILE, Build

ARCHITECTURES = ("amd64", "arm64")
DEBIAN_PATH = "debian"
SUITES = ("bookworm", "trixie", "jammy", "noble")
"""Those a repository on disk has; a served one has any."""
_OWNER = "ZeroTier of the sandbox (SIMULATED) <nobody@example.com>"
_SOURCES = Path(__file__).parent / "zerotier_one"
_NOT_INSTALLED = {"__main__.py"}
_SHARE = "usr/share/zerotier-one"
_HOME = "var/lib/zerotier-one"

_FIELDS = {
    "Depends": "adduser, init-system-helpers (>= 1.54~), iproute2, passwd, python3 (>= 3.11)",
    "Section": "net",
    "Priority": "optional",
    "Homepage": "https://www.zerotier.com/",
}
_DESCRIPTION = """\
ZeroTier network virtualization service (SIMULATED)
A stand-in of the gpumesh.fleet sandbox for the vendor's package of this name. It
has its programs and its interfaces, and protects no traffic.
"""
_PROGRAM = """\
#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

sys.path.insert(0, "/usr/share/zerotier-one")
from zerotier_one.program import main

sys.exit(main(sys.argv))
"""
_UNIT = """\
[Unit]
Description=ZeroTier One
After=network-online.target network.target
Wants=network-online.target

[Service]
ExecStart=/usr/sbin/zerotier-one
Restart=always
KillMode=process

[Install]
WantedBy=multi-user.target
"""
_POSTINST = """\
#!/bin/sh
set -e
case "$1" in
  configure)
    if ! id zerotier-one >/dev/null 2>&1; then
      useradd --system --user-group --home-dir /var/lib/zerotier-one --shell /usr/sbin/nologin --no-create-home \\
        zerotier-one
    fi
    python3 -m compileall -q /usr/share/zerotier-one || true
    ;;
esac
case "$1" in
  configure|abort-upgrade|abort-deconfigure|abort-remove)
    deb-systemd-helper unmask zerotier-one.service >/dev/null || true
    if deb-systemd-helper --quiet was-enabled zerotier-one.service; then
      deb-systemd-helper enable zerotier-one.service >/dev/null || true
    else
      deb-systemd-helper update-state zerotier-one.service >/dev/null || true
    fi
    if [ -d /run/systemd/system ]; then
      systemctl --system daemon-reload >/dev/null || true
      if [ -n "$2" ]; then action=restart; else action=start; fi
      deb-systemd-invoke "$action" zerotier-one.service >/dev/null || true
    fi
    ;;
esac
"""
_PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  deb-systemd-invoke stop zerotier-one.service >/dev/null || true
fi
find /usr/share/zerotier-one -name __pycache__ -prune -exec rm -rf {} +
"""
_POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
  deb-systemd-helper purge zerotier-one.service >/dev/null || true
fi
"""


def package(build: Build) -> bytes:
    """The package of one build. Its home directory outlives it, as does the vendor's."""
    return _package(build).deb()


def _package(build: Build) -> Package:
    sources = {
        path.name: path.read_bytes()
        for path in sorted(_SOURCES.glob("*.py"))
        if path.name not in _NOT_INSTALLED
    }
    sources[FILE] = build.as_json().encode()
    return Package(
        "zerotier-one",
        build.version,
        _DESCRIPTION,
        contents=(
            File("usr/sbin/zerotier-one", _PROGRAM.encode(), 0o755),
            *(Link(f"usr/sbin/{name}", "zerotier-one") for name in ("zerotier-cli", "zerotier-idtool")),
            *(File(f"{_SHARE}/zerotier_one/{name}", content) for name, content in sources.items()),
            File("usr/lib/systemd/system/zerotier-one.service", _UNIT.encode()),
            *(
                Link(f"{_HOME}/{name}", f"../../../usr/sbin/{name}")
                for name in ("zerotier-one", "zerotier-cli", "zerotier-idtool")
            ),
        ),
        fields=_FIELDS,
        scripts={"postinst": _POSTINST, "prerm": _PRERM, "postrm": _POSTRM},
    )


class Repository:
    """The vendor's repository: any suite, each with the same packages, signed.

    Args:
        builds: what there are packages of.
        now: seconds since 1970, for the date of a suite.
    """

    def __init__(self, builds: Iterable[Build], key: SigningKey, now: int) -> None:
        self.key = key
        self._archive = Archive(
            (_package(build) for build in builds),
            key,
            now,
            origin="ZeroTier of the sandbox (SIMULATED)",
            folder="pool/main/z/zerotier-one",
            architectures=ARCHITECTURES,
        )

    def file(self, path: str) -> bytes | None:
        """A file below the root of the repository; None if there is none.

        The vendor's has one root for each suite, ``debian/trixie``; here it is the same as ``debian``.
        """
        if path == KEY_PATH:
            return self.key.public().encode()
        found = re.fullmatch(rf"{DEBIAN_PATH}/(?:[a-z]+/)?((?:dists|pool)/.+)", path)
        if not found:
            return None
        suite = re.fullmatch(r"dists/([a-z]+)/(.+)", found[1])
        return self._archive.suite(suite[1]).get(suite[2]) if suite else self._archive.pool.get(found[1])

    def write(self, folder: Path) -> None:
        """The whole repository as files, for a server that only serves files."""
        write(folder / DEBIAN_PATH, self._archive.files(*SUITES))
        write_key(folder, self.key)
        for suite in SUITES:
            link = folder / DEBIAN_PATH / suite
            if not link.is_symlink():
                link.symlink_to(".")


def signing_key(folder: Path) -> SigningKey:
    """The key of the repository, made at first and kept in that folder."""
    file = folder / "zerotier-repository.key"
    if not file.exists():
        write_private(file, secrets.token_hex(32))
    return SigningKey(bytes.fromhex(file.read_text("ascii").strip()), _OWNER)


def repository(folder: Path, builds: Iterable[Build]) -> Repository:
    """The repository signed with the key of that folder."""
    return Repository(builds, signing_key(folder), int(time.time()))
