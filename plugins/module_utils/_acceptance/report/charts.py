# SPDX-License-Identifier: GPL-3.0-or-later
"""All charts of a run. matplotlib is loaded here and nowhere else.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from . import chart_bars, chart_lines, chart_matrix, chart_style, chart_time
from .chart_style import Chart
from .reading import Reading


def available() -> bool:
    """Whether matplotlib can be loaded."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw(found: Reading) -> list[Chart]:
    """The charts for which there is something to draw, in the order of the page."""
    import matplotlib

    with matplotlib.rc_context(dict(chart_style.RC)):
        drawn = [
            chart_time.draw(found),
            chart_bars.matmul(found.run),
            chart_bars.transfers(found.run),
            chart_lines.scaling(found.run),
            chart_lines.all_reduce(found.run),
            chart_matrix.p2p(found.run),
        ]
    return [chart for chart in drawn if chart]
