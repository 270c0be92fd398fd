# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as text for a terminal: the verdict, every check with what to do about it, the coverage, and the verdict once more.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from .judgement import coverage, judge
from .paint import Paint, duration, wrapped
from .record import Entry, Run, State
from .selection import LEFT_OUT
from .verdicts import Verdict

_WORD = 7
_SEVERAL = 3
"""As many checks that were skipped for one reason are shown as one."""


def lines(run: Run, paint: Paint, width: int) -> list[str]:
    """The lines.

    Args:
        run: what came of it.
        paint: colours, or none.
        width: columns there are.
    """
    verdict = _verdict(run, paint, width)
    state = {
        State.COMPLETE: "",
        State.INTERRUPTED: "The run was interrupted: this is what was looked at until then.",
        State.RUNNING: "The run has not ended, or was killed: this is what was looked at so far.",
    }[run.state]
    return [
        *verdict,
        "",
        *_head(run),
        *([paint(state, "bold", "yellow")] if state else []),
        *_checks(run.entries, paint, width),
        "",
        f"{coverage(run.entries).says}{_not_applicable(run.entries)}",
        *verdict,
    ]


def _verdict(run: Run, paint: Paint, width: int) -> list[str]:
    judged = judge(run.entries, run.label)
    first, *more = wrapped(judged.says, width, _WORD + 1)
    return [f"{paint.verdict(judged.checks, run.label, _WORD)} {first}", *more]


def _not_applicable(entries: Sequence[Entry]) -> str:
    count = sum(not entry.result.applies for entry in entries)
    return f"; {count} more {'does' if count == 1 else 'do'} not apply to this machine" if count else ""


def _head(run: Run) -> Iterator[str]:
    machine = run.machine
    gpus = Counter(
        str(gpu.get("model") or gpu.get("name") or "unknown GPU") for gpu in machine.get("gpus") or []
    )
    driver = f"driver {machine['driver']}" if machine.get("driver") else "no driver"
    flavour = f" {machine['flavour']}" if machine.get("flavour") else ""
    what = (
        machine.get("name"),
        ", ".join(f"{count} x {model}" for model, count in sorted(gpus.items())) or "no GPU",
        f"{driver}{flavour}",
        machine.get("system"),
    )
    yield f"machine  {', '.join(str(one) for one in what if one)}"
    took = f", {duration(run.end - run.begin)}" if run.end is not None else ""
    yield f"run      {run.id}: suite {run.suite} on {run.device}{took}"


def _checks(entries: Sequence[Entry], paint: Paint, width: int) -> Iterator[str]:
    shown = [entry for entry in entries if not entry.result.says.startswith(LEFT_OUT)]
    names = max((len(entry.name) for entry in shown), default=0)
    for group, several in groupby(shown, key=lambda entry: entry.group):
        yield ""
        yield paint(group, "bold")
        for alike in _alike(list(several)):
            if len(alike) < _SEVERAL:
                for entry in alike:
                    yield from _check(entry, names, paint, width)
            else:
                yield from _together(alike, paint, width)
    if count := len(entries) - len(shown):
        yield ""
        yield f"{count} more {'check was' if count == 1 else 'checks were'} left out with --only or --skip"


def _alike(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Those that were skipped for the same reason, one after the other."""
    found: list[list[Entry]] = []
    for entry in entries:
        last = found[-1][-1] if found else None
        if last and not entry.ran and last.result == entry.result:
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


def _together(entries: Sequence[Entry], paint: Paint, width: int) -> Iterator[str]:
    """Many checks with one reason."""
    result = entries[0].result
    indent = 2 + _WORD + 1
    says = result.says if result.applies else f"does not apply: {result.says}"
    first, *more = wrapped(f"{len(entries)} checks: {says}", width, indent)
    yield f"  {paint.verdict(result.verdict, entries[0].label, _WORD)} {first}"
    yield from more
    first, *more = wrapped(", ".join(entry.name for entry in entries), width, indent)
    yield f"{' ' * indent}{first}"
    yield from more
    yield from _advice(result.advice, indent, paint, width)


def _advice(advice: str, indent: int, paint: Paint, width: int) -> Iterator[str]:
    if not advice:
        return
    first, *more = wrapped(f"→ {advice}", width, indent + 2)
    yield f"{' ' * indent}{paint(first, 'bold')}"
    yield from (paint(line, "bold") for line in more)


def _check(entry: Entry, names: int, paint: Paint, width: int) -> Iterator[str]:
    result = entry.result
    indent = 2 + _WORD + 1 + names + 2
    says = result.says if result.applies else f"does not apply: {result.says}"
    first, *more = wrapped(says, width, indent)
    yield f"  {paint.verdict(result.verdict, entry.label, _WORD)} {entry.name:<{names}}  {first}"
    yield from more
    if result.verdict is not Verdict.PASS:
        yield from _advice(result.advice, indent, paint, width)
