# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check is, and what it is given to look at a machine with.

Every check is a file of its own in ``checks/`` with a `Check` named ``CHECK``: a function that measures, and a pure one that
judges what was measured. `registry` lists them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from .._host.gpu_programs import Ran
from .profile import Profile
from .verdicts import Result

QUICK, FULL, DEMO = "quick", "full", "demo"
SUITES = (QUICK, FULL, DEMO)

PYTORCH, TENSORFLOW, JAX, VLLM = "pytorch", "tensorflow", "jax", "vllm"


class Group(StrEnum):
    """Under which heading a check is listed; the order of a run as well."""

    INVENTORY = "inventory"
    CONFIGURATION = "configuration"
    HEALTH = "health"
    COMPUTE = "compute"
    INTERCONNECT = "interconnect"
    FRAMEWORKS = "frameworks"
    CONTAINERS = "containers"
    AFTERMATH = "aftermath"


class Need(StrEnum):
    """What a check cannot be made without. The runner looks for it first, and skips the check with the reason."""

    GPU = "gpu"
    """A GPU, and a run on it: not for ``--device cpu``."""
    DRIVER = "driver"
    """A driver that answers."""
    SEVERAL = "several"
    """Two GPUs or more (on the CPU: two processes). Without, the check does not apply."""
    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"
    JAX = "jax"
    VLLM = "vllm"
    DOCKER = "docker"
    ROOT = "root"


@dataclass(frozen=True, slots=True)
class Sample:
    """What nvidia-smi read of one GPU at one moment; None: it has no such reading.

    Attributes:
        at: seconds since the epoch.
        margin_c: degrees that are left to where the card slows itself down.
        reasons: why the clocks were lower than they could be, as in the module gpu_info.
    """

    at: float
    gpu: int
    temperature_c: float | None = None
    margin_c: float | None = None
    memory_temperature_c: float | None = None
    power_w: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    utilization_percent: float | None = None
    memory_used_mib: float | None = None
    link_gen: int | None = None
    link_width: int | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadRun:
    """What came of a workload. The lines it prints are described in roles/validation/files/workloads/workload.py.

    Attributes:
        begin: its ``begin`` line: device, versions, whether it was simulated.
        figures: its ``figure`` lines.
        phases: its ``phase`` lines: name, gpu, begin, end.
        error: what went wrong, in its own words; empty: it came to its end.
        crashed: it ended without a word of its own: killed, or out of the interpreter.
        samples: what nvidia-smi read while it ran.
    """

    begin: Mapping[str, Any]
    figures: Sequence[Mapping[str, Any]]
    phases: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    crashed: bool = False
    samples: Sequence[Sample] = ()

    def values(self, name: str) -> list[Mapping[str, Any]]:
        """The figures of a name."""
        return [figure for figure in self.figures if figure["name"] == name]

    def during(self, name: str, gpu: int | None = None, *, margin: float = 0.0) -> list[Sample]:
        """What was read of a GPU in the phases of a name.

        Args:
            margin: seconds at both ends of a phase that do not count, for readings that are of a time and not of a moment.
        """
        spans = [
            (phase["begin"] + margin, phase["end"] - margin)
            for phase in self.phases
            if phase["name"] == name and phase.get("gpu") in (None, gpu)
        ]
        return [
            sample
            for sample in self.samples
            if (gpu is None or sample.gpu == gpu) and any(begin <= sample.at <= end for begin, end in spans)
        ]


class Context(Protocol):
    """What a check is given. The runner's is in `machine`; a test gives one of its own."""

    profile: Profile
    device: str
    """``cuda`` or ``cpu``."""
    suite: str
    facts: Mapping[str, Any]
    """Those of the module gpu_info, read when the run began."""
    began: float
    """Seconds since the epoch."""
    folder: Path
    """Of this run; for what a check wants to keep."""
    results: Mapping[str, Result]
    """Of the checks before this one, by name."""
    workers: int
    """GPUs that the driver answers for; on the CPU the number of processes, two."""

    def look(self) -> Mapping[str, Any]:
        """The facts once more, as they are now."""

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        """Run a program of the machine."""

    def workload(
        self,
        name: str,
        framework: str,
        *arguments: str,
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> WorkloadRun:
        """Run a workload under the interpreter of a framework, on the device of the run, with progress shown meanwhile."""

    def kernel_log(self, since: float | None = None) -> list[str]:
        """Lines of the kernel's log of this boot, each with its time in seconds since the epoch in front.

        Raises:
            CannotLook: the log cannot be read.
        """

    def interpreter(self, framework: str) -> str | None:
        """The Python that has a framework; None: there is none."""

    def now(self) -> float:
        """Seconds since the epoch."""


class CannotLook(Exception):
    """Something that a check wants to read is not to be had. The check ends as SKIP with this as its reason.

    Args:
        why: what is missing, one sentence without a full stop.
        advice: how to close the gap.
    """

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: as in ``--only`` and in the report; small letters and underscores.
        title: a few words.
        about: what it proves, one sentence.
        expects: what is expected and where that comes from, one sentence.
        fails: what a failure usually means and what to do, for docs/acceptance.md.
        suites: those it is in.
        needs: without these it is skipped.
        seconds: about how long it takes in the suite quick on GPUs.
    """

    name: str
    title: str
    group: Group
    about: str
    expects: str
    fails: str
    run: Callable[[Context], Result]
    suites: tuple[str, ...] = (QUICK, FULL)
    needs: tuple[Need, ...] = field(default=())
    seconds: float = 1
