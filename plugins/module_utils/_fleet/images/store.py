# SPDX-License-Identifier: GPL-3.0-or-later
"""Where images are kept. What has a final name is whole, whenever whoever writes is killed.

    STORE/.work/BUILD/                   builds under way, see work.py
    STORE/NAME/NAME-v1.2.0/              a version: image, manifest, bill of materials, signature, results of the gate
    STORE/NAME/current -> NAME-v1.2.0    the one to use
    STORE/NAME/previous -> NAME-v1.1.0   the one that was current before the newest came
    STORE/NAME/.pending                  a version that is being made current
    STORE/NAME/.lock                     held by whoever writes

A version comes by one rename and goes by one rename. It is announced in ``.pending`` before it comes; so whoever writes next ends
what somebody was killed in the middle of.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import manifest as manifests
from . import signatures, work
from .manifest import Manifest
from .versions import Bump, Identity, ImageError, Version, check_name, stem, version_for

KEEP = 3
GATE = Path("gate") / "junit.xml"


@dataclass(frozen=True)
class Admitted:
    """What came of a build.

    Args:
        bump: the version that the content has, with kind ``same`` where the store had it already.
        current: whether it became the current one.
        pruned: what was removed for it.
    """

    bump: Bump
    current: bool
    pruned: tuple[Version, ...]


class Store:
    """A folder of images.

    Args:
        root: the folder. It need not be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def work(self) -> Path:
        """Folder of the builds' work folders."""
        return self.root / ".work"

    def names(self) -> list[str]:
        """The images that there is at least one version of."""
        if not self.root.is_dir():
            return []
        return sorted(each.name for each in self.root.iterdir() if each.is_dir() and self.versions(each.name))

    def folder(self, name: str, version: Version) -> Path:
        """Folder of a version, whether it is there or not."""
        return self.root / check_name(name) / stem(name, version)

    def disk(self, name: str, version: Version) -> Path:
        """File of a version, whether it is there or not."""
        return self.folder(name, version) / f"{stem(name, version)}.qcow2"

    def versions(self, name: str) -> list[Version]:
        """The versions that there are, the oldest first."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        found = (_version_of(name, each.name) for each in folder.iterdir() if each.is_dir())
        return sorted(version for version in found if version)

    def identities(self, name: str) -> dict[Version, Identity]:
        """What every version is made of."""
        return {version: self.manifest(name, version).identity.identity() for version in self.versions(name)}

    def manifest(self, name: str, version: Version) -> Manifest:
        """The manifest of a version. Of its files nothing is read."""
        folder = self.folder(name, version)
        if not folder.is_dir():
            raise self._unknown(name, f"version {version}")
        path = folder / manifests.FILE
        read = manifests.read(path)
        if (read.name, read.version) != (name, str(version)):
            raise ImageError(
                f"{path} is that of {read.name} {read.version}",
                hint="Fetch this version anew, or remove its folder and build the image again",
            )
        return read

    def current(self, name: str) -> Version | None:
        """The version to use, if there is one."""
        return self._linked(name, "current")

    def previous(self, name: str) -> Version | None:
        """The version that was current before the newest came, if it is there."""
        return self._linked(name, "previous")

    def find(self, name: str, wanted: str) -> Version:
        """The version that is meant by ``1.2.0``, ``current``, ``previous`` or ``latest``; one that is there."""
        there = self.versions(name)
        words = {"current": self.current, "previous": self.previous}
        if wanted in words:
            found = words[wanted](name)
        elif wanted == "latest":
            found = max(there, default=None)
        else:
            found = Version.parse(wanted.removeprefix("v"))
        if found is None or found not in there:
            raise self._unknown(name, f"{wanted} version" if found is None else f"version {found}")
        return found

    def verify(
        self, name: str, version: Version, allowed_signers: Path | None = None
    ) -> tuple[Manifest, str | None]:
        """Prove that a version is what its manifest says.

        Args:
            allowed_signers: whose signature it must have; none is looked at without.

        Returns:
            The manifest, and who signed it.
        """
        read = self.manifest(name, version)
        folder = self.folder(name, version)
        signer = None
        if allowed_signers:
            content = (folder / manifests.FILE).read_bytes()
            signer = signatures.verify(content, folder / manifests.SIGNATURE, allowed_signers)
        instead = [each for each in self.versions(name) if each != version]
        self._prove(folder, read, f"take another version ({_listed(instead)}), or " if instead else "")
        return read, signer

    def admit(self, name: str, version: Version, folder: Path) -> bool:
        """Put a version into the store from a folder that holds its files and nothing else, and remove that folder.

        Nothing else changes; ``add`` is what does all that a build needs.

        Returns:
            Whether it was not there before. What is there is never overwritten.
        """
        with self._locked(name):
            return self._admit(name, version, folder)

    def add(
        self,
        name: str,
        wanted: Identity,
        disk: Path,
        write: Callable[[Version, Path], None],
        *,
        version: Version | None = None,
        keep: int = KEEP,
    ) -> Admitted:
        """Give a built image its version, put it into the store under it, and make it the current one.

        Args:
            disk: the image's file. It stays where it is.
            write: writes the other files of a version into a folder that holds the disk.
            version: the version it is to have; the one that follows from the content by default.
            keep: how many versions to keep.
        """
        with self._locked(name):
            bump = self.bump(name, wanted, version)
            if bump.kind == "same":
                became = self.current(name) is None and self._switch(name, "current", bump.version)
                return Admitted(bump, became, self._prune(name, keep))
            scratch = work.open_folder(self.work, name)
            try:
                folder = scratch / stem(name, bump.version)
                folder.mkdir()
                _link(disk, folder / f"{folder.name}.qcow2")
                write(bump.version, folder)
                self._pend(name, bump.version)
                self._admit(name, bump.version, folder)
                self._settle(name)
            finally:
                work.discard(scratch, self.work)
            return Admitted(bump, True, self._prune(name, keep))

    def foresee(
        self, name: str, wanted: Identity, *, version: Version | None = None, keep: int = KEEP
    ) -> Admitted:
        """What ``add`` would do."""
        bump = self.bump(name, wanted, version)
        if bump.kind == "same":
            return Admitted(bump, self.current(name) is None, self.surplus(name, keep))
        return Admitted(bump, True, self.surplus(name, keep, bump.version))

    def bump(self, name: str, wanted: Identity, version: Version | None = None) -> Bump:
        """The version that a content has or would get.

        Args:
            version: the one it is to have, where that is not to follow from the content.
        """
        return version_for(self.identities(name), wanted, version)

    def make_current(self, name: str, version: Version) -> bool:
        """Have a version be the one to use; whether it was not. Nothing is proven here: ``verify`` does."""
        with self._locked(name):
            if version not in self.versions(name):
                raise self._unknown(name, f"version {version}")
            return self._switch(name, "current", version)

    def prune(self, name: str, keep: int = KEEP) -> tuple[Version, ...]:
        """Remove all but the newest versions, the current one and the one before it; what was removed."""
        if not self.versions(name):
            return ()
        with self._locked(name):
            return self._prune(name, keep)

    def surplus(self, name: str, keep: int = KEEP, coming: Version | None = None) -> tuple[Version, ...]:
        """What ``prune`` would remove.

        Args:
            coming: a version that would come, and be made the current one, before that.
        """
        if keep < 1:
            raise ImageError(f"{keep} versions cannot be kept", hint="Keep at least 1")
        there, current = self.versions(name), self.current(name)
        if coming:
            there, used = sorted({*there, coming}), {coming, current or self.previous(name)}
        else:
            used = {current, self.previous(name)}
        return tuple(version for version in there[:-keep] if version not in used)

    def sweep(self) -> tuple[list[str], list[str]]:
        """Remove what builds left that are no more: the folders removed, and why others could not be."""
        return work.sweep(self.work)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Be the only one who writes versions of a name, and end what somebody was killed in the middle of."""
        folder = self.root / check_name(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._settle(name)
            yield

    def _admit(self, name: str, version: Version, folder: Path) -> bool:
        target = self.folder(name, version)
        new = manifests.read(folder / manifests.FILE)
        if (new.name, new.version) != (name, str(version)):
            raise ImageError(
                f"{folder / manifests.FILE} is that of {new.name} {new.version}, not of {target.name}"
            )
        if target.exists():
            if self.manifest(name, version).identity.fingerprint != new.identity.fingerprint:
                raise ImageError(
                    f"{target.name} exists with other content",
                    hint="A version is never overwritten: give it another",
                )
            work.discard(folder, self.work)
            return False
        refusals = manifests.refusals(new.tests, new.disk.firmware)
        if refusals:
            raise ImageError(
                f"{target.name} gets no version: {'; '.join(refusals)}", hint="See the results of its gate"
            )
        self._prove(folder, new, "")
        for each in (*folder.rglob("*"), folder):
            _sync(each)
        folder.rename(target)
        _sync(target.parent)
        return True

    def _prove(self, folder: Path, read: Manifest, instead: str) -> None:
        """That the files in a folder are those of a manifest."""
        size = read.file.size_bytes
        for path, sha256 in (
            (folder / read.file.name, read.file.sha256),
            (folder / read.sbom.file, read.sbom.sha256),
        ):
            cure = f"{instead}remove {folder} and build the image again"
            try:
                has = path.stat().st_size
                if path.suffix == ".qcow2" and has != size:
                    raise ImageError(
                        f"{path} is corrupted (it has {has} bytes, its manifest says {size}): {cure}"
                    )
                found = digest(path)
            except FileNotFoundError as exc:
                raise ImageError(f"there is no {path}, which its manifest names: {cure}") from exc
            if found != sha256:
                raise ImageError(
                    f"{path} is corrupted (its sha256 is {found}, its manifest says {sha256}): {cure}"
                )

    def _pend(self, name: str, version: Version) -> None:
        pending = self.root / name / ".pending"
        fresh = pending.with_name(".pending.new")
        fresh.write_text(str(version), encoding="ascii")
        _sync(fresh)
        fresh.replace(pending)
        _sync(pending.parent)

    def _settle(self, name: str) -> None:
        """Make current what was to become it, if it has come."""
        pending = self.root / name / ".pending"
        try:
            version = Version.parse(pending.read_text(encoding="ascii"))
        except FileNotFoundError:
            return
        if self.folder(name, version).is_dir():
            before = self.current(name)
            if before not in (None, version):
                self._switch(name, "previous", before)
            self._switch(name, "current", version)
        pending.unlink()

    def _switch(self, name: str, link: str, version: Version | None) -> bool:
        """Have a link lead to a version, at once; whether it did not."""
        if version is None or self._linked(name, link) == version:
            return False
        path = self.root / name / link
        fresh = path.with_name(f".{link}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(stem(name, version))
        fresh.replace(path)
        _sync(path.parent)
        return True

    def _linked(self, name: str, link: str) -> Version | None:
        try:
            version = _version_of(name, os.readlink(self.root / name / link))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise ImageError(
                f"{self.root / name / link} is no link", hint="Move it away: it is what leads to a version"
            ) from exc
        return version if version and self.folder(name, version).is_dir() else None

    def _prune(self, name: str, keep: int) -> tuple[Version, ...]:
        gone = self.surplus(name, keep)
        for version in gone:
            work.discard(self.folder(name, version), self.work)
        return gone

    def _unknown(self, name: str, what: str) -> ImageError:
        there = self.versions(name)
        if there:
            return ImageError(f"there is no {what} of {name}", hint=f"There are {_listed(there)}")
        names = self.names()
        hint = f"There are {', '.join(names)}" if names else "Build one: ansible-playbook playbooks/image.yml"
        return ImageError(f"there is no image {name} in {self.root}", hint=hint)


def digest(path: Path) -> str:
    """sha256 of a file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version_of(name: str, folder: str) -> Version | None:
    match = re.fullmatch(rf"{re.escape(name)}-v(\d+\.\d+\.\d+)", folder)
    try:
        return Version.parse(match[1]) if match else None
    except ImageError:
        return None


def _listed(versions: Sequence[Version]) -> str:
    return ", ".join(str(version) for version in versions)


def _link(source: Path, target: Path) -> None:
    """Have the same file under a second name, or a copy of it where the file system has no such thing."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError as exc:
        raise ImageError(f"there is no {source}", hint="Build the image") from exc
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    """Have a file or a folder on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
