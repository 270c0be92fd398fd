# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that a run looks at: the `Context` that checks are given.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._host import gpu
from .._host.gpu_programs import Ran
from .._host.gpu_programs import run as run_program
from . import kernel_lines, workloads
from .check import CannotLook, WorkloadRun
from .interpreters import Interpreters
from .profile import Profile
from .record import CPU
from .telemetry import Telemetry
from .verdicts import Result

CPU_WORKERS = 2


class Machine:
    """This machine.

    Args:
        profile: what is declared of it.
        device: cuda or cpu.
        suite: that of the run.
        folder: that of the run.
        telemetry: the sensors; None: there are none to read.
        on_event: is given what a workload says, as it says it.
        on_tick: is called about twice a second while a workload runs.
        path_of: finds a workload's file by its name.
    """

    def __init__(
        self,
        profile: Profile,
        device: str,
        suite: str,
        folder: Path,
        *,
        telemetry: Telemetry | None = None,
        interpreters: Interpreters | None = None,
        on_event: Callable[[workloads.Event], None] = lambda event: None,
        on_tick: Callable[[], None] = lambda: None,
        path_of: Callable[[str], Path] = workloads.path_of,
    ) -> None:
        self.profile = profile
        self.device = device
        self.suite = suite
        self.folder = folder
        self.began = time.time()
        self.results: Mapping[str, Result] = {}
        self.facts: Mapping[str, Any] = self.look()
        counted = self.facts["counts"]["driver"]
        self.workers = CPU_WORKERS if device == CPU else int(counted or 0)
        self.check = ""
        """The check that is being made; the logs of its workloads are named by it."""
        self.versions: dict[str, str] = {"python": ".".join(map(str, sys.version_info[:3]))}
        self.simulated_workload = False
        """Whether a workload of the check that is being made was simulated."""
        self._telemetry = telemetry
        self._interpreters = interpreters or Interpreters(profile.interpreters)
        self._on_event = on_event
        self._on_tick = on_tick
        self._path_of = path_of

    def look(self) -> dict[str, Any]:
        """The facts, as they are now."""
        return gpu.look(root=Path(self.profile.root), nvidia_smi=self.profile.nvidia_smi)

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        """Run a program of the machine."""
        return run_program(command, seconds)

    def interpreter(self, framework: str) -> str | None:
        """The Python that has a framework; None: there is none."""
        return self._interpreters.find(framework)

    def missing(self, framework: str) -> tuple[str, str]:
        """Why there is no Python that has a framework, and what to do."""
        return self._interpreters.missing(framework)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def workload(
        self,
        name: str,
        framework: str,
        *arguments: str,
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> WorkloadRun:
        """Run a workload under the interpreter of a framework, on the device of the run.

        Raises:
            CannotLook: nobody has the framework, or a part of it that the workload needs is not installed.
        """
        interpreter = self.interpreter(framework)
        if interpreter is None:
            raise CannotLook(*self.missing(framework))
        given = {"--device": self.device, "--workers": str(self.workers)}
        options = [
            word for option, value in given.items() if option not in arguments for word in (option, value)
        ]
        begun = self.now()
        outcome = workloads.run(
            [interpreter, str(self._path_of(name)), *options, *arguments],
            name=name,
            seconds=seconds,
            log=self._log(name),
            environment=environment,
            on_event=self._hear,
            on_tick=self._on_tick,
        )
        if outcome.missing:
            raise CannotLook(
                outcome.run.error,
                f"install {outcome.missing} there, or name another Python in `interpreters.{framework}` of the profile",
            )
        samples = self._telemetry.during(begun, self.now()) if self._telemetry else []
        return replace(outcome.run, samples=samples)

    def _log(self, name: str) -> Path:
        """A check may run a workload several times, each with other options."""
        stem = f"{self.check or 'run'}-{name}"
        path, number = self.folder / f"{stem}.log", 2
        while path.exists():
            path, number = self.folder / f"{stem}-{number}.log", number + 1
        return path

    def _hear(self, event: workloads.Event) -> None:
        if event["event"] == "begin":
            versions = event.get("versions")
            if isinstance(versions, dict):
                self.versions |= {str(name): str(version) for name, version in versions.items()}
            self.simulated_workload = self.simulated_workload or event.get("simulated") is True
        self._on_event(event)

    def kernel_log(self, since: float | None = None) -> list[str]:
        """Lines of the kernel's log of this boot, each with its time in seconds since the epoch in front.

        Raises:
            CannotLook: the log cannot be read.
        """
        lines = kernel_lines.read(self.profile.kernel_log, self.run, self.now())
        return [line for line in lines if since is None or float(line.split(maxsplit=1)[0]) >= since]
