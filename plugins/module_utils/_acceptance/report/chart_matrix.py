# SPDX-License-Identifier: GPL-3.0-or-later
"""From each GPU to each other: how fast, and whether one reaches the other's memory by itself.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..record import Run
from . import chart_data, chart_style, words
from .chart_style import FILL, HALF, INK, PAPER, PASS, SOFT, Chart, gpu_colour

_LEFT, _TOP, _MOST_CELL = 64, 58, 62


def p2p(run: Run) -> Chart | None:
    """The matrix of copies from GPU to GPU."""
    found = chart_data.p2p(run)
    if found is None:
        return None
    from matplotlib.patches import Rectangle

    count = len(found.rates)
    side = count * min(_MOST_CELL, (HALF - _LEFT - 12) / count)
    figure = chart_style.canvas(HALF, _TOP + side + 36)
    chart_style.marked(figure, run.label)
    axes = chart_style.place(figure, _LEFT, _TOP, side, side)
    known = [rate for row in found.rates for rate in row if rate is not None]
    most = max(known)
    shown = iter(words.alike(known))
    for start, row in enumerate(found.rates):
        for to, rate in enumerate(row):
            text = words.NOTHING if rate is None else next(shown)
            if start == to:
                axes.add_patch(Rectangle((to - 0.47, start - 0.47), 0.94, 0.94, facecolor=FILL, lw=0))
                continue
            colour = gpu_colour(0) if rate is not None else FILL
            share = 0.18 + 0.5 * (rate or 0.0) / most if rate is not None else 1.0
            peer = found.access[start][to] is True
            axes.add_patch(
                Rectangle(
                    (to - 0.47, start - 0.47), 0.94, 0.94, facecolor=colour, alpha=share, lw=0, zorder=2
                )
            )
            if peer:
                axes.add_patch(
                    Rectangle((to - 0.45, start - 0.45), 0.9, 0.9, fill=False, edgecolor=PASS, lw=2, zorder=3)
                )
            axes.text(
                to,
                start,
                text,
                ha="center",
                va="center",
                fontsize=11 if count <= 6 else 9,
                color=INK,
                zorder=4,
            )
    names = [f"GPU {gpu}" for gpu in range(count)]
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xticks(range(count), names if count <= 6 else [str(gpu) for gpu in range(count)])
    axes.set_yticks(range(count), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=SOFT)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_facecolor(PAPER)
    chart_style.write(
        figure, 4, 8, "GB/s, from the row to the column", fontsize=11, fontweight="bold", color=INK
    )
    peers = sum(one is True for row in found.access for one in row)
    told = f"{' to '.join(words.alike([min(known), most]))} GB/s between any two"
    reach = (
        "every pair has peer access"
        if peers == count * (count - 1)
        else f"{words.count(peers, 'pair')} with peer access, framed in green"
        if peers
        else "no pair has peer access, so all goes through the memory of the host"
    )
    return Chart(
        "p2p",
        "From GPU to GPU",
        words.sentence(f"{told}; {reach}"),
        chart_style.inline(figure, "p2p", f"Copies from GPU to GPU: {told}; {reach}"),
    )
