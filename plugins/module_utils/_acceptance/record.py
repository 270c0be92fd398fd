# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as data: what it was made on, and what came of each check.

Pure. `document` makes JSON of it, `judgement` says what it comes to.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .check import Check
from .verdicts import Label, Result, Verdict, skipped

BURN_IN = "burn-in"
"""The suite of a burn-in; the others are in `check`."""

CUDA, CPU = "cuda", "cpu"
DEVICES = (CUDA, CPU)


class State(StrEnum):
    """How far a run has come. One that was killed stays `RUNNING` for ever."""

    RUNNING = "running"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Entry:
    """One check of a run and what came of it.

    Attributes:
        begin: seconds since the epoch; None: it was not begun.
        waived: the reason for which it was not to be made; empty: it is not waived.
    """

    name: str
    title: str
    group: str
    about: str
    expects: str
    result: Result
    label: Label = Label.HARDWARE
    waived: str = ""
    begin: float | None = None
    seconds: float = 0.0

    @property
    def ran(self) -> bool:
        """Whether something was looked at."""
        return self.result.applies and self.result.verdict is not Verdict.SKIP

    @property
    def is_gap(self) -> bool:
        """Whether it should have been made, was not, and nobody decided so."""
        return self.result.applies and not self.waived and not self.ran


def entry(
    check: Check,
    result: Result,
    *,
    label: Label = Label.HARDWARE,
    waived: str = "",
    begin: float | None = None,
    seconds: float = 0.0,
) -> Entry:
    """A check with its result."""
    return Entry(
        check.name,
        check.title,
        str(check.group),
        check.about,
        check.expects,
        result,
        label,
        waived,
        begin,
        seconds,
    )


def planned(check: Check) -> Entry:
    """A check that the run has not come to yet: a gap until it has."""
    return entry(check, skipped("the run has not come to this check"))


def label_of(*, device: str, simulated: bool) -> Label:
    """On what a result was obtained. What a simulated machine says is simulated on the CPU, too."""
    if simulated:
        return Label.SIMULATED
    return Label.CPU if device == CPU else Label.HARDWARE


def label_of_all(labels: Iterable[Label]) -> Label:
    """A whole is no better than the least of its parts."""
    order = (Label.HARDWARE, Label.CPU, Label.SIMULATED)
    return max(labels, key=order.index, default=Label.HARDWARE)


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        id: also the name of its folder.
        suite: quick, full, demo or burn-in.
        device: cuda or cpu.
        begin: seconds since the epoch; so is `end`, None until there is one.
        machine: what it was made on, as in docs/acceptance.schema.json.
        versions: of this collection, Python and the frameworks.
        profile: what was declared, as in the profile's file.
        entries: one a check, in the order of the run; those that it has not come to, too.
        burn_in: what a burn-in adds, as in docs/acceptance.schema.json; None: it is none.
    """

    id: str
    suite: str
    device: str
    label: Label
    state: State
    begin: float
    end: float | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    burn_in: Mapping[str, Any] | None = None
