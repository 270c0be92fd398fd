# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's own repository on a real host: its engine is installed from there, and only from there if it is genuine."""

from __future__ import annotations

import json

import pytest

from tests.hosts.conftest import Machine, Played

pytestmark = pytest.mark.docker

SOURCE = "/etc/apt/sources.list.d/gpumesh-docker.sources"
KEYRING = "/etc/apt/keyrings/gpumesh-docker.asc"
VENDOR = {"docker-ce", "docker-ce-cli", "containerd.io"}
DISTRIBUTION = {"docker.io", "containerd", "runc"}


@pytest.fixture(scope="module")
def vendor(machine: Machine) -> dict[str, str]:
    """Where the repository is, and the fingerprint of its key."""
    found: dict[str, str] = json.loads((machine.folder / "vendor.json").read_text())
    return found


@pytest.fixture(scope="module")
def swapped(machine: Machine) -> Played:
    """What came of putting the distribution's engine in the place of the vendor's."""
    return machine.play(docker_source="distribution", docker_replace_allowed=True)


def packages(machine: Machine) -> set[str]:
    """Those installed that make up an engine, whosever it is."""
    listed = machine.ssh("dpkg-query -W -f '${db:Status-Status} ${Package}\\n'").stdout.splitlines()
    names = {line.split()[1] for line in listed if line.startswith("installed ")}
    return names & (VENDOR | DISTRIBUTION)


def added(machine: Machine) -> list[str]:
    """What the machine has of the vendor's source and key."""
    return machine.ssh(f"ls {SOURCE} {KEYRING}").stdout.split()


def test_the_engine_is_the_vendors_and_runs(machine: Machine, vendor: dict[str, str]) -> None:
    assert packages(machine) == VENDOR
    assert f"{vendor['url']}/debian" in machine.ssh("apt-cache policy docker-ce").stdout
    assert machine.ssh("docker info --format '{{.LoggingDriver}}'").stdout.strip() == "json-file"
    layers = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]
    assert "a container runs" in layers["docker"]["checks"]


def test_the_key_is_trusted_for_this_source_alone(machine: Machine) -> None:
    assert f"Signed-By: {KEYRING}" in machine.ssh(f"cat {SOURCE}").stdout
    assert machine.ssh(
        "ls /etc/apt/trusted.gpg.d /etc/apt/trusted.gpg | grep -v debian-archive"
    ).stdout.split() == ["/etc/apt/trusted.gpg.d:"]


def test_a_later_key_that_is_not_the_pinned_one_does_not_take_its_place(
    machine: Machine, vendor: dict[str, str]
) -> None:
    before = machine.ssh(f"cat {KEYRING} {SOURCE}").stdout
    played = machine.play(docker_vendor_key_fingerprint="0" * 40)
    assert played.returncode == 2
    assert (
        f"holds the key {vendor['fingerprint']}, and {'0' * 40} is pinned, so nothing was added"
        in played.said
    )
    assert machine.ssh(f"cat {KEYRING} {SOURCE}").stdout == before


def test_the_other_engine_is_not_put_in_its_place_without_consent(machine: Machine) -> None:
    played = machine.play(docker_source="distribution")
    assert played.returncode == 2
    assert "docker_replace_allowed" in played.said
    assert "changed=0" in played.said
    assert packages(machine) == VENDOR


def test_with_consent_it_is_and_the_vendors_repository_goes(machine: Machine, swapped: Played) -> None:
    assert swapped.returncode == 0, swapped.said
    assert packages(machine) == DISTRIBUTION
    assert added(machine) == []
    assert machine.ssh("docker info").returncode == 0


def test_the_vendors_does_not_take_the_place_without_consent_either(
    machine: Machine, swapped: Played
) -> None:
    played = machine.play()
    assert played.returncode == 2
    assert "docker_replace_allowed" in played.said
    assert "changed=0" in played.said


@pytest.mark.parametrize("keys", ["stranger", "both"])
def test_a_key_that_is_not_the_pinned_one_is_refused_before_anything_is_added(
    machine: Machine, swapped: Played, vendor: dict[str, str], keys: str
) -> None:
    key = f"{vendor['url']}/{keys}.asc"
    played = machine.play(docker_replace_allowed=True, docker_vendor_key_url=key)
    assert played.returncode == 2
    assert f"{vendor['fingerprint']} is pinned, so nothing was added" in played.said
    assert added(machine) == []
    assert packages(machine) == DISTRIBUTION


@pytest.mark.parametrize("kind", ["unsigned", "tampered", "stranger"])
def test_a_repository_that_the_key_has_not_signed_is_refused(
    machine: Machine, swapped: Played, vendor: dict[str, str], kind: str
) -> None:
    played = machine.play(docker_replace_allowed=True, docker_vendor_url=f"{vendor['url']}/{kind}")
    assert played.returncode == 2
    assert "so they were put back as they were" in played.said
    assert "is not signed" in played.said
    assert added(machine) == []
    assert packages(machine) == DISTRIBUTION


def test_a_source_that_contradicts_one_that_is_there_is_refused(
    machine: Machine, swapped: Played, vendor: dict[str, str]
) -> None:
    other = "/etc/apt/sources.list.d/docker.list"
    release = machine.ssh("sed -n 's/^VERSION_CODENAME=//p' /etc/os-release").stdout.strip()
    entry = f"deb [signed-by=/etc/apt/keyrings/docker.asc] {vendor['url']}/debian {release} stable"
    machine.ssh(f"echo '{entry}' | sudo tee {other}")
    try:
        played = machine.play(docker_replace_allowed=True)
    finally:
        machine.ssh(f"sudo rm {other}")
    assert played.returncode == 2
    assert "Conflicting values set for option Signed-By" in played.said
    assert added(machine) == []


def test_with_consent_the_vendors_takes_the_place_again(machine: Machine, swapped: Played) -> None:
    played = machine.play(docker_replace_allowed=True)
    assert played.returncode == 0, played.said
    assert packages(machine) == VENDOR
    assert machine.ssh("docker info").returncode == 0
