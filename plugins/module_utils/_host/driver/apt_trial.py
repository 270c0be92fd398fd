# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks apt what it would do with other repositories, holds or marks, in a copy of its world.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import packages, paths
from .family import is_stack
from .kept_files import Kept, put
from .programs import APT, must


@contextmanager
def scratch() -> Iterator[None]:
    """The folder of the copies, which goes in the end, and with it the one that a killed run has left."""
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(mode=0o755, parents=True)
    try:
        yield
    finally:
        shutil.rmtree(paths.SCRATCH, ignore_errors=True)


def with_files(files: Mapping[str, Kept]) -> tuple[str, ...]:
    """Options that give apt the repositories and preferences of then, with package lists of now."""
    folder = paths.SCRATCH
    shutil.copytree(paths.APT, folder / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (folder / "cache").mkdir()
    shutil.copytree(
        paths.APT_LISTS, folder / "lists", ignore=shutil.ignore_patterns("lock", "partial", "auxfiles")
    )
    (folder / "lists" / "partial").mkdir()
    for path, was in files.items():
        if not is_apts(path):
            continue
        place = folder / "etc" / Path(path).relative_to(paths.APT)
        put(str(place), was)
        if was and place.suffix in (".sources", ".list"):
            text = place.read_text(encoding="utf-8")
            place.write_text(
                text.replace(f"{paths.APT}/keyrings/", f"{folder}/etc/keyrings/"), encoding="utf-8"
            )
    return (
        f"--option=Dir::Etc={folder}/etc",
        f"--option=Dir::State::lists={folder}/lists",
        f"--option=Dir::Cache={folder}/cache",
        without_holds(),
    )


def is_apts(path: str) -> bool:
    """Whether a file is of apt's configuration."""
    return Path(path).is_relative_to(paths.APT)


def without_holds() -> str:
    """An option that gives apt a copy of dpkg's notes as they are going to be when it is asked in earnest.

    Without holds of the driver: with them it finds no way, whatever it is allowed to change. And without packages of the
    driver that a killed run has left half-way: nothing can be done with apt before they are gone.
    """
    entries = []
    for entry in paths.DPKG_STATUS.read_text(encoding="utf-8", errors="surrogateescape").split("\n\n"):
        name = entry.split("\n", 1)[0].removeprefix("Package: ")
        state = re.search(r"^Status: (\S+) \S+ (\S+)$", entry, re.MULTILINE)
        if is_stack(name) and state:
            if state[2] not in packages.READY:
                continue
            free = state[0].replace("Status: hold ", "Status: install ", 1)
            entries.append(entry.replace(state[0], free, 1))
        else:
            entries.append(entry)
    copy = paths.SCRATCH / "status"
    copy.write_text("\n\n".join(entries), encoding="utf-8", errors="surrogateescape")
    return f"--option=Dir::State::status={copy}"


def spare(came: Iterable[str], gone: Iterable[str]) -> list[str]:
    """What came with the driver and is needed by nothing else once it has gone; apt says so, in a copy of its notes."""
    present = packages.installed()
    asked = [name for name in came if name in present and not is_stack(name)]
    if not asked:
        return []
    marks = paths.SCRATCH / "extended_states"
    marks.write_bytes(paths.APT_MARKS.read_bytes() if paths.APT_MARKS.exists() else b"")
    option = f"--option=Dir::State::extended_states={marks}"
    must("apt-mark fails", "apt-mark", option, "auto", *asked)
    said = must(
        "apt finds no way to remove the driver",
        *APT,
        option,
        "--option=APT::Protect-Kernels=false",
        "--option=APT::AutoRemove::SuggestsImportant=false",
        without_holds(),
        "--simulate",
        "--auto-remove",
        "purge",
        *gone,
    )
    # A kernel that came with its headers may be the one that runs.
    return sorted(
        name for name in {*packages.removes(said)} & {*asked} if not name.startswith("linux-image-")
    )
