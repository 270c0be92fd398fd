# SPDX-License-Identifier: GPL-3.0-or-later
"""What a ZeroTier daemon does for its host: the same tests for the real one and for the sandbox's stand-in.

They keep the stand-in honest, and say on which behaviour of the real one the collection relies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import addresses

from tests.integration.zerotier_lab import Member, lab, real_daemon, run, unable, wait

pytestmark = pytest.mark.integration

ADMISSION_SECONDS = 30
ENGINE = """
import json, sys
sys.path.insert(0, ".ansible/collections")
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import open_plane
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import NetworkWish, Pool, Route
network, token, node = json.load(sys.stdin)
plane = open_plane("controller", network, token, None, SystemClock())
"""
"""Begins a program that runs beside the controller, with the collection's own client of it."""
NOTICED_SECONDS = 90
"""As long as is worth waiting for: an admission takes up to 5 s, a node notices its removal after 60 to 65 s."""


@dataclass
class Mesh:
    """The running nodes, and a network of the first one's."""

    kind: str
    nodes: list[Member]
    id: str

    @property
    def controller(self) -> Member:
        return self.nodes[0]

    def member(self, node: Member, **content: object) -> dict[str, object]:
        """Change a node's membership."""
        status, record = self.controller.call(
            "POST", f"/controller/network/{self.id}/member/{node.id}", content
        )
        assert status == 200
        return dict(record)

    def engine(self, program: str, network: str, node: Member) -> Any:
        """Run a program with the collection's client, in the namespace of the controller; what it shows."""
        words = ("ip", "netns", "exec", self.controller.namespace, sys.executable, "-c", ENGINE + program)
        done = run(*words, check=False, stdin=json.dumps([network, self.controller.token, node.id]))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def join(self, node: Member) -> None:
        assert node.call("POST", f"/network/{self.id}", {})[0] == 200

    def admit(self, node: Member) -> None:
        """Let a node in that may be in or out."""
        self.member(node, authorized=True)
        self.join(node)
        self.wait_for(node, "OK", NOTICED_SECONDS)

    def status(self, node: Member) -> str:
        return str(node.network(self.id)["status"])

    def wait_for(self, node: Member, status: str, seconds: float = ADMISSION_SECONDS) -> float:
        return wait(lambda: self.status(node) == status, seconds, f"{status} at {node.address}")

    def device(self, node: Member) -> str:
        return str(node.network(self.id)["portDeviceName"])

    def address(self, node: Member) -> str:
        """Its address as the collection computes it, which needs no node."""
        return str(addresses.rfc4193(self.id, node.id).ip)

    def reaches(self, one: Member, other: Member) -> bool:
        return one.pings(self.address(other), self.device(one))


@pytest.fixture(scope="module", params=["stand-in", "real"])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    if reason := unable():
        pytest.skip(reason)
    if request.param == "real" and not real_daemon():
        pytest.skip("needs ZeroTier's own zerotier-one in the PATH")
    with lab(request.param, tmp_path_factory.mktemp("nodes")) as nodes:
        network = f"{nodes[0].id}0000aa"
        content = {
            "name": "lab",
            "private": True,
            "v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False},
        }
        assert nodes[0].call("POST", f"/controller/network/{network}", content)[0] == 200
        yield Mesh(request.param, nodes, network)


def test_an_admission_from_knocking_to_traffic_and_its_end(mesh: Mesh) -> None:
    one, two = mesh.nodes[1:]
    mesh.join(one)
    mesh.wait_for(one, "ACCESS_DENIED")
    assert one.network(mesh.id)["assignedAddresses"] == []

    mesh.member(one, authorized=True, name="one")
    mesh.member(two, authorized=True, name="two")  # it has not knocked yet
    mesh.join(two)
    mesh.wait_for(one, "OK")
    mesh.wait_for(two, "OK")
    for node in (one, two):
        assert node.network(mesh.id)["assignedAddresses"] == [f"{mesh.address(node)}/88"]
        shown = node.ip("-6", "address", "show", "dev", mesh.device(node))
        assert f"{mesh.address(node)}/88" in shown
        assert node.network(mesh.id)["mac"] in node.ip("link", "show", "dev", mesh.device(node))
    wait(lambda: mesh.reaches(one, two), 20, "traffic between the members")
    assert mesh.reaches(two, one)

    # The other side drops its traffic at once; it notices by itself much later, and keeps its address even then.
    mesh.member(two, authorized=False)
    wait(lambda: not mesh.reaches(one, two), 5, "the end of the traffic")
    assert mesh.status(two) == "OK"
    took = mesh.wait_for(two, "ACCESS_DENIED", NOTICED_SECONDS)
    assert took > 30
    assert two.network(mesh.id)["assignedAddresses"] == [f"{mesh.address(two)}/88"]
    assert not mesh.reaches(two, one)

    mesh.member(two, authorized=True)
    mesh.wait_for(two, "OK", 10)
    wait(lambda: mesh.reaches(one, two), 20, "traffic after the second admission")


