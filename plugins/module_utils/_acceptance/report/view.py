# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as a page shows it: what comes first, what needs attention, a row a check, what was not made and why. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import judgement
from ..check import Group
from ..record import BURN_IN, CPU, Entry, Run, State
from ..verdicts import Label, Verdict
from . import facts, figures, tiles, words
from .reading import Reading, number

_SIDES = {
    Label.CPU: "This run was made on the processor, without any GPU. It proves that the programs work, and nothing about GPUs.",
    Label.SIMULATED: "The GPUs of this run are simulated: its figures are invented. It shows how a machine would be judged.",
}
_SUITES = {"quick": "quick suite", "full": "full suite", "demo": "demonstration", BURN_IN: "burn-in"}


@dataclass(frozen=True, slots=True)
class Row:
    """One check.

    Attributes:
        anchor: for links in the page.
        label: what it was made on, where that differs from the run.
    """

    anchor: str
    name: str
    title: str
    verdict: str
    says: str
    advice: str
    about: str
    expects: str
    took: str
    label: str
    waived: str
    lines: tuple[figures.Line, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A share of all checks in the bar of coverage."""

    kind: str
    name: str
    count: int


def rows(run: Run) -> list[Row]:
    """One a check, in the order of the run."""
    return [_row(entry, position, run.label) for position, entry in enumerate(run.entries)]


def _row(entry: Entry, position: int, label: Label) -> Row:
    result = entry.result
    return Row(
        anchor=f"check-{position}",
        name=entry.name,
        title=entry.title or entry.name,
        verdict=str(result.verdict),
        says=words.sentence(result.says),
        advice=words.sentence(result.advice),
        about=words.sentence(entry.about),
        expects=words.sentence(entry.expects),
        took=words.long(entry.seconds) if entry.seconds else "",
        label="" if entry.label is label else str(entry.label) or "hardware",
        waived=words.sentence(entry.waived),
        lines=figures.lines(result.figures),
    )


def attention(all_rows: Sequence[Row]) -> list[Row]:
    """What somebody has to look at, the gravest first."""
    wanted = [row for row in all_rows if row.verdict in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN)]
    return sorted(wanted, key=lambda row: figures.GRAVITY.index(Verdict(row.verdict)))


def grouped(run: Run, all_rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The checks that looked at something, by group, in the order of a run."""
    known = [str(group) for group in Group]
    found: dict[str, list[Row]] = {}
    for entry, row in zip(run.entries, all_rows, strict=True):
        if entry.ran:
            found.setdefault(entry.group, []).append(row)
    return sorted(found.items(), key=lambda pair: known.index(pair[0]) if pair[0] in known else len(known))


def apart(run: Run, all_rows: Sequence[Row]) -> dict[str, list[tuple[str, str, list[Row]]]]:
    """What looked at nothing: gaps, waived, and not applicable; those of one reason together."""
    found: dict[str, dict[tuple[str, str], list[Row]]] = {"gaps": {}, "waived": {}, "nothing": {}}
    for entry, row in zip(run.entries, all_rows, strict=True):
        if entry.ran:
            continue
        kind = "nothing" if not entry.result.applies else "waived" if entry.waived else "gaps"
        why = (row.waived or row.says, "") if kind == "waived" else (row.says, row.advice)
        found[kind].setdefault(why, []).append(row)
    return {
        kind: [(says, advice, some) for (says, advice), some in reasons.items()]
        for kind, reasons in found.items()
    }


def parts(run: Run) -> list[Part]:
    """How the checks are divided."""
    ran = [entry for entry in run.entries if entry.ran]
    names = {
        Verdict.PASS: "passed",
        Verdict.WARN: "warned",
        Verdict.FAIL: "failed",
        Verdict.UNKNOWN: "unclear",
    }
    found = [
        Part(str(verdict), name, sum(entry.result.verdict is verdict for entry in ran))
        for verdict, name in names.items()
    ]
    found.append(Part("SKIP", "not made", sum(entry.is_gap for entry in run.entries)))
    waived = sum(bool(entry.waived) and entry.result.applies and not entry.ran for entry in run.entries)
    return [part for part in [*found, Part("waived", "waived", waived)] if part.count]


def band(run: Run) -> dict[str, Any]:
    """The verdict as it stands at the top."""
    judged = judgement.judge(run.entries, run.label)
    notes = []
    if run.state is State.INTERRUPTED:
        notes.append("The run was interrupted before its end.")
    elif run.state is State.RUNNING:
        notes.append("The run has not come to its end: it is still going on, or it was killed.")
    stopped = (run.burn_in or {}).get("stopped")
    if stopped:
        notes.append(words.sentence(f"The burn-in was stopped: {stopped}"))
    # What the label means is said beside it, not in the sentence once more.
    says = judgement.judge(run.entries, Label.HARDWARE).says
    return {
        "label": str(run.label),
        "checks": str(judged.checks),
        "word": str(run.label or judged.checks),
        "says": words.sentence(says),
        "aside": _SIDES.get(run.label, ""),
        "notes": notes,
    }


def sources(run: Run) -> list[tuple[str, str, bool]]:
    """Where expectations come from: source, what for, and whether it is settled."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in run.entries:
        for figure in entry.result.figures if entry.ran else ():
            if figure.source and figure.expected:
                names = found.setdefault(figure.source, {}).setdefault(entry.title, [])
                if figure.name not in names:
                    names.append(figure.name)
    return [
        (
            source,
            "; ".join(f"{title} ({', '.join(names)})" for title, names in used.items()),
            any(word in source.lower() for word in ("proposal", "unverified", "community")),
        )
        for source, used in found.items()
    ]


def owner(run: Run) -> list[tuple[str, str]]:
    """Targets and thresholds of the owner's own."""
    found = []
    for section in ("targets", "limits"):
        told = run.profile.get(section)
        for name, value in told.items() if isinstance(told, Mapping) else ():
            text = words.value(value)
            share = number(value)
            if name in ("scaling_efficiency", "utilization") and share is not None:
                text = words.value(round(100 * share, 1), "%")
            found.append((f"{section.removesuffix('s')}: {str(name).replace('_', ' ')}", text))
    return found


def page(found: Reading) -> dict[str, Any]:
    """Everything the page shows, but for its charts."""
    run = found.run
    all_rows = rows(run)
    covered = judgement.coverage(run.entries)
    end = run.end if run.end is not None else (found.samples[-1].at if found.samples else None)
    return {
        "run": run,
        "kind": _SUITES.get(run.suite, run.suite),
        "on": "on the CPU" if run.device == CPU else "",
        "machine_name": str(
            run.machine.get("name") or run.machine.get("hostname") or "a machine without a name"
        ),
        "gpu_names": facts.gpu_names(run),
        "when": words.when(run.begin),
        "took": words.long(end - run.begin) if end is not None and end > run.begin else "",
        "band": band(run),
        "coverage": covered,
        "parts": parts(run),
        "tiles": tiles.of(found),
        "attention": attention(all_rows),
        "groups": grouped(run, all_rows),
        "gaps": sum(entry.is_gap for entry in run.entries),
        "apart": apart(run, all_rows),
        "machine": facts.machine(run),
        "gpus": facts.gpu_rows(run),
        "versions": [(str(name), str(version)) for name, version in run.versions.items() if version],
        "profile": json.dumps(run.profile, indent=2, ensure_ascii=False),
        "declared": bool(run.profile.get("gpus") or run.profile.get("expected")),
        "sources": sources(run),
        "owner": owner(run),
        "burn_in": facts.burn_in(run),
        "digest": found.digest,
        "unread": found.unread,
    }
