# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine is, for the head of a report.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._host.gpu_files import text
from .._host.gpu_programs import Ran, run
from .profile import Profile

_SECONDS = 10.0
_GPU_KEYS = ("index", "model", "name", "pci_address", "uuid", "serial", "vbios", "memory_mib")


def machine(profile: Profile, facts: Mapping[str, Any], root: Path = Path("/")) -> dict[str, Any]:
    """The machine, as ``machine`` in docs/acceptance.schema.json.

    Args:
        profile: what is declared of it.
        facts: those of its GPUs.
        root: where ``proc``, ``sys`` and ``etc`` of the machine itself are.
    """
    hostname = platform.node()
    virtual = virtualisation(run(["systemd-detect-virt"], _SECONDS))
    driver = facts.get("driver") or {}
    return {
        "name": profile.machine or hostname,
        "hostname": hostname,
        "system": system(text(root / "etc/os-release") or text(root / "usr/lib/os-release")),
        "kernel": platform.release(),
        "virtualisation": virtual,
        "bare_metal": bare_metal(profile.bare_metal, virtual),
        "cpu": cpu(text(root / "proc/cpuinfo")),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(text(root / "proc/meminfo")),
        "board": board(
            text(root / "sys/class/dmi/id/board_vendor"), text(root / "sys/class/dmi/id/board_name")
        ),
        "driver": driver.get("loaded"),
        "flavour": driver.get("flavour"),
        "cuda": driver.get("cuda"),
        "gpus": [gpu(device) for device in facts.get("devices") or []],
    }


def virtualisation(ran: Ran) -> str | None:
    """What ``systemd-detect-virt`` says; None: there is nobody to ask. With ``none`` it ends with a status of its own."""
    return ran.out.strip() or None


def bare_metal(declared: bool | None, virtual: str | None) -> bool | None:
    """Whether the whole machine is ours; None: nobody knows."""
    if declared is not None:
        return declared
    return None if virtual is None else virtual == "none"


def system(os_release: str) -> str | None:
    """The distribution's own name for itself. Pure, as are those below."""
    found = re.search(r"""^PRETTY_NAME=(["']?)(.*)\1\s*$""", os_release, re.MULTILINE)
    return found[2].strip() or None if found else None


def cpu(cpuinfo: str) -> str | None:
    """The processor's name; ARM's kernels give none."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else None


def memory_gib(meminfo: str) -> float | None:
    """What the kernel can use."""
    found = re.search(r"^MemTotal:\s*([0-9]+) kB", meminfo, re.MULTILINE)
    return round(int(found[1]) / 2**20, 1) if found else None


def board(vendor: str, name: str) -> str | None:
    """The mainboard."""
    return " ".join(f"{vendor} {name}".split()) or None


def gpu(device: Mapping[str, Any]) -> dict[str, Any]:
    """One GPU."""
    power = device.get("power") or {}
    return {**{key: device.get(key) for key in _GPU_KEYS}, "power_limit_w": power.get("limit_w")}


def release() -> str:
    """The version of this collection, or where it is installed by role validation, the digest of what is installed."""
    for above in Path(__file__).parents[2:5]:
        for name, pattern in (("MANIFEST.json", r'"version": "([^"]+)"'), ("galaxy.yml", r"^version: (\S+)")):
            path = above / name
            if path.is_file():
                found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
                return found[1] if found else ""
    installed = Path(__file__).resolve().parents[3]
    return installed.name if installed.parent.name == "versions" else ""
