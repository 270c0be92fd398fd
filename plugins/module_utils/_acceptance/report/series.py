# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sensors read, made ready to be drawn: few enough points, no extreme lost, gaps left open.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..check import Sample
from ..telemetry import UNTOLD

MOST_BUCKETS = 420
"""More points than this are not seen on a page, and make it heavy."""

THERMAL = frozenset({"sw_thermal", "hw_thermal"})
HARDWARE = frozenset({"hw_slowdown", "power_brake"})
POWER = frozenset({"sw_power_cap"})
NOT_TOLD = frozenset({UNTOLD})
"""Whether one of the first two was there is not known."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of time: the mean of what was read in it, and the extremes."""

    at: float
    middle: float
    low: float
    high: float


def by_gpu(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    """The samples of each GPU, in time."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.gpu, []).append(sample)
    return dict(sorted(found.items()))


def interval(samples: Sequence[Sample]) -> float:
    """The usual time between two readings of one GPU; 0 where there are none."""
    steps = [later.at - one.at for one, later in pairwise(samples) if later.at > one.at]
    return statistics.median(steps) if steps else 0.0


def stretches(samples: Sequence[Sample], apart: float) -> list[list[Sample]]:
    """The samples, cut where none was taken for longer than `apart`."""
    found: list[list[Sample]] = []
    last: float | None = None
    for sample in samples:
        if last is None or sample.at - last > apart:
            found.append([])
        found[-1].append(sample)
        last = sample.at
    return found


def curve(samples: Sequence[Sample], field: str, begin: float, end: float) -> list[list[Bucket]]:
    """One reading over time, as stretches without a gap; at most `MOST_BUCKETS` points between begin and end.

    A stretch of time that holds several readings is one point: its middle is drawn as the line, its extremes as a band. So a
    short peak is never averaged away.
    """
    step = interval(samples)
    width = max((end - begin) / MOST_BUCKETS, step, 1e-9)
    found: list[list[Bucket]] = []
    for stretch in stretches(samples, max(5 * step, 1.5 * width, 1.0)):
        held: dict[int, list[tuple[float, float]]] = {}
        for sample in stretch:
            value = getattr(sample, field)
            if value is not None:
                held.setdefault(int((sample.at - begin) / width), []).append((sample.at, float(value)))
        points = [_bucket(pairs) for _unused, pairs in sorted(held.items())]
        if points:
            found.append(points)
    return found


def _bucket(pairs: Sequence[tuple[float, float]]) -> Bucket:
    values = [value for _unused, value in pairs]
    at = pairs[0][0] if len(pairs) == 1 else (pairs[0][0] + pairs[-1][0]) / 2
    return Bucket(at, statistics.fmean(values), min(values), max(values))


def held_back(samples: Sequence[Sample], reasons: frozenset[str], step: float) -> list[tuple[float, float]]:
    """When the clocks of a GPU were held back for one of these reasons; each reading stands for the time to the next."""
    found: list[tuple[float, float]] = []
    for number, sample in enumerate(samples):
        if not reasons & set(sample.reasons):
            continue
        following = samples[number + 1].at if number + 1 < len(samples) else sample.at + step
        stop = min(following, sample.at + max(2 * step, 1.0))
        if found and sample.at - found[-1][1] <= 0.5 * step:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((sample.at, stop))
    return found


def untold(samples: Iterable[Sample]) -> list[int]:
    """The GPUs of which the driver did not always tell whether heat or hardware held them back."""
    return sorted({sample.gpu for sample in samples if NOT_TOLD & set(sample.reasons)})


def merged(spans: Sequence[tuple[float, float]], least: float) -> list[tuple[float, float]]:
    """Spans made long enough to be seen, and those that then touch made one."""
    found: list[tuple[float, float]] = []
    for begin, end in spans:
        grow = max(0.0, least - (end - begin)) / 2
        begin, end = begin - grow, end + grow
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def total(spans: Iterable[tuple[float, float]]) -> float:
    """How long they are together."""
    return sum(end - begin for begin, end in spans)


def limit(samples: Iterable[Sample]) -> float | None:
    """The temperature at which a card slows itself down, from its temperature and the margin it gives; None: it gives none."""
    found = [
        sample.temperature_c + sample.margin_c
        for sample in samples
        if sample.temperature_c is not None and sample.margin_c is not None
    ]
    return statistics.median(found) if found else None


def extremes(readings: Mapping[int, Sequence[Sample]], field: str) -> tuple[float, float] | None:
    """The least and the greatest of a reading on all GPUs."""
    found = [
        float(value)
        for one in readings.values()
        for value in (getattr(sample, field) for sample in one)
        if value is not None
    ]
    return (min(found), max(found)) if found else None
