# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs as a page shows them side by side: what makes them incomparable first, then what became worse, then better. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import compare, judgement
from ..record import Run
from . import facts, words
from .reading import number


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict or a figure, before and after.

    Attributes:
        kind: worse, better, other or same.
        verdicts: whether before and after are verdicts, which are shown as such.
        width: of the bar that shows the change, in per cent of its half; 100 is a change by half or more.
    """

    title: str
    what: str
    before: str
    after: str
    unit: str
    change: str
    kind: str
    note: str
    verdicts: bool = False
    width: float = 0.0


def page(before: Run, after: Run, tolerance: float = compare.TOLERANCE) -> dict[str, Any]:
    """Everything that the page shows."""
    found = compare.compare(before, after, tolerance)
    titles = {entry.name: entry.title or entry.name for run in (before, after) for entry in run.entries}
    changes = [_change(row, titles) for row in found.rows]
    worse = [change for change in changes if change.kind == "worse"]
    labels = [str(run.label) for run in (before, after) if run.label]
    return {
        "before": _side(before),
        "after": _side(after),
        "title": f"{_name(before)} / {_name(after)}",
        "labels": list(dict.fromkeys(labels)),
        "differences": [words.sentence(one) for one in found.differences],
        "word": _word(len(worse)),
        "worse": worse,
        "better": [change for change in changes if change.kind == "better"],
        "other": [change for change in changes if change.kind == "other"],
        "same": sum(change.kind == "same" for change in changes),
        "tolerance": words.value(round(100 * tolerance, 2), "%"),
    }


def _word(count: int) -> str:
    return words.count(count, "regression") if count else "No regression"


def _name(run: Run) -> str:
    return str(run.machine.get("name") or run.machine.get("hostname") or run.id)


def _side(run: Run) -> dict[str, Any]:
    judged = judgement.judge(run.entries, run.label)
    return {
        "name": _name(run),
        "id": run.id,
        "when": words.when(run.begin),
        "gpus": facts.gpu_names(run),
        "driver": str(run.machine.get("driver") or words.NOTHING),
        "suite": run.suite,
        "label": str(run.label),
        "verdict": str(judged.checks),
        "coverage": judgement.coverage(run.entries).says,
    }


def _change(row: compare.Row, titles: dict[str, str]) -> Change:
    kind = "worse" if row.regression else "better" if row.improvement else "other" if row.changed else "same"
    verdicts = not row.figure
    before, after = _texts((row.before, row.after))
    what = "verdict" if verdicts else row.figure + ("" if row.gpu is None else f", GPU {row.gpu}")
    percent = row.change_percent
    return Change(
        titles.get(row.check, row.check),
        what,
        before,
        after,
        row.unit,
        "" if percent is None else f"{percent:+.1f}{words.THIN}%".replace("-", "−"),
        kind,
        words.sentence(row.note),
        verdicts,
        0.0 if percent is None else round(min(100.0, abs(percent) * 2), 1),
    )


def _texts(values: Sequence[compare.Value]) -> list[str]:
    numbers = [number(value) for value in values]
    if all(one is not None for one in numbers):
        return words.alike([one for one in numbers if one is not None])
    return [words.NOTHING if value is None else words.value(value) for value in values]
