# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver on a machine with four simulated RTX 5090 that says it is Ubuntu: installed, held, and watched by the gate.

Everything here is SIMULATED: no test measures a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.hosts.conftest import Machine

GATE = ("--tags", "gate")
KERNEL = "6.8.0-90-generic"
LEAVES = {
    "libnvidia-cfg1-580",
    "libnvidia-compute-580",
    "nvidia-compute-utils-580",
    "nvidia-dkms-580-open",
    "nvidia-firmware-580-580.178.04",
    "nvidia-kernel-common-580",
    "nvidia-kernel-source-580-open",
    "nvidia-utils-580",
}


def root(machine: Machine, command: str) -> str:
    """What a command says to root."""
    done = machine.ssh(f"sudo sh -c '{command}'")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packages(machine: Machine) -> dict[str, str]:
    """The installed packages of the driver and their versions."""
    lines = root(
        machine, 'dpkg-query -W -f "\\${db:Status-Status} \\${Package} \\${Version}\\n"'
    ).splitlines()
    rows = [line.split() for line in lines if line.startswith("installed ")]
    return {name: version for _status, name, version in rows if "nvidia" in name}


@pytest.fixture
def broken(machine: Machine) -> Iterator[None]:
    """What a test breaks is mended after it."""
    yield
    root(machine, "gpumesh-simulated-gpus mend; systemctl restart nvidia-persistenced gpumesh-gpu-tuning")


def test_every_gpu_is_seen_with_the_driver_of_the_long_term_branch(machine: Machine) -> None:
    said = machine.ssh(
        "nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader,nounits"
    ).stdout
    assert [line.split(", ")[:2] for line in said.splitlines()] == [
        ["NVIDIA GeForce RTX 5090", "580.178.04"]
    ] * 4
    assert "SIMULATED" in machine.ssh("nvidia-smi").stdout


def test_the_module_is_the_open_one_and_dkms_has_built_it(machine: Machine) -> None:
    assert f"nvidia/580.178.04, {KERNEL}, x86_64: installed" in root(machine, "dkms status")
    assert root(machine, f"modinfo -k {KERNEL} -F license nvidia").strip() == "Dual MIT/GPL"
    # Left behind, it would keep every later kernel without a module.
    assert root(machine, "ls /etc/dkms").split() == ["framework.conf", "framework.conf.d"]


def test_nothing_but_the_compute_packages_is_there(machine: Machine) -> None:
    assert set(packages(machine)) == LEAVES | {"nvidia-driver-pinning-580"}


def test_every_leaf_and_the_kernel_are_held(machine: Machine) -> None:
    held = set(root(machine, "apt-mark showhold").split())
    assert held == LEAVES | {"linux-image-generic"}


def test_unattended_upgrades_leave_them_alone(machine: Machine) -> None:
    said = root(machine, "apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert "^nvidia-" in said
    assert "^linux-" in said


def test_nouveau_is_off_and_the_persistence_daemon_on(machine: Machine) -> None:
    assert "blacklist nouveau" in root(machine, "cat /etc/modprobe.d/gpumesh-nvidia-driver.conf")
    assert machine.ssh("systemctl is-active nvidia-persistenced").stdout.strip() == "active"
    assert machine.ssh("systemctl is-enabled nvidia-persistenced").stdout.strip() == "enabled"


def test_the_layer_leaves_its_facts_and_says_that_they_are_simulated(machine: Machine) -> None:
    layer = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["nvidia_driver"]
    assert layer["simulated"] is True
    assert layer["versions"]["driver"] == "580.178.04"
    assert layer["gpus"] == ["rtx5090"] * 4


def test_the_stack_first_asked_for_is_refused_point_by_point(machine: Machine) -> None:
    before = packages(machine)
    played = machine.play(
        nvidia_driver_version="550.127.05", nvidia_driver_cuda_toolkit="12.4", nvidia_driver_flavour="closed"
    )
    assert played.returncode == 2
    assert "changed=0" in played.said
    for reason in ("550", "12.4", "open", "What would work"):
        assert reason in played.said
    assert packages(machine) == before


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("lost", "lost"),
        ("mismatch", "version mismatch"),
        ("x8", "x8"),
        ("throttled", "fans, dust"),
        ("persistence-off", "persistence"),
    ],
)
def test_the_gate_finds_what_is_broken(machine: Machine, broken: None, kind: str, says: str) -> None:
    root(machine, f"gpumesh-simulated-gpus break {kind}")
    played = machine.play(*GATE)
    assert played.returncode == 2
    assert says.lower() in played.said.lower()
    assert "changed=0" in played.said


