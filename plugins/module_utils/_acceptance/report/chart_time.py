# SPDX-License-Identifier: GPL-3.0-or-later
"""Temperature, power and clocks of every GPU over the time of a run, with limits, what held the clocks back, and gaps.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..check import Sample
from ..record import Run
from . import chart_style, series, words
from .chart_style import FAIL, FILL, INK, LINE, PAPER, SOFT, WARN, Chart, gpu_colour
from .reading import Reading, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT = 52, 8
_PANELS = (
    ("temperature_c", "Temperature, °C", 170),
    ("power_w", "Power, W", 130),
    ("sm_mhz", "SM clock, MHz", 130),
)
_ABOVE, _LANE = 30, 17
_FEWEST = 3
_LEAST = 1 / 420
"""What is shorter than this share of the whole is drawn as long as this, or nobody would see it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """When nothing was read."""

    begin: float
    end: float
    why: str


@dataclass(frozen=True, slots=True)
class Span:
    """What is drawn: from when to when, and in which unit of time."""

    begin: float
    end: float
    unit: str
    seconds: float

    def at(self, time: float) -> float:
        """A moment on the axis."""
        return (time - self.begin) / self.seconds


def span(found: Reading) -> Span | None:
    """The time of the readings; None: there are too few of any GPU for a curve."""
    if max((len(one) for one in series.by_gpu(found.samples).values()), default=0) < _FEWEST:
        return None
    begin = min(found.run.begin, found.samples[0].at)
    end = max(found.samples[-1].at, begin + 1.0)
    length = end - begin
    unit, seconds = (
        ("hours", 3600.0) if length > 3 * 3600 else ("minutes", 60.0) if length > 180 else ("seconds", 1.0)
    )
    return Span(begin, end, unit, seconds)


def gaps(run: Run) -> list[Gap]:
    """Those that a burn-in tells of."""
    from ..document import seconds_of

    found = []
    told = (run.burn_in or {}).get("gaps")
    for one in told if isinstance(told, list) else ():
        ends: list[float] = []
        for key in ("begin", "end"):
            value = one.get(key) if isinstance(one, Mapping) else None
            try:
                ends.append(number(value) or seconds_of(str(value)))
            except (ValueError, OverflowError):
                break
        if len(ends) == 2 and ends[1] > ends[0]:
            found.append(Gap(ends[0], ends[1], str(one.get("why") or "")))
    return found


def says(found: Reading) -> str:
    """The curves in words."""
    readings = series.by_gpu(found.samples)
    parts = []
    warm, drawn = series.extremes(readings, "temperature_c"), series.extremes(readings, "power_w")
    if warm:
        parts.append(f"up to {words.value(warm[1], '°C')}")
    if drawn:
        parts.append(f"up to {words.value(drawn[1], 'W')} a GPU")
    slowed = {
        gpu: series.total(series.held_back(one, series.THERMAL | series.HARDWARE, series.interval(one)))
        for gpu, one in readings.items()
    }
    bad = [f"GPU {gpu} for {words.long(seconds)}" for gpu, seconds in slowed.items() if seconds]
    untold = ", ".join(f"GPU {gpu}" for gpu in series.untold(found.samples))
    if bad:
        parts.append(f"held back by heat or hardware: {', '.join(bad)}")
    if untold:
        parts.append(f"the driver did not tell whether heat or hardware held back {untold}")
    if not bad and not untold:
        parts.append("never held back by heat or hardware")
    return "; ".join(parts)


