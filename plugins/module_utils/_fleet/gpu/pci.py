# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA GPUs among the PCI devices, from what sysfs says of each. Works before any driver is there.

Pure: whoever reads the files is ``_host/gpu_files.py``.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

VENDOR = "10de"

FILES = (
    "vendor",
    "device",
    "class",
    "subsystem_vendor",
    "subsystem_device",
    "current_link_speed",
    "max_link_speed",
    "current_link_width",
    "max_link_width",
    "numa_node",
)
"""What is read of each device."""

PORT_FILES = ("max_link_speed", "max_link_width")
"""What is read of the port that a device is behind: what its slot can do."""

AER_FILES = {
    "correctable": "aer_dev_correctable",
    "nonfatal": "aer_dev_nonfatal",
    "fatal": "aer_dev_fatal",
}
"""Counters of errors of the link. Not there where the firmware keeps them to itself, and in most virtual machines."""

_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_WIDTHS = frozenset({1, 2, 4, 8, 12, 16, 32})


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of a link since the machine has started; None: nobody counts them. `kinds` has those that there were."""

    correctable: int | None = None
    nonfatal: int | None = None
    fatal: int | None = None
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """The other end of a card's link: the port of the board that its slot is at."""

    address: str
    gen_max: int | None
    width_max: int | None
    aer: Errors


@dataclass(frozen=True, slots=True)
class PciGpu:
    """One GPU on the bus. What sysfs does not tell is None."""

    address: str
    pci_id: str
    class_code: str
    subsystem_id: str | None
    kernel_driver: str | None
    gen_now: int | None
    gen_max: int | None
    width_now: int | None
    width_max: int | None
    numa_node: int | None
    slot: str | None = None
    port: Port | None = None
    aer: Errors = Errors()


def gpu(
    address: str,
    files: Mapping[str, str],
    *,
    driver: str | None = None,
    virtual: bool = False,
    slot: str | None = None,
    port: Port | None = None,
) -> PciGpu | None:
    """The GPU that a PCI device is; None for anything else.

    Args:
        address: its name in sysfs.
        files: the texts of `FILES` and `AER_FILES`; one that cannot be read is left out.
        driver: the kernel's driver that has it.
        virtual: it is a virtual function, a part of another GPU.
        slot: the slot of the board that it is in.
        port: what it is behind.
    """
    vendor, device, class_code = (_hex(files.get(name, "")) for name in ("vendor", "device", "class"))
    # Display controllers, with a plug for a display (0300) or without (0302). The same board has a sound device,
    # sometimes USB, and a machine may have NVSwitches, which are bridges.
    if vendor is None or device is None or class_code is None or virtual:
        return None
    if vendor != int(VENDOR, 16) or class_code >> 16 != 0x03:
        return None
    board = [_hex(files.get(name, "")) for name in ("subsystem_vendor", "subsystem_device")]
    return PciGpu(
        address=address.lower(),
        pci_id=f"{device:04x}",
        class_code=f"{class_code >> 8:04x}",
        subsystem_id=None if board[0] is None or board[1] is None else f"{board[0]:04x}:{board[1]:04x}",
        kernel_driver=driver,
        gen_now=generation(files.get("current_link_speed", "")),
        gen_max=generation(files.get("max_link_speed", "")),
        width_now=width(files.get("current_link_width", "")),
        width_max=width(files.get("max_link_width", "")),
        numa_node=_node(files.get("numa_node", "")),
        slot=slot,
        port=port,
        aer=errors(files),
    )


def port(address: str, files: Mapping[str, str]) -> Port | None:
    """What a device is behind; None where that is no port of PCI Express.

    Args:
        address: its name in sysfs.
        files: the texts of `PORT_FILES` and `AER_FILES`.
    """
    if not _ADDRESS.fullmatch(address):
        return None
    return Port(
        address=address.lower(),
        gen_max=generation(files.get("max_link_speed", "")),
        width_max=width(files.get("max_link_width", "")),
        aer=errors(files),
    )


def errors(files: Mapping[str, str]) -> Errors:
    """The counters of `AER_FILES`: a line a kind of error, and the sum of all as the last one."""
    totals: dict[str, int | None] = {}
    kinds: dict[str, int] = {}
    for name, file in AER_FILES.items():
        counts = dict(re.findall(r"^(\w{1,40}) ([0-9]{1,18})$", files.get(file, ""), re.MULTILINE))
        total = next((counts.pop(key) for key in list(counts) if key.startswith("TOTAL_")), None)
        totals[name] = int(total) if total is not None else None
        kinds |= {f"{name}.{kind}": int(count) for kind, count in counts.items() if int(count)}
    return Errors(**totals, kinds=kinds)


def generation(speed: str) -> int | None:
    """The PCIe generation of a link speed (``32.0 GT/s PCIe``)."""
    found = re.match(r"([0-9]{1,3}(?:\.[0-9])?) GT/s", speed.strip())
    return _GENERATIONS.get(float(found[1])) if found else None


def width(lanes: str) -> int | None:
    """The number of lanes. A link that is down says 0, a device that has left the bus 63 or 255."""
    text = lanes.strip()
    count = int(text) if re.fullmatch(r"[0-9]{1,3}", text) else 0
    return count if count in _WIDTHS else None


def _hex(text: str) -> int | None:
    return int(text.strip(), 16) if re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", text.strip()) else None


def _node(text: str) -> int | None:
    """The kernel says -1 where the firmware does not tell."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text.strip()) else None
