# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel does with the driver's modules: load, unload, boot, and what breaks meanwhile. SIMULATED."""

from __future__ import annotations

import os
import stat
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import modules, tree
from .hardware import KINDS, MARK, PER_DEVICE, Card, Fault, Profile
from .places import Machine, version_key

_NULL_DEVICE = os.makedev(1, 3)
PARTS = ("nvidia_uvm", "nvidia_modeset", "nvidia_drm")


class LoadError(Exception):
    """A module cannot be loaded or unloaded. The text is what the kernel answers."""


def boot(machine: Machine) -> None:
    """All that happens between power on and the first service."""
    machine.save_faults([fault for fault in machine.added_faults() if fault.until != "boot"])
    profile = machine.profile()
    kernel = modules.next_kernel(machine, profile.kernel)
    _remove_nodes(machine)
    tree.build(machine, profile, kernel)
    machine.log(f"Linux version {kernel}")
    if profile.broken("nouveau") and not modules.blacklisted(machine, "nouveau"):
        _load_nouveau(machine, profile)
    # As udev does where a module knows a card on the bus, and systemd-modules-load.
    try:
        if profile.slots and modules.on_disk(machine, kernel) and not modules.blacklisted(machine, "nvidia"):
            load(machine)
        for name in modules.wanted_at_boot(machine):
            if name.replace("-", "_").startswith("nvidia"):
                load(machine, name.replace("-", "_"))
    except LoadError as error:
        machine.log(f"systemd-modules-load: {error}")


def load(machine: Machine, name: str = "nvidia") -> None:
    """Load the module that is on disk for the running kernel, and what goes with it. Loaded already: nothing to do."""
    kernel, loaded = machine.kernel(), tree.loaded(machine)
    module = modules.on_disk(machine, kernel)
    parts = modules.companions(machine, kernel)
    if module is None or (name not in ("nvidia", *parts)):
        raise LoadError(f"Module {name} not found in directory /lib/modules/{kernel}")
    if "nvidia" not in loaded:
        _load_main(machine, machine.profile(), module)
        loaded = [*parts[::-1], "nvidia", *loaded]
        tree.show_modules(machine, loaded, module.flavour)
    elif name not in loaded:
        tree.show_modules(machine, [name, *loaded], module.flavour)
    _make_nodes(machine)


def _load_main(machine: Machine, profile: Profile, module: modules.Module) -> None:
    if profile.secure_boot and not (module.signed and (not module.dkms or profile.mok_enrolled)):
        machine.log("Loading of module with unavailable key is rejected")
        raise LoadError("Key was rejected by service")
    if "nouveau" in tree.drivers(machine).values():
        machine.log("NVRM: GPU is already bound to nouveau. Try unloading the conflicting kernel module")
        raise LoadError("No such device")
    present = [n for n in range(len(profile.slots)) if not profile.broken("unplugged", n)]
    if not present:
        machine.log("NVRM: No NVIDIA GPU found.")
        raise LoadError("No such device")
    gpus: dict[str, Any] = {}
    inforom = machine.inforom()
    for number in present:
        slot = profile.slots[number]
        card = profile.card(slot)
        tree.bind(machine, slot.address, "nvidia")
        if refusal := _refusal(card, module):
            machine.log(f"NVRM: The NVIDIA GPU {slot.address} (PCI ID: 10de:{card.pci_id}) {refusal}")
            continue
        kept = inforom.get(slot.address, {})
        gpus[slot.address] = {
            "number": number,
            "ecc": kept.get("ecc", card.ecc == "on") if card.ecc != "none" else None,
            "mig": kept.get("mig", False) if card.mig else None,
        }
    state = {
        "version": module.version,
        "flavour": module.flavour,
        "path": str(module.path),
        "parameters": modules.parameters(machine),
        "gpus": gpus,
    }
    machine.save_state(state)
    show_driver(machine, profile)


