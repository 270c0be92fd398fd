# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of JSON lines that only grows, and that neither a killed process nor a lost supply of power takes more from than its end.

Every line is handed to the kernel at once, so that a killed process loses none, and `sync` has the disk keep what was
written, so that a machine that goes down loses no more than was written since. What is cut off in the middle is left out by
`lines`, and the next line begins on a line of its own.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Recorder:
    """The file, open for writing."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self.lost = 0
        if new:
            sync_folder(path.parent)

    def write(self, *records: Mapping[str, Any]) -> None:
        """Append lines. Where the disk is full they are lost, which is counted, and the burn-in goes on."""
        text = "".join(
            f"{json.dumps(record, separators=(',', ':'), ensure_ascii=False)}\n" for record in records
        )
        self.write_text(text)

    def write_text(self, text: str) -> None:
        """Append lines that somebody else made."""
        if not text:
            return
        data = (b"\n" if self._torn else b"") + text.encode("utf-8", "replace")
        try:
            written = os.write(self._file, data)
        except OSError:
            self.lost += 1
            return
        self._torn = written < len(data)
        self.lost += int(self._torn)

    def sync(self) -> float:
        """Have the disk keep it; how many seconds that took."""
        began = time.monotonic()
        try:
            os.fsync(self._file)
        except OSError:
            self.lost += 1
        return time.monotonic() - began

    def close(self) -> None:
        """Keep all of it, and let go."""
        self.sync()
        os.close(self._file)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """What was written, in order; lines that were cut off, or are no object, are left out."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def gone(path: Path) -> None:
    """Remove a file, and have the disk keep that it is gone."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A file that was made is found after a crash only if its folder was kept, too."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
