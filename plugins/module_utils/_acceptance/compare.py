# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs side by side: what differs in the machines, which verdicts and figures changed, and what of it is a regression.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Union

from .document import plain
from .record import Entry, Run, State
from .verdicts import Figure, Verdict

TOLERANCE = 0.05
"""A figure that is worse by no more than this share is none: two runs on one machine differ by as much."""

_RANK = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.SKIP: 2, Verdict.UNKNOWN: 3, Verdict.FAIL: 4}
"""A check that was made and is not any more is worse off: what it proved is not proved any more."""

Value = Union[float, int, str, bool, None]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that both runs, or one of them, have.

    Attributes:
        figure: empty: the row is of the check's verdict.
        change_percent: None where there is no number to compare.
        regression: worse than before by more than the tolerance.
        improvement: better by as much.
        note: what is to be said of it, such as that it is gone.
    """

    check: str
    figure: str
    gpu: int | None
    unit: str
    before: Value
    after: Value
    change_percent: float | None = None
    regression: bool = False
    improvement: bool = False
    note: str = ""

    @property
    def changed(self) -> bool:
        """Whether the two differ."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs.

    Attributes:
        before: the id of the first run; `after` of the second.
        differences: what is not the same about the two runs themselves, each a sentence without a full stop.
        rows: in the order of the checks; the row of a verdict stands before those of its figures.
    """

    before: str
    after: str
    differences: tuple[str, ...]
    rows: tuple[Row, ...]
    tolerance: float = TOLERANCE

    @property
    def regressions(self) -> tuple[Row, ...]:
        """What became worse."""
        return tuple(row for row in self.rows if row.regression)

    def as_data(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "schema": 1,
            "before": self.before,
            "after": self.after,
            "tolerance_percent": round(self.tolerance * 100, 3),
            "differences": list(self.differences),
            "regressions": len(self.regressions),
            "rows": [plain(asdict(row)) for row in self.rows],
        }


def compare(before: Run, after: Run, tolerance: float = TOLERANCE) -> Comparison:
    """Two runs side by side.

    Args:
        before: the one that is compared with.
        after: the one that is looked at.
        tolerance: share by which a figure may be worse and is no regression.
    """
    earlier = {entry.name: entry for entry in before.entries}
    later = {entry.name: entry for entry in after.entries}
    names = [*earlier, *(name for name in later if name not in earlier)]
    same = before.suite == after.suite
    rows = [
        row
        for name in names
        for row in _check(name, earlier.get(name), later.get(name), tolerance, same=same)
    ]
    return Comparison(before.id, after.id, tuple(_differences(before, after)), tuple(rows), tolerance)


def _differences(before: Run, after: Run) -> Iterator[str]:
    """What makes the figures of two runs incomparable, the weightiest first."""
    if before.label != after.label:
        yield f"the first run was on {_on(before)}, the second on {_on(after)}: their figures say nothing of each other"
    elif before.device != after.device:
        yield f"the first run was on {before.device}, the second on {after.device}"
    for key, title in (
        ("name", "machine"),
        ("board", "mainboard"),
        ("cpu", "processor"),
        ("driver", "driver"),
        ("flavour", "kernel module"),
        ("cuda", "CUDA of the driver"),
        ("system", "system"),
        ("kernel", "kernel"),
    ):
        one, other = before.machine.get(key), after.machine.get(key)
        if one != other:
            yield f"another {title}: {one or 'none'}, then {other or 'none'}"
    yield from _gpus(before, after)
    for name in sorted({*before.versions, *after.versions}):
        one, other = before.versions.get(name), after.versions.get(name)
        if one and other and one != other:
            yield f"another version of {name}: {one}, then {other}"
    if before.suite != after.suite:
        yield f"another suite: {before.suite}, then {after.suite}; its workloads may be of another size"
    for run, which in ((before, "first"), (after, "second")):
        if run.state is not State.COMPLETE:
            yield f"the {which} run is not complete ({run.state})"


def _on(run: Run) -> str:
    return {"": "hardware", "CPU": "the CPU", "SIMULATED": "simulated GPUs"}[run.label]


def _gpus(before: Run, after: Run) -> Iterator[str]:
    models = [
        Counter(str(gpu.get("model") or gpu.get("name")) for gpu in run.machine.get("gpus") or [])
        for run in (before, after)
    ]
    if models[0] != models[1]:
        yield f"other GPUs: {_counted(models[0])}, then {_counted(models[1])}"
        return
    one, other = (
        {str(gpu["uuid"]) for gpu in run.machine.get("gpus") or [] if gpu.get("uuid")}
        for run in (before, after)
    )
    if one != other and one and other:
        yield f"other cards of the same model: {len(other - one)} of {len(other)} were not there before"


def _counted(models: Counter[str]) -> str:
    return ", ".join(f"{count} x {model}" for model, count in sorted(models.items())) or "none"


def _check(
    name: str, before: Entry | None, after: Entry | None, tolerance: float, *, same: bool
) -> Iterator[Row]:
    """The rows of one check; `same`: whether both runs are of one suite."""
    yield _verdict(name, before, after, same=same)
    earlier = _by_key(before.result.figures if before else ())
    later = _by_key(after.result.figures if after else ())
    # What a check that was not made cannot tell is said once, in the row of its verdict.
    made = after is not None and after.ran
    for key in [*earlier, *(key for key in later if key not in earlier)]:
        if key in earlier and key not in later and not made:
            continue
        shown = later.get(key) or earlier[key]
        yield _figure(name, shown, earlier.get(key), later.get(key), tolerance, same=same)


def _verdict(name: str, before: Entry | None, after: Entry | None, *, same: bool) -> Row:
    one = before.result.verdict if before else None
    other = after.result.verdict if after else None
    note = ""
    worse = better = False
    if after is None:
        note = _gone("check", same=same)
        worse = same and before is not None and before.ran
    elif before is None:
        note = "the first run has no such check"
    elif one is not None and other is not None:
        # What does not apply is nothing that anybody could have lost or won.
        counts = before.result.applies and after.result.applies
        worse = counts and _RANK[other] > _RANK[one]
        better = counts and _RANK[other] < _RANK[one]
        note = after.result.says if one != other else ""
    return Row(
        name,
        "",
        None,
        "",
        None if one is None else str(one),
        None if other is None else str(other),
        None,
        worse,
        better,
        note,
    )


def _by_key(figures: Iterable[Figure]) -> dict[tuple[str, int | None, int], Figure]:
    """Figures by name and GPU; of those that have both in common, by their place."""
    seen: Counter[tuple[str, int | None]] = Counter()
    found: dict[tuple[str, int | None, int], Figure] = {}
    for figure in figures:
        key = (figure.name, figure.gpu)
        found[(*key, seen[key])] = figure
        seen[key] += 1
    return found


def _gone(what: str, *, same: bool) -> str:
    """What another suite does not look at, or not in this size, is not lost."""
    return f"the second run has no such {what}" + ("" if same else "; it is of another suite")


def _figure(
    check: str, shown: Figure, before: Figure | None, after: Figure | None, tolerance: float, *, same: bool
) -> Row:
    values = (before.value if before else None, after.value if after else None)
    change = _change(*values) if before and after and before.unit == after.unit else None
    better = shown.better
    worse_by = {"higher": -(change or 0.0), "lower": change or 0.0}.get(better, 0.0)
    note = ""
    if after is None:
        note = _gone("figure", same=same)
    elif before is None:
        note = "the first run has no such figure"
    elif before.unit != after.unit:
        note = f"another unit: {before.unit or 'none'}, then {after.unit or 'none'}"
    elif before.value is not None and after.value is None:
        note = "no reading any more"
    known = after is not None or same
    lost = known and bool(better) and before is not None and before.value is not None and values[1] is None
    return Row(
        check,
        shown.name,
        shown.gpu,
        shown.unit,
        *values,
        change,
        regression=lost or worse_by > tolerance * 100 or _from_nothing(values, better),
        improvement=worse_by < -tolerance * 100,
        note=note,
    )


def _change(before: Value, after: Value) -> float | None:
    numbers = [one for one in (before, after) if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(numbers) < 2 or numbers[0] == 0:
        return None
    return round((numbers[1] - numbers[0]) / abs(numbers[0]) * 100, 2)


def _from_nothing(values: tuple[Value, Value], better: str) -> bool:
    """A counter of errors that was zero and is not any more has no change in per cent."""
    one, other = values
    return (
        better == "lower"
        and one == 0
        and not isinstance(one, bool)
        and isinstance(other, (int, float))
        and other > 0
    )


def lines(comparison: Comparison, *, everything: bool = False) -> list[str]:
    """A table for a terminal: what differs about the runs first, then what changed.

    Args:
        comparison: the two runs.
        everything: rows without a change, too.
    """
    found = [f"before  {comparison.before}", f"after   {comparison.after}"]
    if comparison.differences:
        found += [
            "",
            "The two runs are not of the same thing:",
            *(f"  {one}" for one in comparison.differences),
        ]
    rows = [row for row in comparison.rows if everything or row.regression or row.improvement or _moved(row)]
    if rows:
        found += ["", *_table([_cells(row) for row in rows])]
    count = len(comparison.regressions)
    unchanged = len(comparison.rows) - len(rows)
    rest = "1 row without a change is" if unchanged == 1 else f"{unchanged} rows without a change are"
    found += ["", f"{rest} not shown"] if unchanged else [""]
    found.append(
        f"{count} regression{'' if count == 1 else 's'} (worse by more than {comparison.tolerance:.1%})"
        if count
        else f"no regression (nothing is worse by more than {comparison.tolerance:.1%})"
    )
    return found


def _moved(row: Row) -> bool:
    """Whether it is worth a line although it is neither better nor worse."""
    return row.changed and (
        not row.figure or not isinstance(row.after, (int, float)) or isinstance(row.after, bool)
    )


def _cells(row: Row) -> list[str]:
    gpu = "" if row.gpu is None else f"GPU {row.gpu}"
    change = "" if row.change_percent is None else f"{row.change_percent:+.1f} %"
    mark = "REGRESSION" if row.regression else "better" if row.improvement else ""
    return [
        mark,
        row.check,
        row.figure or "verdict",
        gpu,
        _shown(row.before, row.unit),
        _shown(row.after, row.unit),
        change,
        row.note,
    ]


def _shown(value: Value, unit: str) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head = ["", "check", "figure", "", "before", "after", "change", ""]
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = (4, 5, 6)
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