def _refusal(card: Card, module: modules.Module) -> str:
    if version_key(module.version) < version_key(card.driver_floor):
        return f"is not supported by the {module.version} NVIDIA driver release."
    if card.driver_last and version_key(module.version)[0] > card.driver_last:
        return f"is supported through the NVIDIA {card.driver_last}.xx Legacy drivers."
    if module.flavour not in card.flavours:
        if module.flavour == "closed":
            return "requires use of the NVIDIA open kernel modules."
        return "is not supported by open nvidia.ko because it does not include the required GPU System Processor (GSP)."
    return ""


def show_driver(machine: Machine, profile: Profile) -> None:
    """What the loaded module shows of itself."""
    state = machine.state()
    if not state:
        return
    version = _other_version(state["version"]) if profile.broken("mismatch") else state["version"]
    kind = "UNIX Open Kernel Module for x86_64" if state["flavour"] == "open" else "UNIX x86_64 Kernel Module"
    machine.show(
        "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA {kind}  {version}  Release Build  ({MARK})\nGCC version:  gcc ({MARK})\n",
    )
    parameters = {
        "ModifyDeviceFiles": "1",
        "DeviceFileUID": "0",
        "DeviceFileGID": "0",
        "DeviceFileMode": "438",
    }
    given = {key.removeprefix("NVreg_"): value for key, value in state["parameters"].items()}
    machine.show(
        "proc/driver/nvidia/params",
        "".join(f"{key}: {value}\n" for key, value in {**parameters, **given}.items()),
    )
    machine.show("sys/module/nvidia/version", f"{version}\n")
    machine.show("sys/module/nvidia/refcnt", "0\n")
    machine.hide("proc/driver/nvidia/gpus")
    for minor, (address, gpu) in enumerate(sorted(state["gpus"].items())):
        if hidden(profile, gpu["number"]):
            continue
        card = profile.card(profile.slots[gpu["number"]])
        machine.show(
            f"proc/driver/nvidia/gpus/{address}/information",
            f"Model: \t\t {card.name}\n"
            f"IRQ:   \t\t {120 + minor}\n"
            f"GPU UUID: \t {gpu_uuid(profile, gpu['number'])}\n"
            f"Video BIOS: \t {card.vbios}\n"
            "Bus Type: \t PCIe\n"
            f"Bus Location: \t {address}\n"
            f"Device Minor: \t {minor}\n"
            f"GPU Firmware: \t {version}\n"
            f"GPU Excluded:\t No\n"
            f"Simulated: \t {MARK}\n",
        )


def hidden(profile: Profile, number: int) -> bool:
    """Whether the driver lists nothing of a card that it could drive: it did not start, or it is not there."""
    return profile.broken("unseen", number) or profile.broken("unplugged", number)


def _other_version(version: str) -> str:
    """An earlier one of the same branch, as is loaded after an upgrade that nobody has rebooted for."""
    branch = version.split(".")[0]
    return f"{branch}.65.06" if version != f"{branch}.65.06" else f"{branch}.65.05"


