# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in writes to ``burn_in.jsonl``, and what it comes to when it is read back. Pure.

  {"event": "begin", "t", "boot", "hours", "gpus": [{"uuid", "address", "model"}]}   a process begins, or goes on
  {"event": "burning", "t", "versions", "simulated", "memory": {gpu: {"gib", "share"}}}   all workers burn from here on
  {"event": "tick", "from", "t", "late_s", "sync_s", "rates", "traffic", "checked", "mismatches", "cursor", "lost"}
                                        all workers have burned from "from" to "t"; where one has not, the two are equal;
                                        "lost": of what this process was to write down the disk did not take so much
  {"event": "counters", "t", "gpus": {gpu: {counter: value}}}                    what the driver counts, when it changed
  {"event": "kernel", "t", "line"}                                               a line of the kernel's log
  {"event": "blind", "t", "what", "says", "lost"}                                something could not be read; "lost": nor later
  {"event": "seen", "t", "what"}                                                 what could not be read was read after all
  {"event": "counts", "t", "checked", "mismatches"}                              what the workers had counted when they ended
  {"event": "worker", "t", "gpu", "says", "wrong"}                               a worker ended by itself; its reference was wrong
  {"event": "stop", "t", "kind", "says", "reading"}                              it ended for good, and why
  {"event": "end", "t", "why", "lost"}                                           the process ended in order

Temperatures, power and clocks are in ``samples.jsonl``, as those of every run.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..check import Sample
from .ledger import Ledger

COUNTERS, KERNEL, BLIND, WORKER = "counters", "kernel", "blind", "worker"

MOST_LINES = 500
"""Lines of the kernel's log that are kept for the report; a card in distress writes thousands."""
MOST_GRAVE_LINES = 5000
"""Of those that may tell of a card that is lost, which others must not push out."""
GRAVE = re.compile(
    r"NVRM|fallen off|lost from the bus|pciehp|link is down|Uncorrect|Non-Fatal|\(Fatal\)|\bDPC\b", re.I
)
"""What such a line has in it."""

_OF_A_BOOT = (
    "replay_counter",
    "ecc_volatile_correctable",
    "ecc_volatile_uncorrectable",
    "hw_therm_slowdown_us",
    "hw_power_brake_us",
)
"""Counters that begin at zero when the machine, or the driver, does."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as it was when the burn-in began; its number is its place in the list of all.

    Attributes:
        uuid: what tells it from another; its PCI address where the driver tells no UUID.
        model: the catalog's short name, or the driver's.
    """

    uuid: str
    address: str
    model: str

    def as_json(self) -> dict[str, str]:
        """As it is written."""
        return {"uuid": self.uuid, "address": self.address, "model": self.model}


@dataclass(slots=True)
class GpuTally:
    """What came together of one GPU."""

    samples: int = 0
    hottest: Sample | None = None
    closest: Sample | None = None
    memory_c: float | None = None
    power_sum_w: float = 0.0
    power_samples: int = 0
    power_most_w: float | None = None
    sm_sum_mhz: float = 0.0
    sm_samples: int = 0
    temperature_sum_c: float = 0.0
    temperature_samples: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    checked: int = 0
    mismatches: int = 0
    memory_gib: float | None = None
    memory_share: float | None = None
    counters: dict[str, int] = field(default_factory=dict)
    grown: Counter[str] = field(default_factory=Counter)

    def mean(self, total: float, count: int) -> float | None:
        """A mean, where there is something to take it of."""
        return total / count if count else None

    @property
    def mean_c(self) -> float | None:
        """Its temperature while it burned."""
        return self.mean(self.temperature_sum_c, self.temperature_samples)

    @property
    def mean_w(self) -> float | None:
        """Its power."""
        return self.mean(self.power_sum_w, self.power_samples)

    @property
    def mean_mhz(self) -> float | None:
        """Its SM clock."""
        return self.mean(self.sm_sum_mhz, self.sm_samples)


