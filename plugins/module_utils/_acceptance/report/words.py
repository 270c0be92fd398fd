# SPDX-License-Identifier: GPL-3.0-or-later
"""Values, times and lengths of time as a page writes them. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

THIN = "\u202f"
"""A narrow space that does not break: between digits, and between a number and its unit."""
NOTHING = "–"


def value(given: Any, unit: str = "") -> str:
    """A value with its unit, as short as is exact enough."""
    if given is None:
        return "no reading"
    if isinstance(given, bool):
        return "yes" if given else "no"
    text = figure(given) if isinstance(given, (int, float)) else str(given)
    return f"{text}{THIN}{unit}" if unit else text


def figure(given: float) -> str:
    """A number: four digits or so, thousands apart."""
    if isinstance(given, float) and not math.isfinite(given):
        return "no number"
    if abs(given) >= 1e15:
        return f"{given:.3g}"
    if isinstance(given, int) or given == int(given):
        return grouped(int(given))
    size = abs(given)
    if size >= 1000:
        return grouped(round(given))
    digits = 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{given:.{digits}f}" if size >= 0.001 else f"{given:.2g}"
    return text.rstrip("0").rstrip(".") if digits == 3 and "e" not in text else text


def alike(given: Sequence[float]) -> list[str]:
    """Numbers that stand beside each other, with as many digits behind the point as the one that has most."""
    texts = [figure(one) for one in given]
    if any("e" in text or THIN in text for text in texts):
        return texts
    digits = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{one:.{digits}f}" for one in given]


def grouped(given: int) -> str:
    """A whole number, from 10 000 on in groups of three."""
    return f"{given:,}".replace(",", THIN) if abs(given) >= 10000 else str(given)


def bound(text: str) -> str:
    """An expectation with the signs of print, which do not part from their number."""
    if text in ("True", "False"):
        return value(text == "True")
    for sign, shown in ((">=", "≥"), ("<=", "≤")):
        if text.startswith(f"{sign} "):
            first, _unused, rest = text.removeprefix(sign).strip().partition(" ")
            return f"{shown}{THIN}{first}" + (f"{THIN if rest == '%' else ' '}{rest}" if rest else "")
    return text


def when(seconds: float | None, *, exactly: bool = False) -> str:
    """A moment, to the minute or to the second."""
    if seconds is None:
        return NOTHING
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(
            "%Y-%m-%d %H:%M:%S UTC" if exactly else "%Y-%m-%d %H:%M UTC"
        )
    except (OverflowError, OSError, ValueError):
        return NOTHING


def long(seconds: float) -> str:
    """A length of time, in its two greatest units."""
    whole = max(0, round(seconds))
    if whole < 10 and seconds > 0:
        return f"{round(seconds, 1):g}{THIN}s"
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{THIN}{unit}" for count, unit in parts[:2] if count or unit == parts[0][1])


def count(number: int, noun: str) -> str:
    """``3 checks``, ``1 check``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sentence(text: str) -> str:
    """With a capital letter in front and a full stop behind."""
    text = text.strip()
    if not text:
        return ""
    # A name that begins with a small letter for good reason (nvidia-smi, vLLM) is left as it is.
    first = text.split(maxsplit=1)[0]
    if first.isascii() and first.isalpha() and first.islower() and not first.startswith("nvidia"):
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?…" else f"{text}."


def marked(text: str) -> list[tuple[str, bool]]:
    """A text in parts: what stands between backticks, which is to be typed, and what does not."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [(text, False)]
    return [(part, position % 2 == 1) for position, part in enumerate(parts) if part]
