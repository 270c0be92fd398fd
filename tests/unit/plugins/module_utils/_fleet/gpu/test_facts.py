# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs print becomes data, and two lists of GPUs become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog, facts, pci, smi
from hypothesis import example, given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[5] / "fixtures" / "nvidia_smi"


def card(address: str, pci_id: str = "2b85", **more: Any) -> pci.PciGpu:
    given_: dict[str, Any] = {
        "class_code": "0300",
        "subsystem_id": "1043:8a2f",
        "kernel_driver": "nvidia",
        "gen_now": 1,
        "gen_max": 5,
        "width_now": 16,
        "width_max": 16,
        "numa_node": 0,
    }
    return pci.PciGpu(address=address, pci_id=pci_id, **{**given_, **more})


FOUR = [card(f"0000:{bus}:00.0") for bus in ("01", "21", "41", "61")]


def answer(name: str) -> smi.SmiLog:
    return smi.parse((FOLDER / f"{name}.xml").read_text())


def test_a_card_without_a_driver_is_named_all_the_same() -> None:
    found = facts.facts(facts.Found(pci=[card("0000:01:00.0", kernel_driver=None)], asked=False))
    device = found["devices"][0]
    assert (device["model"], device["name"]) == ("rtx5090", catalog.by_pci_id("2b85").name)
    assert device["state"] == "no_driver"
    assert device["seen_by_driver"] is None
    assert device["link"]["width_now"] == 16
    assert device["link"]["gen_max"] == 5
    assert device["memory_mib"] is None
    assert device["missing"]["memory_mib"] == "absent"
    assert found["counts"] == {"pci": 1, "driver": None}


def test_a_card_that_is_not_in_the_catalog_has_no_model() -> None:
    device = facts.facts(facts.Found(pci=[card("0000:01:00.0", "1c30")], asked=False))["devices"][0]
    assert (device["model"], device["pci_id"]) == (None, "1c30")
    # The driver has it, and was not asked.
    assert device["state"] is None


def test_both_lists_are_put_together_by_address() -> None:
    found = facts.facts(facts.Found(pci=FOUR, smi=answer("570-rtx5090")))
    assert [device["state"] for device in found["devices"]] == ["ok"] * 4
    assert [device["index"] for device in found["devices"]] == [0, 1, 2, 3]
    assert {device["model"] for device in found["devices"]} == {"rtx5090"}
    assert found["counts"] == {"pci": 4, "driver": 4}
    assert found["driver"]["cuda"] == "12.8"
    # Nobody could read the module's version, so the driver's own word is taken.
    assert found["driver"]["loaded"] == "570.124.06"


def test_sysfs_knows_the_link_better_where_both_tell() -> None:
    device = facts.facts(
        facts.Found(pci=[card("0000:01:00.0", width_now=8, gen_now=5)], smi=answer("610-rtx5090"))
    )["devices"][0]
    assert device["link"] == {
        "gen_now": 5, "gen_max": 5, "gen_device_max": 5, "width_now": 8, "width_max": 16, "replay_counter": 0,
        "replay_rollover_counter": 0,
    }  # fmt: skip


def test_a_card_that_only_the_driver_knows_is_there() -> None:
    """In a container the bus may be hidden."""
    device = facts.facts(facts.Found(smi=answer("595-t4")))["devices"][0]
    assert (device["model"], device["state"], device["class"], device["kernel_driver"]) == (
        "t4", "ok", None, None,
    )  # fmt: skip
    assert device["link"]["width_now"] == 8


@pytest.mark.parametrize(
    ("found", "states"),
    [
        # The driver gives values of none of its readings.
        (facts.Found(pci=FOUR, smi=answer("580-rtx5090-lost")), ["ok", "ok", "lost", "ok"]),
        # The driver lists three, and says of the fourth that it is lost.
        (
            facts.Found(
                pci=FOUR,
                smi=smi.SmiLog("580", None, 3, False, answer("610-rtx5090").gpus[:3]),
                lost={"0000:61:00.0": "GPU is lost."},
            ),
            ["ok", "ok", "ok", "lost"],
        ),
        # The driver lists three, and says nothing of the fourth.
        (
            facts.Found(pci=FOUR, smi=smi.SmiLog("580", None, 3, False, answer("610-rtx5090").gpus[1:])),
            ["unseen", "ok", "ok", "ok"],
        ),
        (facts.Found(pci=FOUR, smi_says="no answer"), ["unseen"] * 4),
        (
            facts.Found(pci=[card("0000:01:00.0", kernel_driver="vfio-pci"), *FOUR[1:]], smi=None),
            ["no_driver", "unseen", "unseen", "unseen"],
        ),
    ],
)
def test_a_card_that_does_not_answer_has_a_state(found: facts.Found, states: list[str]) -> None:
    devices = facts.facts(found)["devices"]
    assert [device["state"] for device in devices] == states
    assert [device["seen_by_driver"] for device in devices] == [
        found.smi is not None and device["pci_address"] in {gpu["pci_address"] for gpu in found.smi.gpus}
        for device in devices
    ]


