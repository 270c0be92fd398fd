# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual environments beside each other under one root: build, switch a link to, keep for the way back, remove.

    <root>/cache/                        wheels, unpacked once; the environments are hard links to them
    <root>/envs/<framework>/<key>/       an environment, where it was built
    <root>/<framework>                   a link to the one in use

An environment is whole once its marker is there, which is written last. One without it was being built when something ended the
build, and is built anew. What a build fetches is in doubt until then: a loss of power may have emptied files of the cache, and uv
does not look again. So a note in the cache says in which boot a build began, and a build in another boot starts from what whole
environments have. This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "gpumesh.json"
VARIABLES = "gpumesh_variables.pth"
SCHEMA = 1
LOCK_SECONDS = 3600.0
# An environment, or the lock that it is being built from.
KEY = re.compile(r"\.?.+-[0-9a-f]{12}(\.txt)?")
#: The note in the cache that something is being built, with the boot in which that began.
BEGUN = "gpumesh-begun"
BOOT = Path("/proc/sys/kernel/random/boot_id")


class EnvironmentsError(Exception):
    """What happened, and what to do next."""


@dataclass
class Place:
    """Where a framework's environments are."""

    root: Path
    framework: str
    #: The open file that says that we are at work; programs we start hold it, too.
    guard: int = -1

    @property
    def folder(self) -> Path:
        """All of them."""
        return self.root / "envs" / self.framework

    @property
    def link(self) -> Path:
        """The one in use."""
        return self.root / self.framework

    def environment(self, key: str) -> Path:
        """One of them."""
        return self.folder / key

    def current(self) -> str:
        """The key of the one in use; empty: none is."""
        try:
            target = os.readlink(self.link)
        except FileNotFoundError:
            return ""
        except OSError as problem:
            raise EnvironmentsError(
                f"{self.link} is no link and was left as it is; move it away and run this again"
            ) from problem
        return Path(target).name

    def whole(self) -> dict[str, dict[str, Any]]:
        """The marker of each whole environment."""
        found = {}
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if found_marker := marker(folder):
                found[folder.name] = found_marker
        return found

    def halves(self) -> list[Path]:
        """What a build or a removal has left that was ended before it was done."""
        if not self.folder.is_dir():
            return []
        return [folder for folder in sorted(self.folder.iterdir()) if not marker(folder)]


def marker(folder: Path) -> dict[str, Any]:
    """What an environment says of itself; empty: it is not whole."""
    try:
        read = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) and read.get("schema") == SCHEMA else {}


def refuse_foreign_cache(root: Path) -> None:
    """Leave somebody else's folder alone that is in the place of our cache, which nobody but us may get into."""
    cache = root / "cache"
    # Until there is a guard nothing of ours is in it, but what uv has put there when it made a lock.
    if (
        cache.is_dir()
        and any(cache.iterdir())
        and not (root / ".guard").exists()
        and not (cache / "CACHEDIR.TAG").exists()
    ):
        raise EnvironmentsError(f"{cache} is of somebody else and was left as it is; choose another root")


