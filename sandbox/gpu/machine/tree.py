# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel shows of the machine: ``sys`` and ``proc`` below the root. SIMULATED."""

from __future__ import annotations

import uuid

from .hardware import MARK, Profile, Slot
from .places import Machine, write_json

PCI = "sys/bus/pci/devices"
_SPEEDS = {
    0: "Unknown",
    1: "2.5 GT/s PCIe",
    2: "5.0 GT/s PCIe",
    3: "8.0 GT/s PCIe",
    4: "16.0 GT/s PCIe",
    5: "32.0 GT/s PCIe",
}
_OTHERS = (
    # What else a machine has on its bus: address, vendor, device, class.
    ("0000:00:00.0", "0x1022", "0x14a4", "0x060000"),
    ("0000:c1:00.0", "0x8086", "0x1563", "0x020000"),
)
_EFI_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def build(machine: Machine, profile: Profile, kernel: str) -> None:
    """Make the root anew, as a kernel that has just started shows it."""
    machine.root.mkdir(parents=True, exist_ok=True)
    for entry in list(machine.root.iterdir()):
        machine.hide(entry.name)
    machine.show(MARK, f"Nothing below here is real: simulated GPUs of the gpumesh.fleet sandbox. {MARK}\n")
    machine.show("proc/sys/kernel/osrelease", f"{kernel}\n")
    machine.show("proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    machine.show("proc/modules", "")
    for cpu in range(profile.cpus):
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        machine.show(f"{folder}/scaling_available_governors", "performance powersave schedutil\n")
        machine.show(f"{folder}/scaling_governor", "schedutil\n")
    if profile.secure_boot is not None:
        machine.show(_EFI_SECURE_BOOT, b"\x06\0\0\0" + bytes([profile.secure_boot]))
    devices(machine, profile)


def devices(machine: Machine, profile: Profile) -> None:
    """Show what is on the PCI bus, and note the machine for those who see nothing but the root."""
    write_json(machine.root / "profile.json", profile.as_json())
    bound = drivers(machine)
    machine.hide(PCI)
    for address, vendor, device, kind in _OTHERS:
        _show(machine, address, {"vendor": vendor, "device": device, "class": kind, "numa_node": "0"})
    for number, slot in enumerate(profile.slots):
        if not profile.broken("unplugged", number):
            _gpu(machine, profile, number, slot)
    for address, driver in bound.items():
        bind(machine, address, driver)


def _gpu(machine: Machine, profile: Profile, number: int, slot: Slot) -> None:
    card = profile.card(slot)
    # A card that has fallen off the bus keeps its folder, and answers nothing more.
    lost = profile.broken("lost", number) or profile.broken("lost-values", number)
    width = link_width(profile, number)
    vendor, subsystem = card.subsystem_id.split(":")
    _show(
        machine,
        slot.address,
        {
            "vendor": "0x10de",
            "device": f"0x{card.pci_id}",
            "subsystem_vendor": f"0x{vendor}",
            "subsystem_device": f"0x{subsystem}",
            "class": f"0x{card.pci_class}",
            "revision": "0xff" if lost else "0xa1",
            "current_link_speed": _SPEEDS[0 if lost else card.idle_link_gen],
            "max_link_speed": _SPEEDS[card.link_gen],
            "current_link_width": "63" if lost else str(width),
            "max_link_width": str(card.link_width),
            "numa_node": str(slot.numa_node),
            "local_cpulist": f"0-{profile.cpus - 1}",
        },
    )
    if card.audio:
        _show(
            machine,
            f"{slot.address[:-1]}1",
            {
                "vendor": "0x10de",
                "device": f"0x{card.audio}",
                "subsystem_vendor": f"0x{vendor}",
                "subsystem_device": f"0x{subsystem}",
                "class": "0x040300",
                "revision": "0xa1",
                "numa_node": str(slot.numa_node),
            },
        )


def link_width(profile: Profile, number: int) -> int:
    """Lanes in use at this device."""
    slot = profile.slots[number]
    card = profile.card(slot)
    width = min(slot.link_width or card.link_width, card.link_width)
    return min(8, width) if profile.broken("x8", number) else width


def _show(machine: Machine, address: str, files: dict[str, str]) -> None:
    for name, value in files.items():
        machine.show(f"{PCI}/{address}/{name}", f"{value}\n")
    identity = f"{files['vendor'][2:]}:{files['device'][2:]}".upper()
    machine.show(
        f"{PCI}/{address}/uevent",
        f"PCI_CLASS={files['class'][2:]}\nPCI_ID={identity}\nPCI_SLOT_NAME={address}\n",
    )


def drivers(machine: Machine) -> dict[str, str]:
    """The kernel driver of each device that has one."""
    links = (machine.root / PCI).glob("*/driver")
    return {link.parent.name: link.readlink().name for link in links if link.is_symlink()}


def bind(machine: Machine, address: str, driver: str) -> None:
    folder = machine.root / PCI / address
    if folder.is_dir():
        (machine.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        machine.hide(f"{PCI}/{address}/driver")
        (folder / "driver").symlink_to(f"../../drivers/{driver}")


def unbind(machine: Machine, driver: str) -> None:
    for address, name in drivers(machine).items():
        if name == driver:
            machine.hide(f"{PCI}/{address}/driver")
    machine.hide(f"sys/bus/pci/drivers/{driver}")


def loaded(machine: Machine) -> list[str]:
    """The modules that are loaded, the last one first."""
    try:
        lines = (machine.root / "proc/modules").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[0] for line in lines if line]


def show_modules(machine: Machine, names: list[str], flavour: str) -> None:
    """Write ``proc/modules``: each line says who needs it."""
    needs = {"nvidia_drm": ["nvidia_modeset"], "nvidia_modeset": ["nvidia"], "nvidia_uvm": ["nvidia"]}
    lines = []
    for name in names:
        users = [other for other in names if name in needs.get(other, ())]
        taint = "OE" if flavour == "open" else "POE"
        mark = f" ({taint})" if name.startswith("nvidia") else ""
        shown = "".join(f"{user}," for user in users) or "-"
        lines.append(f"{name} 1048576 {len(users)} {shown} Live 0x0000000000000000{mark}\n")
    machine.show("proc/modules", "".join(lines))
