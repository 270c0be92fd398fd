# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run comes to: how much of it was looked at, one verdict, and whether that says anything about hardware.

Pure. Nothing that was not looked at is ever green: one gap is enough for UNKNOWN, unless something failed.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .record import Entry
from .verdicts import Label, Verdict

EXIT_STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.WARN: 3, Verdict.UNKNOWN: 4, Verdict.SKIP: 4}
"""What `gpu-acceptance` ends with. 2 is for a command line or an input that cannot be used."""
USAGE = 2
INTERRUPTED = 130

_NO_HARDWARE = {
    Label.CPU: "the run was on the CPU, which is no verdict on hardware",
    Label.SIMULATED: "the GPUs are simulated, which is no verdict on hardware",
}
_MOST_NAMES = 6


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much was looked at.

    Attributes:
        checks: all of the run.
        apply: those for which there is something on this machine.
        ran: those of them that looked at something.
        waived: those of them that were not to be made.
    """

    checks: int
    apply: int
    ran: int
    waived: int
    says: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a run comes to.

    Attributes:
        hardware: None where the run was not on hardware.
        says: one sentence without a full stop.
    """

    checks: Verdict
    hardware: Verdict | None
    says: str


def coverage(entries: Sequence[Entry]) -> Coverage:
    """How much was looked at."""
    apply = [entry for entry in entries if entry.result.applies]
    ran = sum(entry.ran for entry in apply)
    waived = sum(bool(entry.waived) and not entry.ran for entry in apply)
    says = f"{ran} of {len(apply)} checks ran"
    return Coverage(len(entries), len(apply), ran, waived, f"{says}, {waived} waived" if waived else says)


def overall(entries: Sequence[Entry]) -> Verdict:
    """One verdict for all checks."""
    found = {entry.result.verdict for entry in entries if entry.ran}
    if Verdict.FAIL in found:
        return Verdict.FAIL
    if not found or Verdict.UNKNOWN in found or any(entry.is_gap for entry in entries):
        return Verdict.UNKNOWN
    return Verdict.WARN if Verdict.WARN in found else Verdict.PASS


def judge(entries: Sequence[Entry], label: Label) -> Judgement:
    """What the run comes to.

    Args:
        entries: all its checks.
        label: what it was made on.
    """
    verdict = overall(entries)
    says = _says(verdict, entries)
    if label is Label.HARDWARE:
        return Judgement(verdict, verdict, says)
    return Judgement(verdict, None, f"{label}: {says}; {_NO_HARDWARE[label]}")


def _says(verdict: Verdict, entries: Sequence[Entry]) -> str:
    found = coverage(entries)
    failed = [entry.name for entry in entries if entry.ran and entry.result.verdict is Verdict.FAIL]
    unclear = [entry.name for entry in entries if entry.ran and entry.result.verdict is Verdict.UNKNOWN]
    warned = [entry.name for entry in entries if entry.ran and entry.result.verdict is Verdict.WARN]
    gaps = [entry.name for entry in entries if entry.is_gap]
    parts: list[str] = []
    if verdict is Verdict.PASS:
        says = "the check passed" if found.ran == 1 else f"all {found.ran} checks that ran passed"
        return f"{says}, {found.waived} waived" if found.waived else says
    if not found.ran:
        return f"none of {_checks(found.checks)} ran"
    if failed:
        parts.append(f"{_checks(len(failed))} failed ({_names(failed)})")
    if unclear:
        parts.append(f"{_checks(len(unclear))} could not be judged ({_names(unclear)})")
    if gaps:
        made = "was" if len(gaps) == 1 else "were"
        parts.append(f"{_checks(len(gaps))} of {found.apply} {made} not made ({_names(gaps)})")
    if warned:
        parts.append(f"{_checks(len(warned))} warned ({_names(warned)})")
    return "; ".join(parts)


def _checks(count: int) -> str:
    return f"{count} check" if count == 1 else f"{count} checks"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
