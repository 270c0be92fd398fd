# SPDX-License-Identifier: GPL-3.0-or-later
"""Each broken thing is found, alone, and the message says what it is and what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import facts, health, pci, smi
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.health_words import ExpectedError
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[5] / "fixtures" / "nvidia_smi"
VERSION = "580.178.04"
KERNEL = "6.8.0-90-generic"
MODULE = {"version": VERSION, "flavour": "open", "path": f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko.zst"}
PACKAGE = {"version": f"{VERSION}-1ubuntu1", "held": True, "ok": True, "source": "x", "source_version": "x"}
Facts = dict[str, Any]


def answer(name: str, driver: str = VERSION) -> smi.SmiLog:
    return replace(smi.parse((FOLDER / f"{name}.xml").read_text()), driver=driver)


def machine(name: str = "610-rtx5090", **more: Any) -> facts.Found:
    """A machine on which everything is well."""
    log = answer(name)
    found: dict[str, Any] = {
        "pci": [
            pci.PciGpu(
                gpu["pci_address"], gpu["pci_id"], "0300", gpu["subsystem_id"], "nvidia", 1, 5,
                gpu["link"]["width_now"], 16, 0, slot=str(number + 1),
            )
            for number, gpu in enumerate(log.gpus)
        ],
        "smi": log,
        "loaded_version": VERSION,
        "loaded_flavour": "open",
        "modules": frozenset({"nvidia"}),
        "libraries": {"libnvidia-ml": [VERSION], "libcuda": [VERSION]},
        "library": VERSION,
        "running_kernel": KERNEL,
        "kernels": [KERNEL],
        "on_disk": {KERNEL: MODULE},
        "persistence": {"active": True, "enabled": True, "state": "enabled"},
        "packages": {"nvidia-dkms-580-open": PACKAGE, "nvidia-utils-580": PACKAGE},
        "dkms": [{"module": "nvidia", "version": VERSION, "kernel": KERNEL, "state": "installed"}],
        "apt": {"checked": True},
        "governors": ["performance"],
    }  # fmt: skip
    return facts.Found(**{**found, **more})


EXPECTED: dict[str, Any] = {
    "gpus": [{"model": "RTX 5090", "count": 4}],
    "driver": {"version": VERSION, "branch": "580", "flavour": "open", "source": "nvidia"},
    "packages": ["nvidia-dkms-580-open", "nvidia-utils-580"],
    "tuning": {"power_limit_w": {"rtx5090": 450}, "compute_mode": "default", "cpu_governor": "performance"},
    "width": {"rtx5090": 16},
    "apt": True,
}


def failed(gpu: Facts, expected: dict[str, Any] | None = None) -> dict[str, str]:
    return {
        check["name"]: check["says"]
        for check in health.checks(gpu, EXPECTED if expected is None else expected)
        if not check["ok"]
    }


def test_a_machine_that_is_well_fails_no_check() -> None:
    checks = health.checks(facts.facts(machine()), EXPECTED)
    assert failed(facts.facts(machine())) == {}
    names = [check["name"] for check in checks]
    assert len(names) == len(set(names))
    assert set(names) >= {
        "gpus_present", "gpus_seen", "driver_answers", "driver_loaded", "library", "module_on_disk", "packages", "packages_held",
        "dkms", "apt_works", "apt_next", "persistence_daemon", "nouveau", "memory", "link_width", "ecc_errors", "memory_repair",
        "throttle", "temperature", "persistence", "recovery", "power_limit", "compute_mode", "cpu_governor",
    }  # fmt: skip
    assert all(check["says"].endswith(".") for check in checks)


def set_(path: str, value: Any, device: int | None = 2) -> Callable[[Facts], None]:
    """Change one fact; of one device, where one is given."""

    def change(gpu: Facts) -> None:
        at = gpu["devices"][device] if device is not None else gpu
        *above, last = path.split("/")
        for name in above:
            at = at[name]
        assert last in at
        at[last] = value

    return change


CARD = "0000:41:00.0 (GPU 2, rtx5090, slot 3)"
BROKEN: dict[str, tuple[Callable[[Facts], None], dict[str, list[str]]]] = {
    "mismatch": (
        lambda gpu: [  # type: ignore[return-value]
            set_("driver/smi", "Failed to initialize NVML: Driver/library version mismatch", None)(gpu),
            set_("driver/loaded", "580.173.02", None)(gpu),
        ],
        {
            "driver_answers": ["the loaded module is 580.173.02, the library on disk 580.178.04", "Reboot the machine"],
            "driver_loaded": ["the loaded module is 580.173.02, declared is 580.178.04"],
            "library": ["the library is 580.178.04, the loaded module 580.173.02"],
        },
    ),
    "no module loaded": (
        lambda gpu: [  # type: ignore[return-value]
            set_("driver/smi", "NVIDIA-SMI has failed because it could not communicate", None)(gpu),
            set_("driver/loaded", None, None)(gpu),
        ],
        {"driver_answers": ["module is not loaded", "Secure Boot"], "driver_loaded": ["not loaded"]},
    ),
    "wrong flavour": (
        set_("driver/flavour", "closed", None),
        {"driver_loaded": ["the closed one, declared is the open one"]},
    ),
    "nouveau": (set_("driver/nouveau_loaded", True, None), {"nouveau": ["nouveau is loaded", "update-initramfs"]}),
    "no module for the next boot": (
        set_(f"driver/on_disk/{KERNEL}", None, None),
        {"module_on_disk": ["the next boot would have no working driver", f"kernel {KERNEL} has no module", "dkms autoinstall"]},
    ),
    "another module for the next boot": (
        set_(f"driver/on_disk/{KERNEL}", {**MODULE, "version": "595.91.07"}, None),
        {"module_on_disk": ["595.91.07, declared is 580.178.04"]},
    ),
    "no library": (set_("driver/library", None, None), {"library": ["not installed"]}),
    "libraries of two drivers": (
        set_("driver/libraries/libcuda", [VERSION, "595.91.07"], None),
        {"library": ["several drivers", "595.91.07", "nvidia-uninstall"]},
    ),
    "package gone": (
        lambda gpu: gpu["packages"].pop("nvidia-utils-580"),
        {"packages": ["nvidia-utils-580 not installed"]},
    ),
    "package half installed": (
        set_("packages/nvidia-dkms-580-open", {**PACKAGE, "ok": False}, None),
        {"packages": ["nvidia-dkms-580-open half installed", "dpkg --audit"]},
    ),
    "package not held": (
        set_("packages/nvidia-utils-580", {**PACKAGE, "held": False}, None),
        {"packages_held": ["nvidia-utils-580 not held", "`apt-mark hold nvidia-utils-580`"]},
    ),
    "package of another version": (
        lambda gpu: gpu["packages"].update({"nvidia-modprobe": {**PACKAGE, "version": "610.57.04-1ubuntu1"}}),
        {"packages": ["not all 580.178.04", "nvidia-modprobe 610.57.04"]},
    ),
    "a build has failed": (
        lambda gpu: gpu["dkms"].append({"module": "nvidia", "version": "590.48.01", "kernel": "7.0.0-1", "state": "built"}),
        {"dkms": ["nvidia 590.48.01 for 7.0.0-1 is built", "make.log"]},
    ),
    "apt is broken": (
        set_("apt/broken", ["nvidia-open-kernel-dkms"], None),
        {"apt_works": ["nvidia-open-kernel-dkms", "--fix-broken"]},
    ),
    "apt would move it": (
        set_(
            "apt/would_change",
            [{"name": "nvidia-utils-580", "from": "580.178.04-1", "to": "580.180.01-1", "kind": "gpu"}],
            None,
        ),
        {"apt_next": ["nvidia-utils-580 580.178.04-1 -> 580.180.01-1", "apt-mark hold nvidia-utils-580"]},
    ),
    "apt would remove it": (
        set_("apt/would_remove", ["nvidia-utils-580"], None),
        {"apt_next": ["nvidia-utils-580 removed"]},
    ),
    "apt was not asked": (set_("apt/checked", False, None), {"apt": ["not checked", "apt: true"]}),
    "daemon off": (
        set_("driver/persistence_daemon/active", False, None),
        {"persistence_daemon": ["does not run", "systemctl enable --now nvidia-persistenced"]},
    ),
    "daemon not at boot": (
        set_("driver/persistence_daemon", {"active": True, "enabled": False, "state": "disabled"}, None),
        {"persistence_daemon": ["will not start at the next boot"]},
    ),
    "governor": (set_("cpu_governors", ["schedutil"], None), {"cpu_governor": ["schedutil, declared is performance"]}),
    "no governor": (set_("cpu_governors", [], None), {"cpu_governor": ["not checked"]}),
    "narrow link": (set_("link/width_now", 8), {"link_width": [f"{CARD} is on x8, expected is x16", "Reseat"]}),
    "link not told": (set_("link/width_now", None), {"link_width": ["does not tell the width"]}),
    "memory": (set_("memory_mib", 24576), {"memory": [f"{CARD} has 24576 MiB", "should have 32543"]}),
    "memory not told": (set_("memory_mib", None), {"memory": ["does not tell its memory"]}),
    "uncorrectable errors": (
        set_("ecc/volatile/uncorrectable", 3),
        {"ecc_errors": [f"{CARD} has had 3 uncorrectable memory errors", "nvidia-smi -r"]},
    ),
    "one uncorrectable error": (set_("ecc/volatile/uncorrectable", 1), {"ecc_errors": ["1 uncorrectable memory error since"]}),
    "row to remap": (set_("remapped_rows/pending", True), {"memory_repair": ["has a row of memory to replace", "Reset"]}),
    "no spare rows": (set_("remapped_rows/failure", True), {"memory_repair": ["no spare rows", "replaced"]}),
    "page to retire": (set_("retired_pages/pending", True), {"memory_repair": ["page of memory to retire"]}),
    "hot": (
        set_("throttle", ["sw_power_cap", "hw_slowdown", "hw_thermal"]),
        {"throttle": [f"{CARD} is throttled at 26 degrees: the hardware has halved its clocks", "fans"]},
    ),
    "software thermal": (set_("throttle", ["sw_thermal"]), {"throttle": ["the driver holds its clocks down"]}),
    "power brake": (set_("throttle", ["hw_slowdown", "power_brake"]), {"throttle": ["the power supply has told it"]}),
    "hardware slowdown alone": (set_("throttle", ["hw_slowdown"]), {"throttle": ["the hardware holds its clocks down"]}),
    "at its limit": (set_("temperatures/margin_c", 0), {"temperature": ["its own limit is 90"]}),
    "persistence off": (set_("persistence", False), {"persistence": [f"{CARD} has persistence off", "nvidia-persistenced"]}),
    "persistence not told": (set_("persistence", None), {"persistence": ["does not tell"]}),
    "needs a reset": (set_("recovery_action", "GPU Reset"), {"recovery": ["needs an action: GPU Reset"]}),
    "power limit": (
        set_("power/requested_w", 575.0),
        {"power_limit": [f"{CARD} has a power limit of 575 W, declared is 450 W", "gpumesh-gpu-tuning"]},
    ),
    "compute mode": (
        set_("compute_mode", "Exclusive_Process"),
        {"compute_mode": ["is in compute mode Exclusive_Process, declared is default"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_thing_is_found_alone(name: str) -> None:
    change, wanted = BROKEN[name]
    gpu = copy.deepcopy(facts.facts(machine()))
    change(gpu)
    found = failed(gpu)
    assert set(found) == set(wanted)
    for check, parts in wanted.items():
        for part in parts:
            assert part in found[check]
        # What it is, and after that what to do.
        assert ". " in found[check]


def test_one_of_four_is_lost() -> None:
    base = machine()
    assert base.smi
    gone = replace(
        base,
        smi=replace(base.smi, gpus=base.smi.gpus[:3]),
        lost={"0000:61:00.0": "GPU is lost."},
        smi_says="Unable to determine the device handle for GPU3: 00000000:61:00.0: GPU is lost.",
    )
    found = failed(facts.facts(gone))
    assert set(found) == {"gpus_seen", "driver_answers"}
    assert "1 of 4 GPUs is lost: 0000:61:00.0 (rtx5090, slot 4)" in found["gpus_seen"]
    assert "(the PCI bus has 4, the driver sees 3)" in found["gpus_seen"]
    assert "Switch the machine off and on again" in found["gpus_seen"]


def test_one_of_four_is_not_listed() -> None:
    base = machine()
    assert base.smi
    found = failed(facts.facts(replace(base, smi=replace(base.smi, gpus=base.smi.gpus[1:]))))
    assert set(found) == {"gpus_seen"}
    assert "the driver does not list 0000:01:00.0 (rtx5090, slot 1)" in found["gpus_seen"]
    assert "closed modules on Blackwell" in found["gpus_seen"]


def test_a_card_that_is_declared_and_not_there() -> None:
    base = machine()
    found = failed(
        facts.facts(
            replace(
                base,
                pci=base.pci[:3],
                smi=replace(answer("610-rtx5090"), gpus=answer("610-rtx5090").gpus[:3]),
            )
        )
    )
    assert set(found) == {"gpus_present"}
    assert "declared are 4 x rtx5090, on the PCI bus are 3 x rtx5090" in found["gpus_present"]


def test_a_card_that_is_there_and_not_declared() -> None:
    found = failed(facts.facts(machine()), {**EXPECTED, "gpus": [{"model": "rtx5090", "count": 3}]})
    assert set(found) == {"gpus_present"}
    assert found["gpus_present"].endswith("Declare what is there.")


def test_a_card_of_another_owner() -> None:
    base = machine()
    assert base.smi
    given_away = replace(base.pci[0], kernel_driver="vfio-pci")
    found = failed(
        facts.facts(
            replace(base, pci=[given_away, *base.pci[1:]], smi=replace(base.smi, gpus=base.smi.gpus[1:]))
        )
    )
    assert "0000:01:00.0 (rtx5090, slot 1) has vfio-pci, not nvidia" in found["gpus_seen"]


def test_no_gpu_and_none_declared_is_not_good() -> None:
    found = failed(facts.facts(facts.Found()), {})
    assert "no NVIDIA GPU is on the PCI bus" in found["gpus_present"]


def test_the_power_limit_at_work_is_no_fault() -> None:
    gpu = facts.facts(machine())
    gpu["devices"][0]["throttle"] = ["sw_power_cap", "app_clocks", "sync_boost", "display", "idle"]
    assert failed(gpu) == {}


def test_half_the_lanes_are_a_fault_only_where_all_are_expected() -> None:
    gpu = facts.facts(machine("570-rtx5090"))
    loose = {**EXPECTED, "tuning": {}, "width": {}}
    assert failed(gpu, loose) == {}
    assert set(failed(gpu, {**loose, "width": {"": 16}})) == {"link_width"}
    assert failed(gpu, {**loose, "width": {"t4": 16}}) == {}


def test_the_tuning_of_one_model_is_not_asked_of_another() -> None:
    assert failed(facts.facts(machine()), {**EXPECTED, "tuning": {"power_limit_w": {"t4": 70}}}) == {}
    assert set(failed(facts.facts(machine()), {**EXPECTED, "tuning": {"power_limit_w": 400}})) == {
        "power_limit"
    }
    assert failed(facts.facts(machine()), {**EXPECTED, "tuning": {"power_limit_w": 0}}) == {}


@pytest.mark.parametrize(
    ("wish", "names"), [("on", {"ecc_mode"}), ("off", set()), (True, {"ecc_mode"}), ("", set())]
)
def test_ecc_as_declared(wish: Any, names: set[str]) -> None:
    gpu = facts.facts(machine("595-l40s"))
    gpu["devices"][0]["ecc"].update(current=False, pending=True)
    found = failed(gpu, {"tuning": {"ecc": wish}})
    assert set(found) == names
    if names:
        assert "has ECC off, and waits for a reset to change that" in found["ecc_mode"]


def test_every_setting_may_differ_by_model() -> None:
    gpu = facts.facts(machine("535-a100-mig"))
    tuning = {
        "mig": {"a100-80gb": "3g.40gb,4g.40gb", "": "off"},
        "ecc": {"t4": "off", "": "on"},
        "compute_mode": {"t4": "prohibited"},
    }
    assert failed(gpu, {"tuning": tuning}) == {}
    tuning["mig"] = {"": "7g.80gb"}
    assert "has 2 MIG devices, declared are 1 (7g.80gb)" in failed(gpu, {"tuning": tuning})["mig_mode"]
    tuning["mig"] = {"": "off"}
    assert "has MIG on" in failed(gpu, {"tuning": tuning})["mig_mode"]


def test_application_clocks_are_checked_where_the_driver_tells_them() -> None:
    assert failed(facts.facts(machine("550-l4")), {"tuning": {"application_clocks": "6251,2040"}}) == {}
    found = failed(facts.facts(machine("550-l4")), {"tuning": {"application_clocks": "6251,1500"}})
    assert "has application clocks of 6251,2040 MHz, declared is 6251,1500" in found["application_clocks"]
    checks = health.checks(facts.facts(machine("595-l40s")), {"tuning": {"application_clocks": "1,1"}})
    assert "application_clocks" not in {check["name"] for check in checks}


def test_a_boolean_that_a_template_wrote_is_one() -> None:
    assert "apt_works" not in {
        check["name"] for check in health.checks(facts.facts(machine()), {"apt": "False"})
    }
    assert "apt_works" in {check["name"] for check in health.checks(facts.facts(machine()), {"apt": "True"})}


def test_a_card_without_ecc_cannot_have_it_on() -> None:
    assert (
        "has no ECC to switch (not_available)"
        in failed(facts.facts(machine()), {"tuning": {"ecc": "on"}})["ecc_mode"]
    )


def test_a_card_without_ecc_has_it_off() -> None:
    assert failed(facts.facts(machine()), {"tuning": {"ecc": "off"}}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "470-v100",
        "515-t4",
        "525-rtx3090",
        "535-a100-mig",
        "550-l4",
        "570-rtx5090",
        "580-h100",
        "595-t4",
        "595-l40s",
    ],
)
def test_no_healthy_card_of_any_dialect_fails(name: str) -> None:
    found = failed(facts.facts(machine(name)), {"apt": True})
    assert set(found) == ({"persistence"} if name == "515-t4" else set())


def test_memory_that_ecc_takes_is_not_missing() -> None:
    gpu = facts.facts(machine("595-l40s"))
    gpu["devices"][0].update(memory_mib=43500)
    assert failed(gpu, {}) == {}
    gpu["devices"][0].update(memory_mib=40000)
    assert set(failed(gpu, {})) == {"memory"}


def test_debians_own_tools_may_be_of_another_version() -> None:
    gpu = facts.facts(machine())
    gpu["packages"]["nvidia-modprobe"] = {**PACKAGE, "version": "570.133.07-1"}
    assert set(failed(gpu)) == {"packages"}
    assert failed(gpu, {**EXPECTED, "driver": {**EXPECTED["driver"], "source": "distribution"}}) == {}


def test_packages_that_have_versions_of_their_own_are_left_out() -> None:
    gpu = facts.facts(machine())
    for name, version in (
        ("nvidia-container-toolkit", "1.20.0-1"),
        ("libnvidia-container1", "1.20.0-1"),
        ("nvidia-driver-pinning-580", "580-2ubuntu1"),
        ("nvidia-driver-pinning-580.178.04", "580.178.04-1"),
        ("nvidia-kernel-common", "20240109+1"),
        ("libnvidia-egl-wayland1", "1:1.1.13-1"),
        ("nvidia-cuda-toolkit", "12.4.131~12.4.1-2"),
        ("cuda-toolkit-13-0", "13.0.2-1"),
        ("libcudnn9-cuda-13", "9.17.0.29-1"),
        ("linux-image-6.8.0-90-generic", "6.8.0-90.91"),
    ):
        gpu["packages"][name] = {**PACKAGE, "version": version}
    assert failed(gpu) == {}


def test_a_kernel_in_the_next_upgrade_counts_only_where_kernels_are_held() -> None:
    gpu = facts.facts(machine())
    gpu["apt"]["would_change"] = [
        {"name": "linux-image-6.8.0-94-generic", "from": "", "to": "6.8.0-94.96", "kind": "kernel"}
    ]
    assert failed(gpu) == {}
    found = failed(gpu, {**EXPECTED, "kernel_held": True})
    assert "linux-image-6.8.0-94-generic new -> 6.8.0-94.96" in found["apt_next"]


def test_other_kernels_are_checked_apart() -> None:
    found = failed(
        facts.facts(
            machine(kernels=["6.8.0-80-generic", KERNEL], on_disk={KERNEL: MODULE, "6.8.0-80-generic": None})
        )
    )
    assert set(found) == {"module_other_kernels"}
    assert "kernel 6.8.0-80-generic has no module" in found["module_other_kernels"]


def test_ubuntus_static_unit_starts_by_itself() -> None:
    assert (
        failed(facts.facts(machine(persistence={"active": True, "enabled": False, "state": "static"}))) == {}
    )


def test_nothing_that_runs_is_looked_at_while_an_image_is_built() -> None:
    image = facts.facts(
        machine(
            pci=[], smi=None, smi_says="NVIDIA-SMI has failed", loaded_version=None, loaded_flavour=None,
            running_kernel="5.0.0-builder", on_disk={KERNEL: MODULE, "5.0.0-builder": None}, governors=[],
            persistence={"active": False, "enabled": True, "state": "enabled"},
        )
    )  # fmt: skip
    expected = {**EXPECTED, "gpus": [], "deferred": True}
    assert failed(image, expected) == {}
    image["driver"]["on_disk"][KERNEL] = {**MODULE, "flavour": "closed"}
    assert set(failed(image, expected)) == {"module_on_disk"}
    image["driver"]["persistence_daemon"]["enabled"] = False
    image["driver"]["persistence_daemon"]["state"] = "disabled"
    assert set(failed(image, expected)) == {"module_on_disk", "persistence_daemon"}


def test_facts_for_which_nobody_was_asked_are_not_good() -> None:
    base = machine(smi=None, smi_says="not asked", asked=False, packages={}, on_disk={}, apt={})
    found = failed(facts.facts(base))
    assert found["gpus_seen"].startswith("the driver was not asked")
    for name in ("driver_answers", "module_on_disk", "apt"):
        assert found[name].startswith("not checked: ")


def test_simulated_results_say_so() -> None:
    checks = health.checks(facts.facts(machine(simulated=True)), EXPECTED)
    assert all(check["says"].startswith("SIMULATED: ") for check in checks)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"gpu": []}, "no such key: gpu"),
        ({"gpus": "rtx5090x4"}, "gpus is no list"),
        ({"gpus": [{"count": 4}]}, "gpus is no list of dicts"),
        ({"gpus": [{"model": "t4", "count": "many"}]}, "no whole number"),
        ({"driver": "580"}, "driver is no dict"),
        ({"driver": {"releases": "580"}}, "no such key in driver: releases"),
        ({"packages": "nvidia-utils-580"}, "packages is no list"),
        ({"width": {"t4": "wide"}}, "no whole number"),
        ({"apt": "perhaps"}, "neither true nor false"),
        ({"tuning": {"power_limit_w": "much"}}, "is no number"),
    ],
)
def test_what_is_declared_wrongly_is_told(expected: dict[str, Any], says: str) -> None:
    with pytest.raises(ExpectedError, match=says):
        health.checks(facts.facts(machine()), expected)


@given(st.sampled_from(sorted(path.stem for path in FOLDER.glob("*.xml"))), st.data())
def test_a_reading_that_is_missing_never_breaks_a_check(name: str, data: st.DataObject) -> None:
    gpu = copy.deepcopy(facts.facts(machine(name)))
    for device in gpu["devices"]:
        for key in data.draw(st.sets(st.sampled_from(sorted(device)))):
            if isinstance(device[key], dict):
                device[key] = dict.fromkeys(device[key])
            elif not isinstance(device[key], list):
                device[key] = None
    for check in health.checks(gpu, EXPECTED):
        assert set(check) == {"name", "ok", "says"}
        assert check["says"]
