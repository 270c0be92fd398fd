# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check is given in a unit test: the facts of a simulated machine, and answers of programs and workloads that the test scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import (
    CannotLook,
    Sample,
    WorkloadRun,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Result
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests.unit.sandbox.gpu_machine import Sandbox

ROOT = Path(__file__).parents[1]
BRANCH = "580.178.04"


class SimulatedMachine:
    """A simulated machine whose programs are found in the path; SIMULATED."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        profile: str = "4x-rtx5090",
        flavour: str = "open",
    ) -> None:
        self.sandbox = Sandbox(folder / "machine", profile)
        programs = folder / "bin"
        programs.mkdir()
        for name in ("dpkg-query", "dpkg", "apt-get", "dkms", "systemctl", "modinfo"):
            _program(programs / name, "exit 1")
        _program(
            programs / "nvidia-smi",
            f"cd {ROOT} && GPUMESH_SIMULATED_PREFIX={self.sandbox.folder} exec {sys.executable} "
            '-m sandbox.gpu.machine.nvidia_smi "$@"',
        )
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        self.sandbox.drive(BRANCH, flavour)
        self.sandbox.smi("-pm", "1")

    def look(self) -> dict[str, Any]:
        """Its facts."""
        return gpu.look(root=self.sandbox.root, system=self.sandbox.folder)

    def break_(self, kind: str, *more: str) -> None:
        """Break something; the kinds are those of `gpumesh-simulated-gpus break`."""
        status, said = self.sandbox.control("break", kind, *more)
        assert status == 0, said


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Bench:
    """A context of which everything is said beforehand.

    Args:
        facts: those of the module gpu_info; `later` are those of a second look.
        workloads: what comes of each workload, by its name; one that is not named is not to be run.
        programs: what comes of a program, by its first word.
        kernel_log: None: it cannot be read.
    """

    def __init__(
        self,
        *,
        folder: Path = Path("/nonexistent"),
        facts: Mapping[str, Any] | None = None,
        later: Mapping[str, Any] | None = None,
        profile: Profile = Profile(),  # noqa: B008
        device: str = "cuda",
        suite: str = "quick",
        workers: int | None = None,
        workloads: Mapping[str, WorkloadRun] | None = None,
        programs: Mapping[str, Ran] | None = None,
        kernel_log: Sequence[str] | None = (),
        interpreters: Mapping[str, str] | None = None,
        results: Mapping[str, Result] | None = None,
        began: float = 1_764_240_000.0,
    ) -> None:
        self.facts = facts or {}
        self.profile = profile
        self.device = device
        self.suite = suite
        self.began = began
        self.folder = folder
        self.results = results or {}
        counted = (self.facts.get("counts") or {}).get("driver")
        self.workers = workers if workers is not None else (2 if device == "cpu" else int(counted or 0))
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self._later = later if later is not None else self.facts
        self._workloads = workloads or {}
        self._programs = programs or {}
        self._kernel_log = kernel_log
        self._interpreters = interpreters or {}

    def look(self) -> Mapping[str, Any]:
        return self._later

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        return self._programs.get(command[0], Ran(127, "", f"{command[0]} is not installed"))

    def workload(
        self,
        name: str,
        framework: str,
        *arguments: str,
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> WorkloadRun:
        self.asked.append((name, framework, arguments))
        return self._workloads[name]

    def kernel_log(self, since: float | None = None) -> list[str]:
        if self._kernel_log is None:
            raise CannotLook("the kernel's log cannot be read", "run it as root")
        return [
            line for line in self._kernel_log if since is None or float(line.split(maxsplit=1)[0]) >= since
        ]

    def interpreter(self, framework: str) -> str | None:
        return self._interpreters.get(framework)

    def now(self) -> float:
        return self.began


def recorded(path: Path, samples: Sequence[Sample] = ()) -> WorkloadRun:
    """A workload's run from the lines it printed."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_event.setdefault(str(line.pop("event")), []).append(line)
    errors = by_event.get("error", [])
    return WorkloadRun(
        begin=(by_event.get("begin") or [{}])[0],
        figures=by_event.get("figure", []),
        phases=by_event.get("phase", []),
        error=str(errors[0]["says"]) if errors else "",
        crashed=not errors and "end" not in by_event,
        samples=samples,
    )
