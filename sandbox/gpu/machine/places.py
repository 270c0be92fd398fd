# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a simulated machine, and the little that every part of it does with files. SIMULATED."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from .hardware import MARK, Fault, Profile

PREFIX_VARIABLE = "GPUMESH_SIMULATED_PREFIX"
"""A folder to look below instead of ``/``: for tests."""
TIME_VARIABLE = "GPUMESH_SIMULATED_TIME"
"""Seconds since 1970 that it is now: for tests."""
_NAME = "gpumesh-simulated-gpus"


class Machine:
    """The files of one simulated machine.

    Attributes:
        root: the stand-in for ``/`` of what the kernel shows: ``sys`` and ``proc``.
    """

    def __init__(self, prefix: str | Path | None = None) -> None:
        self.prefix = Path(prefix or os.environ.get(PREFIX_VARIABLE) or "/")
        self.home = self.prefix / "usr/lib" / _NAME
        self.settings = self.prefix / "etc" / _NAME
        self.kept = self.prefix / "var/lib" / _NAME
        self.root = self.kept / "root"
        self.devices = self.prefix / "dev"
        self.modules = self.prefix / "lib/modules"

    @property
    def real(self) -> bool:
        """Whether it is a machine, and not a folder of a test."""
        return self.prefix == Path("/")

    # What it is

    def profile(self) -> Profile:
        """The machine with all that is broken in it, as it was set up."""
        profile = Profile.from_json(read_json(self.settings / "profile.json", {}))
        extra = tuple(Fault(**fault) for fault in read_json(self.settings / "faults.json", []))
        return profile.with_faults(profile.faults + extra)

    def running(self) -> Profile:
        """The machine as its root shows it: that is all there is to see from within a container."""
        return Profile.from_json(read_json(self.root / "profile.json", {"name": "none"}))

    def save_profile(self, profile: Profile) -> None:
        write_json(self.settings / "profile.json", profile.as_json())

    def added_faults(self) -> list[Fault]:
        return [Fault(**fault) for fault in read_json(self.settings / "faults.json", [])]

    def save_faults(self, faults: list[Fault]) -> None:
        write_json(
            self.settings / "faults.json",
            [{"kind": fault.kind, "device": fault.device, "until": fault.until} for fault in faults],
        )

    def mend(self) -> None:
        self.save_faults([])
        self.save_profile(replace(self.profile(), faults=()))

    # What it does

    def state(self) -> dict[str, Any]:
        """What the loaded module knows: gone when it is unloaded. {}: no module is loaded."""
        found = read_json(self.root / "state.json", {})
        return found if isinstance(found, dict) else {}

    def save_state(self, state: dict[str, Any]) -> None:
        write_json(self.root / "state.json", state)

    def may_change(self) -> bool:
        """Whether who asks may set anything: root may, and nobody else."""
        return os.access(self.root / "state.json", os.W_OK, effective_ids=True)

    def inforom(self) -> dict[str, Any]:
        """What the cards themselves keep, over reboots, by address."""
        found = read_json(self.kept / "inforom.json", {})
        return found if isinstance(found, dict) else {}

    def save_inforom(self, inforom: dict[str, Any]) -> None:
        write_json(self.kept / "inforom.json", inforom)

    def loaded_version(self) -> str:
        """Of the loaded module; "": none is loaded. As the kernel says it, not as the state has it."""
        try:
            words = (self.root / "proc/driver/nvidia/version").read_text().split()
        except OSError:
            return ""
        return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "")

    def library_version(self) -> str:
        """Of the library, from the name of its file; "": there is none."""
        folder = self.prefix / "usr/lib/x86_64-linux-gnu"
        versions = [
            path.name.removeprefix("libnvidia-ml.so.")
            for path in folder.glob("libnvidia-ml.so.*.*")
            if not path.is_symlink()
        ]
        return max(versions, key=version_key, default="")

    def kernel(self) -> str:
        return (self.root / "proc/sys/kernel/osrelease").read_text().strip()

    def now(self) -> float:
        return float(os.environ.get(TIME_VARIABLE) or time.time())

    # Files of the root

    def show(self, path: str, content: str | bytes) -> None:
        """Let the kernel show a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def hide(self, path: str) -> None:
        target = self.root / path
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)

    def log(self, line: str) -> None:
        """A line of the kernel's log; in kern.log with its time, as ``journalctl --output=short-unix`` shows it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "kernel.log").open("a") as file:
            file.write(f"{line} ({MARK})\n")
        with (self.root / "kern.log").open("a") as file:
            file.write(f"{self.now():.6f} {os.uname().nodename} kernel: {line} ({MARK})\n")


def version_key(version: str) -> tuple[int, ...]:
    """To order driver versions."""
    return tuple(int(part) for part in version.replace("-", ".").split(".") if part.isdigit())


def read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return default


def write_json(path: Path, content: Any) -> None:
    """Write it whole or not at all: programs read it at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    new.replace(path)
