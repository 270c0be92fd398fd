# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated machine with a declaration, and what each check that looks at hardware says of it. SIMULATED."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import needs
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook, Check
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Result, skipped
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests.acceptance_bench import BRANCH, Bench, SimulatedMachine

NAMES = [
    "gpus_present",
    "gpus_seen",
    "memory",
    "driver_versions",
    "driver_declared",
    "kernel_modules",
    "persistence",
    "power_limit",
    "ecc_mode",
    "mig_mode",
    "compute_mode",
    "resizable_bar",
    "pcie_link",
    "pcie_errors",
    "kernel_log",
    "ecc_errors",
    "memory_rows",
    "throttle_reasons",
    "temperatures",
    "recovery_action",
    "aftermath",
]
_CHECKS = "ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks"
CHECKS: dict[str, Check] = {name: importlib.import_module(f"{_CHECKS}.{name}").CHECK for name in NAMES}

BEGAN = 1_764_240_000.0
KERNEL = "6.8.0-90-generic"
BOOT = f"{BEGAN - 3600:.6f} machine kernel: Linux version {KERNEL}"
Facts = dict[str, Any]


@dataclass(frozen=True)
class Declared:
    """What is declared of a kind of machine, and whether it is a virtual one."""

    gpus: Mapping[str, int]
    width: int
    flavour: str = "open"
    tuning: Mapping[str, Any] = field(default_factory=dict)
    bare_metal: bool = True

    def profile(self) -> Profile:
        return Profile(
            machine="bench",
            gpus=self.gpus,
            bare_metal=self.bare_metal,
            expected={
                "driver": {"branch": BRANCH.split(".")[0], "flavour": self.flavour},
                "width": dict.fromkeys(self.gpus, self.width),
                "tuning": dict(self.tuning),
            },
        )


DECLARED: dict[str, Declared] = {
    "4x-rtx5090": Declared({"rtx5090": 4}, 16, tuning={"power_limit_w": 575, "compute_mode": "default"}),
    "t4": Declared({"t4": 1}, 8, tuning={"ecc": "on"}, bare_metal=False),
    "l4": Declared({"l4": 1}, 8, tuning={"ecc": "on"}, bare_metal=False),
    "a100": Declared({"a100": 1}, 16, tuning={"ecc": "on", "mig": "off"}, bare_metal=False),
    "h100": Declared({"h100": 1}, 16, tuning={"ecc": "on", "mig": "off"}, bare_metal=False),
}


def settled(facts: Facts) -> Facts:
    """What systemd, DKMS and /boot of a whole machine add, which the simulated one has not got in a folder."""
    found = copy.deepcopy(facts)
    driver = found["driver"]
    driver["persistence_daemon"] = {"active": True, "enabled": True, "state": "enabled"}
    module = {"version": BRANCH, "flavour": driver["flavour"] or "open", "path": "nvidia.ko"}
    driver |= {"kernels": [KERNEL], "next_kernel": KERNEL, "on_disk": {KERNEL: module}}
    return found


def machine(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    *faults: Sequence[str],
    flavour: str = "open",
    change: Callable[[SimulatedMachine], None] = lambda machine: None,
) -> Found:
    """A simulated machine on which something was broken."""
    simulated = SimulatedMachine(folder, monkeypatch, profile, flavour)
    for kind, *more in faults:
        simulated.break_(kind, *more)
    change(simulated)
    log = (simulated.sandbox.root / "kern.log").read_text(encoding="utf-8").splitlines()
    return Found(settled(simulated.look()), log)


@dataclass(frozen=True)
class Found:
    """What is read of a machine."""

    facts: Facts
    log: list[str]

    def bench(self, kind: str, **more: Any) -> Bench:
        return bench(self.facts, DECLARED[kind].profile(), **{"kernel_log": self.log, **more})


def bench(facts: Facts, profile: Profile, **more: Any) -> Bench:
    """A machine with these facts, whose kernel's log has nothing but its first line."""
    given: dict[str, Any] = {
        "kernel_log": [BOOT],
        "programs": {"systemd-detect-virt": Ran(1, "none\n", "")},
        "began": BEGAN,
        **more,
    }
    return Bench(facts=facts, profile=profile, **given)


def made(name: str, given: Bench) -> Result:
    """A check as the runner makes it."""
    check = CHECKS[name]
    unmet = needs.unmet(check, given, lambda framework: ("", ""))
    if unmet:
        return unmet
    try:
        return check.run(given)
    except CannotLook as problem:
        return skipped(problem.why, problem.advice)


def all_made(given: Bench, without: Sequence[str] = ("aftermath",)) -> dict[str, Result]:
    """Every check."""
    return {name: made(name, given) for name in NAMES if name not in without}


def verdicts(results: Mapping[str, Result]) -> dict[str, str]:
    """Each check's verdict; ``n/a`` where there is nothing that it could look at."""
    return {name: str(result.verdict) if result.applies else "n/a" for name, result in results.items()}
