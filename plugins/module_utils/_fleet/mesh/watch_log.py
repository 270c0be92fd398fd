# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine's sampler wrote, understood: one series of round trips for each peer, on one clock.

The sampler (``roles/mesh_watch/files/sampler.py``) appends one JSON object a line: a ``begin`` whenever it starts, a tick
with the round trips to all peers at every interval, and an ``end`` when it stops of its own will. A machine may crash in
the middle of a line, lose hours to a power cut, or have its clock set while it samples; none of that may bend a figure:

* A line that is no record is counted and skipped.
* Each tick carries the time of day and the seconds since the machine was started. Within one run of the machine only the
  latter counts, so a clock that is set makes no drop-out longer and no gap; the step is reported as a clock jump. The
  whole is anchored at the last tick's time of day, which is the one most likely to be right.
* Where ticks are missing, nobody knows what the mesh did: a gap, in which there is neither loss nor latency.

The samples come from machines that may not be ours any more, so names and numbers are checked before they are believed.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LOST = math.nan
"""The round trip of a sample that was not answered in time."""

GAP = 1.5
"""Ticks further apart than this many intervals have a gap between them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_LATEST = 32503680000.0  # the year 3000
_SLOWEST = 3600_000.0
_JUMP_SECONDS = 1.0
_DRIFT = 0.001


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without samples: from the last tick before it to the first one after it."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Jump:
    """The machine's clock was set, forwards or (negative) backwards."""

    time: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Series:
    """What one machine measured to one peer.

    Attributes:
        times: seconds since 1970, ascending.
        rtts: milliseconds, or :data:`LOST`.
        breaks: indexes before which there is a gap.
    """

    times: array[float] = field(default_factory=lambda: array("d"))
    rtts: array[float] = field(default_factory=lambda: array("d"))
    breaks: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Log:
    """What one machine measured.

    Attributes:
        source: the machine.
        interval: seconds between ticks; 0 if it never began.
        until: when it was told to end; None if it never began.
        simulated: it stands in a sandbox.
        ticks: how many there are.
        first, last: times of the first and the last tick; None without any.
        series: by peer.
        gaps, jumps: in order.
        broken: lines that were no records.
        end: why it ended: ``finished``, ``stopped`` (as asked), ``full``, ``terminated`` (the machine was shut down); None
            while it runs or after a crash.
    """

    source: str
    interval: float = 0.0
    until: float | None = None
    simulated: bool = False
    ticks: int = 0
    first: float | None = None
    last: float | None = None
    series: Mapping[str, Series] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    jumps: tuple[Jump, ...] = ()
    broken: int = 0
    end: str | None = None

    @property
    def fell_silent(self) -> bool:
        """Nothing but the machine itself can have ended it, unless it runs still."""
        return self.end in (None, "terminated")


def read(source: str, lines: Iterable[str]) -> Log:
    """The log of a machine, from the lines of its file. Nothing in them makes this fail."""
    reader = _Reader(source)
    for line in lines:
        if line.strip():
            reader.take(line)
    return reader.log()


@dataclass(slots=True)
class _Growing:
    """A series while it is read."""

    times: array[float] = field(default_factory=lambda: array("d"))
    rtts: array[float] = field(default_factory=lambda: array("d"))
    breaks: list[int] = field(default_factory=list)
    tick: int = -1


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._interval = 0.0
        self._until: float | None = None
        self._boot = ""
        self._simulated = False
        self._broken = 0
        self._end: str | None = None
        self._elapsed = 0.0
        self._ticks = 0
        self._last: tuple[float, float, str] | None = None
        self._gaps: list[Gap] = []
        self._jumps: list[Jump] = []
        self._series: dict[str, _Growing] = {}

    def take(self, line: str) -> None:
        """Understand one line, or count it as broken; a broken one has no effect."""
        try:
            record = json.loads(line)
            event = record.get("event")
            if event == "begin":
                self._begin(record)
            elif event == "end":
                self._end = _word(record["why"])
            else:
                self._tick(record)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._broken += 1

    def log(self) -> Log:
        """All that was read, on the clock that the last tick had."""
        shift = self._last[0] - self._elapsed if self._last else 0.0
        series = {}
        for peer, grown in self._series.items():
            times = array("d", (time + shift for time in grown.times))
            series[peer] = Series(times, grown.rtts, frozenset(grown.breaks))
        return Log(
            source=self._source,
            interval=self._interval,
            until=self._until,
            simulated=self._simulated,
            ticks=self._ticks,
            first=shift if self._last else None,
            last=self._last[0] if self._last else None,
            series=series,
            gaps=tuple(Gap(gap.start + shift, gap.end + shift) for gap in self._gaps),
            jumps=tuple(Jump(jump.time + shift, jump.seconds) for jump in self._jumps),
            broken=self._broken,
            end=self._end,
        )

    def _begin(self, record: Mapping[str, Any]) -> None:
        interval = _number(record["interval"], 86400.0)
        until = _number(record["until"], _LATEST)
        boot = _word(record["boot"])
        if interval <= 0:
            raise ValueError("no interval")
        self._interval, self._until, self._boot = interval, until, boot
        # Once simulated, always: what is measured must not pass for real because a later line says so.
        self._simulated = self._simulated or record.get("simulated") is not False
        self._end = None

    def _tick(self, record: Mapping[str, Any]) -> None:
        if not self._interval:
            raise ValueError("a tick before any begin")
        wall, monotonic = _number(record["t"], _LATEST), _number(record["m"], _LATEST)
        known = self._series
        rtts = {
            peer if peer in known else _word(peer): LOST if value is None else _number(value, _SLOWEST)
            for peer, value in record["rtt"].items()
        }
        self._pass(wall, monotonic)
        for peer, rtt in rtts.items():
            grown = known.get(peer)
            if grown is None:
                grown = known[peer] = _Growing()
            broken_off = self._gaps and grown.times and self._gaps[-1].start >= grown.times[-1]
            if grown.times and (grown.tick != self._ticks - 1 or broken_off):
                grown.breaks.append(len(grown.times))
            grown.times.append(self._elapsed)
            grown.rtts.append(rtt)
            grown.tick = self._ticks
        self._ticks += 1

    def _pass(self, wall: float, monotonic: float) -> None:
        """Let time pass until this tick."""
        if self._last is not None:
            last_wall, last_monotonic, last_boot = self._last
            by_the_wall, step = wall - last_wall, monotonic - last_monotonic
            if self._boot != last_boot or step < 0:
                # Only the time of day spans a restart of the machine; where that went backwards, nobody knows how long.
                step = by_the_wall if by_the_wall > 0 else self._interval
            if abs(by_the_wall - step) > _JUMP_SECONDS + _DRIFT * step:
                self._jumps.append(Jump(self._elapsed + step, by_the_wall - step))
            if step > GAP * self._interval:
                self._gaps.append(Gap(self._elapsed, self._elapsed + step))
            self._elapsed += step
        self._last = (wall, monotonic, self._boot)


def _number(value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError("not a number that can be")
    return float(value)


def _word(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("not a name")
    return value
