# SPDX-License-Identifier: GPL-3.0-or-later
"""What all charts share: size, colours, the mark of a simulated run, and how a figure of matplotlib becomes part of a page.

A chart is drawn in colours that stand for roles. In the page each becomes a CSS variable, so that one drawing serves light, dark
and print. The same readings give the same bytes.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Only what matplotlib has just written is parsed with it.
from xml.etree import ElementTree

from ..verdicts import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, FILL, PAPER = "#fe0101", "#fe0102", "#fe0103", "#fe0104", "#fe0105"
FAIL, WARN, PASS, MARK = "#fe0301", "#fe0302", "#fe0303", "#fe0304"
_GPUS = 8
_ROLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    FILL: "--fill",
    PAPER: "--paper",
    FAIL: "--fail",
    WARN: "--warn",
    PASS: "--pass",
    MARK: "--mark",
} | {f"#fe02{index:02x}": f"--gpu-{index}" for index in range(_GPUS)}

PIXEL = 1 / 72
"""Inches. matplotlib writes SVG with 72 units to the inch, and a unit is a pixel of the page."""

WIDE, HALF = 1064, 520

RC: Mapping[str, Any] = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    # A dollar sign in the name of a GPU is a dollar sign.
    "text.parse_math": False,
    "axes.titlesize": 11,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.labelcolor": INK,
    "hatch.color": SOFT,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "gpumesh",
    "path.simplify": False,
}

MARKS = {Label.SIMULATED: "SIMULATED", Label.CPU: "CPU"}


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing.

    Attributes:
        name: of small letters; unique in a page.
        says: what it shows, in words, for whoever does not see it.
        svg: for the page, trusted: made of what matplotlib wrote.
        wide: it takes the whole width of the page.
    """

    name: str
    title: str
    says: str
    svg: str
    wide: bool = False


def gpu_colour(index: int) -> str:
    """That of a GPU; after eight they begin anew."""
    return f"#fe02{index % _GPUS:02x}"


def canvas(width: float, height: float) -> Figure:
    """A figure of so many pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width * PIXEL, height * PIXEL))


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at so many pixels from the left and the top."""
    wide, high = figure.get_figwidth() / PIXEL, figure.get_figheight() / PIXEL
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write(figure: Figure, left: float, top: float, text: str, **more: Any) -> None:
    """Text at so many pixels from the left and the top of the figure."""
    wide, high = figure.get_figwidth() / PIXEL, figure.get_figheight() / PIXEL
    figure.text(left / wide, 1 - top / high, text, **({"va": "top"} | more))


def marked(figure: Figure, label: Label) -> None:
    """The word across the drawing without which no simulated figure and none of the CPU goes."""
    word = MARKS.get(label)
    if not word:
        return
    wide, high = figure.get_figwidth() / PIXEL, figure.get_figheight() / PIXEL
    figure.text(
        0.5,
        0.5,
        word,
        fontsize=min(92, high * 0.3, wide / (0.85 * len(word))),
        fontweight="bold",
        color=MARK,
        alpha=0.13,
        rotation=16,
        ha="center",
        va="center",
        zorder=0,
    )


def inline(figure: Figure, name: str, says: str) -> str:
    """The figure as an element of a page."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314
    _plain(root, f"{name}-")
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": says}
    return ElementTree.tostring(root, encoding="unicode")


def _plain(element: ElementTree.Element, prefix: str) -> None:
    """Without name spaces and what no page needs; every id of its own, every colour a role."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            _plain(child, prefix)
    attributes = dict(element.attrib)
    element.attrib.clear()
    for key, given in attributes.items():
        bare = key.rpartition("}")[2]
        if bare == "id":
            # Only what something refers to needs one.
            if element.tag in ("g", "svg", "text"):
                continue
            given = prefix + given
        elif bare == "href":
            given = given.replace("#", f"#{prefix}", 1)
        elif bare == "d":
            given = _shorter(given)
        elif bare in ("style", "fill", "stroke"):
            given = _roles(given)
        element.set(bare, given.replace("url(#", f"url(#{prefix}"))
    if element.tag != "text" and (element.text is None or not element.text.strip()):
        element.text = None
    if element.tail is not None and not element.tail.strip():
        element.tail = "\n" if element.tag == "g" else None


def _shorter(path: str) -> str:
    """A tenth of a pixel is enough for everyone."""
    return " ".join(
        re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), path).split()
    )


def _roles(style: str) -> str:
    style = re.sub(
        r"#fe0[0-9a-f]{3}",
        lambda found: f"var({_ROLES[found[0]]})" if found[0] in _ROLES else found[0],
        style,
    )
    return re.sub(r"'DejaVu Sans'[^;]*", "var(--sans)", style)
