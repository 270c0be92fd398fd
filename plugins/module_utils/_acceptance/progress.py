# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run shows while it goes on: one line that moves on a terminal, plain lines elsewhere, and a line for each result.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from .check import Check
from .paint import Paint, clean, columns, duration, fit, is_coloured, width
from .record import Entry

_BAR = 18
_PLAIN_EVERY_S = 30.0
_ERASE = "\r\033[K"
_NAME = 22


class Progress:
    """Shows a run on a stream.

    Args:
        stream: where to write; a terminal has a line that moves.
        clock: seconds that only go up.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._moves = stream.isatty()
        self._paint = Paint(is_coloured(stream))
        self._number = 0
        self._of = 0
        self._check: Check | None = None
        self._begun = 0.0
        self._done: float | None = None
        self._says = ""
        self._left = 0.0
        self._told = 0.0

    def plan(self, of: int, seconds: float) -> None:
        """How many checks there will be, and about how long they take."""
        self._of, self._left = of, seconds
        self.say(f"{of} check{'' if of == 1 else 's'}, about {duration(seconds)}")

    def say(self, text: str) -> None:
        """One line that stays."""
        self._write(f"{text}\n")

    def begin(self, check: Check, number: int) -> None:
        """A check begins."""
        self._check, self._number = check, number
        self._begun = self._told = self._clock()
        self._done, self._says = None, ""
        self._draw()

    def hear(self, event: Mapping[str, Any]) -> None:
        """What a workload says."""
        if event.get("event") != "progress":
            return
        done = event.get("done")
        if isinstance(done, (int, float)) and not isinstance(done, bool):
            self._done = min(1.0, max(0.0, float(done)))
        self._says = str(event.get("says") or "")
        self.tick()

    def tick(self) -> None:
        """Time has passed."""
        if self._moves:
            self._draw()
        elif self._check and self._clock() - self._told >= _PLAIN_EVERY_S:
            self._told = self._clock()
            self.say(f"{self._place()}      {self._check.name}: {self._how_far()}")

    def end(self, entry: Entry) -> None:
        """A check has ended."""
        if self._check:
            self._left = max(0.0, self._left - self._check.seconds)
        self._check = None
        head = f"{self._place()} {entry.result.verdict:<7} {entry.name:<{_NAME}} "
        says = (
            fit(entry.result.says, max(20, width() - columns(head)))
            if self._moves
            else clean(entry.result.says)
        )
        shown = self._paint.verdict(entry.result.verdict, entry.label, 7)
        self.say(f"{self._place()} {shown} {entry.name:<{_NAME}} {says}")

    def close(self) -> None:
        """Leave the cursor at the beginning of an empty line."""
        self._check = None
        self._write("")

    def _place(self) -> str:
        digits = len(str(self._of))
        return f"{self._number:>{digits}}/{self._of}"

    def _how_far(self) -> str:
        took = self._clock() - self._begun
        parts = [duration(took)]
        if self._check and self._check.seconds >= 5:
            parts.append(f"of about {duration(max(self._check.seconds, took))}")
        if self._done is not None:
            parts.append(f"{self._done:.0%}")
        return " ".join(parts) + (f", {self._says}" if self._says else "")

    def _draw(self) -> None:
        if not self._moves or not self._check:
            return
        took = self._clock() - self._begun
        # Where a workload does not say how far it is, the estimate does, and never says that it is done.
        done = self._done if self._done is not None else min(0.95, took / max(self._check.seconds, 1.0))
        filled = round(done * _BAR)
        shown = "━" * filled + "─" * (_BAR - filled)
        left = max(0.0, self._left - took)
        head = f"{self._place()} {shown} "
        text = f"{self._check.name}: {self._how_far()}"
        rest = f"  about {duration(left)} to go"
        room = width() - 1 - columns(head)
        # What it does now is worth more than an estimate.
        line = head + fit(text, room) + (rest if columns(text) + columns(rest) <= room else "")
        self._put(f"{_ERASE}{self._paint(line, 'cyan')}")

    def _write(self, text: str) -> None:
        self._put(f"{_ERASE if self._moves else ''}{text}")
        self._draw()

    def _put(self, text: str) -> None:
        # A terminal that was closed, or a log on a full disk, must not end the run that it shows.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