def draw(found: Reading) -> Chart | None:
    """The chart; None where there is too little to draw."""
    shown = span(found)
    if shown is None:
        return None
    readings = series.by_gpu(found.samples)
    panels = [
        (field, title, height)
        for field, title, height in _PANELS
        if series.extremes(readings, field) is not None
    ]
    if not panels:
        return None
    phases = [] if found.run.burn_in else _phases(found.run, shown)
    lanes = _LANE * len(readings) + 4
    height = 34 + 26 * bool(phases) + sum(_ABOVE + high for *_rest, high in panels) + _ABOVE + lanes + 40
    figure = chart_style.canvas(chart_style.WIDE, height)
    chart_style.marked(figure, found.run.label)
    _legend(figure, readings)

    top, width = 30, chart_style.WIDE - _LEFT - _RIGHT
    axes: list[Axes] = []
    if phases:
        _strip(chart_style.place(figure, _LEFT, top, width, 20), phases, shown)
        top += 26
    for field, title, high in panels:
        one = chart_style.place(figure, _LEFT, top + _ABOVE, width, high)
        _panel(one, title, field, readings, found.run, shown)
        axes.append(one)
        top += _ABOVE + high
    lane = chart_style.place(figure, _LEFT, top + _ABOVE, width, lanes)
    _lanes(lane, readings, shown)
    axes.append(lane)
    for one in axes:
        one.set_xlim(0, shown.at(shown.end))
        for gap in gaps(found.run):
            one.axvspan(
                shown.at(gap.begin),
                shown.at(gap.end),
                facecolor=FILL,
                edgecolor=SOFT,
                hatch="////",
                lw=0,
                zorder=1,
            )
        if one is not lane:
            one.tick_params(labelbottom=False, length=0)
    for gap in gaps(found.run):
        _tell(axes[0], gap, shown)
    lane.set_xlabel(f"{shown.unit} since {words.when(shown.begin)}", fontsize=10.5)
    told = says(found)
    return Chart(
        "curves",
        "Temperature, power and clocks",
        words.sentence(told),
        chart_style.inline(figure, "curves", f"Temperature, power and clocks of every GPU over time: {told}"),
        wide=True,
    )


def _legend(figure: Figure, readings: Mapping[int, Sequence[Sample]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=gpu_colour(gpu), lw=2.4, label=f"GPU {gpu}") for gpu in readings]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=((_LEFT - 8) / chart_style.WIDE, 1.0), ncols=len(handles),
        handlelength=1.4, columnspacing=1.6, borderaxespad=0.2, handletextpad=0.5,
    )  # fmt: skip


def _phases(run: Run, shown: Span) -> list[tuple[float, float, tuple[str, str]]]:
    return [
        (one.begin, min(one.begin + one.seconds, shown.end), (one.title, one.name))
        for one in run.entries
        if one.begin is not None and one.seconds > 0 and shown.begin <= one.begin < shown.end
    ]


def _strip(axes: Axes, phases: Sequence[tuple[float, float, tuple[str, str]]], shown: Span) -> None:
    """Which check ran when."""
    whole = shown.end - shown.begin
    pixels = chart_style.WIDE - _LEFT - _RIGHT
    for begin, end, titles in phases:
        axes.barh(
            0, shown.at(end) - shown.at(begin), left=shown.at(begin), height=1, color=FILL,
            edgecolor=PAPER, lw=1.2,
        )  # fmt: skip
        text = _fitting(titles, int((end - begin) / whole * pixels / 6.1))
        if text:
            axes.text(shown.at((begin + end) / 2), 0, text, ha="center", va="center", fontsize=9.5, color=INK)
    axes.set_xlim(0, shown.at(shown.end))
    axes.set_ylim(-0.5, 0.5)
    axes.axis("off")


def _fitting(titles: tuple[str, str], room: int) -> str:
    """The title of a check, else its name, where there is room; half a title says nothing."""
    return next((title for title in titles if len(title) <= room), "")


def _panel(
    axes: Axes,
    title: str,
    field: str,
    readings: Mapping[int, Sequence[Sample]],
    run: Run,
    shown: Span,
) -> None:
    for gpu, samples in readings.items():
        for stretch in series.curve(samples, field, shown.begin, shown.end):
            at = [shown.at(bucket.at) for bucket in stretch]
            middle = [bucket.middle for bucket in stretch]
            low, high = [bucket.low for bucket in stretch], [bucket.high for bucket in stretch]
            if low != high:
                axes.fill_between(at, low, high, color=gpu_colour(gpu), alpha=0.2, lw=0, zorder=2)
            axes.plot(at, middle, color=gpu_colour(gpu), lw=1.5, marker="." if len(at) == 1 else "", zorder=3)
    least, greatest = series.extremes(readings, field) or (0.0, 1.0)
    line, told = _limit(field, readings, run)
    if line is not None:
        colour = FAIL if field == "temperature_c" else SOFT
        axes.axhline(line, color=colour, lw=1.2, ls=(0, (5, 3)), zorder=2.5)
        axes.annotate(
            told, (0.999, line), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            ha="right", va="bottom", fontsize=10, color=colour, zorder=4,
        )  # fmt: skip
        greatest = max(greatest, line)
    # Never so near that noise looks like an event.
    height = max(greatest - least, 0.12 * greatest, 1.0)
    bottom = 0.0 if field == "power_w" else max(0.0, (least + greatest - height) / 2 - 0.06 * height)
    axes.set_ylim(bottom, greatest + 0.18 * height)
    axes.set_title(title, pad=7, fontweight="bold")
    axes.grid(axis="x", visible=False)
    axes.locator_params(axis="y", nbins=5)


