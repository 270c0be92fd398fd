# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack the run of a machine on the control machine. The machine that is under test wrote the archive, so it is trusted with its
own folder and with no other: one name or one kind of file that a run does not have, and nothing is taken.

usage: python3 unfold.py ARCHIVE FOLDER
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path, PurePosixPath

FILES = 10_000
BYTES = 2 * 2**30
"""Of all files together."""


def main() -> None:
    """Look at all of it, and take it then."""
    archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        with tarfile.open(archive, "r:gz") as tar:
            unfold(tar, folder)
    except (OSError, EOFError, ValueError, tarfile.TarError) as problem:
        sys.exit(f"the run was not unpacked: {problem}")


def unfold(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive below a folder.

    Raises:
        ValueError: there is something in it that a run does not have; then nothing was written.
    """
    entries: list[tarfile.TarInfo] = []
    size = 0
    for entry in tar:
        size += entry.size
        refuse(entry, folder)
        if len(entries) == FILES or size > BYTES:
            raise ValueError(f"it has more than {FILES} files, or more than {BYTES} bytes in them")
        entries.append(entry)
    for entry in entries:
        content, path = tar.extractfile(entry), folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is there may be a link; it is replaced and not followed.
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            if content:
                shutil.copyfileobj(content, file)


def refuse(entry: tarfile.TarInfo, folder: Path) -> None:
    """Whatever is no regular file, or would not be in the folder, or would be hidden in it.

    Raises:
        ValueError: it is.
    """
    if not entry.isreg() or entry.issparse():
        raise ValueError(f"{entry.name!r} is no regular file")
    path = PurePosixPath(entry.name)
    if (
        not path.parts
        or not entry.name.isprintable()
        or any(part.startswith((".", "/")) for part in path.parts)
        or not (folder / path).parent.resolve().is_relative_to(folder.resolve())
    ):
        raise ValueError(f"{entry.name!r} is no name of a file of a run")


if __name__ == "__main__":
    main()
