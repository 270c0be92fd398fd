# SPDX-License-Identifier: GPL-3.0-or-later
"""Two machines in one mesh whose controller is the other one: peers, an identity that others have seen, leaving (SIMULATED)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Machine, Played, eventually
from tests.hosts.zerotier.conftest import HOME, OWN_NETWORK, Neighbour, api, rfc4193

pytestmark = pytest.mark.docker

PLANTED = OWN_NETWORK[:10]
FILES = (
    "/etc/apt/sources.list.d/gpumesh-zerotier.sources",
    "/etc/apt/keyrings/gpumesh-zerotier.asc",
    "/etc/apt/preferences.d/gpumesh-zerotier.pref",
    "/etc/ansible/facts.d/gpumesh_latency.fact",
)


@pytest.fixture(scope="module")
def joined(machine: Machine, cobalt: Neighbour) -> Played:
    """What came of joining the other machine's network."""
    return play(machine, cobalt, zerotier_peers=peers(cobalt))


def play(
    machine: Machine, cobalt: Neighbour, *arguments: str, tags: str = "zerotier", **variables: Any
) -> Played:
    """The role on a machine of a fleet that both are in."""
    return machine.play("--tags", tags, *arguments, **{**cobalt.variables(machine), **variables})


def peers(cobalt: Neighbour, **different: Any) -> list[dict[str, Any]]:
    """The other machine as a peer."""
    return [{"name": "cobalt", "address": cobalt.mesh_address, **different}]


def members(cobalt: Neighbour) -> dict[str, tuple[str, bool]]:
    """By node, name and whether it is authorised."""
    listed = cobalt.api("GET", f"/unstable/controller/network/{cobalt.network}/member")["data"]
    return {entry["id"]: (entry.get("name", ""), entry["authorized"]) for entry in listed}