def test_the_readings_of_a_lost_card_are_lost() -> None:
    found = facts.facts(
        facts.Found(
            pci=FOUR,
            smi=smi.SmiLog("580", None, 3, False, answer("610-rtx5090").gpus[:3]),
            lost={"0000:61:00.0": "GPU is lost."},
        )
    )
    missing = found["devices"][3]["missing"]
    assert missing["memory_mib"] == missing["power.draw_w"] == missing["ecc.volatile.uncorrectable"] == "lost"
    assert "pci_id" not in missing
    assert "link.width_now" not in missing


def test_every_card_has_the_same_keys() -> None:
    """Whoever reads the facts need not ask first whether a driver is there."""

    def keys(data: dict[str, Any]) -> Any:
        return {
            key: keys(value) if isinstance(value, dict) and key not in ("missing", "throttle_us", "volatile", "aggregate") else 0
            for key, value in data.items()
        }  # fmt: skip

    with_driver = facts.facts(facts.Found(pci=FOUR, smi=answer("610-rtx5090")))["devices"][0]
    without = facts.facts(facts.Found(pci=FOUR, asked=False))["devices"][0]
    more = keys(with_driver)
    for clock in ("applications_graphics_mhz", "applications_memory_mhz"):
        del more["clocks"][clock]
    assert more == keys(without)
    json.dumps(with_driver, allow_nan=False)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.xml")))
def test_a_null_of_a_seen_card_has_its_reason(name: str) -> None:
    for device in facts.facts(facts.Found(smi=answer(name)))["devices"]:
        assert set(facts._nulls(device)) <= set(device["missing"])


# Readers.

OPEN_MODULE = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build  (dvs-builder@U22)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (
            OPEN_MODULE,
            ("580.178.04", "open"),
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025\n",
            ("550.163.01", "closed"),
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256  Thu\n", ("470.256", "closed")),
        ("GCC version:  gcc version 13.3.0\n", (None, None)),
        ("", (None, None)),
    ],
)
def test_the_loaded_module(text: str, result: tuple[str | None, str | None]) -> None:
    assert facts.loaded_module(text) == result


@pytest.mark.parametrize(
    ("licence", "flavour"), [("Dual MIT/GPL", "open"), ("NVIDIA", "closed"), ("GPL", "unknown")]
)
def test_the_module_on_disk(licence: str, flavour: str) -> None:
    text = (
        "filename:       /lib/modules/6.8.0-90-generic/updates/dkms/nvidia.ko.zst\n"
        f"firmware:       nvidia/580.178.04/gsp_tu10x.bin\nversion:        580.178.04\nlicense:        {licence}\n"
        "parm:           NVreg_Version:another version (string)\nversion:        9.9\n"
    )
    assert facts.modinfo(text) == {
        "version": "580.178.04",
        "flavour": flavour,
        "path": "/lib/modules/6.8.0-90-generic/updates/dkms/nvidia.ko.zst",
    }
    assert facts.modinfo("filename: /lib/modules/x/nvidia.ko\n") is None


def test_packages_that_are_half_installed_are_told_from_whole_ones() -> None:
    text = (
        "nvidia-dkms-580-open\tamd64\t580.178.04-1ubuntu1\tnvidia-graphics-drivers-580\thi \t580.178.04-1ubuntu1\n"
        "nvidia-utils-580\tamd64\t580.178.04-1ubuntu1\tnvidia-graphics-drivers-580\tii \t580.178.04-1ubuntu1\n"
        "nvidia-kernel-open-dkms\tamd64\t550.163.01-2\tnvidia-open\tiF \t550.163.01-2\n"
        "libcuda1\ti386\t550.163.01-2\tnvidia\tiiR\t550.163.01-2\n"
        "nvidia-driver-pinning-580\tall\t580-1\tpin\trc \t580-1\n"
        "nvidia-settings\tamd64\t\t\tun \t\n"
        "nonsense\n"
    )
    found = facts.packages(text, "amd64")
    assert {name: (package["held"], package["ok"]) for name, package in found.items()} == {
        "nvidia-dkms-580-open": (True, True),
        "nvidia-utils-580": (False, True),
        "nvidia-kernel-open-dkms": (False, False),
        "libcuda1:i386": (False, False),
    }
    assert found["nvidia-utils-580"] == {
        "version": "580.178.04-1ubuntu1",
        "held": False,
        "ok": True,
        "source": "nvidia-graphics-drivers-580",
        "source_version": "580.178.04-1ubuntu1",
    }


