# SPDX-License-Identifier: GPL-3.0-or-later
"""Colours on a terminal, and the widths of text.

Pure, but for the look at the terminal.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import shutil
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import TextIO

from .verdicts import Label, Verdict

_CODES = {"red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36", "bold": "1", "dim": "2"}
_OF = {
    Verdict.PASS: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "red",
    Verdict.UNKNOWN: "magenta",
    Verdict.SKIP: "dim",
}


class Paint:
    """Colours, or none.

    Args:
        on: whether there are any.
    """

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, *styles: str) -> str:
        """The text in these colours."""
        if not self.on or not styles:
            return text
        return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"

    def verdict(self, verdict: Verdict, label: Label = Label.HARDWARE, width: int = 0) -> str:
        """A verdict's word. Only what was seen on hardware is green."""
        colour = _OF[verdict]
        if verdict is Verdict.PASS and label is not Label.HARDWARE:
            colour = "cyan"
        return self(f"{verdict:<{width}}", "bold", colour)


def is_coloured(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether to write colours there: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    environment = os.environ if environment is None else environment
    return bool(stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb")


def width() -> int:
    """How many columns there are."""
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, 160))


def columns(text: str) -> int:
    """How many columns a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def clean(text: str) -> str:
    """The text on one line, without what a terminal would obey: a kernel's log and a workload's last words may hold anything."""
    text = " ".join(text.split())
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in ("Cc", "Cs") else one for one in text
    )


def fit(text: str, most: int) -> str:
    """The text in no more columns than that, on one line."""
    text = clean(text)
    if columns(text) <= most:
        return text
    while text and columns(text) >= most:
        text = text[:-1]
    return f"{text}…" if most > 0 else ""


def wrapped(text: str, most: int, indent: int) -> list[str]:
    """The text on several lines; the first is to stand behind something that is `indent` wide."""
    lines = textwrap.wrap(clean(text), max(20, most - indent), break_on_hyphens=False)
    return [line if number == 0 else " " * indent + line for number, line in enumerate(lines or [""])]


def duration(seconds: float) -> str:
    """``8 s``, ``4 min 12 s``, ``23 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
