# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the root file system: read out of a tar, mended, and written in an order that is always the same."""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
from typing import IO

from .programs import DiskError
from .sizes import BLOCK, MIB

# Kernel file systems, and what a container engine leaves where it mounts its own.
EMPTY_FOLDERS = ("dev", "proc", "run", "sys", "tmp", "lost+found")
ENGINE_FILES = (".dockerenv", "run/.containerenv")
MOUNTED_OVER = {
    "etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    b"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    "etc/hostname": b"",
}
RESOLVER = "../run/systemd/resolve/stub-resolv.conf"


class Root:
    """The files of the root file system, by their names from its top, read out of a tar."""

    def __init__(self, path: str, epoch: int) -> None:
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115
            members = self._tar.getmembers()
        except (OSError, tarfile.TarError) as error:
            raise DiskError(f"Cannot read the root file system out of {path}: {error}") from error
        self.path = path
        self.epoch = epoch
        self.members: dict[str, tarfile.TarInfo] = {}
        self._added: dict[str, bytes] = {}
        for member in members:
            name = posixpath.normpath(member.name).lstrip("/")
            if (
                name == "."
                or name in ENGINE_FILES
                or (name.partition("/")[0] in EMPTY_FOLDERS and "/" in name)
            ):
                continue
            # The size in the file system counts, and a hard link has none.
            member.name = name
            if member.islnk():
                member.linkname = posixpath.normpath(member.linkname).lstrip("/")
            member.mtime = min(int(member.mtime), epoch)
            member.uname = member.gname = ""
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")
            }
            self.members[name] = member
        for name in list(self.members):
            self._make_folders(name)
        self._repair()

    def _repair(self) -> None:
        """Put back what the engine has mounted its own files over, which are empty in an export."""
        for name, content in MOUNTED_OVER.items():
            if name not in self.members or (self.members[name].isfile() and self.members[name].size == 0):
                self.add(name, content)
        resolver = self.members.get("etc/resolv.conf")
        if resolver is None or (resolver.isfile() and resolver.size == 0):
            link = tarfile.TarInfo("etc/resolv.conf")
            link.type, link.linkname, link.mode, link.mtime = tarfile.SYMTYPE, RESOLVER, 0o777, self.epoch
            self._put(link)

    def add(self, name: str, content: bytes) -> None:
        """Add a file, or replace it."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o644, self.epoch
        self._put(member)
        self._added[name] = content

    def add_folder(self, name: str) -> None:
        """Make sure that there is a folder."""
        self._make_folders(f"{name}/.")

    def _put(self, member: tarfile.TarInfo) -> None:
        self._make_folders(member.name)
        self.members[member.name] = member

    def _make_folders(self, name: str) -> None:
        """Those above a file, which mke2fs does not make by itself."""
        folder = posixpath.dirname(name)
        if folder and folder not in self.members:
            member = tarfile.TarInfo(folder)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, self.epoch
            self._put(member)

    def find(self, pattern: str) -> list[str]:
        """The names of files or links that a pattern matches, the newest version last."""
        found = [
            name
            for name, member in self.members.items()
            if re.fullmatch(pattern, name) and not member.isdir()
        ]
        return sorted(
            found, key=lambda name: [(int(part or 0), rest) for part, rest in re.findall(r"(\d*)(\D*)", name)]
        )

    def resolve(self, name: str) -> str | None:
        """The file that a name leads to."""
        for _hop in range(16):
            member = self.members.get(name)
            if member is None or member.isdir():
                return None
            if member.isfile():
                return name
            base = "" if member.islnk() or member.linkname.startswith("/") else posixpath.dirname(name)
            name = posixpath.normpath(posixpath.join(base, member.linkname.lstrip("/")))
        return None

    def _first(self, name: str) -> tarfile.TarInfo:
        """What a hard link links to."""
        member = self.members[name]
        while member.islnk():
            if member.linkname not in self.members:
                raise DiskError(
                    f"{self.path} has a hard link {name} to {member.linkname}, which it does not have"
                )
            member = self.members[member.linkname]
        return member

    def read(self, name: str) -> bytes:
        """What a file holds."""
        found = self.resolve(name)
        if found is None:
            raise DiskError(f"{self.path} has no file {name}")
        if found in self._added:
            return self._added[found]
        file = self._tar.extractfile(self.members[found])
        return file.read() if file is not None else b""

    def below(self, folder: str) -> list[str]:
        """The names of all files below a folder."""
        return [name for name in self.members if name.startswith(f"{folder}/")]

    def used(self, names: list[str]) -> int:
        """About how many bytes they take on the disk."""
        return sum(BLOCK * -(-max(self.members[name].size, 1) // BLOCK) for name in names)

    def write(self, names: list[str], top: str, into: IO[bytes]) -> None:
        """Write these files as a tar: folders before what is in them, hard links after what they link to."""
        ordered = sorted(names, key=lambda name: (self.members[name].islnk(), name.split("/")))
        with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT, bufsize=MIB) as tar:
            tar.copybufsize = MIB
            for name in ordered:
                member = self.members[name].replace(name=name.removeprefix(top), deep=False)
                if member.islnk():
                    # mke2fs gives the file the owner and the mode of the link.
                    first = self._first(name)
                    member = first.replace(
                        name=member.name, linkname=first.name.removeprefix(top), deep=False
                    )
                    member.type, member.size = tarfile.LNKTYPE, 0
                if not member.isreg():
                    tar.addfile(member)
                elif name in self._added:
                    tar.addfile(member, io.BytesIO(self._added[name]))
                else:
                    tar.addfile(member, self._tar.extractfile(self.members[name]))