def test_an_upgrade_of_everything_leaves_the_driver_alone(machine: Machine) -> None:
    root(machine, "sed -i s/^/#/ /etc/apt/preferences.d/nvidia-driver-pinning-580")
    before = packages(machine)
    root(machine, "DEBIAN_FRONTEND=noninteractive apt-get -qq -y dist-upgrade")
    assert packages(machine) == before


def test_a_hold_that_was_taken_away_is_drift_and_the_next_run_mends_it(machine: Machine) -> None:
    root(machine, "apt-mark unhold nvidia-utils-580 linux-image-generic")
    played = machine.play(*GATE)
    assert played.returncode == 2
    assert "nvidia-utils-580" in played.said
    assert "linux-image-generic" in played.said
    root(machine, "sed -i s/^#// /etc/apt/preferences.d/nvidia-driver-pinning-580")
    played = machine.play()
    assert played.returncode == 0, played.said
    test_every_leaf_and_the_kernel_are_held(machine)


def test_an_installation_that_fails_is_undone(machine: Machine) -> None:
    root(
        machine,
        "mkdir -p /tmp/own/DEBIAN /tmp/own/usr/lib/x86_64-linux-gnu && cd /tmp/own && "
        "touch usr/lib/x86_64-linux-gnu/libcuda.so.595.91.07 && "
        'printf "Package: own\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: in the way\\n" '
        "> DEBIAN/control && dpkg-deb -b . /tmp/own.deb && dpkg -i /tmp/own.deb",
    )
    before = packages(machine), root(machine, "apt-mark showhold"), root(machine, "dkms status")
    played = machine.play(nvidia_driver_branch="595")
    assert played.returncode == 2
    assert "trying to overwrite" in played.said
    assert "The machine was put back as it was." in played.said
    assert (packages(machine), root(machine, "apt-mark showhold"), root(machine, "dkms status")) == before
    assert root(machine, "dpkg --audit") == ""
    root(machine, "dpkg --purge own")
    played = machine.play()
    assert played.returncode == 0, played.said


def test_a_machine_whose_gpus_have_no_common_driver_is_refused(machine: Machine) -> None:
    root(machine, "gpumesh-simulated-gpus profile mixed")
    try:
        played = machine.play(nvidia_driver_gpus=[])
    finally:
        root(machine, "gpumesh-simulated-gpus profile 4x-rtx5090")
    assert played.returncode == 2
    assert (
        "the GeForce RTX 5090 needs the open kernel modules and the Tesla V100 the closed ones" in played.said
    )
    assert "changed=0" in played.said


def test_a_machine_without_a_gpu_is_left_alone_with_one_line(machine: Machine) -> None:
    root(machine, "gpumesh-simulated-gpus profile none")
    try:
        played = machine.play(nvidia_driver_gpus=[])
        declared = machine.play()
    finally:
        root(machine, "gpumesh-simulated-gpus profile 4x-rtx5090")
        root(machine, "systemctl restart nvidia-persistenced gpumesh-gpu-tuning")
    assert played.returncode == 0, played.said
    assert "This machine has no NVIDIA GPU, and none is declared, so it gets no driver." in played.said
    assert "changed=0" in played.said
    assert declared.returncode == 2
    assert "4x rtx5090 declared, and the PCI bus shows none" in declared.said
