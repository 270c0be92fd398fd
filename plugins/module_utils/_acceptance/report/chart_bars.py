# SPDX-License-Identifier: GPL-3.0-or-later
"""Rates of every GPU beside its siblings: matrix multiplication, and transfers between host and device.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..record import Run
from ..verdicts import Verdict
from . import chart_data, chart_style, words
from .chart_data import Bar, Direction, Rates
from .chart_style import FAIL, HALF, INK, LINE, PAPER, SOFT, WARN, Chart, gpu_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _RIGHT, _HEAD, _ROW, _BELOW = 52, 112, 26, 23, 46
_INK_OF = {Verdict.FAIL: FAIL, Verdict.WARN: WARN}


def matmul(run: Run) -> Chart | None:
    """Share of the peak by precision, GPU by GPU; rates where no peak is known."""
    groups = chart_data.matmul(run)
    if not groups:
        return None
    shares = all(column.peak for group in groups for column in group.bars)
    bars = sum(len(group.bars) for group in groups)
    height = 12 + len(groups) * (_HEAD + 6) + bars * _ROW + _BELOW
    figure = chart_style.canvas(HALF, height)
    chart_style.marked(figure, run.label)
    top = 8.0
    most = 1.04 * max(
        [_length(column, shares) for group in groups for column in group.bars]
        + [_bound(column, shares) for group in groups for column in group.bars]
        + [100 if shares else 0]
    )
    for position, group in enumerate(groups):
        high = len(group.bars) * _ROW
        axes = chart_style.place(figure, _LEFT, top + _HEAD, HALF - _LEFT - _RIGHT, high)
        _rates(axes, group, shares)
        axes.set_xlim(0, most)
        last = position == len(groups) - 1
        axes.tick_params(labelbottom=last, bottom=last)
        if last:
            axes.set_xlabel("% of the peak at the measured clock" if shares else "TFLOPS", fontsize=10.5)
        top += high + _HEAD + 6
    told = "; ".join(_range(group) for group in groups)
    marks = " The black tick is the least that is expected, the dotted line the median of the siblings."
    judged = any(column.least for group in groups for column in group.bars)
    return Chart(
        "matmul",
        "Matrix multiplication, by precision",
        words.sentence(told) + (marks if judged else " Not judged."),
        chart_style.inline(figure, "matmul", f"Rate of matrix multiplication of every GPU: {told}"),
    )


def _length(column: Bar, shares: bool) -> float:
    return 100 * column.value / column.peak if shares and column.peak else column.value


def _bound(column: Bar, shares: bool) -> float:
    least = column.least or 0.0
    return 100 * least / column.peak if shares and column.peak else least


def _range(group: Rates) -> str:
    values = [column.value for column in group.bars]
    low, high = words.alike([min(values), max(values)])
    return f"{group.name} {low if low == high else f'{low} to {high}'} {group.unit}"


def _rates(axes: Axes, group: Rates, shares: bool) -> None:
    lengths = [_length(column, shares) for column in group.bars]
    texts = words.alike([column.value for column in group.bars])
    for row, (column, length, text) in enumerate(zip(group.bars, lengths, texts, strict=True)):
        axes.barh(row, length, height=0.66, color=gpu_colour(column.gpu), zorder=2)
        if column.least:
            _tick(axes, _bound(column, shares), row)
        _beside(axes, row, f"{text} · {length:.0f} %" if shares else text, column)
    if len(lengths) > 2:
        axes.plot(
            [statistics.median(lengths)] * 2, [-0.5, len(lengths) - 0.5], color=INK, lw=1, ls=":", zorder=3
        )
    _finish(axes, [column.gpu for column in group.bars], f"{group.name}, {group.unit}")


def transfers(run: Run) -> Chart | None:
    """Host to device and back, each GPU alone and all at the same time."""
    directions = chart_data.transfers(run)
    if not directions:
        return None
    rows = sum(len(direction.gpus) for direction in directions)
    row = _ROW + 11
    figure = chart_style.canvas(HALF, 8 + len(directions) * (_HEAD + 6) + rows * row + _BELOW)
    chart_style.marked(figure, run.label)
    every = [
        column
        for direction in directions
        for column in (*direction.alone.values(), *direction.together.values())
    ]
    top, most = 8.0, 1.04 * max(max(column.value, column.least or 0.0) for column in every)
    for position, direction in enumerate(directions):
        high = len(direction.gpus) * row
        axes = chart_style.place(figure, _LEFT, top + _HEAD, HALF - _LEFT - _RIGHT, high)
        _pairs(axes, direction)
        axes.set_xlim(0, most)
        last = position == len(directions) - 1
        axes.tick_params(labelbottom=last, bottom=last)
        if last:
            axes.set_xlabel("GB/s", fontsize=10.5)
        top += high + _HEAD + 6
    told = "; ".join(_told(direction) for direction in directions)
    return Chart(
        "transfers",
        "Between host and GPUs",
        words.sentence(told)
        + " Full bars: each GPU alone; pale ones: all at the same time; the black tick is the least that is expected.",
        chart_style.inline(figure, "transfers", f"Transfers between host and GPUs: {told}"),
    )


def _told(direction: Direction) -> str:
    parts = []
    if direction.alone:
        parts.append(f"{words.figure(min(one.value for one in direction.alone.values()))} GB/s or more alone")
    if direction.together:
        parts.append(
            f"{words.figure(round(sum(one.value for one in direction.together.values()), 1))} GB/s all together"
        )
    return f"{direction.name} {', '.join(parts)}"


def _pairs(axes: Axes, direction: Direction) -> None:
    every = [*direction.alone.values(), *direction.together.values()]
    shown = dict(zip(map(id, every), words.alike([column.value for column in every]), strict=True))
    for row, gpu in enumerate(direction.gpus):
        texts = []
        for column, offset, alpha in (
            (direction.alone.get(gpu), -0.19, 1.0),
            (direction.together.get(gpu), 0.19, 0.42),
        ):
            if column is None:
                continue
            axes.barh(
                row + offset, column.value, height=0.36, color=gpu_colour(gpu), alpha=alpha, lw=0, zorder=2
            )
            texts.append(shown[id(column)])
            if column.least:
                _tick(axes, column.least, row + offset, 0.23)
        judged = direction.alone.get(gpu) or direction.together.get(gpu)
        _beside(axes, row, " / ".join(texts) + " GB/s", judged)
    _finish(axes, direction.gpus, direction.name)


def _tick(axes: Axes, at: float, row: float, half: float = 0.42) -> None:
    axes.plot([at, at], [row - half, row + half], color=PAPER, lw=4, zorder=4, solid_capstyle="butt")
    axes.plot([at, at], [row - half, row + half], color=INK, lw=2, zorder=5, solid_capstyle="butt")


def _beside(axes: Axes, row: float, text: str, column: Bar | None) -> None:
    """The value at the right, and the verdict where it is bad."""
    verdict = column.verdict if column else None
    bad = _INK_OF.get(verdict) if verdict else None
    axes.annotate(
        f"{verdict} {text}" if bad else text,
        (1, row),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color=bad or INK,
        fontweight="bold" if bad else "normal",
    )


def _finish(axes: Axes, gpus: Sequence[int], title: str) -> None:
    axes.set_yticks(range(len(gpus)), [f"GPU {gpu}" for gpu in gpus])
    axes.set_ylim(len(gpus) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_title(title, pad=5, fontweight="bold", x=-_LEFT / (HALF - _LEFT - _RIGHT) + 0.01)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(axis="y", labelcolor=SOFT)