def test_the_controller_knows_where_its_members_are(mesh: Mesh) -> None:
    one = mesh.nodes[1]
    mesh.admit(one)
    peer = mesh.controller.call("GET", f"/peer/{one.id}")[1]
    assert peer["role"] == "LEAF"
    assert any(path["active"] and path["address"].startswith(f"{one.address}/") for path in peer["paths"])
    assert [p["role"] for p in one.call("GET", "/peer")[1] if p["address"] == mesh.controller.id] == [
        "PLANET"
    ]
    wait(lambda: one.call("GET", "/status")[1]["online"], 15, "it is online")


def test_a_node_that_was_admitted_before_its_birth_is_a_member_at_once(mesh: Mesh) -> None:
    node = mesh.nodes[1]
    mesh.member(node, authorized=True)
    node.stop()
    (node.home / "networks.d").mkdir(exist_ok=True)
    (node.home / f"networks.d/{mesh.id}.conf").write_bytes(b"")
    node.start()
    mesh.wait_for(node, "OK", 5)
    assert mesh.address(node) in node.ip("-6", "address", "show", "dev", mesh.device(node))


def test_leaving_takes_the_interface_off_the_host(mesh: Mesh) -> None:
    node = mesh.nodes[2]
    mesh.admit(node)
    device = mesh.device(node)
    assert device in node.devices()
    assert node.call("DELETE", f"/network/{mesh.id}") == (200, {"result": True})
    wait(lambda: device not in node.devices(), 5, "the interface is gone")
    assert node.call("DELETE", f"/network/{mesh.id}") == (200, {})


def test_the_daemons_end_takes_its_interfaces_along_and_its_start_brings_them_back(mesh: Mesh) -> None:
    node = mesh.nodes[1]
    mesh.admit(node)
    device = mesh.device(node)
    node.stop()
    wait(lambda: device not in node.devices(), 5, "the interface is gone")
    node.start()
    mesh.wait_for(node, "OK", 10)
    wait(lambda: mesh.address(node) in node.ip("address", "show", "dev", device), 5, "the address is back")


def test_the_collections_own_client_gets_what_it_asks_the_controller_for(mesh: Mesh) -> None:
    node, network = mesh.nodes[1], f"{mesh.controller.id}0000bb"
    made = mesh.engine(
        """
wish = NetworkWish(name="engine", routes=[Route("10.5.0.0/24")], pools=[Pool("10.5.0.10", "10.5.0.99")],
                   v4_auto=True, rfc4193=True)
first, second = plane.save_network(wish), plane.save_network(wish)
member = MemberWish(node, name="one", authorized=True, addresses=["10.5.0.5"])
before = [plane.save_member(member), plane.save_member(member)]
print(json.dumps({"network": first == second, "member": before[0] == before[1], "private": first.private,
                  "simulated": plane.simulated}))
""",
        network,
        node,
    )
    assert made == {"network": True, "member": True, "private": True, "simulated": mesh.kind == "stand-in"}
    assert node.call("POST", f"/network/{network}", {})[0] == 200
    wait(lambda: node.network(network)["status"] == "OK", ADMISSION_SECONDS, "admission")
    own = f"{addresses.rfc4193(network, node.id)}"
    assert set(node.network(network)["assignedAddresses"]) == {own, "10.5.0.5/24"}

    seen = mesh.engine(
        """
found = {member.node_id: member for member in plane.members()}[node]
again = plane.save_member(MemberWish(node, name="one", authorized=True, addresses=["10.5.0.5"]))
gone = [plane.delete_member(node), plane.delete_network(), plane.delete_network()]
print(json.dumps({"online": found.online, "place": found.physical_address, "addresses": found.addresses,
                  "version": found.version, "identity": (found.identity or "")[:10], "again": again.addresses, "gone": gone}))
""",
        network,
        node,
    )
    assert seen.pop("version").startswith("1.14.")
    assert seen == {
        "online": True, "place": node.address, "addresses": ["10.5.0.5"], "identity": node.id, "again": ["10.5.0.5"],
        "gone": [True, True, False],
    }  # fmt: skip
    assert node.call("DELETE", f"/network/{network}")[0] == 200
