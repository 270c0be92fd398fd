# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for ZeroTier One as a Debian package, and the vendor's repository of it. SIMULATED.

Both are made here byte by byte, so that a sandbox needs none of Debian's tools and runs on any machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import secrets
import tarfile
import time
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path

from .openpgp import SigningKey
from .private import write_private
from .zerotier_one.build import FILE, Build

ARCHITECTURES = ("amd64", "arm64")
KEY_PATH, DEBIAN_PATH, FINGERPRINT_PATH = "key.asc", "debian", "fingerprint"
SUITES = ("bookworm", "trixie", "jammy", "noble")
"""Those a repository on disk has; a served one has any."""
_OWNER = "ZeroTier of the sandbox (SIMULATED) <nobody@example.com>"
_SOURCES = Path(__file__).parent / "zerotier_one"
_NOT_INSTALLED = {"__main__.py"}
_SHARE = "usr/share/zerotier-one"
_HOME = "var/lib/zerotier-one"
_EPOCH = 1_704_067_200
"""Of every file in a package, so that the same sources make the same package."""

_CONTROL = """\
Package: zerotier-one
Version: {version}
Architecture: all
Maintainer: nobody <nobody@example.com>
Installed-Size: {size}
Depends: adduser, init-system-helpers (>= 1.54~), iproute2, passwd, python3 (>= 3.11)
Section: net
Priority: optional
Homepage: https://www.zerotier.com/
Description: ZeroTier network virtualization service (SIMULATED)
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
    sources = {
        path.name: path.read_bytes()
        for path in sorted(_SOURCES.glob("*.py"))
        if path.name not in _NOT_INSTALLED
    }
    sources[FILE] = build.as_json().encode()
    data = _Tar()
    data.file("usr/sbin/zerotier-one", _PROGRAM.encode(), 0o755)
    for name in ("zerotier-cli", "zerotier-idtool"):
        data.link(f"usr/sbin/{name}", "zerotier-one")
    for name, content in sources.items():
        data.file(f"{_SHARE}/zerotier_one/{name}", content)
    data.file("usr/lib/systemd/system/zerotier-one.service", _UNIT.encode())
    for name in ("zerotier-one", "zerotier-cli", "zerotier-idtool"):
        data.link(f"{_HOME}/{name}", f"../../../usr/sbin/{name}")
    control = _Tar()
    control.file("control", _control(build).encode())
    for name, script in (("postinst", _POSTINST), ("prerm", _PRERM), ("postrm", _POSTRM)):
        control.file(name, script.encode(), 0o755)
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", control.packed()),
        ("data.tar.gz", data.packed()),
    )
    return b"!<arch>\n" + b"".join(_archived(name, content) for name, content in members)


def _control(build: Build) -> str:
    """The same in the package and in the index: apt takes any difference for another build of that version."""
    size = sum(path.stat().st_size for path in _SOURCES.glob("*.py")) // 1024 + 1
    return _CONTROL.format(version=build.version, size=size)


def _archived(name: str, content: bytes) -> bytes:
    """One member of an ``ar`` archive."""
    head = f"{name:<16}{_EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return head.encode() + content + b"\n" * (len(content) % 2)


class _Tar:
    """A tar archive whose folders come by themselves, all of it root's."""

    def __init__(self) -> None:
        self._stream = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._stream, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - packed() closes it
        self._folders: set[str] = set()

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        entry = self._entry(path, mode)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def link(self, path: str, target: str) -> None:
        entry = self._entry(path, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def _entry(self, path: str, mode: int) -> tarfile.TarInfo:
        parts = path.split("/")[:-1]
        for depth in range(len(parts) + 1):
            folder = "/".join([".", *parts[:depth]])
            if folder not in self._folders:
                self._folders.add(folder)
                made = tarfile.TarInfo(folder)
                made.type, made.mode, made.mtime, made.uname, made.gname = (
                    tarfile.DIRTYPE,
                    0o755,
                    _EPOCH,
                    "root",
                    "root",
                )
                self._tar.addfile(made)
        entry = tarfile.TarInfo(f"./{path}")
        entry.mode, entry.mtime, entry.uname, entry.gname = mode, _EPOCH, "root", "root"
        return entry

    def packed(self) -> bytes:
        self._tar.close()
        return gzip.compress(self._stream.getvalue(), mtime=_EPOCH)


class Repository:
    """The vendor's repository: any suite, each with the same packages, signed.

    Args:
        builds: what there are packages of.
        now: seconds since 1970, for the date of a suite.
    """

    def __init__(self, builds: Iterable[Build], key: SigningKey, now: int) -> None:
        self.key = key
        self._now = now
        self._pool: dict[str, bytes] = {}
        entries = []
        for build in builds:
            content = package(build)
            name = f"pool/main/z/zerotier-one/zerotier-one_{build.version}_all.deb"
            self._pool[name] = content
            head, _, description = _control(build).partition("Description:")
            digest = hashlib.sha256(content).hexdigest()
            entries.append(
                f"{head}Filename: {name}\nSize: {len(content)}\nSHA256: {digest}\nDescription:{description}"
            )
        self._index = "\n".join(entries).encode()

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
        return self._of_suite(suite[1], suite[2]) if suite else self._pool.get(found[1])

    def _of_suite(self, suite: str, path: str) -> bytes | None:
        if path == "InRelease":
            return self.key.clearsign(self._release(suite), self._now).encode()
        architectures = "|".join(("all", *ARCHITECTURES))
        return self._index if re.fullmatch(rf"main/binary-(?:{architectures})/Packages", path) else None

    def _release(self, suite: str) -> str:
        digest = hashlib.sha256(self._index).hexdigest()
        lines = [
            "Origin: ZeroTier of the sandbox (SIMULATED)",
            f"Suite: {suite}",
            f"Codename: {suite}",
            f"Date: {formatdate(self._now, usegmt=True)}",
            f"Architectures: {' '.join(ARCHITECTURES)}",
            "Components: main",
            "SHA256:",
        ]
        lines += [
            f" {digest} {len(self._index)} main/binary-{name}/Packages" for name in ("all", *ARCHITECTURES)
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """The whole repository as files, for a server that only serves files."""
        names = {KEY_PATH, *(f"{DEBIAN_PATH}/{name}" for name in self._pool)}
        for suite in SUITES:
            folder_of_suite = f"{DEBIAN_PATH}/dists/{suite}"
            names.add(f"{folder_of_suite}/InRelease")
            names |= {f"{folder_of_suite}/main/binary-{name}/Packages" for name in ("all", *ARCHITECTURES)}
        for name in sorted(names):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.file(name) or b"")
        (folder / FINGERPRINT_PATH).write_text(f"{self.key.fingerprint}\n", "ascii")
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