def _limit(field: str, readings: Mapping[int, Sequence[Sample]], run: Run) -> tuple[float | None, str]:
    """The line that no curve should reach, and what it is; none where the cards differ or give none."""
    if field == "temperature_c":
        found = {limit for limit in (series.limit(one) for one in readings.values()) if limit is not None}
        line = found.pop() if len(found) == 1 else None
        return line, f"where the card slows itself down, {words.value(line, '°C')}"
    if field == "power_w":
        gpus = run.machine.get("gpus")
        told = (
            {number(gpu.get("power_limit_w")) for gpu in gpus if isinstance(gpu, Mapping)}
            if isinstance(gpus, list)
            else set()
        )
        line = told.pop() if len(told) == 1 else None
        return line, f"power limit, {words.value(line, 'W')}"
    return None, ""


def _lanes(axes: Axes, readings: Mapping[int, Sequence[Sample]], shown: Span) -> None:
    """One lane a GPU: when its clocks were held back, and by what, or when nobody told."""
    from matplotlib.patches import Patch

    kinds: list[tuple[str, frozenset[str], dict[str, Any]]] = [
        ("power limit (no defect)", series.POWER, {"facecolor": LINE, "edgecolor": "none"}),
        ("heat", series.THERMAL, {"facecolor": FAIL, "edgecolor": "none"}),
        ("hardware", series.HARDWARE, {"facecolor": WARN, "edgecolor": INK, "hatch": "////", "lw": 0}),
    ]
    if any(series.untold(samples) for samples in readings.values()):
        # An empty lane would say that there was nothing.
        kinds.insert(
            0,
            ("not told", series.NOT_TOLD, {"facecolor": PAPER, "edgecolor": SOFT, "hatch": "....", "lw": 0}),
        )
    least = (shown.end - shown.begin) * _LEAST
    for lane, samples in enumerate(readings.values()):
        step = series.interval(samples)
        axes.axhline(lane, color=LINE, lw=0.7, zorder=1)
        for _unused, reasons, look in kinds:
            spans = series.merged(series.held_back(samples, reasons, step), least)
            bars = [(shown.at(begin), shown.at(end) - shown.at(begin)) for begin, end in spans]
            if bars:
                axes.broken_barh(bars, (lane - 0.34, 0.68), zorder=3, **look)
    axes.set_ylim(len(readings) - 0.4, -0.6)
    axes.set_yticks(range(len(readings)), [f"GPU {gpu}" for gpu in readings])
    axes.grid(visible=False)
    axes.set_title("Clocks held back by", pad=7, fontweight="bold")
    axes.spines["left"].set_visible(False)
    axes.legend(
        handles=[Patch(label=name, **look) for name, _unused, look in kinds], loc="lower left", bbox_to_anchor=(0.135, 0.99),
        ncols=len(kinds), handlelength=1.1, handleheight=0.8, borderaxespad=0.1, columnspacing=1.6,
    )  # fmt: skip


def _tell(axes: Axes, gap: Gap, shown: Span) -> None:
    """What the hatched stretch is."""
    late = (gap.begin + gap.end) / 2 > shown.begin + 0.6 * (shown.end - shown.begin)
    text = f"no readings for {words.long(gap.end - gap.begin)}" + (f": {gap.why[:60]}" if gap.why else "")
    axes.annotate(
        text,
        (shown.at(gap.begin if late else gap.end), 0.05),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if late else 6, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="bottom",
        fontsize=10,
        color=INK,
        zorder=5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )
