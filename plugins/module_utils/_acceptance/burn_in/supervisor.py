# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a burn-in: starts the workers, looks every few seconds, writes down what it sees, and stops where it has to.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..._fleet.gpu.smi import SmiError, lost, parse
from ..._host.gpu_programs import Ran
from ..check import Sample
from ..profile import Profile
from ..record import CUDA
from ..telemetry import line_of, samples_of
from . import guard
from .journal import KernelLog
from .ledger import ASKED, FINISHED
from .plan import RECORDS, SAMPLES, STOP, Plan
from .probe import Probe
from .recorder import Recorder
from .records import Card, Tally
from .workers import Workers

START_S = 900.0
"""For the workers to load their framework, fill the memory and check their reference."""
HUNG_S = 180.0
"""A worker that says nothing for so long is taken for dead."""
BLIND_S = 60.0
"""So long it burns on without knowing how hot the GPUs are."""
_READING_S = 20.0
"""For the driver to answer at most: after one that hangs there is time for another before it is blind."""
_CLOCKS_DIFFER_S = 0.5
"""The clock that counts a machine's sleep and the one that does not are not read at the same moment."""
PATIENCE_S = 10.0
"""For workers that are told to end."""

TERMINATED, INTERRUPTED = "terminated", "interrupted"
"""Why the process ended although the burn-in is not over; those that end it for good are kinds of stop."""


class Supervisor:
    """One process of a burn-in.

    Args:
        plan: what was asked.
        folder: the run's.
        tally: what was recorded so far.
        commands: by the GPU's index, what burns it.
        run: runs a program and waits for it.
        on_tick: is called after every look; it may write the run's document, or tell how it goes.
        boot: another word after every restart of the machine.
        cards: the GPUs that there are now; none on the CPU.

    Attributes:
        stop_kept: the record of its end, if it has ended for good, is on the disk.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        profile: Profile,
        tally: Tally,
        commands: Mapping[int, Sequence[str]],
        run: Callable[[Sequence[str], float], Ran],
        on_tick: Callable[[Tally], None],
        boot: str,
        cards: Sequence[Card] = (),
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._profile = profile
        self.tally = tally
        self._commands = commands
        self._run = run
        self._on_tick = on_tick
        self._boot = boot
        self._cards = tuple(cards)
        # Other GPUs have other numbers: what is read now is not of those that burned.
        self._changed = bool(tally.cards) and guard.uuids(tally.cards) != guard.uuids(cards)
        self._wake = threading.Event()
        self._signal = 0
        self._burning = False
        self.stop_kept = True
        self._kernel = KernelLog(profile.kernel_log, run, tally.cursor)
        self._sync_s = 0.0
        self._seen_at = 0.0
        self._counters: dict[str, dict[str, int]] = {}
        # The clock of the burn-in never goes back, whoever sets the machine's.
        self._base = max(time.time(), tally.ledger.end or 0.0)
        self._started = uptime()
        self._last = (self._base, time.monotonic())

    def now(self) -> float:
        """The time of the burn-in's clock: that of the day, if nobody has set it meanwhile."""
        return round(self._base + uptime() - self._started, 3)

    def run(self) -> str:
        """Burn until it is over, or this process is to end; why."""
        self._records = Recorder(self._folder / RECORDS)
        self._samples = Recorder(self._folder / SAMPLES)
        probe = Probe()
        try:
            with self._signals():
                probe.start()
                return self._spell(probe)
        finally:
            probe.stop()
            self._records.close()
            self._samples.close()

    def _spell(self, probe: Probe) -> str:
        self._kernel.start()
        self._write(
            "begin",
            boot=self._boot,
            hours=self._plan.seconds / 3600,
            cursor=self._kernel.cursor,
            gpus=[card.as_json() for card in self._cards],
        )
        self._seen_at = time.monotonic()
        stop = self._other_gpus() or self._look_at_gpus() or self._asked()
        self._read_kernel()
        self._sync()
        if stop:
            # It was too hot, or a GPU was missing, before anything was started.
            return self._end_for_good(stop)
        workers = Workers(self._commands, self._folder, self._wake.set)
        try:
            while True:
                self._sleep()
                stop = self._tick(workers, probe)
                if stop:
                    return self._end_for_good(stop, workers)
                if self._signal:
                    workers.end(PATIENCE_S)
                    self._last_counts(workers)
                    why = TERMINATED if self._signal == signal.SIGTERM else INTERRUPTED
                    self._write("end", why=why, lost=self._lost())
                    self._on_tick(self.tally)
                    return why
                self._on_tick(self.tally)
        finally:
            workers.end(0)

    def _end_for_good(self, stop: guard.Stop, workers: Workers | None = None) -> str:
        """Write why before anything else, so that no crash from here on has it begin again."""
        lost = self._records.lost
        self._write_record(stop.as_record(round(self._last[0], 3)))
        self._sync()
        self.stop_kept = self._records.lost == lost
        if workers:
            in_order = stop.kind in (FINISHED, ASKED)
            workers.end(PATIENCE_S if in_order else 0)
            self._last_counts(workers)
        self._look_at_gpus()
        self._read_kernel()
        self._write("end", why=stop.kind, lost=self._lost())
        self._on_tick(self.tally)
        return stop.kind

    def _sleep(self) -> None:
        """Until the next look is due, or something happened."""
        due = self._last[1] + self._plan.interval_s
        self._wake.wait(max(0.0, due - time.monotonic()))
        self._wake.clear()

    def _tick(self, workers: Workers, probe: Probe) -> guard.Stop | None:
        """One look at everything; whether to stop."""
        hot = self._look_at_gpus()
        now, monotonic = self.now(), time.monotonic()
        before, before_monotonic = self._last
        self._last = (now, monotonic)
        dead = workers.dead()
        silent = workers.silent(max(30.0, 4 * self._plan.interval_s))
        if not self._burning:
            if workers.burning and not dead:
                self._begin_to_burn(workers, now)
            elif uptime() - self._started > START_S:
                return guard.Stop(guard.START, f"the workers were not ready within {START_S:g} seconds", {})
        else:
            # A machine that slept counts for nothing, and neither does a time in which nobody looked.
            awake = monotonic - before_monotonic
            looked = awake <= 3 * self._plan.interval_s + 30
            slept = now - before - awake > _CLOCKS_DIFFER_S
            since = before if looked and not dead and not silent else now
            if slept:
                since = max(since, now - awake)
            self._write_record(self._tick_record(workers, probe, round(since, 3), now))
        self._read_kernel()
        self._sync()
        return hot or self._dead(workers) or self._blind() or self._asked() or self._over()

    def _begin_to_burn(self, workers: Workers, now: float) -> None:
        self._burning = True
        versions: dict[str, str] = {}
        for worker in workers.all:
            versions |= worker.versions
        self._write_record(
            {
                "event": "burning",
                "t": now,
                "versions": versions,
                "simulated": any(worker.simulated for worker in workers.all),
                "memory": {str(worker.gpu): worker.memory for worker in workers.all},
            }
        )

    def _tick_record(self, workers: Workers, probe: Probe, since: float, now: float) -> dict[str, Any]:
        return {
            "event": "tick",
            "from": since,
            "t": now,
            "late_s": round(probe.take(), 4),
            "sync_s": round(self._sync_s, 4),
            "rates": {str(worker.gpu): worker.rate for worker in workers.all},
            "traffic": {str(worker.gpu): worker.traffic for worker in workers.all},
            **_counts(workers),
            "cursor": self._kernel.cursor,
            "lost": self._lost(),
        }

    def _lost(self) -> int:
        """How much of what was to be written down the disk did not take."""
        return self._records.lost + self._samples.lost

    def _last_counts(self, workers: Workers) -> None:
        """What the workers have found since the last look, a wrong value perhaps."""
        if self._burning:
            self._write("counts", **_counts(workers))

    def _other_gpus(self) -> guard.Stop | None:
        """Whether the machine has other GPUs than when it began. With those that are left it would be another burn-in."""
        if not self._changed:
            return None
        gone = guard.gone(self.tally.cards, self._cards)
        for gpu, says in gone.items():
            self._write("worker", gpu=gpu, says=says)
        if gone:
            return guard.Stop(guard.WORKER, "; ".join(gone.values()), {"gpu": next(iter(gone))})
        return guard.Stop(
            guard.CHANGED, "the machine has other GPUs than when it began, or in another order", {}
        )

    def _dead(self, workers: Workers) -> guard.Stop | None:
        """A worker that ended by itself ends the burn-in: starting it again would hide that it did."""
        dead = workers.dead()
        for worker in dead:
            self._write("worker", gpu=worker.gpu, says=worker.death(), wrong=worker.wrong)
        if dead:
            return guard.Stop(guard.WORKER, dead[0].death(), {"gpu": dead[0].gpu})
        hung = workers.silent(HUNG_S)
        if hung and self._burning:
            says = f"the worker of GPU {hung[0].gpu} has said nothing for {HUNG_S:g} seconds"
            self._write("worker", gpu=hung[0].gpu, says=says)
            return guard.Stop(guard.WORKER, says, {"gpu": hung[0].gpu})
        return None

    def _blind(self) -> guard.Stop | None:
        if self._plan.device != CUDA or time.monotonic() - self._seen_at <= BLIND_S:
            return None
        says = self.tally.blind_says.get("gpus", "no reading")
        return guard.Stop(guard.BLIND, f"temperatures could not be read for {BLIND_S:g} seconds: {says}", {})

    def _asked(self) -> guard.Stop | None:
        if not (self._folder / STOP).exists():
            return None
        return guard.Stop(ASKED, "it was asked to end before its time", {})

    def _over(self) -> guard.Stop | None:
        if self.tally.ledger.burned_s < self._plan.seconds:
            return None
        return guard.Stop(FINISHED, "its time is over", {})

    def _look_at_gpus(self) -> guard.Stop | None:
        """Read temperatures and counters; whether a GPU is too hot."""
        if self._plan.device != CUDA or self._changed:
            return None
        at = self.now()
        ran = self._run(
            [self._profile.nvidia_smi, "-q", "-x"], min(max(5.0, 2 * self._plan.interval_s), _READING_S)
        )
        try:
            if ran.status in (124, 126, 127):
                raise SmiError(ran.says)
            log = parse(ran.out)
        except SmiError as problem:
            gone = lost(f"{ran.out}\n{ran.err}")
            says = "; ".join(f"{where}: {what}" for where, what in gone.items()) or str(problem)
            self._write("blind", what="gpus", says=says[:500])
            return None
        samples = [sample for sample in samples_of(log, at) if sample.gpu in self._commands]
        self._keep(samples)
        unread = [gpu for gpu in self._commands if not any(_is_read(sample, gpu) for sample in samples)]
        if unread:
            names = ", ".join(map(str, unread))
            self._write("blind", what="gpus", says=f"the driver told no temperature of GPU {names}")
        else:
            self._seen_at = time.monotonic()
        counters = guard.counters(log.gpus)
        if counters != self._counters:
            self._counters = counters
            self._write("counters", gpus=counters)
        return guard.too_hot(samples, self._plan.stop_margin_c, self._plan.stop_temperature_c)

    def _keep(self, samples: Sequence[Sample]) -> None:
        self._samples.write_text("".join(map(line_of, samples)))
        for sample in samples:
            self.tally.add_sample(sample)

    def _read_kernel(self) -> None:
        for line in self._kernel.read():
            self._write("kernel", line=line)
        problem, told = self._kernel.problem, self.tally.blind_says.get("kernel", "")
        if problem and problem != told:
            self._write("blind", what="kernel", says=problem, lost=self._kernel.lost)
        elif told and not problem and told != self.tally.blind_lost.get("kernel"):
            # It was read from where it had been read before, so nothing is missing.
            self._write("seen", what="kernel")

    def _write(self, event: str, **values: Any) -> None:
        self._write_record({"event": event, "t": self.now(), **values})

    def _write_record(self, record: Mapping[str, Any]) -> None:
        self._records.write(record)
        self.tally.add(record)

    def _sync(self) -> None:
        self._sync_s = self._records.sync()
        self._samples.sync()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, a terminal that is closed and a service that is stopped: end in order, after the look at hand."""

        def end(number: int, _frame: object) -> None:
            self._signal = number
            self._wake.set()

        before = {
            number: signal.signal(number, end)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _counts(workers: Workers) -> dict[str, dict[str, int]]:
    return {
        "checked": {str(worker.gpu): worker.checked for worker in workers.all},
        "mismatches": {str(worker.gpu): worker.mismatches for worker in workers.all},
    }


def _is_read(sample: Sample, gpu: int) -> bool:
    return sample.gpu == gpu and (sample.temperature_c is not None or sample.margin_c is not None)


def uptime() -> float:
    """Seconds since the machine was started, those it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
