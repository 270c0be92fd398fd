# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that is loaded and the one on the disk, on a kernel of ours. With the simulated driver: tests/hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import kernel_module
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.kernel_module import Module

from tests.unit.plugins.module_utils._host.driver.driver_machine import KERNEL, Machine

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (a@b)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Apr  8\n"


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        (OPEN.format("580.178.04"), Module("580.178.04", "open")),
        (CLOSED.format("550.163.01"), Module("550.163.01", "closed")),
        ("", Module()),
    ],
)
def test_the_loaded_module_and_its_flavour(tmp_path: Path, text: str, loaded: Module) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    assert kernel_module.Machine(tmp_path).loaded() == loaded


def test_a_kernel_without_a_module_asks_for_a_reboot(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("0.0.0-none\n")
    decided = kernel_module.load(kernel_module.Machine(tmp_path), carry_out=False)
    assert decided.reboot is True
    assert "the running kernel 0.0.0-none has no module on the disk" in decided.says


class Kernel:
    """The running kernel, whose modules rmmod takes out unless they are in use."""

    def __init__(self, machine: Machine, loaded: str, *modules: str) -> None:
        self.machine, self.modules, self.in_use = machine, list(modules), set[str]()
        root = machine.folder / "root"
        for name in ("proc/sys/kernel", "proc/driver/nvidia"):
            (root / name).mkdir(parents=True)
        (root / "proc/sys/kernel/osrelease").write_text(f"{KERNEL}\n")
        (root / "proc/driver/nvidia/version").write_text(OPEN.format(loaded) if loaded else "")
        self.file = root / "proc/modules"
        self.write()
        updates = machine.folder / "modules" / KERNEL / "updates" / "dkms"
        updates.mkdir(parents=True)
        (updates / "nvidia.ko.zst").touch()
        machine.meanwhile = self.answer
        self.kernel = kernel_module.Machine(root)

    def write(self) -> None:
        self.file.write_text("".join(f"{name} 1 0 - Live 0x0\n" for name in self.modules))

    def answer(self, words: list[str]) -> tuple[int, str] | None:
        if words[0] == "rmmod":
            if words[1] in self.in_use:
                return 1, "in use"
            self.modules.remove(words[1])
            self.write()
        if words[:3] == ["modinfo", "-F", "license"]:
            return 0, "Dual MIT/GPL\n"
        if words[:2] == ["systemctl", "is-active"]:
            return 0, ""
        return None


def test_another_version_takes_the_place_of_the_loaded_one(machine: Machine) -> None:
    kernel = Kernel(machine, "595.91.07", "nvidia_uvm", "nvidia", "ext4")
    assert kernel_module.load(kernel.kernel, carry_out=False).changed is True
    assert kernel.modules == ["nvidia_uvm", "nvidia", "ext4"]
    assert kernel_module.load(kernel.kernel, carry_out=True) == kernel_module.Decision(changed=True)
    assert kernel.modules == ["ext4"]
    assert ["modprobe", "nvidia"] in machine.ran


def test_the_same_version_is_left_alone_unless_nouveau_is_there(machine: Machine) -> None:
    kernel = Kernel(machine, "580.178.04", "nvidia")
    assert kernel_module.load(kernel.kernel, carry_out=True) == kernel_module.Decision()
    kernel.modules.append("nouveau")
    kernel.write()
    assert kernel_module.load(kernel.kernel, carry_out=True).changed is True
    assert "nouveau" not in kernel.modules


def test_a_module_in_use_stays_with_its_daemon_and_only_a_reboot_helps(machine: Machine) -> None:
    kernel = Kernel(machine, "595.91.07", "nvidia_uvm", "nvidia")
    kernel.in_use = {"nvidia"}
    decided = kernel_module.load(kernel.kernel, carry_out=True)
    assert decided == kernel_module.Decision(
        reboot=True, says="the open module 595.91.07 is loaded and in use, and 580.178.04 is on the disk"
    )
    assert machine.ran[-2:] == [
        ["modprobe", "nvidia"],
        ["systemctl", "start", "nvidia-persistenced.service"],
    ]
    assert (
        kernel_module.unload(kernel.kernel)
        == "the module nvidia is in use and stays loaded until the machine is rebooted"
    )


def test_a_driver_that_goes_for_good_leaves_its_daemon_stopped(machine: Machine) -> None:
    kernel = Kernel(machine, "580.178.04", "nvidia_uvm", "nvidia")
    assert kernel_module.unload(kernel.kernel) == ""
    assert kernel.modules == []
    assert not machine.did("systemctl", "start", "nvidia-persistenced.service")
