# SPDX-License-Identifier: GPL-3.0-or-later
"""Load the kernel module that is on the disk, in the place of any other, or say that only a reboot can. As root.

usage: python3 - look|load ROOT < module.py

Nothing that computes is stopped: a module in use stays, and then a reboot is asked for. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = re.compile(r"nvidia(-current|-current-open)?\.ko(\.(xz|zst|gz))?")
# Those that use it first.
FAMILY = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia")
DAEMON = "nvidia-persistenced.service"


def run(*command: str) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within 120 seconds"
    return done.returncode, (done.stdout + done.stderr).strip()


def text(path: Path) -> str:
    """What a file says; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def on_disk(kernel: str) -> tuple[str, str]:
    """Version and flavour of the module that a kernel would load; empty where there is none."""
    # DKMS puts its own where it wins over one that came with the kernel.
    found = [path for path in Path("/lib/modules", kernel).rglob("nvidia*") if NAMES.fullmatch(path.name)]
    for path in sorted(found, key=lambda path: ("updates" not in path.parts, str(path))):
        _status, version = run("modinfo", "-F", "version", str(path))
        _status, licence = run("modinfo", "-F", "license", str(path))
        return version, "closed" if licence == "NVIDIA" else "open"
    return "", ""


class Machine:
    """What the running kernel has, below a root that tests put elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kernel = text(root / "proc/sys/kernel/osrelease").strip()

    def modules(self) -> dict[str, int]:
        """The loaded modules of interest, each with how often it is used."""
        rows = [line.split() for line in text(self.root / "proc/modules").splitlines()]
        return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[0] in (*FAMILY, "nouveau")}

    def loaded(self) -> tuple[str, str]:
        """Version and flavour of the loaded module; empty where none is."""
        said = text(self.root / "proc/driver/nvidia/version")
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", said)
        return (found[1], "open" if "Open Kernel Module" in said else "closed") if found else ("", "")


def unload(machine: Machine) -> str:
    """Take the other module out; why that cannot be, or nothing."""
    if "nouveau" in machine.modules():
        # The console is one of its users, on a machine with a screen.
        users = text(machine.root / "sys/module/nouveau/refcnt").strip()
        if users not in ("", "0") or run("rmmod", "nouveau")[0] != 0:
            return "nouveau is loaded and in use"
    was_active = run("systemctl", "is-active", "--quiet", DAEMON)[0] == 0
    if was_active:
        run("systemctl", "stop", DAEMON)
    for name in FAMILY:
        if name in machine.modules() and run("rmmod", name)[0] != 0:
            version, flavour = machine.loaded()
            if was_active:
                run("modprobe", "nvidia")
                run("systemctl", "start", DAEMON)
            return f"the {flavour} module {version} is loaded and in use"
    return ""


def decide(machine: Machine, act: bool) -> dict[str, Any]:
    """Whether anything is to be done, whether it was, and why only a reboot can do it."""
    wanted, loaded = on_disk(machine.kernel), machine.loaded()
    if not wanted[0]:
        why = f"the running kernel {machine.kernel} has no module on the disk; the next one that is booted may have"
        return {"changed": False, "reboot": True, "says": why}
    if loaded == wanted and "nouveau" not in machine.modules():
        return {"changed": False, "reboot": False, "says": ""}
    if not act:
        return {"changed": True, "reboot": False, "says": f"the module {wanted[0]} would be loaded"}
    if why := unload(machine):
        return {"changed": False, "reboot": True, "says": f"{why}, and {wanted[0]} is on the disk"}
    status, said = run("modprobe", "nvidia")
    # Not every driver has it, and what needs it will say so.
    run("modprobe", "nvidia-uvm")
    says = "" if status == 0 else f"modprobe nvidia fails: {said}; look at 'dmesg'"
    return {"changed": True, "reboot": False, "says": says}


def main() -> None:
    """Do it and print what came of it."""
    action, root = sys.argv[1:]
    print(json.dumps(decide(Machine(Path(root)), action == "load")))


if __name__ == "__main__":
    main()
