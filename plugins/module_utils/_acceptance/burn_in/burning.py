# SPDX-License-Identifier: GPL-3.0-or-later
"""Begins a burn-in or goes on with one, in this process, and keeps its document.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from ..._fleet.errors import FleetError
from ..._host.gpu_programs import run as run_program
from .. import compute, judgement, junit, machine_words, store, table
from ..check import PYTORCH
from ..machine import Machine
from ..paint import Paint, is_coloured, width
from ..profile import Profile
from ..record import BURN_IN, CPU, CUDA, Run
from ..run_command import load_profile
from ..workloads import path_of
from . import guard, outcome, runs, service
from .ledger import ASKED
from .plan import RECORDS, STOP, Plan
from .recorder import Recorder
from .records import Tally
from .supervisor import INTERRUPTED, TERMINATED, Supervisor, uptime

_DOCUMENT_EVERY_S = 60.0
_LINE_EVERY_S = 60.0
_ANSWER_S = 300.0
"""So long after a start of the machine, or of a new driver, its GPUs may not answer yet."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Burning:
    """A burn-in that this process is at.

    Args:
        quiet: say nothing.
        attended: somebody is there who reads what is refused, and sees to it.

    Attributes:
        stop_kept: the record of its end, if there is one, is on the disk.
    """

    def __init__(
        self, folder: Path, plan: Plan, profile: Profile, *, quiet: bool, attended: bool = True
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._profile = profile
        self._quiet = quiet
        self._attended = attended
        self.stop_kept = True
        self._machine = Machine(profile, plan.device, BURN_IN, folder)
        self.tally = runs.recorded(folder)
        self._kept = self._told = 0.0
        # On the CPU nobody asks which GPUs there are.
        self._cards = guard.cards(self._machine.facts["devices"]) if plan.device == CUDA else ()
        self._words = machine_words.machine(profile, self._machine.facts)
        self._versions = {"gpumesh": machine_words.release(), **self._machine.versions}

    def commands(self) -> dict[int, list[str]]:
        """What burns each GPU; empty: those that it began with are gone for good, and there is only that to be written down.

        Raises:
            FleetError: there is no GPU, one is cut into parts, not every GPU answers at the beginning, or nobody has PyTorch.
        """
        workers = self._machine.workers
        if not workers and self._are_gone():
            return {}
        self.refuse()
        interpreter = self._interpreter()
        plan = self._plan
        shared = ["--device", plan.device, "--workers", str(workers), "--memory", f"{plan.memory:g}"]
        shared += ["--every", f"{plan.interval_s:g}", "--size", "small" if plan.device == CPU else "full"]
        return {
            gpu: [interpreter, str(path_of("burn")), *shared, "--gpu", str(gpu)] for gpu in range(workers)
        }

    def refuse(self) -> None:
        """Look whether the GPUs can burn.

        Raises:
            FleetError: there is none, one is cut into parts, not every one answers at the beginning, or nobody has PyTorch.
        """
        if not self._machine.workers:
            says = (self._machine.facts.get("driver") or {}).get("smi") or "no answer"
            raise FleetError(
                f"the driver answers for no GPU: {says}",
                hint="Run `gpu-acceptance run --suite quick`, which says what is wrong; --device cpu burns the processor",
            )
        if self._plan.device == CUDA:
            self._refuse_parts()
            if not self.tally.cards:
                self._refuse_without_all()
        self._interpreter()

    def _interpreter(self) -> str:
        found = self._machine.interpreter(PYTORCH)
        if found is None:
            why, advice = self._machine.missing(PYTORCH)
            raise FleetError(f"{why}, so nothing can burn", hint=advice[:1].upper() + advice[1:])
        return found

    def _are_gone(self) -> bool:
        """Whether the GPUs that burned will not answer any more. Whoever is there may only have to load the driver."""
        if self._attended or not self.tally.cards:
            return False
        silent = time.time() - (self.tally.ledger.end or 0.0)
        # A clock that was set back tells nothing.
        return uptime() >= _ANSWER_S and not 0 <= silent < _ANSWER_S

    def _refuse_parts(self) -> None:
        """CUDA shows a process one part of such a GPU: the rest of it would not burn, and nothing would say so."""
        found = compute.devices(self._machine)
        cut = [index for index in sorted(found) if (found[index].get("mig") or {}).get("current")]
        if cut:
            named = ", ".join(f"GPU {index}" for index in cut)
            raise FleetError(
                f"{named} {'is' if len(cut) == 1 else 'are'} cut into parts (MIG), and a part is not burned here",
                hint=f"Make the card whole: `nvidia-smi -i {','.join(map(str, cut))} -mig 0`",
            )

    def _refuse_without_all(self) -> None:
        """A GPU that is missing from the first second would be missed by nobody."""
        answering, declared = len(self._cards), sum(self._profile.gpus.values())
        there = max(self._machine.workers, int(self._machine.facts["counts"]["pci"] or 0))
        where = f"there are {there}" if there > answering else ""
        if declared and declared != answering:
            where = f"{declared} are declared"
        if where:
            raise FleetError(
                f"the driver answers for {answering} GPUs, and {where}, so a burn-in would not be one of the whole machine",
                hint="Run `gpu-acceptance run --suite quick`, which says what is wrong",
            )

    def go(self) -> str:
        """Burn; why it ended."""
        supervisor = Supervisor(
            self._plan,
            self._folder,
            self._profile,
            self.tally,
            self.commands(),
            run_program,
            self.tick,
            boot_id(),
            self._cards,
        )
        self.keep(going=True)
        why = supervisor.run()
        self.stop_kept = supervisor.stop_kept
        return why

    def end(self) -> None:
        """Somebody asked for its end while nobody was at it."""
        recorder = Recorder(self._folder / RECORDS)
        at = self.tally.ledger.end or time.time()
        record = guard.Stop(ASKED, "it was asked to end before its time", {}).as_record(at)
        recorder.write(record)
        recorder.close()
        self.tally.add(record)

    def tick(self, tally: Tally) -> None:
        """After every look: keep the document now and then, and say how it goes."""
        now = time.monotonic()
        if now - self._kept >= _DOCUMENT_EVERY_S:
            self._kept = now
            # A disk that is full now may have room again at the end.
            with contextlib.suppress(store.StoreError):
                self.keep(going=True)
        if not self._quiet and now - self._told >= _LINE_EVERY_S and tally.ticks:
            self._told = now
            # A terminal that is gone is no reason to end.
            with contextlib.suppress(OSError):
                sys.stdout.write(f"{outcome.progress(self._plan, tally)}\n")
                sys.stdout.flush()

    def keep(self, *, going: bool) -> Run:
        """The document as it is now, on the disk."""
        run = outcome.run_of(
            self._plan,
            self.tally,
            self._profile,
            gpus=tuple(range(len(self.tally.cards) or self._machine.workers)),
            machine=self._words,
            versions=self._versions,
            facts=self._machine.facts,
            going=going,
        )
        store.write(self._folder, run)
        if not going:
            store.write_text(self._folder / store.JUNIT, junit.xml(run))
        return run


def profile_of(plan: Plan) -> Profile:
    """What is declared of the machine that a plan is for."""
    return load_profile(Path(plan.profile) if plan.profile else None)


def burn(folder: Path, plan: Plan, *, as_service: bool, quiet: bool = False) -> int:
    """Begin, or go on, until it is over; the exit status that its verdict has.

    Args:
        as_service: the exit status is 0, so that systemd does not start it again because of its verdict.
    """
    profile = profile_of(plan)
    with store.alone(), runs.held(folder):
        if runs.is_over(folder):
            _say(f"{folder.name} is over already", quiet)
            return 0
        burning = Burning(folder, plan, profile, quiet=quiet, attended=not as_service)
        why = _until_it_ends(folder, burning)
        over = why not in (TERMINATED, INTERRUPTED)
        if over and not burning.stop_kept:
            # Whoever went on would not know that it has ended. To remove a file needs no room on a full disk.
            _finish(folder, plan)
            _complain(burning.tally)
        run = burning.keep(going=False)
        if over:
            _finish(folder, plan)
    if not quiet:
        _show(run, folder)
    if as_service:
        return 0
    if why in (TERMINATED, INTERRUPTED):
        return judgement.INTERRUPTED
    return judgement.EXIT_STATUS[judgement.overall(run.entries)]


def _until_it_ends(folder: Path, burning: Burning) -> str:
    stopped = burning.tally.ledger.stopped
    if stopped is None and (folder / STOP).exists():
        burning.end()
        stopped = burning.tally.ledger.stopped
    # A process that died between the stop and the document leaves only the document to be made.
    return burning.go() if stopped is None else str(stopped.get("kind"))


def _finish(folder: Path, plan: Plan) -> None:
    runs.finish(folder)
    service.forget(plan.id, run_program)


def _complain(tally: Tally) -> None:
    """Where the document cannot be written either, this is all that is left of it."""
    says = (tally.ledger.stopped or {}).get("says")
    with contextlib.suppress(OSError):
        sys.stderr.write(f"the burn-in has ended, and the disk did not take the record of why: {says}\n")


def _show(run: Run, folder: Path) -> None:
    out = sys.stdout
    lines = table.lines(run, Paint(is_coloured(out)), width() if out.isatty() else 120)
    out.write("\n".join(["", *lines, "", f"kept in {folder}"]) + "\n")
    out.flush()


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        sys.stdout.write(f"{text}\n")


def boot_id() -> str:
    """A word that is another one after every restart of the machine."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
