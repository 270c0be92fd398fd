# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulated machine has: GPUs with a driver, and the files that its nvidia-smi needs. SIMULATED."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/var/lib/gpumesh-simulated-gpus/root")
#: Folders and files that the simulated nvidia-smi reads, wherever it runs.
NEEDED = (
    "/usr/bin/nvidia-smi",
    "/usr/lib/nvidia-simulated",
    "/etc/gpumesh-simulated-gpus",
    str(ROOT),
)
CONTROL = "/dev/nvidiactl"
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


class NoDriverError(Exception):
    """The driver does not answer."""


@dataclass(frozen=True)
class Gpu:
    """One GPU that the driver knows."""

    index: int
    uuid: str

    @property
    def node(self) -> str:
        return f"/dev/nvidia{self.index}"


def run(*command: str) -> tuple[int, str]:
    """Exit status and what was said; 127 where the program is missing."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return 127, f"{command[0]}: not found"
    return done.returncode, done.stdout + done.stderr


def gpus() -> list[Gpu]:
    """Those that the driver lists."""
    status, said = run("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
    if status != 0:
        raise NoDriverError(f"failed to initialize NVML: {said.strip()}")
    found = re.findall(r"^\s*(\d+),\s*(\S+)\s*$", said, re.MULTILINE)
    return [Gpu(int(index), uuid) for index, uuid in found]


def driver_version() -> str:
    """The version in the name of the user-space library, as the real toolkit finds it."""
    for name in sorted(LIBRARIES.glob("libnvidia-ml.so.*.*")):
        return name.name.removeprefix("libnvidia-ml.so.")
    raise NoDriverError("failed to locate libnvidia-ml.so")


def driver_files() -> list[str]:
    """The driver's libraries with their links, and what the simulated nvidia-smi needs beside them."""
    version = driver_version()
    libraries = [
        str(path)
        for pattern in ("libnvidia-*.so*", "libcuda*.so*", "libnv*.so*")
        for path in LIBRARIES.glob(pattern)
        if path.name.endswith((f".so.{version}", ".so.1"))
    ]
    return sorted({*libraries, *(path for path in NEEDED if Path(path).exists()), *interpreter()})


def interpreter() -> set[str]:
    """Python: the program under all its names, its modules, and the libraries that it and they load."""
    program = os.path.realpath("/usr/bin/python3")
    modules = f"/usr/lib/{Path(program).name}"
    compiled = [str(path) for path in sorted(Path(modules, "lib-dynload").glob("*.so"))]
    _status, said = run("ldd", program, *compiled)
    loaded = set(re.findall(r"(/\S+\.so\S*) \(0x", said))
    return {"/usr/bin/python3", program, modules, *loaded}
