# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts of ``nvidia-smi`` as values: numbers without their unit, or the reason why there is none.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

ABSENT = "absent"
NOT_AVAILABLE = "not_available"
DEPRECATED = "deprecated"
LOST = "lost"
UNKNOWN = "unknown"

Value: TypeAlias = "str | int | float | bool"

LONGEST = 200
"""Characters of a text that are kept."""

_NUMBER = re.compile(r"(-?[0-9]{1,15})(?:\.([0-9]{1,9}))?(?:\s*([A-Za-z%/]{1,8}))?")
_NOT_AVAILABLE = frozenset({"", "n/a", "not supported", "not available", "not applicable"})
_FACTORS = {
    "mebibytes": {"MiB": 1.0, "KiB": 1 / 1024, "GiB": 1024.0, "MB": 1.0},
    "watts": {"W": 1.0, "mW": 0.001},
    "celsius": {"C": 1.0},
    "megahertz": {"MHz": 1.0},
    "percent": {"%": 1.0},
    "lanes": {"x": 1.0},
    "microseconds": {"us": 1.0},
    "count": {},
}
_WHOLE = frozenset({"mebibytes", "celsius", "megahertz", "percent", "lanes", "microseconds", "count"})
_SWITCH = {"enabled": True, "disabled": False, "yes": True, "no": False, "active": True, "not active": False}


def clean(text: str) -> str:
    """One line without control characters, of bounded length."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text[: 4 * LONGEST])
    return " ".join(printable.split())[:LONGEST]


def state(text: str) -> str | None:
    """Why a text is no value; None where it is one."""
    plain = text.strip().strip("[]").strip().lower()
    if plain in _NOT_AVAILABLE:
        return NOT_AVAILABLE
    if "deprecated" in plain:
        return DEPRECATED
    if "gpu is lost" in plain or "fallen off the bus" in plain:
        return LOST
    if plain in ("unknown error", "unknown", "err!", "insufficient permissions") or plain.startswith("error"):
        return UNKNOWN
    return None


def _number(text: str, kind: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if not found:
        return None
    whole, fraction, unit = found.groups()
    units = _FACTORS[kind]
    if unit is not None and unit not in units:
        return None
    number = float(f"{whole}.{fraction or 0}") * (units[unit] if unit else 1.0)
    return round(number) if kind in _WHOLE else round(number, 3)


def _switch(text: str) -> bool | None:
    return _SWITCH.get(text.lower())


def _text(text: str) -> str | None:
    return clean(text) or None


_READERS: dict[str, Callable[[str], Value | None]] = {"text": _text, "switch": _switch}


def read(text: str, kind: str) -> tuple[Value | None, str | None]:
    """The value and no state, or no value and its state.

    A text that is neither is ``unknown``: a unit we do not know would make a wrong number.
    """
    why = state(text)
    if why:
        return None, why
    reader = _READERS.get(kind)
    value = reader(text.strip()) if reader else _number(text.strip(), kind)
    return (None, UNKNOWN) if value is None else (value, None)
