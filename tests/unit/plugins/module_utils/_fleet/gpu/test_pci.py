# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs are found among the PCI devices by what sysfs says, before any driver is there."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import pci
from hypothesis import given
from hypothesis import strategies as st

CARD = {
    "vendor": "0x10de\n",
    "device": "0x2b85\n",
    "class": "0x030000\n",
    "subsystem_vendor": "0x1043\n",
    "subsystem_device": "0x8a2f\n",
    "current_link_speed": "2.5 GT/s PCIe\n",
    "max_link_speed": "32.0 GT/s PCIe\n",
    "current_link_width": "8\n",
    "max_link_width": "16\n",
    "numa_node": "1\n",
}


def card(**files: str) -> pci.PciGpu | None:
    return pci.gpu("0000:01:00.0", {**CARD, **{name.rstrip("_"): text for name, text in files.items()}})


def test_a_card_as_sysfs_shows_it() -> None:
    assert pci.gpu("0000:0A:00.0", CARD, driver="nouveau", slot="3") == pci.PciGpu(
        address="0000:0a:00.0",
        pci_id="2b85",
        class_code="0300",
        subsystem_id="1043:8a2f",
        kernel_driver="nouveau",
        gen_now=1,
        gen_max=5,
        width_now=8,
        width_max=16,
        numa_node=1,
        slot="3",
    )


@pytest.mark.parametrize(
    "files",
    [
        {"vendor": "0x8086\n"},
        {"class_": "0x040300\n"},  # The sound device of the same board.
        {"class_": "0x0c0330\n"},  # Its USB.
        {"class_": "0x068000\n"},  # An NVSwitch.
        {"class_": ""},
        {"device": "2b85"},
        {"vendor": "0xffffffffffff\n"},
    ],
)
def test_anything_else_is_no_gpu(files: dict[str, str]) -> None:
    assert card(**files) is None


def test_a_card_without_a_plug_is_a_gpu_too() -> None:
    found = card(class_="0x030200\n")
    assert found is not None
    assert found.class_code == "0302"


def test_a_virtual_function_is_a_part_of_another_gpu() -> None:
    assert pci.gpu("0000:01:00.4", CARD, virtual=True) is None


@pytest.mark.parametrize(
    ("speed", "generation"),
    [
        ("2.5 GT/s PCIe", 1),
        ("5.0 GT/s PCIe", 2),
        ("8 GT/s", 3),
        ("16.0 GT/s PCIe", 4),
        ("32.0 GT/s PCIe", 5),
        ("64.0 GT/s PCIe", 6),
        ("Unknown", None),
        ("", None),
        ("7.0 GT/s PCIe", None),
    ],
)
def test_generations_are_told_by_speed(speed: str, generation: int | None) -> None:
    assert pci.generation(speed) == generation


@pytest.mark.parametrize(
    ("lanes", "width"), [("16", 16), ("8\n", 8), ("0", None), ("63", None), ("255", None), ("", None)]
)
def test_a_card_off_the_bus_has_no_width(lanes: str, width: int | None) -> None:
    assert pci.width(lanes) == width


def test_firmware_that_tells_no_node_is_no_node() -> None:
    found = card(numa_node="-1\n", subsystem_vendor="")
    assert found is not None
    assert (found.numa_node, found.subsystem_id) == (None, None)


CORRECTABLE = "RxErr 2\nBadTLP 1\nBadDLLP 0\nRollover 0\nTimeout 0\nNonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR 3\n"
NONFATAL = "Undefined 0\nDLP 0\nCmpltTO 4\nUnsupReq 0\nTOTAL_ERR_NONFATAL 4\n"


def test_errors_of_the_link_are_those_that_the_kernel_counted() -> None:
    found = card(aer_dev_correctable=CORRECTABLE, aer_dev_nonfatal=NONFATAL)
    assert found is not None
    # A file that is not there counts nothing, which is not the same as no error.
    assert (found.aer.correctable, found.aer.nonfatal, found.aer.fatal) == (3, 4, None)
    assert found.aer.kinds == {"correctable.RxErr": 2, "correctable.BadTLP": 1, "nonfatal.CmpltTO": 4}


def test_the_port_says_what_the_slot_can_do() -> None:
    files = {
        "max_link_speed": "16.0 GT/s PCIe\n",
        "max_link_width": "8\n",
        "aer_dev_correctable": CORRECTABLE,
    }
    found = pci.port("0000:00:01.1", files)
    assert found is not None
    assert (found.address, found.gen_max, found.width_max) == ("0000:00:01.1", 4, 8)
    assert found.aer.correctable == 3
    # What a card on the root bus is in is a folder of the host, as in most virtual machines.
    assert pci.port("pci0000:00", {}) is None


@given(
    st.fixed_dictionaries(
        {}, optional={name: st.text(max_size=40) for name in (*pci.FILES, *pci.AER_FILES.values())}
    ),
    st.text(max_size=12),
)
def test_nothing_in_sysfs_makes_it_fail(files: dict[str, Any], name: str) -> None:
    pci.port(name, files)
    pci.gpu("0000:01:00.0", {**CARD, **files})
    pci.gpu("0000:01:00.0", files)
