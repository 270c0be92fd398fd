# SPDX-License-Identifier: GPL-3.0-or-later
"""How reliable the mesh was between two machines: latency, loss and drop-outs of a series of samples.

A drop-out is so many lost samples in a row, :data:`LEAST_LOST` unless said otherwise. It lasts from the first lost sample
to the first answered one. A gap ends it, because nobody knows what the mesh did there.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .watch_log import Series

LEAST_LOST = 3
"""Lost samples in a row that make a drop-out. One or two are what every network loses."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """A time in which one machine got no answer from another.

    Attributes:
        start, end: time of the first lost sample, and of the first answered one, or of the last lost one where no
            answered one follows.
        lost: how many samples.
        over: an answered sample ended it; otherwise it lasted at least so long.
    """

    source: str
    target: str
    start: float
    end: float
    lost: int
    over: bool

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is known."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Pair:
    """How one machine reached another.

    Attributes:
        samples, lost: how many were taken, and how many of them not answered in time.
        least, median, p95, p99, most: round trips in milliseconds, of the answered ones; None where none was.
        dropouts: in order.
        gaps: how often the measuring stood still.
    """

    source: str
    target: str
    samples: int
    lost: int
    least: float | None
    median: float | None
    p95: float | None
    p99: float | None
    most: float | None
    dropouts: tuple[Dropout, ...]
    gaps: int

    @property
    def loss(self) -> float:
        """Per cent of the samples."""
        return 100.0 * self.lost / self.samples if self.samples else 0.0

    @property
    def longest(self) -> Dropout | None:
        """The longest drop-out, the first of several."""
        return max(self.dropouts, key=lambda one: one.seconds, default=None)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of time of one or more series, summed up.

    Attributes:
        start: of the stretch.
        low, median, high: the 5th, 50th and 95th percentile of the round trips; None where all were lost.
    """

    start: float
    samples: int
    lost: int
    low: float | None
    median: float | None
    high: float | None


def pair(source: str, target: str, series: Series, least: int = LEAST_LOST) -> Pair:
    """The figures of a series.

    Args:
        least: lost samples in a row that make a drop-out.

    Raises:
        ValueError: less than one lost sample is no drop-out.
    """
    answered = sorted(rtt for rtt in series.rtts if not math.isnan(rtt))

    def at(share: float) -> float | None:
        return percentile(answered, share) if answered else None

    return Pair(
        source=source,
        target=target,
        samples=len(series.rtts),
        lost=len(series.rtts) - len(answered),
        least=at(0.0),
        median=at(0.5),
        p95=at(0.95),
        p99=at(0.99),
        most=at(1.0),
        dropouts=dropouts(source, target, series, least),
        gaps=len(series.breaks),
    )


def dropouts(source: str, target: str, series: Series, least: int = LEAST_LOST) -> tuple[Dropout, ...]:
    """The drop-outs of a series, in order.

    Args:
        least: lost samples in a row that make one.

    Raises:
        ValueError: less than one lost sample is no drop-out.
    """
    if least < 1:
        raise ValueError("a drop-out has at least one lost sample")
    result: list[Dropout] = []
    start = last = 0.0
    lost = 0

    def close(end: float, over: bool) -> None:
        if lost >= least:
            result.append(Dropout(source, target, start, end, lost, over))

    for number, (time, rtt) in enumerate(zip(series.times, series.rtts, strict=True)):
        if number in series.breaks:
            close(last, over=False)
            lost = 0
        if not math.isnan(rtt):
            close(time, over=True)
            lost = 0
            continue
        if not lost:
            start = time
        lost += 1
        last = time
    close(last, over=False)
    return tuple(result)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share (0 to 1) of some values lies, between two of them by proportion.

    Args:
        ordered: ascending, at least one.
    """
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    # Rounding may lead a little past the upper one.
    return min(high, low + (high - low) * (place - below))


def buckets(parts: Sequence[Series], start: float, width: float) -> list[Bucket]:
    """Series summed up in stretches of equal width, those without a sample left out.

    Args:
        parts: of the same two machines, usually one for each direction.
        start: of the first stretch.
        width: in seconds.
    """
    sorted_in: dict[int, list[float]] = defaultdict(list)
    for series in parts:
        for time, rtt in zip(series.times, series.rtts, strict=True):
            sorted_in[int((time - start) // width)].append(rtt)
    result = []
    for number, rtts in sorted(sorted_in.items()):
        answered = sorted(rtt for rtt in rtts if not math.isnan(rtt))
        low, median, high = (
            (percentile(answered, share) for share in (0.05, 0.5, 0.95)) if answered else (None, None, None)
        )
        result.append(Bucket(start + number * width, len(rtts), len(rtts) - len(answered), low, median, high))
    return result
