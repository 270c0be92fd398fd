# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the kernel and the file system say of GPUs. Changes nothing.

`root` is where ``sys`` and ``proc`` are: ``/``, or the folder of a simulated machine. `system` is where ``boot`` and
``usr`` are: ``/``, or a mounted image.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from pathlib import Path

from .._fleet.gpu import facts, pci

LIBRARIES = ("libnvidia-ml", "libcuda")

_LIBRARY_FOLDERS = (
    "usr/lib/*-linux-gnu",
    "usr/lib/*-linux-gnu/nvidia/current",
    "usr/lib64",
    "usr/local/nvidia/lib64",
)
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def text(path: Path) -> str:
    """A small file; empty where it cannot be read, as with a device that has just left the bus."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""


def gpus(root: Path) -> list[pci.PciGpu]:
    """The GPUs on the bus, by address."""
    folder = root / "sys/bus/pci/devices"
    slots = _slots(root)
    found: list[pci.PciGpu] = []
    for device in sorted(folder.iterdir()) if folder.is_dir() else ():
        # There are hundreds of devices, and most are told apart by their vendor.
        if text(device / "vendor").strip() != f"0x{pci.VENDOR}":
            continue
        driver = device / "driver"
        gpu = pci.gpu(
            device.name,
            {name: text(device / name) for name in (*pci.FILES, *pci.AER_FILES.values())},
            driver=driver.resolve().name if driver.exists() else None,
            virtual=(device / "physfn").exists(),
            slot=slots.get(device.name.lower().rpartition(".")[0]),
            port=_port(device.resolve().parent),
        )
        if gpu:
            found.append(gpu)
    return found


def _port(folder: Path) -> pci.Port | None:
    """What a device is behind, by the folder that its own is in."""
    return pci.port(
        folder.name, {name: text(folder / name) for name in (*pci.PORT_FILES, *pci.AER_FILES.values())}
    )


def _slots(root: Path) -> dict[str, str]:
    """The names of the board's slots, by address without the function."""
    folder = root / "sys/bus/pci/slots"
    return {
        text(slot / "address").strip().lower(): slot.name
        for slot in (sorted(folder.iterdir()) if folder.is_dir() else ())
    }


def simulated(root: Path) -> bool:
    """Whether this is the folder of a simulated machine."""
    return (root / "SIMULATED").exists()


def loaded_module(root: Path) -> tuple[str | None, str | None]:
    """Version and flavour of the loaded module."""
    version, flavour = facts.loaded_module(text(root / "proc/driver/nvidia/version"))
    return version or text(root / "sys/module/nvidia/version").strip() or None, flavour


def modules(root: Path) -> frozenset[str]:
    """The names of all loaded modules."""
    return frozenset(
        line.split()[0] for line in text(root / "proc/modules").splitlines() if line.strip()
    ) | frozenset(name for name in ("nouveau", "nvidia") if (root / "sys/module" / name).is_dir())


def running_kernel(root: Path) -> str | None:
    """The kernel's release."""
    return text(root / "proc/sys/kernel/osrelease").strip() or None


def kernels(system: Path) -> list[str]:
    """The kernels that can be booted, the one that a boot loader takes first at the end."""
    folder = system / "boot"
    names = [path.name.removeprefix("vmlinuz-") for path in folder.glob("vmlinuz-*") if path.exists()]
    return sorted((name for name in names if not name.endswith((".old", ".dpkg-new"))), key=facts.natural)


def module_names(system: Path, kernel: str) -> list[str]:
    """The names that NVIDIA's module has on disk for a kernel: Debian's packages call it ``nvidia-current``."""
    path = system / "lib/modules" / kernel / "modules.dep"
    try:
        listed = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = re.findall(
        r"^(?:\S*/)?(nvidia(?:-(?:current|tesla-[0-9]+|legacy-[0-9]+xx)(?:-open)?)?)\.ko(?:\.[a-z0-9]+)?:",
        listed,
        re.MULTILINE,
    )
    return sorted(set(found))


def libraries(system: Path) -> tuple[dict[str, list[str]], str | None]:
    """The versions of the driver's libraries by their files' names, and the one that programs load."""
    found: dict[str, list[str]] = {}
    used: str | None = None
    for name in LIBRARIES:
        versions: set[str] = set()
        for folder in _LIBRARY_FOLDERS:
            for path in system.glob(f"{folder}/{name}.so.*"):
                version = path.name.partition(".so.")[2]
                # The file, not the link named libcuda.so.1 that points to it.
                if re.fullmatch(r"[0-9]{3,4}(\.[0-9]{1,4}){1,2}", version):
                    versions.add(version)
                elif name == LIBRARIES[0] and version == "1" and used is None:
                    target = path.resolve().name.partition(".so.")[2]
                    used = target if "." in target else None
        found[name] = sorted(versions, key=facts.natural)
    return found, used or (found[LIBRARIES[0]][-1] if found[LIBRARIES[0]] else None)


def secure_boot(root: Path) -> bool | None:
    """Whether the firmware checks signatures; None where it cannot be told."""
    try:
        # Four bytes of attributes, then the value.
        return (root / _SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        firmware = root / "sys/firmware"
        there = firmware.is_dir() and any(firmware.iterdir())
        return False if there and not (firmware / "efi").exists() else None


def governors(root: Path) -> list[str]:
    """The governors that the processors' clocks are under, each once."""
    folder = root / "sys/devices/system/cpu"
    found = {text(path).strip() for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return sorted(found - {""})
