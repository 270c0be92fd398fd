# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver of Ubuntu's own archive under Secure Boot: signed modules for the kernel that runs. SIMULATED throughout."""

from __future__ import annotations

from tests.hosts.conftest import Machine

KERNEL = "6.8.0-90-generic"
VERSION = "580.173.02"


def test_the_kernel_that_runs_has_its_modules_and_no_other_kernel_came_along(machine: Machine) -> None:
    assert machine.ssh("ls /lib/modules").stdout.split() == [KERNEL]
    assert f"linux-modules-nvidia-580-server-open-{KERNEL}" in machine.ssh("apt-mark showhold").stdout
    assert VERSION in machine.ssh("nvidia-smi --query-gpu=driver_version --format=csv,noheader").stdout
    assert "SIMULATED" in machine.ssh("nvidia-smi -L").stdout


def test_nothing_was_compiled_and_nothing_came_from_nvidias_repository(machine: Machine) -> None:
    assert machine.ssh("command -v dkms gcc").stdout == ""
    assert machine.ssh("ls /etc/apt/sources.list.d | grep gpumesh-nvidia").stdout == ""
    sources = machine.ssh("apt-cache policy libnvidia-compute-580-server").stdout
    assert "/ubuntu noble/restricted" in sources and "/cuda/" not in sources


def test_modules_of_ones_own_making_are_refused_while_no_key_is_enrolled(machine: Machine) -> None:
    played = machine.play(nvidia_driver_source="nvidia")
    assert played.returncode != 0
    assert "Secure Boot" in played.said
    assert machine.ssh("nvidia-smi -L").returncode == 0


def test_the_gate_tells_a_kernel_that_has_no_modules(machine: Machine) -> None:
    """An upgrade of the kernel by hand, past the hold: the next boot would come up without a GPU."""
    installed = machine.ssh("sudo apt-get -qq -y install linux-image-6.8.0-94-generic")
    assert installed.returncode == 0, installed.stderr
    try:
        gate = machine.play("--tags", "gate")
        mended = machine.play(nvidia_driver_reboot_allowed=False)
    finally:
        machine.ssh("sudo apt-get -qq -y purge --allow-change-held-packages '^linux-.*6.8.0-94-generic$'")
    assert gate.returncode != 0
    assert "6.8.0-94-generic has no module" in gate.said
    assert mended.returncode == 0, mended.said
