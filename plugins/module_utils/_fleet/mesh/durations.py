# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans of time as people write them: ``7d``, ``1d12h``, ``90s``. What is written is what can be read.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SPAN = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_SECONDS = re.compile(r"[0-9]{1,9}")


def seconds(text: str) -> int:
    """The seconds of a span; a bare number is seconds already.

    Raises:
        ValueError: it is not one.
    """
    plain = text.strip().lower().replace(" ", "")
    if _SECONDS.fullmatch(plain):
        return int(plain)
    found = _SPAN.fullmatch(plain)
    if not plain or found is None:
        raise ValueError(f"'{text}' is no span of time; write it as 7d, 1d12h, 90m or 30s")
    return sum(int(part) * unit for part, unit in zip(found.groups(), _UNITS.values(), strict=True) if part)


def words(span: float) -> str:
    """A span in its two largest units, whole seconds at least: ``3d04h``, ``2m05s``, ``0s``."""
    left = max(0, round(span))
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, rest = divmod(left, size)
        if parts:
            # The second unit ends it; what is smaller is noise beside the first.
            return parts[0] if count == 0 else f"{parts[0]}{count:02d}{unit}"
        if count:
            parts.append(f"{count}{unit}")
            left = rest
    return parts[0] if parts else "0s"
