# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel module that is loaded, the one on the disk, and how the one takes the other's place.

Nothing that computes is stopped: a module in use stays, and then only a reboot helps.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import paths
from .programs import run

_FILES = re.compile(r"nvidia(-current|-current-open)?\.ko(\.(xz|zst|gz))?")
# Those that use it first.
_MODULES = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia")
_SECONDS = 120


@dataclass(frozen=True)
class Module:
    """A module by the driver's version and its flavour, `open` or `closed`; both empty where there is none."""

    version: str = ""
    flavour: str = ""


@dataclass(frozen=True)
class Decision:
    """What came of loading.

    Attributes:
        changed: whether a module was loaded, or would be.
        reboot: whether only a reboot can bring the module on the disk.
        says: why, or what went wrong; no full stop. Empty where there is nothing to say.
    """

    changed: bool = False
    reboot: bool = False
    says: str = ""


class Machine:
    """What the running kernel has, below a root that simulated GPUs put elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kernel = _text(root / "proc/sys/kernel/osrelease").strip()

    def modules(self) -> list[str]:
        """The loaded modules of interest."""
        rows = [line.split() for line in _text(self.root / "proc/modules").splitlines()]
        return [row[0] for row in rows if row and row[0] in (*_MODULES, "nouveau")]

    def loaded(self) -> Module:
        """The driver's module that is loaded."""
        said = _text(self.root / "proc/driver/nvidia/version")
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", said)
        return Module(found[1], "open" if "Open Kernel Module" in said else "closed") if found else Module()

    def on_disk(self) -> Module:
        """The module that the running kernel would load."""
        found = [
            path for path in (paths.MODULES / self.kernel).rglob("nvidia*") if _FILES.fullmatch(path.name)
        ]
        if not found:
            return Module()
        # DKMS puts its own where it wins over one that came with the kernel.
        path = min(found, key=lambda path: ("updates" not in path.parts, str(path)))
        version, licence = (_ask("modinfo", "-F", name, str(path))[1] for name in ("version", "license"))
        return Module(version, "closed" if licence == "NVIDIA" else "open")


def load(machine: Machine, carry_out: bool) -> Decision:
    """Have the module loaded that is on the disk, in the place of any other, or say that only a reboot can."""
    wanted, loaded = machine.on_disk(), machine.loaded()
    if not wanted.version:
        return Decision(
            reboot=True,
            says=f"the running kernel {machine.kernel} has no module on the disk; the next one that is booted may have",
        )
    if loaded == wanted and "nouveau" not in machine.modules():
        return Decision()
    if not carry_out:
        return Decision(changed=True, says=f"the module {wanted.version} would be loaded")
    if why := _make_room(machine):
        return Decision(reboot=True, says=f"{why}, and {wanted.version} is on the disk")
    status, said = _ask("modprobe", "nvidia")
    # Not every driver has it, and what needs it will say so.
    _ask("modprobe", "nvidia-uvm")
    return Decision(
        changed=True, says="" if status == 0 else f"modprobe nvidia fails: {said}; look at 'dmesg'"
    )


def unload(machine: Machine) -> str:
    """Take the driver's module out of the running kernel, for good; why that cannot be, or nothing."""
    if "nvidia" not in machine.modules():
        return ""
    _ask("systemctl", "stop", paths.DAEMON)
    name = _remove(machine)
    return f"the module {name} is in use and stays loaded until the machine is rebooted" if name else ""


def _make_room(machine: Machine) -> str:
    """Take out what another one cannot be loaded beside; why that cannot be, or nothing."""
    if "nouveau" in machine.modules():
        # The console is one of its users, on a machine with a screen.
        users = _text(machine.root / "sys/module/nouveau/refcnt").strip()
        if users not in ("", "0") or _ask("rmmod", "nouveau")[0] != 0:
            return "nouveau is loaded and in use"
    was_active = _ask("systemctl", "is-active", "--quiet", paths.DAEMON)[0] == 0
    if was_active:
        _ask("systemctl", "stop", paths.DAEMON)
    if not _remove(machine):
        return ""
    loaded = machine.loaded()
    if was_active:
        _ask("modprobe", "nvidia")
        _ask("systemctl", "start", paths.DAEMON)
    return f"the {loaded.flavour} module {loaded.version} is loaded and in use"


def _remove(machine: Machine) -> str:
    """Remove the driver's modules; the name of the one that stays, or nothing."""
    for name in _MODULES:
        if name in machine.modules() and _ask("rmmod", name)[0] != 0:
            return name
    return ""


def _ask(*command: str) -> tuple[int, str]:
    """Exit status and what was said."""
    status, said = run(*command, seconds=_SECONDS)
    return status, said.strip()


def _text(path: Path) -> str:
    """What a file says; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
