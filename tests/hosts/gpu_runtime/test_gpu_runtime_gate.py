# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of the GPU runtime finds what breaks it, and says what to do; what the role can mend, its next run mends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

SPEC = "/var/run/cdi/nvidia.yaml"
CONFIG = "/etc/nvidia-container-runtime/config.toml"
# systemd runs it at every daemon-reload. It does to the containers what systemd does to those whose devices it does not know
# of: it takes the permission to open them away, in the device cgroup.
THIEF = "/etc/systemd/system-generators/thief"
THIEF_TEXT = """#!/bin/sh
for pid in $(docker ps --quiet | xargs -r docker inspect --format '{{.State.Pid}}'); do
  place=$(sed -n 's/^[0-9]*:devices://p' /proc/$pid/cgroup)
  echo 'c 1:3 rw' >/sys/fs/cgroup/devices$place/devices.deny
done
"""


@pytest.fixture
def lost(machine: Machine) -> Iterator[None]:
    """The last of the four falls off the bus."""
    assert machine.ssh("sudo gpumesh-simulated-gpus break lost").returncode == 0
    yield
    assert machine.ssh("sudo gpumesh-simulated-gpus mend").returncode == 0


@pytest.mark.usefixtures("lost")
def test_a_lost_gpu_is_named_with_what_to_do(machine: Machine) -> None:
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert "every GPU answers the driver: the driver has lost 0000:" in played.said
    assert "(rtx5090) of 4, so no container can see it" in played.said
    assert "journalctl -k" in played.said


def test_gpus_that_a_daemon_reload_takes_away_are_missed(machine: Machine) -> None:
    machine.ssh(
        f"sudo mkdir -p $(dirname {THIEF}); printf %s '{THIEF_TEXT.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}' | sudo tee {THIEF}; sudo chmod +x {THIEF}"
    )
    try:
        played = machine.play("--tags", "gate")
        assert played.returncode == 2
        assert "Docker with CDI, after a daemon-reload: a running container has lost its GPUs" in played.said
        assert "Docker with the runtime nvidia, after a daemon-reload: a running container" in played.said
        assert "Docker with CDI: a container does not see" not in played.said
    finally:
        machine.ssh(f"sudo rm {THIEF}")
    assert machine.ssh("docker ps --all --quiet").stdout == ""


def test_all_that_is_wrong_is_said_at_once_and_mended_by_the_next_run(machine: Machine) -> None:
    machine.ssh(
        f'sudo sed -i s/595.91.07/590.48.01/g {SPEC}; sudo sed -i \'s/mode = "auto"/mode = "legacy"/\' {CONFIG}; '
        "sudo systemctl stop nvidia-cdi-refresh.path; sudo apt-mark unhold nvidia-container-toolkit"
    )
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert (
        "CDI specification, driver: it was made for driver 590.48.01, and 595.91.07 is there" in played.said
    )
    assert "run 'systemctl restart nvidia-cdi-refresh'" in played.said
    assert "runtime mode: with the mode legacy, containers lose their GPUs" in played.said
    assert "nvidia-cdi-refresh.path: it is not active and enabled" in played.said
    assert "held packages: the next upgrade may move nvidia-container-toolkit; 'apt-mark hold" in played.said
    played = machine.play()
    assert played.returncode == 0, played.said
    assert "595.91.07" in machine.ssh(f"cat {SPEC}").stdout
    assert machine.ssh("systemctl is-active nvidia-cdi-refresh.path").stdout == "active\n"


def test_what_cannot_work_is_refused_at_once_before_anything_changes(machine: Machine) -> None:
    played = machine.play(gpu_runtime_version="1.17.8-1", gpu_runtime_docker=False, gpu_runtime_podman=False)
    assert played.returncode == 2
    assert "1.17.8-1 does not keep the CDI specification up to date by itself" in played.said
    assert "neither is wanted, so nothing could prove" in played.said
    assert "changed=0" in played.said


def test_a_machine_without_a_gpu_is_skipped_with_one_line(machine: Machine) -> None:
    machine.ssh("sudo gpumesh-simulated-gpus profile none")
    try:
        played = machine.play(gpu_runtime_gpus=[])
        assert played.returncode == 0, played.said
        assert (
            "This machine has no NVIDIA GPU and none is declared, so it gets no GPU runtime." in played.said
        )
        assert "changed=0" in played.said
    finally:
        machine.ssh("sudo gpumesh-simulated-gpus profile 4x-rtx5090")
