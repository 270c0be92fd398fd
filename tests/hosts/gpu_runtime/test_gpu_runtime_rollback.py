# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU runtime follows the driver, goes to another version and back, and goes without a trace."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.hosts.conftest import Machine, eventually
from tests.hosts.gpu_runtime.conftest import uuids

pytestmark = pytest.mark.docker

SPEC = "/var/run/cdi/nvidia.yaml"
TOOLKIT = "dpkg-query -W -f '${Version}' nvidia-container-toolkit"


def test_a_new_driver_gets_a_new_specification(machine: Machine, gpus: list[str]) -> None:
    upgraded = machine.ssh(
        "export DEBIAN_FRONTEND=noninteractive; sudo -E apt-get -qq purge nvidia-driver-pinning-595 >/dev/null 2>&1 && "
        "sudo -E apt-get -qq install --no-install-recommends nvidia-driver-pinning-610 >/dev/null 2>&1 && "
        "sudo -E apt-get -qq install --no-install-recommends nvidia-kernel-open-dkms nvidia-driver-cuda libnvidia-cfg1 >/dev/null 2>&1"
    )
    assert upgraded.returncode == 0, upgraded.stderr
    # The module that is loaded is still the old one, so the refresh fails, and its trigger has to outlive that.
    assert "mismatch" in machine.ssh("nvidia-smi -L").stdout.lower()
    for _ in range(6):
        machine.ssh("sudo systemctl start nvidia-cdi-refresh")
    assert machine.ssh("systemctl is-active nvidia-cdi-refresh.path").stdout == "active\n"
    subprocess.run(
        ["docker", "restart", "--time", "20", f"gpumesh-molecule-{machine.scenario}"],
        check=True,
        capture_output=True,
    )
    assert eventually(lambda: "610.57.04" in machine.ssh(f"cat {SPEC}").stdout)
    assert uuids(machine.ssh(f"cat {SPEC}").stdout) == set(gpus)
    assert eventually(lambda: machine.ssh("docker info").returncode == 0)
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said


def test_a_newer_version_and_back_to_the_one_before(machine: Machine) -> None:
    played = machine.play(gpu_runtime_version="1.20.0-1")
    assert played.returncode == 0, played.said
    assert machine.ssh(TOOLKIT).stdout == "1.20.0-1"
    played = machine.play("--check", playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert "would be replaced by 1.19.0-1" in played.said
    assert "A run would install nvidia-container-toolkit" in played.said
    assert machine.ssh(TOOLKIT).stdout == "1.20.0-1"
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert "declare gpu_runtime_version: 1.19.0-1" in played.said
    assert machine.ssh(TOOLKIT).stdout == "1.19.0-1"
    assert "nvidia-container-toolkit-base" in machine.ssh("apt-mark showhold").stdout


def test_a_version_that_is_not_offered_any_more_is_refused(machine: Machine) -> None:
    history = "/var/lib/gpumesh/gpu_runtime/history.json"
    before = machine.ssh(f"sudo cat {history}").stdout
    machine.ssh(f"""echo '[{{"version": "1.18.1-1"}}]' | sudo tee {history}""")
    try:
        played = machine.play(playbook="rollback.yml")
        assert played.returncode == 2
        assert (
            "libnvidia-container1 1.18.1-1 is not offered any more (there is: 1.20.0-1, 1.19.0-1)"
            in played.said
        )
        assert machine.ssh(TOOLKIT).stdout == "1.19.0-1"
    finally:
        machine.ssh(f"echo '{before}' | sudo tee {history}")


def test_it_goes_without_a_trace(machine: Machine) -> None:
    played = machine.play(playbook="rollback.yml", gpu_runtime_rollback_to="none")
    assert played.returncode == 0, played.said
    left = machine.ssh(
        "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' | grep -E 'nvidia-container|libnvidia-container'; "
        "apt-mark showhold | grep container; "
        "sudo find / -xdev \\( -path /proc -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/docker -o -path /var/lib/containers -o -path /var/cache/apt -o -path /var/lib/apt/lists -o -path /var/lib/cloud \\) -prune -o "
        "\\( -iname '*nvidia-con*' -o -iname '*nvidia-ctk*' -o -iname '*nvidia-cdi*' -o -iname '*gpu-runtime*' -o -iname '*gpu_runtime*' -o -iname '*container-toolkit*' -o -iname '99-nvidia*' "
        "-o -iname '*toolkit-simulated*' \\) -print; ls -d /var/lib/gpumesh/gpu_runtime /var/run/cdi/nvidia.yaml /etc/containerd/conf.d 2>/dev/null; "
        "systemctl list-unit-files 'nvidia-cdi*' --no-legend; sudo find /etc/systemd -name '*cdi-refresh*'"
    ).stdout
    assert left == ""
    content = json.loads(machine.ssh("cat /etc/docker/daemon.json").stdout)
    assert content["runtimes"] == {"other": {"path": "/usr/sbin/runc"}}
    assert content["features"] == {"buildkit": True}
    assert content["labels"] == ["owner=somebody-else"]
    assert "/etc/containerd/config.toml" not in machine.ssh("dpkg --verify containerd").stdout
    assert "nvidia" not in machine.ssh("docker info --format '{{json .Runtimes}}'").stdout
    assert machine.ssh("sudo apt-get -qq update && sudo apt-get -qq check").returncode == 0
    played = machine.play(playbook="rollback.yml", gpu_runtime_rollback_to="none")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