class Tally:
    """Everything that was recorded, put together. Fed with records and samples, in order, whoever wrote them.

    Attributes:
        cards: the GPUs that the burn-in began with, by number; empty: on the CPU.
        cursor: how far the kernel's log was read.
        kernel_lost: grave lines of it that are not among those that were kept.
        blind_says: by what could not be read, the last reason; what was read after all is not in it.
        blind_lost: the same for what nobody reads any more.
        lost: so often the disk did not take what was to be written down.
        simulated: a worker, or the driver, said that it is.
        latest: the last record of each kind, for whoever tells how it goes.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.cards: tuple[Card, ...] = ()
        self.gpus: dict[int, GpuTally] = {}
        self.late_s: list[float] = []
        self.sync_s: list[float] = []
        self.ticks = 0
        self.kernel_lines: list[str] = []
        self.kernel_seen = 0
        self.kernel_lost = 0
        self._grave_lines = 0
        self.blind: Counter[str] = Counter()
        self.blind_says: dict[str, str] = {}
        self.blind_lost: dict[str, str] = {}
        self.lost = 0
        self.workers: list[Mapping[str, Any]] = []
        self.versions: dict[str, str] = {}
        self.simulated = False
        self.cursor = ""
        self.latest: dict[str, Mapping[str, Any]] = {}
        self.last_samples: dict[int, Sample] = {}
        self._boot = ""
        self._new_boot = False
        # A worker that was started again counts from zero.
        self._before: dict[int, tuple[int, int]] = {}
        self._lost_before = 0

    def gpu(self, index: int) -> GpuTally:
        """That of one GPU."""
        return self.gpus.setdefault(index, GpuTally())

    def add(self, record: Mapping[str, Any]) -> None:
        """One more record."""
        self.ledger.add(record)
        event = str(record.get("event", ""))
        self.latest[event] = record
        match event:
            case "begin":
                self._begin(record)
            case "burning":
                self._burning(record)
            case "tick":
                self._tick(record)
            case "counters":
                self._counters(record)
            case "kernel":
                self._kernel(str(record.get("line", "")))
            case "blind":
                self._blind(record)
            case "seen":
                self._seen(str(record.get("what", "")))
            case "counts":
                self._counts(record)
            case "end":
                self._lost(record)
            case "worker":
                self.workers.append(record)

    def _begin(self, record: Mapping[str, Any]) -> None:
        boot = str(record.get("boot", ""))
        self._new_boot = boot != self._boot
        self._boot = boot
        self.cursor = str(record.get("cursor") or self.cursor)
        self._before = {index: (gpu.checked, gpu.mismatches) for index, gpu in self.gpus.items()}
        self._lost_before = self.lost
        # Whoever goes on is measured by what it began with.
        self.cards = self.cards or _cards(record.get("gpus"))

    def _burning(self, record: Mapping[str, Any]) -> None:
        self.versions.update(
            {str(name): str(version) for name, version in _mapping(record.get("versions")).items()}
        )
        self.simulated = self.simulated or bool(record.get("simulated"))
        for index, memory in _by_gpu(record.get("memory")):
            if isinstance(memory, Mapping):
                gpu = self.gpu(index)
                gpu.memory_gib, gpu.memory_share = memory.get("gib"), memory.get("share")

    def _tick(self, record: Mapping[str, Any]) -> None:
        self.ticks += 1
        self.late_s.append(float(record.get("late_s") or 0.0))
        self.sync_s.append(float(record.get("sync_s") or 0.0))
        self.cursor = str(record.get("cursor") or self.cursor)
        for index, rate in _by_gpu(record.get("rates")):
            if isinstance(rate, int | float):
                self.gpu(index).rates.append(float(rate))
        self._counts(record)
        self._lost(record)

    def _lost(self, record: Mapping[str, Any]) -> None:
        self.lost = self._lost_before + int(record.get("lost") or 0)

    def _blind(self, record: Mapping[str, Any]) -> None:
        what, says = str(record.get("what", "")), str(record.get("says", ""))
        self.blind[what] += 1
        self.blind_says[what] = says
        if record.get("lost"):
            self.blind_lost[what] = says

    def _seen(self, what: str) -> None:
        self.blind_says.pop(what, None)
        if what in self.blind_lost:
            self.blind_says[what] = self.blind_lost[what]

    def _counts(self, record: Mapping[str, Any]) -> None:
        for index, count in _by_gpu(record.get("checked")):
            self.gpu(index).checked = self._before.get(index, (0, 0))[0] + int(count)
        for index, count in _by_gpu(record.get("mismatches")):
            self.gpu(index).mismatches = self._before.get(index, (0, 0))[1] + int(count)

    def _kernel(self, line: str) -> None:
        """One more line. Those that may tell of a lost card have a room of their own."""
        self.kernel_seen += 1
        grave = bool(GRAVE.search(line))
        if grave and self._grave_lines >= MOST_GRAVE_LINES:
            self.kernel_lost += 1
        elif grave or len(self.kernel_lines) - self._grave_lines < MOST_LINES:
            self._grave_lines += grave
            self.kernel_lines.append(line)

    def _counters(self, record: Mapping[str, Any]) -> None:
        """What grew since the last record. Counters that begin at zero with the machine are not compared across that."""
        for index, counters in _by_gpu(record.get("gpus")):
            gpu = self.gpu(index)
            for name, value in _mapping(counters).items():
                if not isinstance(value, int):
                    continue
                before = gpu.counters.get(name)
                if self._new_boot and name in _OF_A_BOOT:
                    before = None
                if before is not None and value > before:
                    gpu.grown[name] += value - before
                gpu.counters[name] = value
        self._new_boot = False

    def add_sample(self, sample: Sample) -> None:
        """One more reading of one GPU."""
        gpu = self.gpu(sample.gpu)
        gpu.samples += 1
        self.last_samples[sample.gpu] = sample
        gpu.reasons.update(sample.reasons)
        if sample.temperature_c is not None:
            gpu.temperature_sum_c += sample.temperature_c
            gpu.temperature_samples += 1
            if gpu.hottest is None or sample.temperature_c > (gpu.hottest.temperature_c or 0):
                gpu.hottest = sample
        if sample.margin_c is not None and (
            gpu.closest is None or gpu.closest.margin_c is None or sample.margin_c < gpu.closest.margin_c
        ):
            gpu.closest = sample
        if sample.memory_temperature_c is not None:
            gpu.memory_c = max(sample.memory_temperature_c, gpu.memory_c or 0)
        if sample.power_w is not None:
            gpu.power_sum_w += sample.power_w
            gpu.power_samples += 1
            gpu.power_most_w = max(sample.power_w, gpu.power_most_w or 0)
        if sample.sm_mhz is not None:
            gpu.sm_sum_mhz += sample.sm_mhz
            gpu.sm_samples += 1


def tally(records: Iterable[Mapping[str, Any]], samples: Iterable[Sample] = ()) -> Tally:
    """All of it at once."""
    found = Tally()
    for record in records:
        found.add(record)
    for sample in samples:
        found.add_sample(sample)
    return found


def sample_of(line: Mapping[str, Any]) -> Sample | None:
    """A line of ``samples.jsonl``; None: it is none of ours."""
    known = {name: line[name] for name in Sample.__dataclass_fields__ if name in line}
    if not isinstance(known.get("at"), int | float) or not isinstance(known.get("gpu"), int):
        return None
    known["reasons"] = tuple(str(reason) for reason in known.get("reasons") or ())
    return Sample(**known)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cards(value: Any) -> tuple[Card, ...]:
    told = [_mapping(one) for one in value] if isinstance(value, list) else []
    return tuple(Card(*(str(one.get(key) or "") for key in ("uuid", "address", "model"))) for one in told)


def _by_gpu(value: Any) -> list[tuple[int, Any]]:
    """Keys are indexes of GPUs, which JSON makes strings of."""
    return [(int(key), item) for key, item in _mapping(value).items() if str(key).isdigit()]
