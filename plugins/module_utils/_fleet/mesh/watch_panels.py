# SPDX-License-Identifier: GPL-3.0-or-later
"""The latency of pairs over time, one panel for two machines.

Both directions are drawn as one: the path between two machines is one, and two curves on top of each other say less.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import durations, watch, watch_style
from .watch_incidents import Incident, Kind
from .watch_log import Series
from .watch_report import Report
from .watch_style import LOOKS, at
from .watch_table import milliseconds, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
"""More pairs than this are not drawn; those with most trouble of their own are."""

_WIDTHS = (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_BUCKETS = 180
_FEW_BUCKETS = 24
_SAMPLES_IN_A_BUCKET = 4


@dataclass(frozen=True, slots=True)
class Both:
    """Two machines, with what each measured to the other."""

    one: str
    other: str
    pairs: tuple[watch.Pair, ...]
    series: tuple[Series, ...]


def both_ways(found: Report) -> list[Both]:
    """Every two machines of which one measured the other, in the order of their names."""
    grouped: dict[tuple[str, str], list[watch.Pair]] = {}
    for pair in found.pairs:
        one, other = sorted((pair.source, pair.target))
        grouped.setdefault((one, other), []).append(pair)
    return [
        Both(one, other, tuple(pairs), tuple(found.logs[pair.source].series[pair.target] for pair in pairs))
        for (one, other), pairs in sorted(grouped.items())
    ]


def worst(found: Report, most: int = MOST_PANELS) -> list[Both]:
    """Those to draw, in the order of their names: all, or those with most trouble of their own.

    What a whole machine suffered is in the overview; it says nothing about a pair.
    """
    apart: dict[tuple[str, ...], float] = {}
    for incident in found.incidents:
        if incident.kind is Kind.PAIR:
            apart[incident.machines] = apart.get(incident.machines, 0.0) + incident.seconds

    def trouble(both: Both) -> tuple[float, float, float]:
        unsteady = max((pair.p95 or 0.0) - (pair.median or 0.0) for pair in both.pairs)
        lost = max(pair.loss for pair in both.pairs)
        return (-apart.get((both.one, both.other), 0.0), -unsteady, -lost)

    chosen = sorted(both_ways(found), key=trouble)[:most]
    return sorted(chosen, key=lambda both: (both.one, both.other))


def bucket_width(seconds: float, interval: float) -> float:
    """How much time a point of the curve stands for: few enough points to see, enough samples in each.

    A short watch has too few samples for both; then each point is a sample or two.
    """
    width = _narrowest(seconds, _SAMPLES_IN_A_BUCKET * interval)
    return width if seconds / width >= _FEW_BUCKETS else _narrowest(seconds, interval)


def _narrowest(seconds: float, least: float) -> float:
    for width in _WIDTHS:
        if width >= least and seconds / width <= _MOST_BUCKETS:
            return float(width)
    return max(1, math.ceil(seconds / _MOST_BUCKETS / _WIDTHS[-1])) * float(_WIDTHS[-1])


def figure(found: Report) -> Figure:
    """The picture."""
    from matplotlib.figure import Figure

    shown = worst(found)
    columns = 1 if len(shown) <= 3 else 2 if len(shown) <= 8 else 3
    rows = max(1, math.ceil(len(shown) / columns))
    first, last = watch_style.whole(found)
    width = bucket_width(last - first, max((log.interval for log in found.logs.values()), default=1.0))

    top, bottom = watch_style.head_height(found) + 0.3, 0.87
    inches = 11.0 if columns < 3 else 15.0
    height = top + bottom + 2.0 * rows
    drawn = Figure(figsize=(inches, height))
    grid = drawn.add_gridspec(
        rows,
        columns,
        left=0.68 / inches,
        right=1 - 0.18 / inches,
        top=1 - top / height,
        bottom=bottom / height,
        hspace=0.62,
        wspace=0.17,
    )
    for number, both in enumerate(shown):
        axes = drawn.add_subplot(grid[number // columns, number % columns])
        _panel(axes, found, both, width)
        if number % columns == 0:
            axes.set_ylabel("round trip (ms)")
        if number >= len(shown) - columns:
            axes.set_xlabel("time (UTC)", labelpad=2)
    everything = len(both_ways(found))
    which = (
        "every pair"
        if everything == len(shown)
        else f"{len(shown)} of {everything} pairs, those with most trouble of their own"
    )
    watch_style.headed(
        drawn,
        found,
        f"Mesh latency: watch {found.name}",
        f"{watch_style.span(found)}; {which}, both directions together; one point for {durations.words(width)}. Scales differ.",
    )
    _legend(drawn, found)
    return drawn


def _legend(drawn: Figure, found: Report) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=watch_style.BLUE, lw=1.4, label="median"),
        Patch(facecolor=watch_style.SKY, alpha=0.45, lw=0, label="5th to 95th percentile"),
        *(
            Line2D([], [], color=look.colour, lw=0, marker=look.marker, ms=6, label=f"drop-out: {look.label}")
            for look in LOOKS.values()
        ),
        Patch(
            facecolor=watch_style.PALE,
            hatch=watch_style.PALE_HATCH,
            edgecolor=watch_style.PALE_EDGE,
            lw=0,
            label="no samples taken",
        ),
    ]
    drawn.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.4,
        handletextpad=0.5,
        bbox_to_anchor=(0.5, 0.02 / drawn.get_figheight()),
    )


def _panel(axes: Axes, found: Report, both: Both, width: float) -> None:
    xs, low, median, high = _curves(watch.buckets(both.series, watch_style.whole(found)[0], width), width)
    axes.fill_between(xs, low, high, color=watch_style.SKY, alpha=0.45, lw=0, zorder=2)
    axes.plot(xs, median, color=watch_style.BLUE, lw=1.3, zorder=3, solid_capstyle="round")
    alone = _alone(median)
    axes.plot(
        [xs[number] for number in alone],
        [median[number] for number in alone],
        ".",
        color=watch_style.BLUE,
        ms=3,
        zorder=3,
    )
    answered = [value for value in high if not math.isnan(value)]
    axes.set_ylim(0, 1.3 * max(answered, default=1.0))
    if not answered:
        axes.set_yticks([])
    axes.grid(axis="y", color="#e2e2e2", lw=0.6, zorder=0)
    axes.set_axisbelow(True)
    watch_style.timed(axes, found)
    for start, end in _unmeasured(found, both):
        axes.axvspan(
            at(start),
            at(end),
            facecolor=watch_style.PALE,
            edgecolor=watch_style.PALE_EDGE,
            hatch=watch_style.PALE_HATCH,
            lw=0,
            zorder=1,
        )
    for incident in found.incidents:
        _mark(axes, found, both, incident)
    axes.set_title(f"{both.one} – {both.other}", loc="left", fontweight="bold")
    axes.set_title(_summary(both), loc="right", color="#444444", fontsize=8)


def _mark(axes: Axes, found: Report, both: Both, incident: Incident) -> None:
    """The part of an incident that met these two: a stripe, and a sign at its top."""
    ours = [one for one in incident.dropouts if {one.source, one.target} == {both.one, both.other}]
    if not ours:
        return
    look = LOOKS[incident.kind]
    start, end = watch_style.visible(min(one.start for one in ours), max(one.end for one in ours), found)
    axes.axvspan(at(start), at(end), color=look.colour, alpha=0.3, lw=0, zorder=1)
    axes.plot(
        [at((start + end) / 2)],
        [1.0],
        look.marker,
        color=look.colour,
        ms=5,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        zorder=4,
    )


def _curves(
    points: Sequence[watch.Bucket], width: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Times, and low, median and high; NaN makes a hole where nothing was measured or nothing answered."""
    rows: list[tuple[float, float, float, float]] = []
    previous = None
    for point in points:
        if previous is not None and point.start - previous > 1.5 * width:
            rows.append((at(previous + width), math.nan, math.nan, math.nan))
        previous = point.start
        figures = (math.nan if value is None else value for value in (point.low, point.median, point.high))
        rows.append((at(point.start + width / 2), *figures))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return columns[0], columns[1], columns[2], columns[3]


def _alone(values: Sequence[float]) -> list[int]:
    """Points between two holes, through which no line can be drawn."""
    padded = [math.nan, *values, math.nan]
    return [
        number
        for number, value in enumerate(values)
        if not math.isnan(value) and math.isnan(padded[number]) and math.isnan(padded[number + 2])
    ]


def _unmeasured(found: Report, both: Both) -> list[tuple[float, float]]:
    """When none of the two that take samples took any."""
    result: list[tuple[float, float]] | None = None
    for pair in both.pairs:
        its = watch_style.quiet(found.logs[pair.source], found)
        result = (
            its
            if result is None
            else [(max(a, c), min(b, d)) for a, b in result for c, d in its if max(a, c) < min(b, d)]
        )
    return result or []


def _summary(both: Both) -> str:
    samples, lost = sum(pair.samples for pair in both.pairs), sum(pair.lost for pair in both.pairs)
    medians = [pair.median for pair in both.pairs if pair.median is not None]
    tails = [pair.p95 for pair in both.pairs if pair.p95 is not None]
    if not medians:
        return "never answered"
    middle = milliseconds(sum(medians) / len(medians))
    return f"median {middle} ms, p95 {milliseconds(max(tails))} ms, {share(lost, samples)} lost"
