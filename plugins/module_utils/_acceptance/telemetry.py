# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the GPUs' sensors in the background, and keeps every reading in a file of one JSON object a line.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._fleet.gpu.health_devices import SLOWED
from .._fleet.gpu.smi import SmiError, SmiLog, parse
from .._host.gpu_programs import run
from .check import Sample

INTERVAL_S = 2.0
UNTOLD = "untold"
"""Among the reasons of a reading: the driver did not tell of every reason that is a fault."""
_ANSWER_S = 20.0
_MOST_KEPT = 2_000_000
"""Readings in memory: four GPUs every two seconds for eleven days."""


def samples_of(log: SmiLog, at: float) -> list[Sample]:
    """What nvidia-smi read of each GPU. Pure."""
    return [_sample(gpu, at) for gpu in log.gpus]


def _sample(gpu: Mapping[str, Any], at: float) -> Sample:
    temperatures, clocks, link = gpu["temperatures"], gpu["clocks"], gpu["link"]
    untold = any(f"throttle.{name}" in gpu["missing"] for name in SLOWED)
    return Sample(
        at=at,
        gpu=int(gpu["index"]),
        temperature_c=temperatures["gpu_c"],
        margin_c=temperatures["margin_c"],
        memory_temperature_c=temperatures["memory_c"],
        power_w=gpu["power"]["draw_w"],
        sm_mhz=clocks["sm_mhz"],
        memory_mhz=clocks["memory_mhz"],
        utilization_percent=gpu["utilization_percent"],
        memory_used_mib=gpu["memory_used_mib"],
        link_gen=link["gen_now"],
        link_width=link["width_now"],
        reasons=(*gpu["throttle"], UNTOLD) if untold else tuple(gpu["throttle"]),
    )


def line_of(sample: Sample) -> str:
    """A reading as a line of the file."""
    return json.dumps({**asdict(sample), "at": round(sample.at, 3)}, separators=(",", ":")) + "\n"


def read(lines: Iterable[str]) -> list[Sample]:
    """The readings of a file. A line that is cut short, as the last one of a machine that lost its power, is left out."""
    found: list[Sample] = []
    for line in lines:
        try:
            one = json.loads(line)
            found.append(Sample(**{**one, "reasons": tuple(one.get("reasons") or ())}))
        except (ValueError, TypeError, AttributeError):
            continue
    return found


def ask(nvidia_smi: str, now: Callable[[], float] = time.time) -> list[Sample]:
    """The readings of this moment; none where nvidia-smi does not answer."""
    begun = now()
    ran = run([nvidia_smi, "-q", "-x"], _ANSWER_S)
    if ran.status in (124, 126, 127):
        return []
    try:
        log = parse(ran.out)
    except SmiError:
        return []
    # A slow answer tells of some moment in it.
    return samples_of(log, (begun + now()) / 2)


class Telemetry:
    """The sensors, read again and again in a thread of their own.

    Args:
        nvidia_smi: the program that reads them.
        file: where readings are added; it is kept if there is one.
        interval: seconds from one reading to the next.
        durable: whether every reading is on the disk before the next is made, for what must survive a loss of power.
        on_samples: is given the readings of a moment, in the thread that made them.
    """

    def __init__(
        self,
        nvidia_smi: str,
        file: Path,
        *,
        interval: float = INTERVAL_S,
        durable: bool = False,
        on_samples: Callable[[Sequence[Sample]], None] = lambda samples: None,
    ) -> None:
        self._nvidia_smi = nvidia_smi
        self._path = file
        self._interval = interval
        self._durable = durable
        self._on_samples = on_samples
        self._kept: list[Sample] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why readings are not kept any more; empty: they are."""

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        if self._thread:
            # It may be waiting for an nvidia-smi that hangs, which ends by itself.
            self._thread.join(timeout=5)

    def during(self, begin: float, end: float) -> list[Sample]:
        """What was read from one moment to another."""
        with self._lock:
            return [sample for sample in self._kept if begin <= sample.at <= end]

    def _work(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            found = ask(self._nvidia_smi)
            if found:
                self._keep(found)
            self._over.wait(max(0.1, self._interval - (time.monotonic() - begun)))

    def _keep(self, found: Sequence[Sample]) -> None:
        with self._lock:
            self._kept += found
            del self._kept[:-_MOST_KEPT]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(map(line_of, found)))
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as problem:
            self.problem = f"{self._path} cannot be written: {problem.strerror}"
        self._on_samples(found)