def test_both_ways_in_which_dkms_tells_its_state() -> None:
    text = (
        "nvidia/580.178.04, 6.8.0-90-generic, x86_64: installed\n"
        "nvidia/580.178.04, 6.8.0-94-generic, x86_64: installed (WARNING! Diff between built and installed module!)\n"
        "nvidia-current, 550.163.01, 6.12.117+deb13-amd64, x86_64: built\n"
        "nvidia-current-open/550.163.01: added\n"
        "zfs/2.2.2, 6.8.0-90-generic, x86_64: installed\n"
        "Deprecated feature: REMAKE_INITRD\n"
    )
    assert [tuple(entry.values()) for entry in facts.dkms(text)] == [
        ("nvidia", "580.178.04", "6.8.0-90-generic", "installed"),
        ("nvidia", "580.178.04", "6.8.0-94-generic", "installed"),
        ("nvidia-current", "550.163.01", "6.12.117+deb13-amd64", "built"),
        ("nvidia-current-open", "550.163.01", "", "added"),
    ]


def test_what_apt_would_do() -> None:
    text = (
        "NOTE: This is only a simulation!\n"
        "Remv nvidia-utils-580 [580.173.02-1] \n"
        "Inst libc6 [2.39-0ubuntu8] (2.39-0ubuntu9 Ubuntu:24.04 [amd64])\n"
        "Inst libnvidia-compute-580 [580.173.02-1] (580.178.04-1 NVIDIA:cuda [amd64])\n"
        "Inst linux-image-6.8.0-94-generic (6.8.0-94.96 Ubuntu:24.04/noble-updates [amd64])\n"
        "Conf libnvidia-compute-580 (580.178.04-1 NVIDIA:cuda [amd64])\n"
    )
    change, remove = facts.apt_simulation(text)
    assert change == [
        {"name": "libnvidia-compute-580", "from": "580.173.02-1", "to": "580.178.04-1", "kind": "gpu"},
        {"name": "linux-image-6.8.0-94-generic", "from": "", "to": "6.8.0-94.96", "kind": "kernel"},
    ]
    assert remove == ["nvidia-utils-580"]


def test_the_packages_that_dpkg_complains_of() -> None:
    text = (
        "The following packages are only half configured, probably due to problems\n"
        "configuring them the first time.  The configuration should be retried using\n"
        "dpkg --configure <package> or the configure menu option in dselect:\n"
        " nvidia-open-kernel-dkms NVIDIA binary kernel module DKMS source\n\n"
    )
    assert facts.audit(text) == ["nvidia-open-kernel-dkms"]


def test_kernels_are_sorted_as_boot_loaders_do() -> None:
    kernels = ["6.8.0-100-generic", "6.8.0-90-generic", "6.12.9+deb13-amd64", "6.8.0-9-generic"]
    assert sorted(kernels, key=facts.natural) == [
        "6.8.0-9-generic", "6.8.0-90-generic", "6.8.0-100-generic", "6.12.9+deb13-amd64",
    ]  # fmt: skip


def test_topology_and_peers() -> None:
    text = (FOLDER / "topo-m-4x-rtx5090.txt").read_text()
    assert [(pair["from"], pair["to"], pair["link"]) for pair in facts.pairs(text, "link")] == [
        (0, 1, "PHB"), (0, 2, "NODE"), (0, 3, "SYS"), (1, 2, "NODE"), (1, 3, "SYS"), (2, 3, "SYS"),
    ]  # fmt: skip
    text = (FOLDER / "topo-p2p-4x-rtx5090.txt").read_text()
    assert [(pair["from"], pair["to"], pair["read"]) for pair in facts.pairs(text, "read")] == [
        (0, 1, "CNS"), (0, 2, "CNS"), (0, 3, "CNS"), (1, 2, "CNS"), (1, 3, "CNS"), (2, 3, "OK"),
    ]  # fmt: skip
    assert facts.pairs("Failed to initialize NVML: Unknown Error\n", "link") == []


@given(st.text())
@example("²")  # Unicode has digits that are no numbers.
def test_no_output_of_a_program_makes_a_reader_fail(text: str) -> None:
    for reader in (
        facts.loaded_module, facts.modinfo, facts.dkms, facts.apt_simulation, facts.audit, facts.natural,
        facts.matrix,
    ):  # fmt: skip
        reader(text)
    facts.pairs(text, "link")
    facts.packages(text, "amd64")
    assert facts.pairs(f" GPU0 GPU1\n{text}", "link") is not None
