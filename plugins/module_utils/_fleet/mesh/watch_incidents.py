# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened, rather than whom it met: the drop-outs of many pairs that were one and the same incident.

When one machine of twenty is switched off, nineteen others lose it. That is one incident and not nineteen, and it says
nothing against the mesh. Each drop-out is put down to what explains it best, and those with the same explanation at the
same time are one incident.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .watch import Dropout
from .watch_log import Log


class Kind(enum.StrEnum):
    """What explains a drop-out best."""

    DOWN = "down"
    """The machine that did not answer took no samples itself at that time: it was off, restarted or asleep."""

    CUT_OFF = "cut_off"
    """One machine reached nobody else, or nobody else reached it."""

    PAIR = "pair"
    """These two lost each other while others reached them: the mesh's own doing, or their path's."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Drop-outs with one explanation, one after the other or at the same time.

    Attributes:
        machines: whom it was about: one, or for a pair both.
        dropouts: at least one, in the order they began.
    """

    kind: Kind
    machines: tuple[str, ...]
    dropouts: tuple[Dropout, ...]

    @property
    def start(self) -> float:
        """When the first of them began."""
        return self.dropouts[0].start

    @property
    def end(self) -> float:
        """When the last of them ended."""
        return max(one.end for one in self.dropouts)

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start

    @property
    def over(self) -> bool:
        """All of them were ended by an answer."""
        return all(one.over for one in self.dropouts)

    @property
    def pairs(self) -> int:
        """How many pairs it met, each direction counted."""
        return len({(one.source, one.target) for one in self.dropouts})

    @property
    def says(self) -> str:
        """What happened, for people."""
        if self.kind is Kind.DOWN:
            return f"{self.machines[0]} was down or asleep"
        if self.kind is Kind.CUT_OFF:
            directions = {one.target == self.machines[0] for one in self.dropouts}
            if directions == {True}:
                return f"nobody reached {self.machines[0]}"
            if directions == {False}:
                return f"{self.machines[0]} reached nobody"
            return f"{self.machines[0]} was cut off from all others"
        pairs = {(one.source, one.target) for one in self.dropouts}
        if len(pairs) == 1:
            return "{} did not reach {}".format(*next(iter(pairs)))
        return f"{self.machines[0]} and {self.machines[1]} did not reach each other"


Explanation = tuple[Kind, tuple[str, ...]]

_NEARLY_ALL = 0.75


def incidents(
    found: Mapping[tuple[str, str], Sequence[Dropout]], logs: Mapping[str, Log]
) -> tuple[Incident, ...]:
    """The incidents, in the order they began.

    Args:
        found: the drop-outs of every pair that was measured, each pair's in order.
        logs: by machine, for the times in which it took no samples.
    """
    view = _View(found, logs)
    explained: dict[Explanation, list[Dropout]] = defaultdict(list)
    for its in found.values():
        for one in its:
            explained[view.explanation(one)].append(one)
    # Machines take their samples at different moments, so what ends and begins within an interval is one.
    slack = max((log.interval for log in logs.values()), default=0.0)
    result = []
    for (kind, machines), its in explained.items():
        for group in _together(sorted(its, key=_order), slack):
            result.append(Incident(kind, machines, tuple(group)))
    return tuple(sorted(result, key=lambda one: (one.start, one.machines)))


def _order(one: Dropout) -> tuple[float, str, str]:
    return (one.start, one.source, one.target)


def _together(ordered: Sequence[Dropout], slack: float) -> list[list[Dropout]]:
    groups: list[list[Dropout]] = []
    end = 0.0
    for one in ordered:
        if groups and one.start <= end + slack:
            groups[-1].append(one)
            end = max(end, one.end)
        else:
            groups.append([one])
            end = one.end
    return groups


class _View:
    """Who else was out at the time of a drop-out."""

    def __init__(self, found: Mapping[tuple[str, str], Sequence[Dropout]], logs: Mapping[str, Log]) -> None:
        self._found = found
        self._logs = logs
        self._starts = {pair: [one.start for one in its] for pair, its in found.items()}
        self._targets: dict[str, list[str]] = defaultdict(list)
        self._sources: dict[str, list[str]] = defaultdict(list)
        for source, target in found:
            self._targets[source].append(target)
            self._sources[target].append(source)

    def explanation(self, one: Dropout) -> Explanation:
        source, target = one.source, one.target
        if self._down(target, one):
            return Kind.DOWN, (target,)
        if self._most_are_out([(other, target) for other in self._sources[target] if other != source], one):
            return Kind.CUT_OFF, (target,)
        if self._most_are_out([(source, other) for other in self._targets[source] if other != target], one):
            return Kind.CUT_OFF, (source,)
        return Kind.PAIR, tuple(sorted((source, target)))

    def _down(self, target: str, one: Dropout) -> bool:
        """Whether a machine took no samples for most of the drop-out; one restarted at its end does not explain it."""
        log = self._logs.get(target)
        if log is None:
            return False
        quiet = [(gap.start, gap.end) for gap in log.gaps]
        if log.fell_silent and log.last is not None:
            quiet.append((log.last, math.inf))
        asleep = sum(max(0.0, min(end, one.end) - max(start, one.start)) for start, end in quiet)
        return asleep > 0.5 * one.seconds

    def _most_are_out(self, pairs: Sequence[tuple[str, str]], one: Dropout) -> bool:
        """Whether what is true of one pair is true of nearly all that were measured at that time.

        Not of all: by chance the last of a few samples in a row is answered here and lost there.
        """
        measured = [pair for pair in pairs if self._samples(pair, one)]
        out = sum(1 for pair in measured if self._out(pair, one))
        return out > 0 and out >= _NEARLY_ALL * len(measured)

    def _samples(self, pair: tuple[str, str], one: Dropout) -> bool:
        """Whether a pair was measured at some time of this drop-out."""
        times = self._logs[pair[0]].series[pair[1]].times
        first = bisect_left(times, one.start)
        return first < len(times) and times[first] <= one.end

    def _out(self, pair: tuple[str, str], one: Dropout) -> bool:
        """Whether a pair was out at some time of this drop-out."""
        # The only one that can reach into it without beginning in it is the last that began before it.
        first = max(0, bisect_left(self._starts[pair], one.start) - 1)
        for other in self._found[pair][first:]:
            if other.start > one.end:
                return False
            if other.end >= one.start:
                return True
        return False
