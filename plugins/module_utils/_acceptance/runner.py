# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the checks of a run one after the other, and keeps the run's document whole after each.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import needs, store
from .check import CannotLook, Check, Need
from .interrupts import Interrupted
from .machine import Machine
from .progress import Progress
from .record import CPU, Entry, Run, State, entry, label_of, label_of_all, planned
from .selection import Selected
from .verdicts import Result, skipped, unknown


class Runner:
    """One run.

    Args:
        machine: what is looked at.
        run: the run as it begins; its entries are made here.
        selected: its checks.
        progress: where it is shown.
        write: keeps the run, called after every check.
    """

    def __init__(
        self,
        machine: Machine,
        run: Run,
        selected: Sequence[Selected],
        progress: Progress,
        write: Callable[[Path, Run], None] = store.write,
    ) -> None:
        self._machine = machine
        self._selected = selected
        self._progress = progress
        self._write = write
        self._simulated = bool(machine.facts.get("simulated"))
        label = label_of(device=machine.device, simulated=self._simulated)
        entries = tuple(replace(planned(one.check), label=label) for one in selected)
        self.run = replace(run, label=label, entries=entries)

    def go(self) -> Run:
        """Make all checks. An interrupt ends the check that is being made, and the run is kept with what there is."""
        self._keep()
        self._progress.plan(len(self._selected), self._seconds())
        try:
            for number, one in enumerate(self._selected):
                self._progress.begin(one.check, number + 1)
                made = self._make(one)
                self._put(number, made)
                self._machine.results = {**self._machine.results, one.check.name: made.result}
                self._keep()
                self._progress.end(made)
        except Interrupted:
            self._break_off()
        else:
            self.run = replace(self.run, state=State.COMPLETE, end=time.time())
        # What there is of the run is kept before anything else is tried.
        self._keep()
        self._progress.close()
        return self.run

    def _seconds(self) -> float:
        """About how long it takes. What cannot be made at all is not waited for."""
        waived, on_cpu = self._machine.profile.waived, self._machine.device == CPU
        return sum(
            one.check.seconds
            for one in self._selected
            if not one.left_out
            and one.check.name not in waived
            and not (on_cpu and Need.GPU in one.check.needs)
        )

    def _make(self, one: Selected) -> Entry:
        check, machine = one.check, self._machine
        waived = machine.profile.waived.get(check.name, "")
        machine.check, machine.simulated_workload = check.name, False
        begin, start = time.time(), time.monotonic()
        if waived:
            result = skipped(f"waived: {waived}")
        elif one.left_out:
            result = skipped(one.left_out, "make a run without it")
        else:
            result = self._look(check)
        return entry(
            check,
            result,
            label=label_of(device=machine.device, simulated=self._simulated or machine.simulated_workload),
            waived=waived,
            begin=begin,
            seconds=time.monotonic() - start,
        )

    def _look(self, check: Check) -> Result:
        try:
            return needs.unmet(check, self._machine, self._machine.missing) or check.run(self._machine)
        except CannotLook as problem:
            return skipped(problem.why, problem.advice)
        except Exception as problem:
            return self._defect(check, problem)

    def _defect(self, check: Check, problem: Exception) -> Result:
        """A defect of ours must not end the run, and must not look like one of the machine."""
        log = self._machine.folder / store.ERRORS
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{check.name}\n{''.join(traceback.format_exception(problem))}\n")
        except OSError:
            return unknown(
                f"the check itself failed: {type(problem).__name__} in {where}",
                "report this defect of gpumesh.fleet",
            )
        return unknown(
            f"the check itself failed: {type(problem).__name__} in {where}",
            f"report this defect of gpumesh.fleet with {log}",
        )

    def _put(self, number: int, made: Entry) -> None:
        entries = (*self.run.entries[:number], made, *self.run.entries[number + 1 :])
        label = label_of_all([self.run.label, *(one.label for one in entries)])
        versions = {**self.run.versions, **self._machine.versions}
        self.run = replace(self.run, entries=entries, label=label, versions=versions)

    def _break_off(self) -> None:
        """What was not made says so."""
        done = set(self._machine.results)
        entries = tuple(
            one
            if one.name in done
            else replace(one, result=skipped("the run was interrupted before its end"))
            for one in self.run.entries
        )
        self.run = replace(self.run, entries=entries, state=State.INTERRUPTED, end=time.time())

    def _keep(self) -> None:
        self._write(self._machine.folder, self.run)
