# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker layer on a real host: containers run, foreign settings survive, published ports stay behind the firewall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts.conftest import Machine, eventually

pytestmark = pytest.mark.docker

SERVER = (
    "mkdir -p /tmp/web && echo hello > /tmp/web/index.html && "
    "tar -C / -c bin/busybox tmp/web | docker import - web:1 >/dev/null && "
    "docker run --detach --name web --publish 18080:80 --publish 18081:80 "
    "web:1 /bin/busybox httpd -f -p 80 -h /tmp/web"
)


@pytest.fixture(scope="module")
def web(machine: Machine) -> Iterator[str]:
    """A container with a web server on two published ports, one of them declared."""
    machine.ssh("docker rm --force web")
    started = machine.ssh(SERVER)
    assert started.returncode == 0, started.stderr
    yield "web"
    machine.ssh("docker rm --force web; docker image rm web:1")


def daemon(machine: Machine) -> dict[str, Any]:
    """The file daemon.json."""
    content: dict[str, Any] = json.loads(machine.ssh("cat /etc/docker/daemon.json").stdout)
    return content


def started_at(machine: Machine, name: str) -> str:
    """When a container that runs was started."""
    return machine.ssh(
        f"docker inspect --format '{{{{.State.Running}}}} {{{{.State.StartedAt}}}}' {name}"
    ).stdout.strip()


def test_the_admin_uses_docker_without_becoming_root(machine: Machine) -> None:
    assert machine.ssh("docker info --format '{{.LoggingDriver}}'").stdout.strip() == "json-file"


def test_the_keys_of_somebody_else_survive(machine: Machine) -> None:
    content = daemon(machine)
    assert content["labels"] == ["owner=somebody-else"]
    assert content["log-opts"] == {"labels": "production", "max-size": "10m", "max-file": "3"}
    assert content["default-shm-size"] == "256m"


def test_a_published_port_is_reached_from_outside_only_if_declared(machine: Machine, web: str) -> None:
    assert eventually(lambda: machine.reaches(18081), 20)
    assert not machine.reaches(18080)
    assert machine.ssh("busybox wget -q -O - http://127.0.0.1:18080/").stdout.strip() == "hello"
    played = machine.play("--tags", "docker", docker_published_ports=[{"port": 18080}])
    assert played.returncode == 0, played.said
    assert (machine.reaches(18080), machine.reaches(18081)) == (True, False)
    played = machine.play(
        "--tags", "docker", docker_published_ports=[{"port": 18080, "source": "192.0.2.0/24"}]
    )
    assert played.returncode == 0, played.said
    assert not machine.reaches(18080)


def test_the_ports_stay_closed_when_the_firewall_or_docker_starts_anew(machine: Machine, web: str) -> None:
    played = machine.play("--tags", "docker")
    assert played.returncode == 0, played.said
    for command in ("sudo ufw reload", "sudo systemctl restart docker"):
        assert machine.ssh(command).returncode == 0
        assert eventually(lambda: machine.reaches(18081), 20)
        assert not machine.reaches(18080)


def test_a_change_of_daemon_json_leaves_containers_running_and_is_taken_back(
    machine: Machine, web: str
) -> None:
    before = started_at(machine, web)
    assert before.startswith("true ")
    played = machine.play("--tags", "docker", docker_daemon_options={"max-concurrent-downloads": 2})
    assert played.returncode == 0, played.said
    assert daemon(machine)["max-concurrent-downloads"] == 2
    assert started_at(machine, web) == before
    played = machine.play("--tags", "docker")
    assert played.returncode == 0, played.said
    assert "max-concurrent-downloads" not in daemon(machine)
    assert daemon(machine)["labels"] == ["owner=somebody-else"]
    assert started_at(machine, web) == before


def test_an_option_the_daemon_refuses_is_put_back(machine: Machine) -> None:
    if "--validate" not in machine.ssh("sudo dockerd --help").stdout:
        pytest.skip("this engine is older than 23.0 and cannot validate its configuration")
    before = daemon(machine)
    played = machine.play("--tags", "docker", docker_daemon_options={"no-such-option": True})
    assert played.returncode == 2
    assert "put back as they were" in played.said
    assert daemon(machine) == before


def test_the_gate_alone_leaves_nothing_behind_and_finds_what_is_broken(machine: Machine) -> None:
    images = machine.ssh("docker images --quiet").stdout
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    assert machine.ssh("docker images --quiet").stdout == images
    machine.ssh("sudo iptables -D DOCKER-USER -j GPUMESH-PUBLISHED")
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert "published ports behind the firewall" in played.said
    machine.ssh("sudo systemctl restart gpumesh-docker-firewall")


def test_the_layer_leaves_its_facts_beside_those_of_base(machine: Machine) -> None:
    layers = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]
    assert {"base", "docker"} <= set(layers)
    assert set(layers["docker"]["versions"]) == {"docker", "containerd", "runc"}
    assert "a container runs" in layers["docker"]["checks"]