def gpu_uuid(profile: Profile, number: int) -> str:
    """Of this card in this machine: the same at every boot."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{profile.seed} {profile.slots[number]}')}"


def unload(machine: Machine, name: str) -> None:
    """Unload a module. What it knew is gone."""
    loaded = tree.loaded(machine)
    if name not in loaded:
        raise LoadError(f"Module {name} is not currently loaded")
    needs = {"nvidia": list(PARTS), "nvidia_modeset": ["nvidia_drm"]}
    users = [other for other in needs.get(name, []) if other in loaded]
    if users:
        raise LoadError(f"Module {name} is in use by: {' '.join(users)}")
    if name == "nvidia" and (pid := daemon_pid(machine)):
        raise LoadError(f"Module {name} is in use by process {pid} (nvidia-persistenced)")
    flavour = machine.state().get("flavour", "")
    tree.show_modules(machine, [other for other in loaded if other != name], flavour)
    if name == "nvidia":
        _remove_nodes(machine)
        for path in ("proc/driver/nvidia", "sys/module/nvidia", "state.json"):
            machine.hide(path)
    if name in ("nvidia", "nouveau"):
        tree.unbind(machine, name)
    machine.hide(f"sys/module/{name}")
    _make_nodes(machine)


def _load_nouveau(machine: Machine, profile: Profile) -> None:
    for slot in profile.slots:
        tree.bind(machine, slot.address, "nouveau")
    tree.show_modules(machine, ["nouveau", *tree.loaded(machine)], "")
    machine.show("sys/module/nouveau/refcnt", "1\n")


def load_nouveau(machine: Machine) -> None:
    """The free driver: it takes the cards that nobody drives."""
    if "nouveau" in tree.loaded(machine):
        return
    if machine.state():
        raise LoadError("No such device")
    _load_nouveau(machine, machine.profile())


# What breaks


def break_(machine: Machine, kind: str, device: int | None = None) -> Fault:
    """Break something, from now on until it is mended. Answers what was broken."""
    profile = machine.profile()
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: known are {', '.join(KINDS)}")
    if kind in PER_DEVICE:
        count = len(profile.slots)
        device = count - 1 if device is None else device
        if not 0 <= device < count:
            raise ValueError(f"there is no device {device}: this machine has {count}")
        card = profile.card(profile.slots[device])
        if kind in ("ecc", "remap-failure") and card.ecc == "none":
            raise ValueError(f"{card.name} has no ECC that could tell of errors")
        fault = Fault(kind, device)
    else:
        # A boot loads what is on disk, so it heals a mismatch by itself.
        fault = Fault(kind, -1, "boot" if kind == "mismatch" else "")
    machine.save_faults([*machine.added_faults(), fault])
    if kind == "unseen":
        machine.log(f"NVRM: GPU {profile.slots[fault.device].address}: RmInitAdapter failed!")
    if kind in ("lost", "lost-values"):
        machine.log(f"NVRM: Xid (PCI:{profile.slots[fault.device].address}): 79, GPU has fallen off the bus.")
    if kind == "xid":
        machine.log(
            f"NVRM: Xid (PCI:{profile.slots[fault.device].address}): 119, pid=4242, name=python3, Timeout after 45s of waiting "
            "for RPC response from GPU GSP! Expected function 76 (GSP_RM_CONTROL)"
        )
    refresh(machine)
    if kind == "nouveau" and not machine.state():
        load_nouveau(machine)
    return fault


def mend(machine: Machine) -> None:
    """Take all that is broken away, what the profile breaks included."""
    machine.mend()
    refresh(machine)


def refresh(machine: Machine) -> None:
    """Let the root show the machine as it is now, without a boot."""
    profile = machine.profile()
    tree.devices(machine, profile)
    show_driver(machine, profile)


def change_profile(machine: Machine, profile: Profile) -> None:
    """Another machine under the same system: its cards are exchanged, and it boots."""
    now = machine.profile()
    kept = replace(profile, kernel=now.kernel or profile.kernel, distribution=now.distribution, seed=now.seed)
    machine.save_profile(replace(kept, secure_boot=now.secure_boot))
    machine.save_faults([])
    machine.save_inforom({})
    boot(machine)


# Device nodes


def _make_nodes(machine: Machine) -> None:
    state = machine.state()
    if not state:
        return
    names = ["nvidiactl", *(f"nvidia{minor}" for minor in range(len(state["gpus"])))]
    if "nvidia_uvm" in tree.loaded(machine):
        names += ["nvidia-uvm", "nvidia-uvm-tools"]
    for name in names:
        path = machine.devices / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if machine.real:
            # A null device: containers may open it, whatever else they may not.
            os.mknod(path, stat.S_IFCHR | 0o666, _NULL_DEVICE)
        else:
            path.touch()
        path.chmod(0o666)


def _remove_nodes(machine: Machine) -> None:
    for path in machine.devices.glob("nvidia*"):
        if path.is_char_device() or path.is_file():
            path.unlink()


def daemon_pid(machine: Machine) -> int:
    """The process of the persistence daemon; 0: it does not run."""
    try:
        pid = int((machine.root / "persistenced.pid").read_text())
    except (OSError, ValueError):
        return 0
    # A container sees the daemon's note, but not its process.
    outside = machine.real and not Path("/run/systemd/system").exists()
    return pid if outside or Path(f"/proc/{pid}").exists() else 0
