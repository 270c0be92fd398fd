# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated machine in a folder, for tests: unpacked, booted and driven without a container."""

from __future__ import annotations

import contextlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

from sandbox.gpu.hardware import archive
from sandbox.gpu.machine import control, driver, kmod, nvidia_smi
from sandbox.gpu.machine.modules import SIGNATURE
from sandbox.gpu.machine.places import Machine
from sandbox.gpu.profiles import find
from sandbox.gpu.sources.elf import kernel_module

KERNEL = "6.8.0-90-generic"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class Sandbox:
    """One machine, and what is done at it."""

    def __init__(
        self,
        folder: Path,
        profile: str = "4x-rtx5090",
        *,
        distribution: str = "ubuntu-24.04",
        secure_boot: bool | None = None,
        mok_enrolled: bool = False,
    ) -> None:
        self.folder = folder
        found = find(profile, distribution=distribution, kernel=KERNEL, secure_boot=secure_boot)
        content = archive(replace(found, mok_enrolled=mok_enrolled))
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(folder, filter="tar")
        self.machine = Machine(folder)
        driver.boot(self.machine)

    @property
    def root(self) -> Path:
        return self.machine.root

    def install(
        self,
        version: str,
        flavour: str = "open",
        *,
        kernel: str = KERNEL,
        place: str = "updates/dkms",
        signed: bool = False,
    ) -> None:
        """What the packages of a driver leave on disk."""
        folder = self.folder / "lib/modules" / kernel / place
        folder.mkdir(parents=True, exist_ok=True)
        license_ = "Dual MIT/GPL" if flavour == "open" else "NVIDIA"
        content = kernel_module([("license", license_), ("version", version), ("vermagic", f"{kernel} SMP")])
        (folder / "nvidia.ko").write_bytes(content + SIGNATURE * signed)
        (folder / "nvidia-uvm.ko").write_bytes(content)
        self.library(version)

    def library(self, version: str) -> None:
        libraries = self.folder / LIBRARIES
        libraries.mkdir(parents=True, exist_ok=True)
        for old in libraries.glob("libnvidia-ml.so.*"):
            old.unlink()
        (libraries / f"libnvidia-ml.so.{version}").touch()

    def drive(self, version: str, flavour: str = "open") -> None:
        """Install a driver and load it."""
        self.install(version, flavour)
        assert self.modprobe("nvidia") == (0, "")

    def smi(self, *words: str) -> tuple[int, str]:
        """What nvidia-smi ends with and prints, both outputs as one."""
        return _run(lambda: nvidia_smi.main(list(words), self.machine))

    def modprobe(self, *words: str) -> tuple[int, str]:
        return _run(lambda: kmod.modprobe(list(words), self.machine))

    def rmmod(self, *words: str) -> tuple[int, str]:
        return _run(lambda: kmod.rmmod(list(words), self.machine))

    def control(self, *words: str) -> tuple[int, str]:
        return _run(lambda: control.main(list(words), self.machine))

    def ask(self, field: str) -> list[str]:
        """One value of every GPU."""
        code, printed = self.smi(f"--query-gpu={field}", "--format=csv,noheader,nounits")
        assert code == 0, printed
        return printed.splitlines()

    def show(self, path: str) -> str:
        return (self.root / path).read_text()


def _run(program) -> tuple[int, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = program()
    return code, output.getvalue()
