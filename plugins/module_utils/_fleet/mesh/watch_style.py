# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pictures of a watch share: colours, head, axis of time.

Colours are from the palettes of Okabe and Ito and of Paul Tol, which people of every colour vision can tell apart; what
matters differs in shape as well.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .watch_incidents import Kind
from .watch_log import Log
from .watch_report import SIMULATED, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, SKY, VERMILLION, PURPLE, GREY = "#0072B2", "#56B4E9", "#D55E00", "#AA4499", "#666666"
PALE, PALE_EDGE = "#ececec", "#bbbbbb"
PALE_HATCH = "...."


@dataclass(frozen=True, slots=True)
class Look:
    """How a kind of incident is drawn."""

    colour: str
    hatch: str
    marker: str
    label: str


LOOKS: Mapping[Kind, Look] = {
    Kind.DOWN: Look(GREY, "", "s", "machine down or asleep"),
    Kind.CUT_OFF: Look(VERMILLION, "", "D", "cut off from all others"),
    Kind.PAIR: Look(PURPLE, "////", "v", "one pair apart"),
}

LEAST_VISIBLE = 1 / 350
"""A drop-out is drawn at least this share of the whole time wide, or nobody would see it."""

RC: Mapping[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 9,
    "axes.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "gpumesh",
}


def head_height(found: Report) -> float:
    """Inches that :func:`headed` needs at the top of a figure."""
    return 0.62 + 0.24 * found.simulated


def headed(figure: Figure, found: Report, title: str, subtitle: str) -> None:
    """Title and subtitle, and the mark that no simulated figure goes without."""
    inch = 1 / figure.get_figheight()
    left, right = 0.13 / figure.get_figwidth(), 1 - 0.13 / figure.get_figwidth()
    figure.text(left, 1 - 0.12 * inch, title, fontsize=13, fontweight="bold", va="top")
    figure.text(left, 1 - 0.37 * inch, subtitle, fontsize=9, color="#444444", va="top")
    if not found.simulated:
        return
    figure.text(
        right,
        1 - 0.12 * inch,
        "SIMULATED",
        fontsize=13,
        fontweight="bold",
        color="white",
        va="top",
        ha="right",
        bbox={"facecolor": VERMILLION, "edgecolor": "none", "pad": 3},
    )
    figure.text(left, 1 - 0.56 * inch, SIMULATED, fontsize=9, fontweight="bold", color=VERMILLION, va="top")
    figure.text(
        0.5,
        0.45,
        "SIMULATED",
        fontsize=70,
        color="black",
        alpha=0.045,
        rotation=25,
        ha="center",
        va="center",
    )


def at(seconds: float) -> Any:
    """A time of day as the axis takes it, in days."""
    from matplotlib.dates import date2num

    return date2num(datetime.fromtimestamp(seconds, UTC))


def timed(axes: Axes, found: Report) -> None:
    """Make the horizontal axis the time of the watch, in UTC."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
    formatter = ConciseDateFormatter(
        locator,
        tz=UTC,
        formats=["%Y", "%b %Y", "%b %d", "%H:%M", "%H:%M", "%H:%M:%S"],
        zero_formats=["%Y", "%b %Y", "%b %d", "%b %d", "%H:%M", "%H:%M:%S"],
        show_offset=False,
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    first, last = whole(found)
    axes.set_xlim(at(first), at(last))


def whole(found: Report) -> tuple[float, float]:
    """From when to when, never of no length."""
    first = found.first or 0.0
    return first, max(found.last or 0.0, first + 1.0)


def span(found: Report) -> str:
    """From when to when, in words."""
    first, last = (datetime.fromtimestamp(time, UTC) for time in whole(found))
    exactly = "%Y-%m-%d %H:%M:%S" if last - first < timedelta(minutes=10) else "%Y-%m-%d %H:%M"
    return f"{first.strftime(exactly)} to {last.strftime(exactly)} UTC"


def visible(start: float, end: float, found: Report) -> tuple[float, float]:
    """A stretch of time, made long enough to be seen."""
    first, last = whole(found)
    missing = max(0.0, (last - first) * LEAST_VISIBLE - (end - start)) / 2
    return start - missing, end + missing


def quiet(log: Log, found: Report) -> list[tuple[float, float]]:
    """When a machine took no samples: its gaps, and before its first and after its last."""
    first, last = whole(found)
    if log.first is None or log.last is None:
        return [(first, last)]
    slack = 2.5 * log.interval
    result = [(gap.start, gap.end) for gap in log.gaps]
    if log.first - first > slack:
        result.insert(0, (first, log.first))
    if last - log.last > slack:
        result.append((log.last, last))
    return result
