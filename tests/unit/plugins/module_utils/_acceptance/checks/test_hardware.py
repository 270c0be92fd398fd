# SPDX-License-Identifier: GPL-3.0-or-later
"""Each broken thing makes the right checks fail, with what to do, and no other. All machines here are SIMULATED."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import FULL, QUICK
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from sandbox.gpu.machine.hardware import AT_WORK, KINDS
from sandbox.gpu.profiles import PROFILES
from tests.acceptance_bench import SimulatedMachine
from tests.unit.plugins.module_utils._acceptance.checks.hardware_machine import (
    CHECKS,
    DECLARED,
    NAMES,
    Found,
    all_made,
    bench,
    machine,
    verdicts,
)

Wanted = dict[str, tuple[str, ...]]

_GPU3 = "0000:61:00.0"
_LOST: Wanted = {
    "gpus_seen": (
        "1 of 4 GPUs is lost: 0000:61:00.0",
        "the PCI bus has 4, the driver sees 3",
        "switch the machine off and on",
    ),
    "kernel_log": ("Xid 79 on 0000:61:00.0", "fallen off the bus", "12V-2x6"),
}
_UNSEEN: Wanted = {"gpus_seen": ("the driver does not list 0000:61:00.0", "a card that failed")}
_FAILED_START: Wanted = {
    "kernel_log": ("the driver could not start the card", _GPU3, "switch the machine off and on")
}
_MISMATCH: Wanted = {"driver_versions": ("mismatch", "the library on disk 580.178.04", "reboot the machine")}
_ECC: Wanted = {
    "ecc_errors": ("2 uncorrectable memory errors since", "GPU 0, a100", "nvidia-smi -r -i 0"),
    "memory_rows": ("a row of memory to replace", "nvidia-smi -r -i 0"),
    "recovery_action": ("Drain and Reset", "give it no new work"),
}  # fmt: skip
_NOUVEAU: Wanted = {
    "gpus_seen": ("has nouveau, not nvidia", "modprobe nvidia"),
    "kernel_modules": ("nouveau is loaded", "update-initramfs"),
}
_HAD: Wanted = {"kernel_log": ("nouveau had a card", "reboot the machine once")}


def _throttled(card: str) -> Wanted:
    return {
        "throttle_reasons": (card, "too hot", "see fans, dust"),
        "temperatures": (card, "its own limit is 90", "see fans, dust"),
    }


def _x8(card: str) -> Wanted:
    return {"pcie_link": (f"{card} is on x8, declared is x16", "reseat the card and its riser")}


@dataclass(frozen=True)
class Case:
    """Something broken.

    Attributes:
        kind: the whole machine that it is compared with.
        faults: what is broken, as `gpumesh-simulated-gpus break` is told.
        fails: the checks that fail, each with parts of what it says and advises.
        blind: what cannot be looked at any more: one card, all that only the driver knows, or nothing.
        shown: cards that do not answer and whose link the kernel shows all the same.
    """

    kind: str
    fails: Wanted
    profile: str = ""
    faults: Sequence[tuple[str, ...]] = ()
    blind: str = ""
    warns: Wanted = field(default_factory=dict)
    reboot: bool = False
    shown: bool = False


_RIG = "4x-rtx5090"
PROFILE_CASES: dict[str, Case] = {
    "4x-rtx5090-lost": Case(_RIG, {"gpus_seen": _LOST["gpus_seen"]}, blind="card"),
    "4x-rtx5090-unseen": Case(_RIG, _UNSEEN, blind="card", shown=True),
    "4x-rtx5090-mismatch": Case(_RIG, _MISMATCH, blind="driver"),
    "4x-rtx5090-x8": Case(_RIG, _x8("0000:21:00.0 (GPU 1, rtx5090)")),
    "4x-rtx5090-throttled": Case(_RIG, _throttled("0000:41:00.0 (GPU 2, rtx5090)")),
    "4x-rtx5090-persistence-off": Case(
        _RIG, {"persistence": ("0000:01:00.0 (GPU 0, rtx5090) has persistence off", "systemctl enable --now nvidia-persistenced")}
    ),
    "4x-rtx5090-memory": Case(
        _RIG, {"memory": ("0000:21:00.0 (GPU 1, rtx5090) has 30559 MiB, should have 32543", "not what it was sold as")}
    ),
    "a100-ecc": Case("a100", _ECC),
    "t4-nouveau": Case(
        "t4", _NOUVEAU, profile="t4", faults=[("nouveau",)], reboot=True, blind="module", warns=_HAD
    ),
}  # fmt: skip
"""The broken profiles. That of nouveau is made by a boot, since no driver can be loaded on it."""

FAULT_CASES: dict[str, Case] = {
    "lost": Case(_RIG, _LOST, blind="card"),
    "lost-values": Case(_RIG, _LOST, blind="card"),
    "unseen": Case(_RIG, _UNSEEN | _FAILED_START, blind="card", shown=True),
    "unplugged": Case(
        _RIG, {"gpus_present": ("declared are 4 x rtx5090, on the PCI bus are 3 x rtx5090", "reseat the missing card")}
    ),
    "x8": Case(_RIG, _x8(f"{_GPU3} (GPU 3, rtx5090)")),
    "ecc": Case("a100", _ECC),
    "remap-failure": Case("a100", {"memory_rows": ("no spare rows of memory left", "have the card replaced")}),
    "throttled": Case(_RIG, _throttled(f"{_GPU3} (GPU 3, rtx5090)")),
    "power-brake": Case(
        _RIG, {"throttle_reasons": (f"{_GPU3} (GPU 3, rtx5090)", "the power supply has told it", "the power supply and its cables")}
    ),
    "persistence-off": Case(_RIG, {"persistence": (f"{_GPU3} (GPU 3, rtx5090) has persistence off",)}),
    "memory": Case(_RIG, {"memory": (f"{_GPU3} (GPU 3, rtx5090) has 30559 MiB",)}),
    "xid": Case(_RIG, {"kernel_log": (f"Xid 119 on {_GPU3} (GPU 3, rtx5090)", "GSP", "VBIOS")}),
    "mismatch": Case(_RIG, _MISMATCH, blind="driver"),
    "nouveau": Case(
        _RIG,
        {"gpus_seen": ("have nouveau, not nvidia",), "kernel_modules": ("nouveau is loaded", "update-initramfs")},
        reboot=True,
        blind="module",
        warns=_HAD,
    ),
}  # fmt: skip

ONE_CARD = {name for name in NAMES if name not in ("aftermath",)} - {
    "gpus_present", "gpus_seen", "driver_versions", "driver_declared", "kernel_modules", "kernel_log",
}  # fmt: skip
"""Checks that look at each card by itself: what does not answer makes them UNKNOWN."""


def _made(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: Case) -> Found:
    profile = case.profile or (case.kind if case.faults else name)

    def reboot(simulated: SimulatedMachine) -> None:
        if case.reboot:
            assert simulated.sandbox.control("reboot") == (0, "")

    return machine(folder, monkeypatch, profile, *case.faults, change=reboot)


def _allowed(case: Case, name: str, whole: str) -> set[str]:
    """What a check that does not fail may say, where it is `whole` on the whole machine."""
    if name in case.warns:
        return {"WARN"}
    if case.blind == "card" and name in ONE_CARD:
        seen = whole == "n/a" or (case.shown and name == "pcie_link")
        return {whole} if seen else {"UNKNOWN"}
    if case.blind and (name in ONE_CARD - {"pcie_link"} or name == "gpus_seen"):
        return {"SKIP"}
    if case.blind == "module" and name in ("driver_versions", "driver_declared"):
        return {"SKIP"}
    return {whole}


_WHOLE: dict[str, Found] = {}


def _whole(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> Found:
    """The whole machine of a kind, made once."""
    if kind not in _WHOLE:
        _WHOLE[kind] = machine(_folder(folder, "whole"), monkeypatch, kind)
    return _WHOLE[kind]


def _check(found: Found, whole: Found, case: Case) -> None:
    results = all_made(found.bench(case.kind))
    told = verdicts(results)
    expected = verdicts(all_made(whole.bench(case.kind)))
    assert {name for name, verdict in told.items() if verdict == "FAIL"} == set(case.fails)
    for name, parts in (case.fails | case.warns).items():
        text = f"{results[name].says} | {results[name].advice}"
        for part in parts:
            assert part in text
        assert results[name].advice
    for name, verdict in told.items():
        if name not in case.fails:
            assert verdict in _allowed(case, name, expected[name]), (name, results[name])


def test_every_broken_profile_and_fault_has_a_case() -> None:
    assert set(PROFILE_CASES) <= set(PROFILES)
    broken = {name for name, profile in PROFILES.items() if profile.faults}
    at_work = {name for name in broken if all(fault.kind in AT_WORK for fault in PROFILES[name].faults)}
    assert broken - at_work == set(PROFILE_CASES)
    assert set(KINDS) - set(AT_WORK) == set(FAULT_CASES)


@pytest.mark.parametrize("kind", sorted(DECLARED))
def test_a_whole_machine_that_is_declared_is_green(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = all_made(machine(tmp_path, monkeypatch, kind).bench(kind))
    assert {name: told for name, told in verdicts(results).items() if told not in ("PASS", "n/a")} == {}
    for result in results.values():
        assert result.says and not result.says.endswith(".")
        json.dumps(asdict(result), allow_nan=False)
    geforce = {"ecc_mode", "mig_mode", "ecc_errors", "memory_rows"}
    assert {name for name, told in verdicts(results).items() if told == "n/a"} == {
        _RIG: geforce,
        "t4": {"mig_mode", "resizable_bar"},
        "l4": {"mig_mode"},
    }.get(kind, set())


@pytest.mark.parametrize("name", sorted(PROFILE_CASES))
def test_a_broken_profile_fails_the_right_checks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = PROFILE_CASES[name]
    whole = _whole(tmp_path, monkeypatch, case.kind)
    _check(_made(_folder(tmp_path, "broken"), monkeypatch, name, case), whole, case)


@pytest.mark.parametrize("kind", sorted(FAULT_CASES))
def test_a_fault_fails_the_right_checks(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = FAULT_CASES[kind]
    whole = _whole(tmp_path, monkeypatch, case.kind)
    case = replace(case, profile=case.kind, faults=[(kind,)])
    _check(_made(_folder(tmp_path, "broken"), monkeypatch, case.kind, case), whole, case)


@pytest.mark.parametrize("kind", AT_WORK)
def test_what_shows_at_work_alone_is_not_seen_at_rest(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = all_made(machine(tmp_path, monkeypatch, _RIG, (kind,)).bench(_RIG))
    assert set(verdicts(results).values()) <= {"PASS", "n/a"}


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def test_cards_that_no_one_driver_can_drive_are_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine(tmp_path, monkeypatch, "mixed")
    results = all_made(found.bench(_RIG))
    assert results["gpus_seen"].verdict is Verdict.FAIL
    assert "0000:21:00.0 (v100) needs the closed modules" in results["driver_declared"].says
    assert "put this one into another" in results["driver_declared"].advice
    assert "needs the closed kernel modules" in results["kernel_log"].says


def test_a_machine_without_a_gpu_is_never_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(
        tmp_path,
        monkeypatch,
        _RIG,
        change=lambda simulated: _done(simulated.sandbox.control("profile", "none")),
    )
    told = verdicts(all_made(found.bench(_RIG), without=()))
    assert told.pop("gpus_present") == "FAIL"
    assert set(told.values()) == {"SKIP"}
    undeclared = all_made(bench(found.facts, Profile()), without=())
    assert undeclared["gpus_present"].verdict is Verdict.FAIL
    assert "no NVIDIA GPU is on the PCI bus" in undeclared["gpus_present"].says


def test_a_machine_without_a_driver_is_looked_at_as_far_as_the_kernel_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unload(simulated: SimulatedMachine) -> None:
        for path in simulated.sandbox.folder.glob("lib/modules/*/updates/dkms/*.ko"):
            path.unlink()
        _done(simulated.sandbox.control("reboot"))

    found = machine(tmp_path, monkeypatch, _RIG, change=unload)
    results = all_made(found.bench(_RIG), without=())
    told = verdicts(results)
    assert {name for name, verdict in told.items() if verdict == "FAIL"} == {"gpus_seen", "kernel_modules"}
    # Of the cards nothing is known but that they are there, and how their links are.
    assert {name for name, verdict in told.items() if verdict == "PASS"} == {
        "gpus_present",
        "pcie_link",
        "kernel_log",
    }
    assert {verdict for name, verdict in told.items()} == {"FAIL", "PASS", "SKIP"}
    assert "modprobe nvidia" in results["kernel_modules"].advice


def _done(result: tuple[int, str]) -> None:
    assert result[0] == 0, result[1]


def test_a_run_on_the_cpu_looks_at_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(tmp_path, monkeypatch, _RIG)
    results = all_made(found.bench(_RIG, device="cpu"), without=())
    assert set(verdicts(results).values()) == {"SKIP"}
    assert all("CPU" in result.says and result.advice for result in results.values())


def test_without_a_declaration_only_what_needs_none_is_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine(tmp_path, monkeypatch, _RIG)
    results = all_made(bench(found.facts, Profile()))
    told = verdicts(results)
    assert {name for name, verdict in told.items() if verdict == "UNKNOWN"} == {
        "gpus_present",
        "driver_declared",
    }
    assert '"gpus": {"rtx5090": 4}' in results["gpus_present"].advice
    assert '"branch": "580", "flavour": "open"' in results["driver_declared"].advice
    assert set(told.values()) == {"UNKNOWN", "PASS", "n/a"}
    for name in ("power_limit", "compute_mode"):
        assert "none is declared" in results[name].says


@pytest.mark.parametrize("name", NAMES)
def test_every_check_says_what_it_is(name: str) -> None:
    check = CHECKS[name]
    assert check.name == name
    assert {QUICK, FULL} <= set(check.suites)
    for text in (check.about, check.expects, check.fails):
        assert text.endswith(".") and len(text) > 40
    assert not check.title.endswith(".")
