# SPDX-License-Identifier: GPL-3.0-or-later
"""How each check that looks at hardware judges readings, on the answers of nvidia-smi of several cards and branches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Result
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import facts as engine
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import pci, smi
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu as host
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.module_utils._acceptance.checks.hardware_machine import (
    BEGAN,
    BOOT,
    NAMES,
    Facts,
    all_made,
    bench,
    made,
    settled,
    verdicts,
)

FOLDER = Path(__file__).parents[5] / "fixtures" / "nvidia_smi"
FIXTURES = sorted(path.stem for path in FOLDER.glob("*.xml"))
VERSION = "580.178.04"


def read(name: str, flavour: str = "open") -> Facts:
    """The facts of a machine with the cards of a recorded answer; each is behind a port with as much as the card has."""
    log = replace(smi.parse((FOLDER / f"{name}.xml").read_text()), driver=VERSION)
    cards = [
        pci.PciGpu(
            gpu["pci_address"], gpu["pci_id"], "0300", gpu["subsystem_id"], "nvidia", 1, gpu["link"]["gen_device_max"],
            gpu["link"]["width_now"], 16, 0,
            port=pci.Port(f"0000:00:{number + 1:02x}.1", gpu["link"]["gen_device_max"], 16, pci.Errors(0, 0, 0)),
            aer=pci.Errors(0, 0, 0),
        )
        for number, gpu in enumerate(log.gpus)
    ]  # fmt: skip
    return settled(
        engine.facts(
            engine.Found(
                pci=cards, smi=log, loaded_version=VERSION, loaded_flavour=flavour, library=VERSION,
                libraries={"libnvidia-ml": [VERSION]}, modules=frozenset({"nvidia"}),
            )
        )
    )  # fmt: skip


RIG = Profile(
    gpus={"rtx5090": 4},
    bare_metal=True,
    expected={
        "driver": {"branch": "580", "flavour": "open"},
        "width": {"rtx5090": 16},
        "tuning": {"power_limit_w": 450, "compute_mode": "default"},
    },
)
CLOUD = Profile(bare_metal=False)
OURS = Profile(bare_metal=True)
CARD = "0000:41:00.0 (GPU 2, rtx5090)"
Change = Callable[[Facts], Any]


def set_(path: str, value: Any, device: int | None = 2) -> Change:
    """Change one fact; of one device, where one is given."""

    def change(gpu: Facts) -> None:
        at = gpu["devices"][device] if device is not None else gpu
        *above, last = path.split("/")
        for name in above:
            at = at[name]
        at[last] = value

    return change


def first(path: str, value: Any) -> Change:
    return set_(path, value, 0)


def both(*changes: Change) -> Change:
    return lambda gpu: [change(gpu) for change in changes]


def result(name: str, fixture: str, profile: Profile, change: Change | None = None, **more: Any) -> Result:
    gpu = read(fixture)
    if change:
        change(gpu)
    return made(name, bench(gpu, profile, **more))


def missing(key: str, why: str) -> Change:
    return set_(f"missing/{key}", why, 0)


CASES: dict[str, tuple[str, str, Profile, Change | None, str, tuple[str, ...]]] = {
    # Inventory.
    "a card more than declared": (
        "gpus_present", "610-rtx5090", replace(RIG, gpus={"rtx5090": 3}), None, "FAIL", ("declare what is there",),
    ),
    "a card that the catalog does not have": (
        "memory", "580-h100", OURS, both(first("pci_id", "ffff"), first("model", None)), "UNKNOWN", ("catalog does not have the card",),
    ),
    "memory that nobody tells": ("memory", "610-rtx5090", RIG, set_("memory_mib", None), "FAIL", (CARD, "does not tell its memory")),
    # Configuration.
    "no module for the next boot": (
        "driver_versions", "610-rtx5090", RIG, set_("driver/on_disk", {"6.8.0-90-generic": None}, None), "FAIL",
        ("the next boot would have no working driver", "dkms autoinstall"),
    ),
    "no kernel to look at": (
        "driver_versions", "610-rtx5090", RIG, set_("driver/kernels", [], None), "PASS",
        ("what the next boot would load was not looked at: no kernel was found in /boot",),
    ),
    "another kernel without a module": (
        "driver_versions", "610-rtx5090", RIG,
        lambda gpu: gpu["driver"].update(
            kernels=["6.8.0-80-generic", "6.8.0-90-generic"],
            on_disk=gpu["driver"]["on_disk"] | {"6.8.0-80-generic": None},
        ),
        "WARN", ("kernel 6.8.0-80-generic has no module",),
    ),
    "libraries of two drivers": (
        "driver_versions", "610-rtx5090", RIG, set_("driver/libraries", {"libcuda": [VERSION, "595.91.07"]}, None), "FAIL",
        ("libraries of several drivers", "nvidia-uninstall"),
    ),
    "nvidia-smi that hangs": (
        "driver_versions", "610-rtx5090", RIG,
        both(set_("driver/smi", "it did not end in 60 s", None), set_("counts", {"pci": 4, "driver": None}, None)),
        "FAIL", ("nvidia-smi says it did not end in 60 s", "journalctl -k"),
    ),
    "another branch than declared": (
        "driver_declared", "610-rtx5090", replace(RIG, expected={"driver": {"branch": "595"}}), None, "FAIL",
        ("the loaded module is 580.178.04, declared is branch 595",),
    ),
    "another flavour than declared": (
        "driver_declared", "580-h100", replace(OURS, expected={"driver": {"flavour": "closed"}}), None, "FAIL",
        ("the open one, declared is the closed one",),
    ),
    "a branch that is over": (
        "driver_declared", "595-t4", replace(OURS, expected={"driver": {"branch": "550"}}),
        both(
            set_("driver/loaded", "550.163.01", None),
            set_("driver/on_disk/6.8.0-90-generic/version", "550.163.01", None),
            set_("driver/library", "550.163.01", None),
        ),
        "WARN", ("no longer maintains branch 550", "gpu_stack"),
    ),
    "a driver older than the card": (
        "driver_declared", "610-rtx5090", replace(RIG, expected={"driver": {"version": "550.163.01"}}),
        both(
            set_("driver/loaded", "550.163.01", None),
            set_("driver/on_disk/6.8.0-90-generic/version", "550.163.01", None),
            set_("driver/library", "550.163.01", None),
            set_("state", "unseen", 3),
        ),
        "FAIL", ("0000:61:00.0 (GPU 3, rtx5090) is known to drivers from 570", "install driver 570"),
    ),
    "nouveau beside the module": (
        "kernel_modules", "610-rtx5090", RIG, set_("driver/nouveau_loaded", True, None), "FAIL", ("nouveau is loaded", "initramfs"),
    ),
    "no module": (
        "kernel_modules", "610-rtx5090", RIG, set_("driver/loaded", None, None), "FAIL", ("module is not loaded", "modprobe nvidia"),
    ),
    "persistence by hand": (
        "persistence", "610-rtx5090", RIG,
        set_("driver/persistence_daemon", {"active": False, "enabled": False, "state": None}, None),
        "WARN", ("nvidia-persistenced does not run", "systemctl enable --now"),
    ),
    "another power limit than declared": (
        "power_limit", "610-rtx5090", RIG, both(set_("power/requested_w", 575.0), set_("power/limit_w", 575.0)), "FAIL",
        (f"{CARD} has a power limit of 575 W, declared is 450 W", "systemctl restart gpumesh-gpu-tuning"),
    ),
    "a power limit that nobody has declared": (
        "power_limit", "610-rtx5090", OURS, None, "UNKNOWN",
        ("has a power limit of 450 W, its own is 575 W, and nobody has declared one", "nvidia-smi -i 2 -pl 575"),
    ),
    "a power limit that cannot be": (
        "power_limit", "610-rtx5090", replace(RIG, expected={"tuning": {"power_limit_w": 300}}), None, "FAIL",
        ("can be set from 400 to", "declare one that it can have"),
    ),
    "a card that holds to less": (
        "power_limit", "610-rtx5090", RIG, set_("power/limit_w", 400.0), "WARN", (f"{CARD} was given 450 W and holds to 400 W", "12V-2x6"),
    ),
    "a card without a power limit": (
        "power_limit", "595-t4", CLOUD,
        both(first("power/requested_w", None), first("power/limit_w", None), missing("power.requested_w", "not_available")),
        "n/a", ("have no power limit",),
    ),
    "ECC off, undeclared": ("ecc_mode", "595-t4", CLOUD, both(first("ecc/current", False), first("ecc/pending", False)), "UNKNOWN", ("nvidia-smi -i 0 -e 1",)),
    "ECC off, declared": (
        "ecc_mode", "595-t4", replace(CLOUD, expected={"tuning": {"ecc": "off"}}),
        both(first("ecc/current", False), first("ecc/pending", False)), "PASS", ("as declared",),
    ),
    "ECC on, declared off": (
        "ecc_mode", "595-t4", replace(CLOUD, expected={"tuning": {"ecc": "off"}}), None, "FAIL", ("has ECC on", "a reset of the card or a reboot"),
    ),
    "ECC that waits": ("ecc_mode", "595-t4", CLOUD, first("ecc/pending", False), "WARN", ("has ECC on and will have it off after a reset", "-r -i 0")),
    "ECC that nobody tells": ("ecc_mode", "595-t4", CLOUD, both(first("ecc/current", None), missing("ecc.current", "unknown")), "UNKNOWN", ("(unknown)",)),
    "ECC declared on GeForce": (
        "ecc_mode", "610-rtx5090", replace(RIG, expected={"tuning": {"ecc": "on"}}), None, "FAIL", ("has no ECC to switch (not_available)",),
    ),
    "a card in parts, undeclared": ("mig_mode", "535-a100-mig", CLOUD, None, "UNKNOWN", ("is cut into parts (MIG)", "nvidia-smi -i 0 -mig 0")),
    "a card in parts, declared": (
        "mig_mode", "535-a100-mig", replace(CLOUD, expected={"tuning": {"mig": "3g.40gb,4g.40gb"}}), None, "PASS", ("as declared",),
    ),
    "a card in other parts": (
        "mig_mode", "535-a100-mig", replace(CLOUD, expected={"tuning": {"mig": "7g.80gb"}}), None, "FAIL", ("has 2 MIG devices, declared are 1",),
    ),
    "parts that wait": ("mig_mode", "580-h100", CLOUD, first("mig/pending", True), "WARN", ("has MIG off and will have it on",)),
    "one program at a time, undeclared": (
        "compute_mode", "580-h100", CLOUD, first("compute_mode", "Exclusive_Process"), "UNKNOWN", ("Exclusive_Process", "nvidia-smi -i 0 -c 0"),
    ),
    "one program at a time, declared otherwise": (
        "compute_mode", "610-rtx5090", RIG, set_("compute_mode", "Exclusive_Process"), "FAIL", ("declared is default",),
    ),
    "a small window": ("resizable_bar", "525-rtx3090", OURS, None, "WARN", ("lets the processor address 256 of 24576 MiB", "Above 4G Decoding")),
    "a small window in a cloud": ("resizable_bar", "525-rtx3090", CLOUD, None, "PASS", ("only the host of this virtual machine",)),
    "a window that nobody tells": ("resizable_bar", "580-h100", CLOUD, first("bar1_mib", None), "UNKNOWN", ("does not tell how much",)),
    "half the lanes, undeclared": (
        "pcie_link", "610-rtx5090", OURS, set_("link/width_now", 8), "WARN",
        (f"{CARD} is on x8, card and slot could have x16; nothing is declared", "declare it: `width`"),
    ),
    "half the lanes in a cloud": ("pcie_link", "595-t4", CLOUD, None, "PASS", ("is on x8 of x16, as is usual in clouds",)),
    "half the lanes, declared": (
        "pcie_link", "595-t4", replace(CLOUD, expected={"width": {"t4": 8}}), None, "PASS", ("as wide as declared",),
    ),
    "half the lanes in a cloud, declared otherwise": (
        "pcie_link", "595-t4", replace(CLOUD, expected={"width": {"t4": 16}}), None, "FAIL", ("is on x8, declared is x16",),
    ),
    "a slot that has half the lanes": (
        "pcie_link", "610-rtx5090", OURS, both(set_("link/width_now", 8), set_("port/width_max", 8)), "PASS",
        (f"{CARD} is on x8 of x16, for its slot (0000:00:03.1) has no more lanes",),
    ),
    "a declared width that the slot has not got": (
        "pcie_link", "610-rtx5090", RIG, both(set_("link/width_now", 8), set_("port/width_max", 8)), "FAIL",
        ("declared is x16 (its slot has 8)",),
    ),
    "an older slot": (
        "pcie_link", "610-rtx5090", RIG, set_("port/gen_max", 4), "PASS", (f"{CARD} could have generation 5, its slot gives it 4",),
    ),
    "a width that nobody tells": ("pcie_link", "610-rtx5090", RIG, set_("link/width_now", None), "UNKNOWN", ("does not tell the width",)),
    # Health.
    "a few replays": ("pcie_errors", "610-rtx5090", RIG, set_("link/replay_counter", 7), "PASS", (f"{CARD}: a few errors, all corrected",)),
    "as many replays as may be": ("pcie_errors", "610-rtx5090", RIG, set_("link/replay_counter", 100), "PASS", ("all corrected",)),
    "many replays": ("pcie_errors", "610-rtx5090", RIG, set_("link/replay_counter", 150), "WARN", (f"{CARD} has had 150 corrected errors", "riser")),
    "many replays, allowed": ("pcie_errors", "610-rtx5090", replace(RIG, limits={"pcie_corrected": 200}), set_("link/replay_counter", 150), "PASS", ()),
    "a packet given up": ("pcie_errors", "610-rtx5090", RIG, set_("link/replay_rollover_counter", 1), "FAIL", ("gave up sending a packet again 1 time",)),
    "corrected errors": (
        "pcie_errors", "610-rtx5090", RIG,
        set_("aer", {"correctable": 101, "nonfatal": 0, "fatal": 0, "kinds": {"correctable.BadTLP": 101}}),
        "WARN", ("101 corrected errors of its link (101 x BadTLP), more than 100",),
    ),
    "corrected errors at the port": (
        "pcie_errors", "610-rtx5090", RIG, set_("port/aer/correctable", 5000), "WARN", ("5000 corrected errors",),
    ),
    "errors that could not be corrected": (
        "pcie_errors", "610-rtx5090", RIG,
        set_("aer", {"correctable": 0, "nonfatal": 2, "fatal": 0, "kinds": {"nonfatal.CmpltTO": 2}}),
        "FAIL", ("2 errors of its link that could not be corrected (2 x CmpltTO)", "reseat the card"),
    ),
    "questions that nobody answered": (
        "pcie_errors", "610-rtx5090", RIG,
        set_("aer", {"correctable": 0, "nonfatal": 2, "fatal": 0, "kinds": {"nonfatal.UnsupReq": 2}}),
        "WARN", ("2 x UnsupReq",),
    ),
    "a fatal error at the port": (
        "pcie_errors", "610-rtx5090", RIG, set_("port/aer/fatal", 1), "FAIL", ("1 fatal error of its link at its slot's port",),
    ),
    "a link that nobody counts": (
        "pcie_errors", "595-t4", CLOUD, both(first("aer/correctable", None), first("link/replay_counter", None)), "SKIP",
        ("neither the kernel nor the driver counts",),
    ),
    "an error in the card's life": (
        "ecc_errors", "580-h100", CLOUD, first("ecc/aggregate/uncorrectable", 1), "WARN", ("1 error in its life", "memory_pattern"),
    ),
    "too many errors of SRAM": (
        "ecc_errors", "580-h100", CLOUD, first("ecc/sram_threshold_exceeded", True), "FAIL", ("SRAM threshold", "replaced"),
    ),
    "errors that nobody counts": (
        "ecc_errors", "595-t4", CLOUD, both(first("ecc/current", False), first("ecc/pending", False)), "SKIP", ("nvidia-smi -e 1",),
    ),
    "errors that nobody counts, as declared": (
        "ecc_errors", "595-t4", replace(CLOUD, expected={"tuning": {"ecc": "off"}}), first("ecc/current", False), "n/a", ("as declared",),
    ),
    "errors that are not told": ("ecc_errors", "595-t4", CLOUD, first("ecc/volatile/uncorrectable", None), "UNKNOWN", ("does not tell its errors",)),
    "corrected errors of memory": ("ecc_errors", "595-t4", CLOUD, first("ecc/volatile/correctable", 12), "PASS", ()),
    "a page to retire": ("memory_rows", "595-t4", CLOUD, first("retired_pages/pending", True), "FAIL", ("a page of memory to retire", "nvidia-smi -r -i 0")),
    "some retired pages": ("memory_rows", "595-t4", CLOUD, first("retired_pages/double_bit", 16), "WARN", ("16 retired pages of memory, of 60",)),
    "too many retired pages": ("memory_rows", "595-t4", CLOUD, first("retired_pages/single_bit", 60), "FAIL", ("have the card replaced",)),
    "rows that were replaced": ("memory_rows", "580-h100", CLOUD, first("remapped_rows/correctable", 2), "PASS", ("has 2 replaced rows",)),
    "hot": (
        "throttle_reasons", "610-rtx5090", RIG, set_("throttle", ["hw_slowdown", "hw_thermal"]), "FAIL", (f"{CARD} is throttled", "fans"),
    ),
    "hot and short of power": (
        "throttle_reasons", "610-rtx5090", RIG, set_("throttle", ["hw_thermal", "power_brake"]), "FAIL", ("fans", "power supply"),
    ),
    "slowed by the hardware alone": ("throttle_reasons", "610-rtx5090", RIG, set_("throttle", ["hw_slowdown"]), "FAIL", ("power supply and its cables",)),
    "at the power limit": ("throttle_reasons", "610-rtx5090", RIG, set_("throttle", ["sw_power_cap"]), "PASS", ("which is no fault: 1 of 4",)),
    "slowed down earlier": (
        "throttle_reasons", "610-rtx5090", RIG, set_("throttle_us", {"hw_power_brake": 12_300_000, "sw_power_cap": 99}), "WARN",
        ("was for 12.3 s by the power supply", "power supply and its cables"),
    ),
    "reasons that nobody tells": (
        "throttle_reasons", "610-rtx5090", RIG, set_("missing/throttle.hw_thermal", "unknown"), "UNKNOWN", ("(hw_thermal)",),
    ),
    "at its own limit": ("temperatures", "610-rtx5090", RIG, set_("temperatures/margin_c", 0), "FAIL", ("its own limit is 90",)),
    "warm before any work": ("temperatures", "610-rtx5090", RIG, set_("temperatures/margin_c", 9), "WARN", ("9 below its own limit",)),
    "warm, allowed": ("temperatures", "610-rtx5090", replace(RIG, limits={"rest_margin_c": 5}), set_("temperatures/margin_c", 9), "PASS", ("9 degrees",)),
    "no limit told": ("temperatures", "610-rtx5090", RIG, set_("temperatures/margin_c", None), "UNKNOWN", ("does not tell its own temperature limit",)),
    "a reset": ("recovery_action", "580-h100", CLOUD, first("recovery_action", "GPU Reset"), "FAIL", ("end everything that uses the card", "-r -i 0")),
    "a reboot": ("recovery_action", "580-h100", CLOUD, first("recovery_action", "Node Reboot"), "FAIL", ("reboot the machine",)),
    "no links": ("recovery_action", "580-h100", CLOUD, first("recovery_action", "Drain P2P"), "FAIL", ("several GPUs work together",)),
    "an action that nobody tells": (
        "recovery_action", "580-h100", CLOUD, both(first("recovery_action", None), missing("recovery_action", "unknown")), "UNKNOWN", ("(unknown)",),
    ),
    "a driver that tells no action": ("recovery_action", "535-a100-mig", CLOUD, None, "n/a", ("branches from 570 on do",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_readings_are_judged(name: str) -> None:
    check, fixture, profile, change, verdict, parts = CASES[name]
    found = result(check, fixture, profile, change)
    text = f"{found.says} | {found.advice}"
    assert verdicts({check: found}) == {check: verdict}, text
    assert not found.says.startswith(";")
    for part in parts:
        assert part in text
    if verdict in ("FAIL", "WARN", "UNKNOWN", "SKIP"):
        assert found.advice and not found.advice.endswith(".")
        assert "INDEX" not in found.advice.replace("KERNEL", "")


def test_a_whole_rig_is_green() -> None:
    results = all_made(bench(read("610-rtx5090"), RIG))
    assert set(verdicts(results).values()) == {"PASS", "n/a"}
    # Both ends of every link were looked at.
    assert results["pcie_errors"].says == "4 GPUs: no error of a link that matters"


@pytest.mark.parametrize("name", [name for name in FIXTURES if not name.endswith("-lost")])
def test_no_healthy_card_of_any_dialect_fails(name: str) -> None:
    results = all_made(bench(read(name), CLOUD))
    allowed = {"persistence"} if name == "515-t4" else set()
    assert {check for check, told in verdicts(results).items() if told == "FAIL"} == allowed
    # Undeclared are the number of cards and the driver; a power limit and MIG that somebody set; and what such a branch cannot say.
    unknown = {check for check, told in verdicts(results).items() if told == "UNKNOWN"}
    assert unknown >= {"gpus_present", "driver_declared"}
    assert unknown <= {"gpus_present", "driver_declared", "power_limit", "mig_mode"}


def test_a_cloud_is_told_by_the_system_where_nobody_declares_it() -> None:
    for says, verdict in (("kvm\n", "PASS"), ("none\n", "WARN"), ("", "WARN")):
        programs = {"systemd-detect-virt": Ran(0 if says == "kvm\n" else 1, says, "")}
        found = result("pcie_link", "595-t4", Profile(), programs=programs)
        assert verdicts({"pcie_link": found}) == {"pcie_link": verdict}


def test_a_lost_card_that_is_recorded_is_lost() -> None:
    results = all_made(bench(read("580-rtx5090-lost"), RIG))
    told = verdicts(results)
    assert {name for name, verdict in told.items() if verdict == "FAIL"} == {"gpus_seen"}
    assert "1 of 4 GPUs is lost" in results["gpus_seen"].says
    assert told["temperatures"] == "UNKNOWN"
    assert "does not answer and was not looked at" in results["temperatures"].says


def test_a_declaration_that_cannot_be_read_makes_nothing_green() -> None:
    broken = Profile(expected={"width": {"rtx5090": "wide"}})
    told = verdicts(all_made(bench(read("610-rtx5090"), broken)))
    assert told["gpus_present"] == told["pcie_link"] == told["memory"] == "SKIP"
    assert "no whole number" in made("memory", bench(read("610-rtx5090"), broken)).says


def test_what_is_not_of_this_check_is_left_out_of_the_declaration() -> None:
    given = replace(RIG, expected={**RIG.expected, "deferred": True, "apt": True, "kernel_held": True})
    told = verdicts(all_made(bench(read("610-rtx5090"), given)))
    assert set(told.values()) == {"PASS", "n/a"}


def test_a_log_that_cannot_be_read_is_skipped_with_its_reason() -> None:
    found = result("kernel_log", "610-rtx5090", RIG, kernel_log=None)
    assert verdicts({"kernel_log": found}) == {"kernel_log": "SKIP"}
    assert (found.says, found.advice) == ("the kernel's log cannot be read", "run it as root")
    assert "is empty" in result("kernel_log", "610-rtx5090", RIG, kernel_log=[]).says


def test_the_log_is_told_by_card() -> None:
    lines = [
        BOOT,
        f"{BEGAN} kernel: NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        f"{BEGAN} kernel: NVRM: Xid (PCI:0000:01:00): 63, pid=1, name=x, Row Remapper: New row marked for remapping",
        f"{BEGAN} kernel: pcieport 0000:00:01.1: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)",
    ]
    found = result("kernel_log", "610-rtx5090", RIG, kernel_log=lines)
    assert found.verdict == "FAIL"
    parts = found.says.split("; ")
    assert parts[0].startswith(
        f"Xid 79 on {CARD}: the card has fallen off the bus, once, at 2025-11-27 10:40:00"
    )
    assert "Xid 63 on 0000:01:00.0 (GPU 0, rtx5090)" in parts[1]
    assert "(NVIDIA's catalogue: ignore, AWS: monitor, Azure: fail)" in parts[1]
    # One corrected error is a note, and the port is the card's.
    assert parts[2].startswith("0000:01:00.0 (GPU 0, rtx5090): PCI Express corrected an error")
    assert [figure.name for figure in found.figures][:2] == ["Xid 79", "Xid 63"]
    assert [figure.gpu for figure in found.figures] == [2, 0, 0]
    assert [one["number"] for one in found.data["log"]] == [79, 63, None]


def test_an_nvlink_error_of_a_card_that_has_none_is_told_as_such() -> None:
    line = (
        "kernel: NVRM: Xid (PCI:{}): 74, pid=1, name=x, NVLink: fatal error detected on link 6(0x10000, 0x0)"
    )
    for fixture, verdict in (("610-rtx5090", "WARN"), ("580-h100", "FAIL")):
        gpu = read(fixture)
        address = gpu["devices"][0]["pci_address"].rpartition(".")[0]
        found = made("kernel_log", bench(gpu, OURS, kernel_log=[BOOT, f"{BEGAN} {line.format(address)}"]))
        assert found.verdict == verdict
        assert ("this model has no NVLink" in found.says) is (verdict == "WARN")


def test_the_slowdown_that_comes_with_every_reason_is_not_told_beside_it() -> None:
    for reasons, told in ((["hw_slowdown", "hw_thermal"], False), (["hw_slowdown"], True)):
        found = result("throttle_reasons", "610-rtx5090", RIG, set_("throttle", reasons))
        assert ("the hardware holds its clocks down" in found.says) is told


def test_counters_of_the_kernel_are_read_from_sysfs(tmp_path: Path) -> None:
    """The card in its real place, below its port; the folder of all devices has links, as in a real /sys."""
    port = tmp_path / "sys/devices/pci0000:00/0000:00:01.1"
    card = port / "0000:01:00.0"
    card.mkdir(parents=True)
    for name, text in {
        "vendor": "0x10de",
        "device": "0x2b85",
        "class": "0x030000",
        "current_link_width": "16",
        "max_link_width": "16",
        "aer_dev_correctable": "RxErr 150\nTOTAL_ERR_COR 150",
        "aer_dev_nonfatal": "UnsupReq 0\nTOTAL_ERR_NONFATAL 0",
        "aer_dev_fatal": "DLP 1\nTOTAL_ERR_FATAL 1",
    }.items():
        (card / name).write_text(f"{text}\n")
    (port / "max_link_width").write_text("8\n")
    (port / "max_link_speed").write_text("16.0 GT/s PCIe\n")
    (port / "aer_dev_fatal").write_text("TOTAL_ERR_FATAL 2\n")
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0").symlink_to(card)
    facts = host.look(root=tmp_path, system=tmp_path, driver=False)
    (device,) = facts["devices"]
    assert device["port"] == {
        "address": "0000:00:01.1",
        "gen_max": 4,
        "width_max": 8,
        "aer": {"correctable": None, "nonfatal": None, "fatal": 2, "kinds": {}},
    }
    found = made("pcie_errors", bench(facts, OURS))
    assert found.verdict == "FAIL"
    assert "1 fatal error of its link (1 x DLP)" in found.says
    assert "2 fatal errors of its link at its slot's port" in found.says
    assert "150 corrected errors of its link (150 x RxErr)" in found.says


@given(st.sampled_from(FIXTURES), st.data())
def test_a_reading_that_is_missing_breaks_no_check(name: str, data: st.DataObject) -> None:
    gpu = copy.deepcopy(read(name))
    for device in gpu["devices"]:
        for key in data.draw(st.sets(st.sampled_from(sorted(set(device) - {"pci_address", "state"})))):
            if isinstance(device[key], dict):
                device[key] = {} if key == "missing" else dict.fromkeys(device[key])
            elif not isinstance(device[key], list):
                device[key] = None
    for check, found in all_made(bench(gpu, RIG), without=()).items():
        assert found.says, check
        assert found.advice or found.verdict in ("PASS", "SKIP"), check


def test_all_checks_of_the_hardware_are_tried_here() -> None:
    assert {case[0] for case in CASES.values()} | {"gpus_seen", "kernel_log", "aftermath"} == set(NAMES)
