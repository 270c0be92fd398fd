# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a check as lines of a table: one a name, with a cell for each GPU, or one for all that have the same. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..verdicts import Figure, Verdict
from . import words
from .reading import number

GRAVITY = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN, Verdict.PASS, Verdict.SKIP)
"""The gravest first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, of one GPU or of all that have the same."""

    gpu: str
    text: str
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure, over all GPUs."""

    name: str
    unit: str
    cells: tuple[Cell, ...]
    expected: tuple[Cell, ...]
    source: str
    verdict: str


def lines(figures: Sequence[Figure]) -> tuple[Line, ...]:
    """Figures of one name in one line, in the order in which each name came first."""
    groups: dict[tuple[str, str], list[tuple[str, Figure]]] = {}
    for figure in figures:
        name, of = _whose(figure)
        groups.setdefault((name, figure.unit), []).append((of, figure))
    return tuple(_line(name, unit, group) for (name, unit), group in groups.items())


def _whose(figure: Figure) -> tuple[str, str]:
    """The name of a figure without that of its GPU or process, and that."""
    if figure.gpu is not None:
        return figure.name, f"GPU {figure.gpu}"
    # On the CPU a check puts the process into the name, for it has no GPU to name.
    found = re.fullmatch(r"(.*), (process \d{1,4})", figure.name, re.DOTALL)
    return (found[1], found[2]) if found else (figure.name, "")


def _line(name: str, unit: str, group: Sequence[tuple[str, Figure]]) -> Line:
    owners = [of for of, _unused in group]
    figures = [figure for _unused, figure in group]
    verdicts = [str(figure.verdict or "") for figure in figures]
    expected = [words.bound(figure.expected) for figure in figures]
    judged = [figure.verdict for figure in figures if figure.verdict is not None]
    return Line(
        name,
        unit,
        _cells(owners, _texts(figures), verdicts),
        _expected(owners, expected),
        "; ".join(dict.fromkeys(figure.source for figure in figures if figure.source)),
        str(min(judged, key=GRAVITY.index)) if judged else "",
    )


def _texts(figures: Sequence[Figure]) -> list[str]:
    """Values, numbers with the same digits."""
    numbers = [number(figure.value) for figure in figures]
    known = [one for one in numbers if one is not None]
    alike = iter(words.alike(known) if len(known) > 1 else map(words.figure, known))
    return [
        next(alike) if one is not None else _word(figure)
        for one, figure in zip(numbers, figures, strict=True)
    ]


def _word(figure: Figure) -> str:
    """A switch is on where it is expected to be on, and a fact is true."""
    if isinstance(figure.value, bool) and figure.expected in ("on", "off"):
        return "on" if figure.value else "off"
    return words.value(figure.value)


def _cells(owners: Sequence[str], texts: Sequence[str], verdicts: Sequence[str]) -> tuple[Cell, ...]:
    """One a GPU; one for all where they are the same."""
    if len(set(texts)) == 1 and len(set(verdicts)) == 1:
        whole = len(owners) > 1 and all(owners) and len(set(owners)) == len(owners)
        what = "GPUs" if owners[0].startswith("GPU") else "processes"
        of = f"all {len(owners)} {what}" if whole else owners[0] if len(owners) == 1 else ""
        return (Cell(of, texts[0], verdicts[0]),)
    return tuple(Cell(*cell) for cell in zip(owners, texts, verdicts, strict=True))


def _expected(owners: Sequence[str], texts: Sequence[str]) -> tuple[Cell, ...]:
    """The same of all GPUs is said once, and not of whom."""
    if not any(texts):
        return ()
    cells = _cells(owners, texts, [""] * len(texts))
    if len(cells) == 1:
        return (Cell("", cells[0].text),)
    # What a bound is a share of differs with it, and stands with the source.
    return tuple(replace(cell, text=cell.text.partition(" (")[0]) for cell in cells)
