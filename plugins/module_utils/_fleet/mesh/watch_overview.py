# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole mesh at a glance: what happened to which machine and when, and every pair in two heat maps.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import watch_style
from .watch_report import Report
from .watch_style import LOOKS, at
from .watch_table import milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

MOST_ROWS = 40
"""More machines than this have no line each, only those something happened to."""

MOST_CELLS = 24
"""More machines than this have no figures in the heat maps."""

_BAR = 0.62
_INCHES_PER_LETTER = 0.075


@dataclass(frozen=True, slots=True)
class _Heat:
    """One heat map."""

    title: str
    values: Mapping[tuple[str, str], float | None]
    colours: str
    norm: Normalize
    said: Callable[[float], str]
    unit: str


def figure(found: Report) -> Figure:
    """The picture."""
    from matplotlib.figure import Figure

    names = found.names
    rows = _rows(found)
    longest = max(map(len, names))
    side = max(2.6, min(9.0, 0.43 * len(names)))
    labels = _INCHES_PER_LETTER * longest + 0.35
    timeline = 0.24 * max(3, len(rows)) + 0.1
    top = watch_style.head_height(found) + 0.3
    between = 1.05 + 0.7 * _INCHES_PER_LETTER * longest
    width = max(9.0, 2 * (side + labels + 1.0))
    height = top + timeline + between + side + 0.2

    drawn = Figure(figsize=(width, height))
    box = (labels / width, 1 - (top + timeline) / height, 1 - (labels + 0.2) / width, timeline / height)
    _timeline(drawn.add_axes(box), found, rows)
    for number, heat in enumerate(_heats(found)):
        left = labels + number * width / 2
        _heat_map(drawn.add_axes((left / width, 0.2 / height, side / width, side / height)), names, heat)
    incidents = len(found.incidents)
    happened = f"{incidents} incident{'' if incidents == 1 else 's'}" if incidents else "no drop-out"
    hidden = len(names) - len(rows)
    watch_style.headed(
        drawn,
        found,
        f"Mesh at a glance: watch {found.name}",
        f"{watch_style.span(found)}; {len(names)} machines, {len(found.pairs)} pairs, {happened}."
        + (f" {hidden} machines that nothing happened to have no line." if hidden else ""),
    )
    return drawn


def _rows(found: Report) -> tuple[str, ...]:
    if len(found.names) <= MOST_ROWS:
        return found.names
    met = {machine for one in found.incidents for machine in one.machines}
    return tuple(name for name in found.names if name in met)[:MOST_ROWS]


def _timeline(axes: Axes, found: Report, rows: Sequence[str]) -> None:
    place = {name: number for number, name in enumerate(rows)}

    def draw(name: str, start: float, end: float, *, colour: str, hatch: str, edge: str, above: int) -> None:
        axes.barh(
            place[name],
            at(end) - at(start),
            left=at(start),
            height=_BAR,
            facecolor=colour,
            edgecolor=edge,
            hatch=hatch,
            lw=0,
            zorder=above,
        )

    for name in rows:
        draw(name, *watch_style.whole(found), colour="#f4f6f8", hatch="", edge="none", above=1)
        for start, end in watch_style.quiet(found.logs[name], found) if name in found.logs else ():
            draw(
                name,
                start,
                end,
                colour=watch_style.PALE,
                hatch=watch_style.PALE_HATCH,
                edge=watch_style.PALE_EDGE,
                above=2,
            )
    for one in found.incidents:
        look = LOOKS[one.kind]
        start, end = watch_style.visible(one.start, one.end, found)
        for machine in one.machines:
            if machine in place:
                draw(machine, start, end, colour=look.colour, hatch=look.hatch, edge="white", above=3)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color="#d8d8d8", lw=0.6, zorder=0)
    axes.set_axisbelow(True)
    watch_style.timed(axes, found)
    axes.set_xlabel("time (UTC)")
    axes.set_title("When it happened", loc="left", fontweight="bold")
    _legend(axes)