@contextmanager
def alone(place: Place, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Be the only one to change anything under the root, also against a program that somebody killed has left running."""
    refuse_foreign_cache(place.root)
    # Whatever ours is, everybody is to use what is built; but not what uv has for itself.
    umask = os.umask(0o022)
    place.root.mkdir(parents=True, exist_ok=True)
    (place.root / "cache").mkdir(exist_ok=True)
    (place.root / "cache").chmod(0o700)
    place.guard = os.open(place.root / ".guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(place.guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise EnvironmentsError(
                        f"somebody else is at work in {place.root} for {seconds:.0f} seconds ('fuser {place.root}/.guard' "
                        "says who); run this again when they are done"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(place.guard)
        place.guard = -1
        os.umask(umask)


def variables_text(folder: Path, variables: Mapping[str, str]) -> tuple[Path, str]:
    """The file by which an environment's own Python sets variables, unless somebody has set them; empty: none are to be."""
    site = next(iter(folder.glob("lib/python3*/site-packages")), folder)
    values = {name: value.replace("{site}", str(site)) for name, value in sorted(variables.items())}
    text = (
        f"import os; [os.environ.setdefault(*pair) for pair in {list(values.items())!r}]\n" if values else ""
    )
    return site / VARIABLES, text


def set_variables(folder: Path, variables: Mapping[str, str], carry_out: bool) -> bool:
    """Have the environment set its variables; whether that changes anything."""
    path, text = variables_text(folder, variables)
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    if present == text:
        return False
    if carry_out and text:
        write(path, text)
    elif carry_out:
        path.unlink()
    return True


def activate(place: Place, key: str) -> None:
    """Put an environment into use, in one step."""
    note_use(place)
    spare = place.root / f".{place.framework}.new"
    spare.unlink(missing_ok=True)
    spare.symlink_to(Path("envs", place.framework, key))
    os.replace(spare, place.link)
    os.utime(place.environment(key) / MARKER)


def deactivate(place: Place) -> None:
    """Take the environment in use out of it."""
    note_use(place)
    place.link.unlink()


def note_use(place: Place) -> None:
    """Let the environment in use be known as the one that was in use last, also among those that were built after it."""
    if (path := place.environment(place.current()) / MARKER).exists():
        os.utime(path)


def surplus(place: Place, current: str, before: str, keep: int) -> list[str]:
    """Whole environments beyond those that are kept: the one in use, the one before it, and those in use most lately before that."""
    others = [key for key in place.whole() if key != current]
    others.sort(
        key=lambda key: (key == before, (place.environment(key) / MARKER).stat().st_mtime_ns), reverse=True
    )
    return sorted(others[keep:])


def remove(folder: Path) -> None:
    """Remove an environment; without its marker first, for half of one is none."""
    if folder.is_dir() and not folder.is_symlink():
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def sweep(root: Path) -> None:
    """Remove unpacked wheels from the cache that no environment has a file of; uv fetches them again when they are needed."""
    for wheel in (root / "cache").glob("archive-v*/*"):
        if wheel.is_dir() and not usage([wheel])[2]:
            shutil.rmtree(wheel)
    # uv (0.13) takes a wheel for unpacked as long as its link, or what it noted beside it, is there.
    for link in (root / "cache").glob("wheels-v*/**/*"):
        if link.is_symlink() and not link.exists():
            for note in link.parent.glob(f"{glob.escape(link.name)}.*"):
                note.unlink()
            link.unlink()


def begin(root: Path) -> None:
    """Say that from now on what is in the cache is in doubt."""
    if not (root / "cache" / BEGUN).exists():
        write(root / "cache" / BEGUN, BOOT.read_text(encoding="utf-8"))


def distrust(root: Path) -> None:
    """Remove what was fetched or built in a boot that ended before it was done, and what nobody can say that of."""
    note = root / "cache" / BEGUN
    if note.exists() and note.read_text(encoding="utf-8") == BOOT.read_text(encoding="utf-8"):
        return
    places = [Place(root, folder.name) for folder in sorted((root / "envs").glob("*"))]
    # What was ever put into use was whole, whatever has become of its marker since; and somebody may have made other folders here.
    halves = [
        half
        for place in places
        for half in place.halves()
        if KEY.fullmatch(half.name) and half.name != place.current()
    ]
    if halves or note.exists():
        for half in halves:
            remove(half)
        sweep(root)
    note.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a file in one step, and let it outlive a loss of power."""
    spare = path.with_name(f".{path.name}.new")
    with spare.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(spare, path)


def usage(folders: Iterable[Path]) -> tuple[int, int, int]:
    """Bytes of all files in folders: as they look, as they are on disk, and of those that somebody else has, too."""
    apparent = actual = shared = 0
    seen = set()
    pending = [folder for folder in folders if folder.is_dir()]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
                continue
            stat = entry.stat(follow_symlinks=False)
            apparent += stat.st_size
            shared += stat.st_size if stat.st_nlink > 1 else 0
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                actual += stat.st_blocks * 512
    return apparent, actual, shared
