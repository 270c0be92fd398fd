# SPDX-License-Identifier: GPL-3.0-or-later
"""How GPUs work together: all-reduce over size, and where the rest of an ideal training goes.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..record import Run
from . import chart_data, chart_style, words
from .chart_data import Scaling
from .chart_style import FAIL, FILL, HALF, INK, PAPER, PASS, SOFT, WARN, Chart, gpu_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _RIGHT = 52, 14
_MAIN = gpu_colour(0)


def all_reduce(run: Run) -> Chart | None:
    """Bus bandwidth over size."""
    found = chart_data.all_reduce(run)
    if found is None:
        return None
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = chart_style.canvas(HALF, 300)
    chart_style.marked(figure, run.label)
    axes = chart_style.place(figure, _LEFT, 34, HALF - _LEFT - _RIGHT, 214)
    sizes, rates = zip(*found.points, strict=True)
    axes.set_xscale("log", base=2)
    axes.plot(sizes, rates, color=_MAIN, lw=2, marker="o", ms=4.5, zorder=4)
    most = 1.18 * max(*rates, found.good or 0, found.bad or 0)
    for line, text, colour in ((found.good, "good from", PASS), (found.bad, "a defect below", FAIL)):
        if line:
            axes.axhline(line, color=colour, lw=1.3, ls=(0, (5, 3)), zorder=3)
            axes.annotate(
                f"{text} {words.value(line, 'GB/s')}", (0.012, line), xycoords=("axes fraction", "data"), xytext=(0, 3),
                textcoords="offset points", va="bottom", fontsize=10, color=colour, zorder=5,
            )  # fmt: skip
    axes.annotate(
        words.value(rates[-1], "GB/s"), (sizes[-1], rates[-1]), xytext=(0, 7), textcoords="offset points", ha="right",
        fontsize=11, fontweight="bold", color=INK, zorder=6, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip
    axes.set_ylim(0, most)
    shown = [size for size in (1 << power for power in range(10, 41, 3)) if sizes[0] <= size <= sizes[-1]]
    axes.xaxis.set_major_locator(FixedLocator(shown or [sizes[0], sizes[-1]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _unused: _size(size)))
    axes.set_xlabel("size of the message", fontsize=10.5)
    axes.set_title("Bus bandwidth, GB/s", pad=8, fontweight="bold", x=-0.09)
    axes.grid(axis="x", visible=False)
    told = (
        f"{words.value(rates[-1], 'GB/s')} at {_size(sizes[-1])}, {words.value(max(rates), 'GB/s')} at best"
    )
    over = f" Over {found.transport}." if found.transport else ""
    return Chart(
        "all-reduce",
        "All-reduce, by size",
        words.sentence(told) + over,
        chart_style.inline(figure, "all-reduce", f"Bus bandwidth of all-reduce over size: {told}"),
    )


def _size(size: float) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:g} {unit}"
    return f"{size:g} B"


def scaling(run: Run) -> Chart | None:
    """What an ideal training would do, what contention takes, what communication takes, and what is left."""
    steps = chart_data.scaling(run)
    if not steps:
        return None
    figure = chart_style.canvas(HALF, 206)
    chart_style.marked(figure, run.label)
    last = steps[-1]
    _losses(chart_style.place(figure, 106, 34, HALF - 106 - 104, 132), last)
    told = _told(last)
    caption = words.sentence(told)
    if last.reachable:
        low, high = (f"{100 * share:.0f}" for share in last.reachable)
        caption += f" By the cost model these cards can reach {low} to {high} %."
    if last.target and last.judged:
        caption += f" The owner's target is {100 * last.target:.0f} %; a missed target alone is no defect."
    return Chart(
        "scaling",
        f"Training on {words.count(last.workers, 'GPU' if run.device == 'cuda' else 'process')}".replace(
            "processs", "processes"
        ),
        caption,
        chart_style.inline(figure, "scaling", f"Data-parallel training: {told}"),
    )


def _told(step: Scaling) -> str:
    parts = [f"{100 * step.together / step.ideal:.1f} % of the ideal"]
    if step.apart:
        parts.append(f"contention leaves {100 * step.apart / step.ideal:.1f} %")
        parts.append(f"communication leaves {100 * step.together / step.apart:.1f} % of that")
    return ", ".join(parts)


def _losses(axes: Axes, step: Scaling) -> None:
    """Three bars, one below the other, each as much shorter as something took."""
    rows = [
        ("ideal", step.ideal, FILL),
        ("independent", step.apart, SOFT),
        ("together", step.together, _MAIN),
    ]
    rows = [row for row in rows if row[1]]
    before = step.ideal
    for row, (_unused, rate, colour) in enumerate(rows):
        length = 100 * (rate or 0.0) / step.ideal
        axes.barh(row, length, height=0.6, color=colour, zorder=2)
        lost = 100 * (before - (rate or 0.0)) / step.ideal
        if row and lost > 0:
            axes.barh(
                row,
                lost,
                left=length,
                height=0.6,
                facecolor="none",
                edgecolor=FAIL,
                hatch="////",
                lw=0,
                zorder=2,
            )
        share = f"{length:.0f} %" if row == 0 else f"{length:.1f} %"
        axes.annotate(
            f"{words.figure(rate or 0.0)} {step.unit}", (1, row), xycoords=("axes fraction", "data"), xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=10, color=INK,
        )  # fmt: skip
        axes.text(
            1.5,
            row,
            share,
            va="center",
            fontsize=10.5,
            fontweight="bold",
            color=INK if colour is FILL else PAPER,
            zorder=4,
        )
        before = min(before, rate or before)
    axes.set_xlim(0, 104)
    axes.set_ylim(len(rows) - 0.45 + (0.45 if step.reachable else 0), -0.75)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xticks([0, 20, 40, 60, 80, 100], [f"{share} %" for share in (0, 20, 40, 60, 80, 100)])
    axes.grid(axis="y", visible=False)
    axes.set_title("Of what the GPUs do one by one", pad=7, fontweight="bold", x=-0.32)
    lines = [(100 * step.target if step.target else None, "target", INK, "-")] if step.judged else []
    if step.reachable:
        low, high = (100 * share for share in step.reachable)
        axes.axvspan(low, high, color=WARN, alpha=0.16, lw=0, zorder=3)
        axes.annotate(
            "reachable", (high, 0), xycoords=("data", "axes fraction"), xytext=(-3, 2), textcoords="offset points", ha="right",
            fontsize=9.5, color=WARN, zorder=6,
        )  # fmt: skip
    elif step.predicted:
        lines.append((100 * step.predicted / step.ideal, "cost model", WARN, "--"))
    for at, name, colour, style in lines:
        if at:
            axes.axvline(at, color=colour, lw=1.6, ls=style, zorder=5)
            axes.annotate(
                name, (at, 1), xycoords=("data", "axes fraction"), xytext=(3 if name == "target" else -3, -1),
                textcoords="offset points", ha="left" if name == "target" else "right", va="top", fontsize=9.5, color=colour,
            )  # fmt: skip
