# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel has logged since it was last looked at, over crashes and restarts of the machine.

The place that was read last is a cursor of the journal, or a number of bytes of the file that a profile names. It is written
down with every tick; so whoever goes on after the machine was restarted reads what its kernel said before it went down, where
the journal is kept over restarts.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..._host.gpu_programs import Ran
from .. import kernel_lines
from .records import GRAVE

_JOURNAL = ("journalctl", "_TRANSPORT=kernel", "-o", "short-unix", "--no-pager", "-q", "--show-cursor")
_CURSOR = "-- cursor: "
_SECONDS = 20.0
_MOST_LINE = 500
MOST_AT_ONCE = 2000

_MATTERS = re.compile(
    r"NVRM|nvidia|\bXid\b|\bAER\b|PCIe Bus Error|fallen off the bus|DPC|pciehp|nouveau|link is down|\bMCE\b|mce:|"
    r"Out of memory",
    re.I,
)
"""What may be about a GPU, its link or the machine's health; it is judged later. All else is not kept."""


class KernelLog:
    """The kernel's log, read on from where it was last read.

    Args:
        file: what is read instead of the journal; empty: the journal.
        run: runs a program.
        cursor: where to go on; empty: at the end as it is now.
    """

    def __init__(self, file: str, run: Callable[[Sequence[str], float], Ran], cursor: str = "") -> None:
        self._file = Path(file) if file else None
        self._run = run
        self.cursor = cursor
        self.problem = ""
        """Why it could not be read the last time; empty: it could."""
        self.lost = False
        """Whether lines were passed over by that which nobody reads any more; else they come with the next that can be read."""

    def start(self) -> None:
        """Begin at the end as it is now, unless there is a place to go on from."""
        if self.cursor:
            return
        if self._file:
            self.cursor = str(self._size())
            return
        ran = self._run([*_JOURNAL, "-n", "1"], _SECONDS)
        _unused, self.cursor = split(ran.out)
        self._take_problem(ran, bool(self.cursor))

    def read(self) -> list[str]:
        """The new lines that may matter, each with its time in seconds since the epoch in front."""
        lines = self._from_file() if self._file else self._from_journal()
        found = [line[:_MOST_LINE] for line in lines if _MATTERS.search(line)]
        if len(found) <= MOST_AT_ONCE:
            return found
        self.problem = (
            f"the kernel wrote {len(found)} lines that may matter at once, and {MOST_AT_ONCE} were kept"
        )
        self.lost = True
        # The grave ones first, all in their order.
        first = sorted(range(len(found)), key=lambda at: not GRAVE.search(found[at]))[:MOST_AT_ONCE]
        return [found[at] for at in sorted(first)]

    def _from_journal(self) -> list[str]:
        if not self.cursor:
            self.start()
            return []
        ran = self._run([*_JOURNAL, f"--after-cursor={self.cursor}"], _SECONDS)
        lines, cursor = split(ran.out)
        self.cursor = cursor or self.cursor
        self._take_problem(ran, True)
        return lines

    def _take_problem(self, ran: Ran, answered: bool) -> None:
        # With nothing to show it ends with a status of its own.
        nothing = "the journal has no line of the kernel, so it is not known what the kernel would say"
        said = f"journalctl: {ran.says}" if ran.err.strip() else nothing
        self.problem = "" if ran.status == 0 and answered else said
        # Without a place to go on from it begins at the end as it is then.
        self.lost = bool(self.problem) and not self.cursor

    def _size(self) -> int:
        try:
            return self._file.stat().st_size if self._file else 0
        except OSError:
            return 0

    def _from_file(self) -> list[str]:
        if not self._file:
            return []
        self.lost = False
        begin = int(self.cursor) if self.cursor.isdigit() else 0
        try:
            # A file that has become shorter is another one.
            begin = begin if begin <= self._size() else 0
            with self._file.open("rb") as file:
                file.seek(begin)
                data = file.read()
        except OSError as problem:
            self.problem = f"the kernel's log {self._file} cannot be read: {problem.strerror}"
            return []
        self.problem = ""
        # Half a line is left for the next time.
        whole = data[: data.rfind(b"\n") + 1]
        self.cursor = str(begin + len(whole))
        return kernel_lines.timed(whole.decode("utf-8", "replace"))


def split(printed: str) -> tuple[list[str], str]:
    """The lines that journalctl printed, and the cursor it said at the end. Pure."""
    cursor = ""
    for line in printed.splitlines():
        if line.startswith(_CURSOR):
            cursor = line.removeprefix(_CURSOR).strip()
    return kernel_lines.timed(printed), cursor
