# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages and signed APT repositories, made byte by byte.

So a sandbox needs none of Debian's tools and runs on any machine, and the same contents make the same package.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from .openpgp import SigningKey

EPOCH = 1_704_067_200
"""Of every file in a package, so that the same sources make the same package."""
KEY_PATH, FINGERPRINT_PATH = "key.asc", "fingerprint"
_MAINTAINER = "nobody <nobody@example.com>"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a package.

    Attributes:
        path: without a leading slash.
    """

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Link:
    """One symbolic link of a package."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Package:
    """A binary package.

    Attributes:
        fields: more of the control file, in this order: ``Depends``, ``Section``, ``Homepage``, ...
        description: the summary, and after an empty first line of its own what more there is to say.
        scripts: the maintainer's: ``postinst``, ``prerm``, ...
        conffiles: paths of the files that outlive a removal, for a purge only takes them.
    """

    name: str
    version: str
    description: str
    contents: tuple[File | Link, ...] = ()
    architecture: str = "all"
    fields: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """As ``apt-get download`` names it; without the epoch."""
        return f"{self.name}_{self.version.partition(':')[2] or self.version}_{self.architecture}.deb"

    def control(self) -> str:
        """The same in the package and in an index: apt takes any difference for another build of that version."""
        return self._fields() + self._described()

    def entry(self, path: str, deb: bytes) -> str:
        """What an index says of the package, which lies under that path."""
        digest = hashlib.sha256(deb).hexdigest()
        return f"{self._fields()}Filename: {path}\nSize: {len(deb)}\nSHA256: {digest}\n{self._described()}"

    def _fields(self) -> str:
        size = sum(len(item.content) for item in self.contents if isinstance(item, File)) // 1024 + 1
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": _MAINTAINER,
            "Installed-Size": str(size),
            **self.fields,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)

    def _described(self) -> str:
        summary, *more = self.description.strip().split("\n")
        return "\n".join([f"Description: {summary}", *(f" {line.strip() or '.'}" for line in more)]) + "\n"

    def deb(self) -> bytes:
        """The package as a file."""
        data = _Tar()
        for item in self.contents:
            if isinstance(item, File):
                data.file(item.path, item.content, item.mode)
            else:
                data.link(item.path, item.target)
        control = _Tar()
        control.file("control", self.control().encode())
        if self.conffiles:
            control.file("conffiles", "".join(f"/{path}\n" for path in self.conffiles).encode())
        for name, script in self.scripts.items():
            control.file(name, script.encode(), 0o755)
        members = (
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", control.packed()),
            ("data.tar.gz", data.packed()),
        )
        return b"!<arch>\n" + b"".join(_archived(name, content) for name, content in members)


def _archived(name: str, content: bytes) -> bytes:
    """One member of an ``ar`` archive."""
    head = f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
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
                made = _owned(folder, 0o755)
                made.type = tarfile.DIRTYPE
                self._tar.addfile(made)
        return _owned(f"./{path}", mode)

    def packed(self) -> bytes:
        self._tar.close()
        return gzip.compress(self._stream.getvalue(), mtime=EPOCH)


def _owned(path: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.mtime, entry.uname, entry.gname = mode, EPOCH, "root", "root"
    return entry


class Archive:
    """Packages and their index, to be served below one root, signed.

    Args:
        packages: what there is, in the order of the index.
        key: who signs.
        now: seconds since 1970, for the date of a suite.
        origin: whose it is, which a pin may ask for.
        folder: where the packages lie below the root: ``pool/main/z/zerotier-one``; empty for a flat repository.
        architectures: beside ``all``.
        components: of a suite, each with the same packages.
    """

    def __init__(
        self,
        packages: Iterable[Package],
        key: SigningKey,
        now: int,
        *,
        origin: str,
        folder: str = "",
        architectures: tuple[str, ...] = ("amd64",),
        components: tuple[str, ...] = ("main",),
    ) -> None:
        self.key = key
        self.architectures = architectures
        self.components = components
        self._now = now
        self._origin = origin
        self.pool: dict[str, bytes] = {}
        entries = []
        for package in packages:
            path = "/".join([folder, package.file_name]) if folder else package.file_name
            if path in self.pool:
                raise ValueError(f"two packages are named {path}")
            self.pool[path] = package.deb()
            # A flat repository names its packages as its vendor does, from where its index is.
            entries.append(package.entry(path if folder else f"./{path}", self.pool[path]))
        self.index = "\n".join(entries).encode()

    def flat(self) -> dict[str, bytes]:
        """Every file of a flat repository, whose line ends in `` /``."""
        release = self._release({"Packages": self.index}, {})
        return {**self.pool, "Packages": self.index, "InRelease": release}

    def suite(self, name: str) -> dict[str, bytes]:
        """The files below ``dists/NAME``."""
        indexes = {
            f"{component}/binary-{architecture}/Packages": self.index
            for component in self.components
            for architecture in ("all", *self.architectures)
        }
        more = {"Suite": name, "Codename": name, "Components": " ".join(self.components)}
        return {**indexes, "InRelease": self._release(indexes, more)}

    def files(self, *suites: str) -> dict[str, bytes]:
        """Every file of a repository with these suites; of a flat one without."""
        if not suites:
            return self.flat()
        lists = {
            f"dists/{suite}/{path}": text for suite in suites for path, text in self.suite(suite).items()
        }
        return {**self.pool, **lists}

    def _release(self, indexes: Mapping[str, bytes], more: Mapping[str, str]) -> bytes:
        fields = {
            "Origin": self._origin,
            "Label": self._origin,
            **more,
            "Date": formatdate(self._now, usegmt=True),
            "Architectures": " ".join(self.architectures),
        }
        lines = [f"{name}: {value}" for name, value in fields.items()]
        lines.append("SHA256:")
        for path, content in indexes.items():
            lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}")
        return self.key.clearsign("\n".join(lines) + "\n", self._now).encode()


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files by their paths below that folder, for a server that only serves files."""
    for path in sorted(files):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(files[path])


def write_key(folder: Path, key: SigningKey) -> None:
    """Whose the repositories are: the public key, and its fingerprint to check it against."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KEY_PATH).write_text(key.public(), "ascii")
    (folder / FINGERPRINT_PATH).write_text(f"{key.fingerprint}\n", "ascii")
