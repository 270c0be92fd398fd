# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures that everybody asks for first. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..record import CPU, Run
from ..verdicts import Figure
from . import facts, series, words
from .reading import Reading, number


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure of which everybody asks first."""

    name: str
    text: str
    unit: str
    beside: str
    verdict: str = ""


def of(found: Reading) -> list[Tile]:
    """The figures that everybody asks for first, as far as the run has them."""
    run = found.run
    shown: list[Tile | None] = [*_burned(found)]
    for precision in ("bf16", "fp16", "fp32"):
        some = _figures(run, "matmul", precision, "TFLOPS")
        if some:
            whose = f"{precision}, slowest GPU" if run.device != CPU else precision
            shown.append(_tile(run, "matmul", some, "Matrix multiplication", whose))
            break
    if run.device != CPU:
        some = [
            one
            for one in _figures(run, "host_device_bandwidth", "host to device", "GB/s")
            if "together" not in one.name
        ]
        shown.append(_tile(run, "host_device_bandwidth", some, "Host to GPU", "slowest GPU alone"))
    shown += [
        # Of many sizes, that which was judged, or the largest.
        _tile(
            run, "all_reduce", _judged(_figures(run, "all_reduce", "", "GB/s")), "All-reduce", "bus bandwidth"
        ),
        _tile(
            run,
            "training",
            _figures(run, "training", "efficiency", "%"),
            "Training scales to",
            "of the ideal",
        ),
        _tile(
            run,
            "llm_inference",
            _figures(run, "llm_inference", "one stream", "tokens/s"),
            "LLM inference",
            "one stream",
        ),
        _hottest(found),
    ]
    return [tile for tile in shown if tile]


def _figures(run: Run, check: str, name: str, unit: str) -> list[Figure]:
    """Those of a check that are numbers of a unit and whose name begins so."""
    return [
        figure
        for entry in run.entries
        if entry.name == check and entry.ran
        for figure in entry.result.figures
        if figure.name.startswith(name) and figure.unit == unit and number(figure.value) is not None
    ]


def _judged(figures: Sequence[Figure]) -> Sequence[Figure]:
    return [figure for figure in figures if figure.verdict is not None] or figures[-1:]


def _tile(run: Run, check: str, figures: Sequence[Figure], title: str, beside: str) -> Tile | None:
    """The least of these figures, with the verdict of its check: that may have failed for another figure."""
    if not figures:
        return None
    least = min(figures, key=lambda figure: number(figure.value) or 0.0)
    verdict = next(str(entry.result.verdict) for entry in run.entries if entry.name == check)
    expected = words.bound(least.expected).partition(" (")[0]
    beside = f"{beside}, expected {expected}" if expected else f"{beside}, not judged"
    return Tile(title, words.figure(number(least.value) or 0.0), least.unit, beside, verdict)


def _burned(found: Reading) -> list[Tile]:
    told = facts.burn_in(found.run)
    if told is None:
        return []
    slowed = sum(
        series.total(series.held_back(one, series.THERMAL | series.HARDWARE, series.interval(one)))
        for one in series.by_gpu(found.samples).values()
    )
    tiles = [
        Tile("Under load", told["done"], "", f"of {told['asked']} that were asked for"),
        Tile("Gaps", str(len(told["gaps"])), "", "stretches of time without readings"),
    ]
    if found.samples:
        untold = series.untold(found.samples)
        text = "not told" if untold and not slowed else words.long(slowed)
        beside = (
            "all GPUs together"
            if not untold
            else "at least, all GPUs together"
            if slowed
            else "by the driver"
        )
        tiles.append(Tile("Slowed by heat or hardware", text, "", beside))
    return tiles


def _hottest(found: Reading) -> Tile | None:
    readings = series.by_gpu(found.samples)
    warm = series.extremes(readings, "temperature_c")
    if warm is None:
        return None
    margin = series.extremes(readings, "margin_c")
    beside = (
        f"{words.value(margin[0], '°C')} below where it slows itself down"
        if margin
        else "the card gives no limit"
    )
    return Tile("Hottest GPU", words.figure(warm[1]), "°C", beside)