def _legend(axes: Axes) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", lw=0, label=look.label)
        for look in LOOKS.values()
    ]
    handles.append(
        Patch(
            facecolor=watch_style.PALE,
            hatch=watch_style.PALE_HATCH,
            edgecolor=watch_style.PALE_EDGE,
            lw=0,
            label="took no samples",
        )
    )
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.4,
        borderaxespad=0.3,
    )


def _heats(found: Report) -> tuple[_Heat, _Heat]:
    from matplotlib.colors import LogNorm, Normalize, PowerNorm

    medians = {(pair.source, pair.target): pair.median for pair in found.pairs}
    known = [value for value in medians.values() if value]
    far_apart = bool(known) and max(known) > 10 * min(known)
    scale = LogNorm(min(known), max(known)) if far_apart else Normalize(0, max(known, default=1.0))
    losses: dict[tuple[str, str], float | None] = {
        (pair.source, pair.target): pair.loss for pair in found.pairs
    }
    most = max((pair.loss for pair in found.pairs), default=0.0)
    return (
        _Heat("Median round trip", medians, "cividis_r", scale, milliseconds, "ms"),
        # By the square root, so that a dead machine does not make everything else look whole.
        _Heat("Lost samples", losses, "YlOrBr", PowerNorm(0.5, 0, max(1.0, most)), _per_cent, "per cent"),
    )


def _heat_map(axes: Axes, names: Sequence[str], heat: _Heat) -> None:
    import matplotlib

    colours: Colormap = matplotlib.colormaps[heat.colours].with_extremes(bad=watch_style.PALE)
    cells = [[heat.values.get((source, target)) for target in names] for source in names]
    drawn = [[math.nan if cell is None else cell for cell in row] for row in cells]
    image = axes.imshow(drawn, cmap=colours, norm=heat.norm, aspect="equal")
    if len(names) <= MOST_CELLS:
        for row, line in enumerate(cells):
            for column, cell in enumerate(line):
                if row != column:
                    _figure_in(axes, row, column, cell, heat, colours, 9 if len(names) <= 8 else 7)
    size = 8 if len(names) <= MOST_CELLS else max(3.0, 8 * MOST_CELLS / len(names))
    axes.set_xticks(range(len(names)), names, rotation=45, ha="left", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color="white", lw=0.8)
        axes.axvline(edge - 0.5, color="white", lw=0.8)
    # Matplotlib itself moves a title above what stands at the top of its axes.
    axes.set_title(f"{heat.title}, from the row to the column", loc="left", fontweight="bold", pad=4)

    box = axes.get_figure(root=True)
    if box is not None:
        scale = box.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.035, 1.0)), format=_plain, ticks=_ticks(heat.norm))  # fmt: skip
        scale.ax.minorticks_off()
        scale.ax.tick_params(labelsize=8)
        scale.set_label(heat.unit)
        scale.outline.set_visible(False)


def _figure_in(
    axes: Axes, row: int, column: int, cell: float | None, heat: _Heat, colours: Colormap, size: float
) -> None:
    dark = False
    if cell is not None:
        red, green, blue, _alpha = colours(heat.norm(cell))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    axes.text(
        column,
        row,
        "-" if cell is None else heat.said(cell),
        ha="center",
        va="center",
        fontsize=size,
        color="white" if dark else "black",
    )


def _ticks(norm: Normalize) -> list[float]:
    """1, 2 and 5 of every power of ten in the scale, or a few even steps."""
    low, high = norm.vmin or 0.0, norm.vmax or 1.0
    if low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [base * 10.0**power for power in powers for base in (1, 2, 5) if low <= base * 10.0**power <= high]  # fmt: skip
    step = 10.0 ** math.floor(math.log10(high))
    step *= next(base for base in (0.2, 0.5, 1, 2) if high / (base * step) <= 6)
    return [step * number for number in range(int(high / step + 1e-9) + 1)]


def _plain(value: float, _position: int) -> str:
    return f"{value:.6g}"


def _per_cent(value: float) -> str:
    if value == 0:
        return "0"
    if value < 0.01:
        return "<.01"
    return (
        f"{value:.2f}".removeprefix("0") if value < 1 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    )
