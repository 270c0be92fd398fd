# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the GPUs have burned, when they did not, and why: read from what was recorded. Pure.

The clock of a burn-in never goes back: every record has ``t``, which is the time of day when the process began, plus what a
clock that nobody sets has run since; a process that goes on where another ended begins no earlier than the last record. So the
time from the first record to the last is burned, or it is a gap; nothing is both, and nothing is neither.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BEGIN, BURNING, TICK, STOP, END = "begin", "burning", "tick", "stop", "end"
"""The events that say when something was; `records` lists all."""

FINISHED, ASKED = "finished", "asked"
"""Kinds of stop that are no defect: its time is over; somebody asked."""

STARTING = "the workers were starting"
RESTARTED = "the machine was restarted"
KILLED = "the process of the burn-in ended without a word: killed, or a crash"
INTERRUPTED = "it was interrupted, and started again later"
SILENT = "nothing was recorded, or a worker said nothing"


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which the GPUs did not burn, or nobody saw that they did."""

    begin: float
    end: float
    why: str

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


class Ledger:
    """Fed with one record after the other.

    Attributes:
        begin: of the first record; None: there is none.
        end: of the last.
        burned_s: seconds in which all workers burned, and were seen to.
        gaps: the rest, in order.
        stopped: the record by which it ended for good; None: there is more to do.
        spells: how often a process began or went on.
    """

    def __init__(self) -> None:
        self.begin: float | None = None
        self.end: float | None = None
        self.burned_s = 0.0
        self.stopped: Mapping[str, Any] | None = None
        self.spells = 0
        self._boot = ""
        self._gaps: list[Gap] = []
        self._why = STARTING
        self._covered: float | None = None
        self._burning = False
        self._ended = True

    def add(self, record: Mapping[str, Any]) -> None:
        """One more record."""
        at = record.get("t")
        if self.stopped is not None:
            # What is written after that is about the end, and no part of it.
            return
        if isinstance(at, bool) or not isinstance(at, int | float):
            return
        at = max(float(at), self.end if self.end is not None else float(at))
        if self.begin is None:
            self.begin = self._covered = at
        self.end = at
        event = record.get("event")
        if event == BEGIN:
            self._begin(record)
        elif event == BURNING:
            self._close(at, self._why)
            self._burning = True
        elif event == TICK and self._burning:
            self._tick(record, at)
        elif event == STOP:
            self.stopped = record
        elif event == END:
            self._ended = True

    def _begin(self, record: Mapping[str, Any]) -> None:
        boot = str(record.get("boot", ""))
        if self.spells:
            self._why = RESTARTED if boot != self._boot else INTERRUPTED if self._ended else KILLED
        self.spells += 1
        self._boot = boot
        self._burning = False
        self._ended = False

    def _tick(self, record: Mapping[str, Any], at: float) -> None:
        """What was burned before this record; a gap is what is not said to be."""
        covered = self._covered if self._covered is not None else at
        since = record.get("from")
        since = float(since) if isinstance(since, int | float) else at
        since = min(max(since, covered), at)
        self._close(since, SILENT)
        self.burned_s += at - since
        self._covered = at

    def _close(self, at: float, why: str) -> None:
        if self._covered is not None and at > self._covered:
            self._gaps.append(Gap(self._covered, at, why))
        self._covered = at

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The times in which it did not burn, the one that is open at the end included."""
        if self.end is None or self._covered is None or self.end <= self._covered:
            return tuple(self._gaps)
        why = SILENT if self._burning else self._why
        return (*self._gaps, Gap(self._covered, self.end, why))

    @property
    def wall_s(self) -> float:
        """From the first record to the last."""
        return self.end - self.begin if self.begin is not None and self.end is not None else 0.0

    def left_s(self, asked_s: float) -> float:
        """What is left to burn; 0 once it has ended for good."""
        return 0.0 if self.stopped else max(0.0, asked_s - self.burned_s)
