# SPDX-License-Identifier: GPL-3.0-or-later
"""What the charts of checks show, taken from what the checks found. What is not there is left out, never guessed. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..record import Entry, Run
from ..verdicts import Figure, Verdict
from .reading import number


@dataclass(frozen=True, slots=True)
class Bar:
    """One GPU's value.

    Attributes:
        least: what was expected at least; None: it was not judged.
        peak: what the card could do at most.
    """

    gpu: int
    value: float
    least: float | None = None
    peak: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Bars of one name."""

    name: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Training on several GPUs, in samples a second.

    Attributes:
        ideal: what all would do if none lost anything: the sum of each alone.
        apart: all at the same time, each for itself; the difference is contention.
        together: as one; the difference is communication.
        target: share of the ideal that the owner wants.
        predicted: what the cost model says that these cards and links do at least.
        reachable: the same as a share of the ideal, at least and at most.
    """

    workers: int
    ideal: float
    together: float
    apart: float | None = None
    target: float | None = None
    predicted: float | None = None
    reachable: tuple[float, float] | None = None
    unit: str = "samples/s"
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Curve:
    """All-reduce: bytes and GB/s, and the lines between good, doubtful and bad."""

    points: tuple[tuple[float, float], ...]
    good: float | None = None
    bad: float | None = None
    transport: str = ""


def entry(run: Run, name: str) -> Entry | None:
    """A check that looked at something."""
    return next((one for one in run.entries if one.name == name and one.ran), None)


def least(expected: str) -> float | None:
    """The bound in ``>= 226.8`` or ``at least 226.8 TFLOPS``."""
    found = re.match(r"\s*(?:>=|≥|at least)\s*([0-9]+(?:\.[0-9]+)?)", expected)
    return float(found[1]) if found else None


def column(figure: Figure, peak: float | None = None) -> Bar | None:
    """A figure as a bar; None where it is no number of a GPU."""
    value = number(figure.value)
    if value is None or figure.gpu is None:
        return None
    return Bar(figure.gpu, value, least(figure.expected), peak, figure.verdict)


def matmul(run: Run) -> list[Rates]:
    """Rates by precision, with the peak of each GPU where the check says it."""
    found = entry(run, "matmul")
    if found is None:
        return []
    peaks = _peaks(found.result.data.get("shares"))
    groups: dict[str, list[Bar]] = {}
    for figure in found.result.figures:
        if not figure.unit.endswith("FLOPS"):
            continue
        one = column(figure, peaks.get((figure.name, figure.gpu)))
        if one:
            groups.setdefault(figure.name, []).append(one)
    return [Rates(name, "TFLOPS", tuple(bars)) for name, bars in groups.items()]


def _peaks(told: Any) -> dict[tuple[str, int | None], float]:
    """What each GPU could do at most, by precision."""
    found: dict[tuple[str, int | None], float] = {}
    for one in told if isinstance(told, list) else ():
        if isinstance(one, Mapping):
            peak, gpu = number(one.get("peak")), one.get("gpu")
            if peak and peak > 0 and isinstance(gpu, int):
                found[str(one.get("precision")), gpu] = peak
    return found


@dataclass(frozen=True, slots=True)
class Direction:
    """Transfers one way, each GPU alone and all at the same time."""

    name: str
    alone: dict[int, Bar] = field(default_factory=dict)
    together: dict[int, Bar] = field(default_factory=dict)

    @property
    def gpus(self) -> list[int]:
        """Those of which there is a value."""
        return sorted({*self.alone, *self.together})


def transfers(run: Run) -> list[Direction]:
    """Both directions between host and GPUs."""
    found = entry(run, "host_device_bandwidth")
    if found is None:
        return []
    directions = [Direction("host to device"), Direction("device to host")]
    for figure in found.result.figures:
        for direction in directions:
            one = column(figure) if figure.name.startswith(direction.name) and figure.unit == "GB/s" else None
            if one:
                (direction.together if "together" in figure.name else direction.alone)[one.gpu] = one
    return [direction for direction in directions if direction.gpus]


def all_reduce(run: Run) -> Curve | None:
    """Bus bandwidth over size."""
    found = entry(run, "all_reduce")
    told = found.result.data.get("curve") if found else None
    if found is None or not isinstance(told, list):
        return None
    points = []
    for one in told:
        if isinstance(one, Mapping):
            size, rate = number(one.get("bytes")), number(one.get("busbw"))
            if size and size > 0 and rate is not None:
                points.append((size, rate))
    bands = found.result.data.get("bands")
    bands = bands if isinstance(bands, Mapping) else {}
    if len(points) < 2:
        return None
    transport = found.result.data.get("transport")
    return Curve(
        tuple(sorted(points)),
        number(bands.get("pass")),
        number(bands.get("fail")),
        transport if isinstance(transport, str) else "",
    )


def scaling(run: Run) -> list[Scaling]:
    """Training on so many GPUs as the check tried."""
    found = entry(run, "training")
    told = found.result.data.get("scaling") if found else None
    if found is None or not isinstance(told, list):
        return []
    unit = found.result.data.get("unit")
    targets = run.profile.get("targets")
    target = number(targets.get("scaling_efficiency")) if isinstance(targets, Mapping) else None
    judged = any(figure.verdict is not None for figure in found.result.figures)
    reachable = _reachable(found.result.data.get("loss"))
    steps = []
    for one in told:
        if not isinstance(one, Mapping):
            continue
        workers, alone, together = (number(one.get(key)) for key in ("workers", "alone", "together"))
        if workers and alone and together and workers >= 1:
            steps.append(
                Scaling(
                    int(workers),
                    workers * alone,
                    together,
                    number(one.get("apart")),
                    target,
                    number(one.get("predicted")),
                    reachable if one is told[-1] else None,
                    unit if isinstance(unit, str) and unit else "samples/s",
                    judged,
                )
            )
    return sorted(steps, key=lambda step: step.workers)


def _reachable(loss: Any) -> tuple[float, float] | None:
    told = loss.get("reachable") if isinstance(loss, Mapping) else None
    if not isinstance(told, list) or len(told) != 2:
        return None
    least, most = (number(one) for one in told)
    return (least, most) if least is not None and most is not None and 0 < least <= most else None


@dataclass(frozen=True, slots=True)
class Matrix:
    """From the GPU of the row to that of the column; None: it was not measured."""

    rates: tuple[tuple[float | None, ...], ...]
    access: tuple[tuple[Any, ...], ...]


def p2p(run: Run) -> Matrix | None:
    """Copies from each GPU to each other."""
    found = entry(run, "p2p")
    rates = _square(found.result.data.get("copy")) if found else None
    access = _square(found.result.data.get("access")) if found else None
    if rates is None:
        return None
    numbers = tuple(tuple(number(one) for one in row) for row in rates)
    if all(one is None for row in numbers for one in row):
        return None
    if access is None or len(access) != len(rates):
        access = tuple((None,) * len(rates) for _unused in rates)
    return Matrix(numbers, access)


def _square(told: Any) -> tuple[tuple[Any, ...], ...] | None:
    """A list of lists of its own length, 2 to 16."""
    if not isinstance(told, list) or not 2 <= len(told) <= 16:
        return None
    rows = [row for row in told if isinstance(row, list) and len(row) == len(told)]
    return tuple(tuple(row) for row in rows) if len(rows) == len(told) else None
