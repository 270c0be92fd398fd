# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU runtime on a real host: containers see every GPU by each route, and what others have configured stays."""

from __future__ import annotations

import json

import pytest

from tests.hosts.conftest import Machine
from tests.hosts.gpu_runtime.conftest import uuids

pytestmark = pytest.mark.docker

RUNTIME = "--runtime=nvidia --env NVIDIA_VISIBLE_DEVICES=all"
CDI = "--device nvidia.com/gpu=all"
LOOK = "/bin/sh -c 'nvidia-smi -L; : </dev/nvidia3 && echo opened'"


@pytest.mark.parametrize("route", [RUNTIME, CDI])
def test_a_container_sees_every_gpu_and_says_that_they_are_simulated(
    machine: Machine, gpus: list[str], image: str, route: str
) -> None:
    done = machine.ssh(f"docker run --rm --network none {route} {image} {LOOK}")
    assert done.returncode == 0, done.stderr
    assert uuids(done.stdout) == set(gpus)
    assert "SIMULATED" in done.stdout
    assert done.stdout.endswith("opened\n")


def test_without_being_asked_a_container_gets_nothing(machine: Machine, image: str) -> None:
    done = machine.ssh(f"docker run --rm --network none {image} /bin/sh -c 'echo /dev/nvid* /usr/bin/nv*'")
    assert done.stdout == "/dev/nvid* /usr/bin/nv*\n"


@pytest.mark.parametrize(
    "route", ["--device nvidia.com/gpu=2", "--runtime=nvidia --env NVIDIA_VISIBLE_DEVICES=2"]
)
def test_who_asks_for_one_gpu_gets_that_one(
    machine: Machine, gpus: list[str], image: str, route: str
) -> None:
    done = machine.ssh(f"docker run --rm --network none {route} {image} nvidia-smi -L")
    assert uuids(done.stdout) == {gpus[2]}


def test_a_gpu_that_is_not_there_is_refused(machine: Machine, image: str) -> None:
    done = machine.ssh(f"docker run --rm --device nvidia.com/gpu=9 {image} nvidia-smi -L")
    assert done.returncode != 0
    assert "unresolvable CDI devices nvidia.com/gpu=9" in done.stderr


@pytest.mark.parametrize("route", [RUNTIME, CDI])
def test_a_running_container_keeps_its_gpus_over_a_daemon_reload(
    machine: Machine, gpus: list[str], image: str, route: str
) -> None:
    machine.ssh("docker rm --force probe")
    started = machine.ssh(
        f"docker run --detach --interactive --name probe --network none {route} {image} /bin/sh -c 'read line'"
    )
    assert started.returncode == 0, started.stderr
    assert machine.ssh("sudo systemctl daemon-reload").returncode == 0
    done = machine.ssh(f"docker exec probe {LOOK}")
    assert uuids(done.stdout) == set(gpus)
    assert done.stdout.endswith("opened\n")


def test_podman_reads_the_specification_by_itself(machine: Machine, gpus: list[str]) -> None:
    done = machine.ssh(
        "tar -C / --dereference -c bin/sh lib64/ld-linux-x86-64.so.2 lib/x86_64-linux-gnu/libc.so.6 "
        "| sudo podman import - probe:1 >/dev/null 2>&1; "
        f"sudo podman run --rm --network none {CDI} probe:1 nvidia-smi -L; sudo podman image rm --force probe:1 >/dev/null"
    )
    assert uuids(done.stdout) == set(gpus)


def test_the_keys_of_others_in_daemon_json_stay_and_are_in_effect(machine: Machine) -> None:
    content = json.loads(machine.ssh("cat /etc/docker/daemon.json").stdout)
    assert content["labels"] == ["owner=somebody-else"]
    assert content["features"] == {"buildkit": True, "cdi": True}
    assert content["runtimes"] == {
        "other": {"path": "/usr/sbin/runc"},
        "nvidia": {"args": [], "path": "nvidia-container-runtime"},
    }
    # The role docker's own are there, too.
    assert content["live-restore"] is True
    info = json.loads(machine.ssh("docker info --format '{{json .}}'").stdout)
    assert {"nvidia", "other", "runc"} <= set(info["Runtimes"])
    assert info["DefaultRuntime"] == "runc"


def test_the_role_docker_leaves_the_runtime_alone(machine: Machine) -> None:
    played = machine.play("--tags", "docker_configure", playbook="docker.yml")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    assert "nvidia" in machine.ssh("docker info --format '{{json .Runtimes}}'").stdout


def test_containerd_has_the_runtime_beside_what_the_distribution_configured(machine: Machine) -> None:
    config = machine.ssh("sudo containerd config dump").stdout
    assert 'BinaryName = "/usr/bin/nvidia-container-runtime"' in config
    assert "enable_cdi = true" in config
    assert 'bin_dir = "/usr/lib/cni"' in config


def test_all_packages_are_in_one_version_and_no_upgrade_moves_them(machine: Machine) -> None:
    names = "nvidia-container-toolkit nvidia-container-toolkit-base libnvidia-container-tools libnvidia-container1"
    versions = machine.ssh(f"dpkg-query -W -f '${{Version}} ' {names}").stdout.split()
    assert versions == ["1.19.0-1"] * 4
    assert "1.20.0-1" in machine.ssh("apt-cache madison nvidia-container-toolkit").stdout
    for command in ("upgrade", "dist-upgrade"):
        planned = machine.ssh(f"sudo apt-get --simulate {command}").stdout
        assert "Inst nvidia-container" not in planned
        assert "Inst libnvidia-container" not in planned
    # By the pin alone, too, where somebody takes the hold away.
    machine.ssh(f"sudo apt-mark unhold {names}")
    planned = machine.ssh("sudo apt-get --simulate upgrade").stdout
    machine.ssh(f"sudo apt-mark hold {names}")
    assert "Inst nvidia-container" not in planned


def test_the_layer_leaves_its_facts(machine: Machine) -> None:
    facts = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["gpu_runtime"]
    assert facts["versions"]["toolkit"] == "1.19.0-1"
    assert facts["gpus"] == 4
    assert "Docker with CDI, after a daemon-reload" in facts["checks"]
    assert "Podman with CDI, after a daemon-reload" in facts["checks"]