@pytest.fixture
def operator(machine: Machine, cobalt: Neighbour) -> Iterator[Path]:
    """This machine in the mesh as well, and an inventory that reaches the machine over it alone."""
    image = f"gpumesh/host:{os.environ.get('GPUMESH_PLATFORM', 'debian-13')}"
    ours = f"{rfc4193(cobalt.network, '1000000001')}/88"

    def address(verb: str) -> None:
        # Docker switches IPv6 off on a bridge that it gave no such addresses.
        script = (
            f"echo 0 > /proc/sys/net/ipv6/conf/docker0/disable_ipv6; ip address {verb} {ours} dev docker0"
        )
        subprocess.run(
            [
                "docker", "run", "--rm", "--network=host", "--cap-add=NET_ADMIN", "--security-opt=systempaths=unconfined",
                image, "sh", "-c", script,
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    address("replace")
    inventory = machine.folder / "over_mesh.yml"
    where = {"ansible_host": rfc4193(cobalt.network, api(machine, "GET", "/status")["address"])}
    inventory.write_text(json.dumps({"all": {"hosts": {"machine": where}}}), encoding="utf-8")
    try:
        # Its daemon may just have been started, and a new address is not used before nobody else has claimed it.
        assert eventually(lambda: replace(machine, address=where["ansible_host"]).reaches(22), 30)
        yield inventory
    finally:
        address("delete")
        inventory.unlink()


def test_it_is_admitted_by_the_other_machine_and_reaches_it(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    assert joined.returncode == 0, joined.said
    assert members(cobalt)[PLANTED] == ("machine", True)
    measured = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh_latency.fact").stdout)["layers"][
        "zerotier"
    ]
    assert 0 < measured["latency_ms"]["cobalt"] < 200
    assert measured["simulated"] is True


def test_latency_differs_each_time_and_is_no_change(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    played = play(machine, cobalt, zerotier_peers=peers(cobalt))
    assert "changed=0" in played.said, played.said


def test_a_slow_peer_is_a_warning_and_one_that_does_not_answer_a_failure_unless_nobody_configures_it(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    nobody = rfc4193(cobalt.network, "1234567890")
    asked = [
        *peers(cobalt),
        {"name": "ghost", "address": nobody},
        {"name": "phone", "address": nobody, "required": False},
    ]
    played = play(
        machine,
        cobalt,
        tags="zerotier_verify",
        zerotier_peers=asked,
        zerotier_latency_warn_ms=0,
        zerotier_wait=2,
    )
    assert played.returncode == 2
    assert "WARN: peer cobalt: " in played.said
    assert "which is more than 0" in played.said
    assert "WARN: peer phone: it does not answer" in played.said
    assert f"- 'peer ghost: it does not answer at {nobody} over zt" in played.said
    assert "- 'peer cobalt" not in played.said.partition("Stop at what was not proved")[2]


def test_only_what_is_declared_comes_in_over_the_mesh(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    address = rfc4193(cobalt.network, PLANTED)
    for port in (8001, 8002):
        machine.ssh(
            f"sudo systemd-run --quiet --unit=listener-{port} python3 -m http.server --bind :: {port}"
        )
    played = play(machine, cobalt, zerotier_firewall_rules=[{"port": 8001, "interface": "zt+"}])
    assert played.returncode == 0, played.said

    def reached(host: str, port: int) -> bool:
        return cobalt.run(f"timeout 3 bash -c 'exec 3<>/dev/tcp/{host}/{port}'").returncode == 0

    assert eventually(lambda: reached(address, 8001), 10)
    assert not reached(address, 8002)
    # It is open to the mesh, and to nobody else on that very machine.
    assert not reached(machine.address, 8001)
    machine.ssh("sudo systemctl stop listener-8001 listener-8002")


def test_a_controller_that_is_down_is_told_and_nothing_is_half_done(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    cobalt.run("systemctl stop zerotier-one")
    try:
        played = play(machine, cobalt)
        assert played.returncode == 2
        assert "Start zerotier-one on the controller's machine" in played.said
        assert "Traceback" not in played.said
    finally:
        cobalt.run("systemctl start zerotier-one")
    assert eventually(lambda: cobalt.api("GET", "/status") is not None, 20)


def test_an_identity_that_was_not_proved_is_put_back(
    machine: Machine, cobalt: Neighbour, joined: Played
) -> None:
    before = machine.ssh(f"sudo cat {HOME}/identity.secret").stdout
    # It is admitted, but the machine cannot take it up.
    machine.ssh(f"sudo mkdir {HOME}/identity.public.new")
    played = play(machine, cobalt, zerotier_one_time_identity=True, zerotier_wait=3)
    machine.ssh(f"sudo rm -r {HOME}/identity.public.new")
    assert played.returncode == 2
    assert "was not proved, so it is not kept: this machine is node 9481388703" in played.said
    assert PLANTED in members(cobalt)

    # A run in between would make it the only member, just before it is put back.
    assert machine.ssh("systemctl is-active gpumesh-zerotier-undo.timer").stdout.strip() == "active"
    refused = play(machine, cobalt)
    assert refused.returncode == 2
    assert "being replaced by a run that ended before the new one was proved" in refused.said
    assert "changed=0" in refused.said

    # What the timer would do in five minutes.
    assert machine.ssh("sudo systemctl start gpumesh-zerotier-undo.service").returncode == 0
    machine.ssh("sudo systemctl stop gpumesh-zerotier-undo.timer")
    assert machine.ssh(f"sudo cat {HOME}/identity.secret").stdout == before
    assert api(machine, "GET", "/status")["address"] == PLANTED


def test_an_identity_that_others_have_seen_is_replaced_over_the_mesh_itself(
    machine: Machine, cobalt: Neighbour, joined: Played, operator: Path
) -> None:
    before = machine.ssh(f"sudo cat {HOME}/identity.secret").stdout
    over_mesh = ("-i", str(operator))
    played = play(machine, cobalt, *over_mesh, zerotier_one_time_identity=True)
    assert played.returncode == 0, played.said
    node = api(machine, "GET", "/status")["address"]
    assert node != PLANTED
    assert machine.ssh(f"sudo cat {HOME}/identity.secret").stdout != before
    assert members(cobalt)[node] == ("machine", True)
    # The one that was not proved before is gone as well.
    assert [name for name in members(cobalt).values() if name == ("machine", True)] == [("machine", True)]
    left = machine.ssh(
        f"sudo sh -c 'ls -d {HOME}/gpumesh-next-identity /run/gpumesh/zerotier-first-identity'"
    ).stdout
    assert left == ""
    assert machine.ssh("systemctl is-active gpumesh-zerotier-undo.timer").stdout.strip() == "inactive"


def test_it_is_not_replaced_a_second_time(machine: Machine, cobalt: Neighbour, joined: Played) -> None:
    node = api(machine, "GET", "/status")["address"]
    played = play(machine, cobalt, zerotier_one_time_identity=True)
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    assert api(machine, "GET", "/status")["address"] == node


def absent(machine: Machine, cobalt: Neighbour, **more: Any) -> Played:
    """Leave."""
    return machine.play(
        "--tags", "zerotier", **{**cobalt.variables(machine), "zerotier_state": "absent", **more}
    )


def nodes(cobalt: Neighbour) -> set[str]:
    """Who is authorised."""
    listed = cobalt.api("GET", f"/unstable/controller/network/{cobalt.network}/member")["data"]
    return {entry["id"] for entry in listed if entry["authorized"]}


def test_it_leaves_and_takes_everything_along_but_its_identity(
    machine: Machine, cobalt: Neighbour, joined: Played, host: Any
) -> None:
    identity = machine.ssh(f"sudo cat {HOME}/identity.public").stdout
    assert identity.partition(":")[0] in nodes(cobalt)
    played = absent(machine, cobalt)
    assert played.returncode == 0, played.said
    assert nodes(cobalt) == {cobalt.node}
    assert not host.package("zerotier-one").is_installed
    assert machine.ssh(f"ls {' '.join(FILES)}").stdout == ""
    assert "gpumesh zerotier:" not in machine.ssh("sudo ufw show added").stdout
    assert "22/tcp" in machine.ssh("sudo ufw show added").stdout
    assert not any(
        entry["ifname"].startswith("zt") for entry in json.loads(machine.ssh("ip -json link").stdout)
    )
    assert machine.ssh(f"sudo cat {HOME}/identity.public").stdout == identity
    layers = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]
    assert layers["zerotier"]["state"] == "absent"


def test_a_second_time_there_is_nothing_to_do_and_nothing_to_prove(
    machine: Machine, cobalt: Neighbour
) -> None:
    played = absent(machine, cobalt)
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    gate = play(machine, cobalt, tags="zerotier_verify", zerotier_state="absent")
    assert gate.returncode == 0, gate.said
    assert "zerotier : gate" not in gate.said


def test_it_comes_back_as_the_node_it_was(machine: Machine, cobalt: Neighbour) -> None:
    identity = machine.ssh(f"sudo cat {HOME}/identity.public").stdout
    played = play(machine, cobalt, zerotier_identity_secret="")
    assert played.returncode == 0, played.said
    assert identity.partition(":")[0] in nodes(cobalt)


def test_with_consent_the_identity_goes_as_well(machine: Machine, cobalt: Neighbour) -> None:
    played = absent(machine, cobalt, zerotier_remove_identity=True)
    assert played.returncode == 0, played.said
    assert machine.ssh(f"sudo ls {HOME} /var/lib/gpumesh/zerotier-local-conf.json").stdout == ""
    assert "changed=0" in absent(machine, cobalt, zerotier_remove_identity=True).said
