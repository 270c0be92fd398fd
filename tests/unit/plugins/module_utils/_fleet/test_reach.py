# SPDX-License-Identifier: GPL-3.0-or-later
"""How a machine is reached without Ansible. What Ansible is told of the same is tested with the inventory."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, reach
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, Member, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    BaremetalMachine,
    Defaults,
    FleetSpec,
    MachineBase,
    Mesh,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import LittleCloud, PassingClock, fleet, machine
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID

NODE = NETWORK_ID[:10]
COMPUTED = "fddb:4344:343b:14b9:399:93db:4344:343b"


def meshed(one: MachineBase, **fields: Any) -> FleetSpec:
    mesh = Mesh(**{"network": NETWORK_ID, "controller": one.name, **fields.pop("mesh", {})})
    return fleet(one, mesh=mesh, **fields)


def instance(**facts: Any) -> Instance:
    return LittleCloud("iron", PassingClock()).put("ore", **{"public_ip": "203.0.113.5", **facts})


def target(spec: FleetSpec, found: Instance | None, *files: str) -> Any:
    return reach.target(spec, spec.machines["ore"], found, is_file=lambda path: path in files)


def options(reached: Any) -> list[str]:
    assert reached.options[::2] == ("-o",) * (len(reached.options) // 2)
    return list(reached.options[1::2])


def test_a_cloud_machine_is_reached_as_ansible_reaches_it() -> None:
    spec = meshed(machine("ore", user="me"), defaults=Defaults(ssh_port=2222))
    reached = target(spec, instance())
    assert (reached.host, reached.port, reached.user, reached.name) == ("203.0.113.5", 2222, "me", "ore")
    assert options(reached) == [
        "UserKnownHostsFile=/nowhere/known_hosts",
        "StrictHostKeyChecking=yes",
        "HostKeyAlias=gpumesh-minerals-ore-1",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
    ]


def test_the_private_key_beside_the_public_one_is_offered_if_it_is_there() -> None:
    keys = ("a.pub", "keys of/b.pub", "c")
    spec = meshed(machine("ore"), defaults=Defaults(ssh_keys=keys))
    found = options(target(spec, instance(), "/nowhere/a", "/nowhere/keys of/b", "/nowhere/c"))[5:]
    assert found == ["IdentityFile=/nowhere/a", 'IdentityFile="/nowhere/keys of/b"']
    assert options(target(spec, instance(), "/nowhere/b"))[5:] == []


def test_the_machines_own_variables_are_followed() -> None:
    own = {
        "ansible_host": "10.0.0.1",
        "ansible_port": 2200,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": "/keys/own",
    }
    spec = meshed(machine("ore", vars=own), defaults=Defaults(ssh_keys=("a.pub",)))
    reached = target(spec, instance(), "/keys/own", "/nowhere/a")
    assert (reached.host, reached.port, reached.user) == ("10.0.0.1", 2200, "root")
    assert options(reached)[5:] == ["IdentityFile=/keys/own"]


@pytest.mark.parametrize("value", ["{{ other }}", "-oProxyCommand=x", "{% if x %}", True, None, ["x"]])
def test_unless_they_are_no_plain_text(value: Any) -> None:
    own = dict.fromkeys(("ansible_host", "ansible_port", "ansible_user"), value)
    reached = target(meshed(machine("ore", vars=own)), instance())
    assert (reached.host, reached.port, reached.user) == ("203.0.113.5", 22, "admin")


def test_a_machine_that_is_open_to_nobody_is_reached_over_the_mesh() -> None:
    spec = meshed(machine("ore", ssh_sources=()))
    assert target(spec, instance()).host == COMPUTED
    managed = meshed(machine("ore", ssh_sources=()), mesh={"addressing": "managed"})
    assert target(managed, instance()).host == "203.0.113.5", "its address there is not known before it tells"


def test_bare_metal_is_reached_at_its_address() -> None:
    box = BaremetalMachine(name="ore", address="box.example")
    reached = target(meshed(box, defaults=Defaults(ssh_sources=())), None)
    assert (reached.host, options(reached)) == ("box.example", ["StrictHostKeyChecking=yes"])


@pytest.mark.parametrize("address", [None, "-oProxyCommand=x", "nonsense"])
def test_without_an_address_nobody_is_reached(address: str | None) -> None:
    assert target(meshed(machine("ore")), instance(public_ip=address)) is None
    assert target(meshed(machine("ore")), None) is None


def test_without_requests_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{reach.__package__}.mesh.relay", None)
    with pytest.raises(errors.MissingLibrary, match="pip install requests"):
        target(meshed(machine("ore")), instance())


class TestTheAddressInTheMesh:
    @pytest.mark.parametrize(
        ("addressing", "address"),
        [
            ("rfc4193", "fddb:4344:343b:14b9:399:9380:46d5:3400"),
            ("6plane", "fce0:57fd:3780:46d5:3400::1"),
            ("managed", "10.0.0.7"),
        ],
    )
    def test_has_the_form_that_was_chosen(self, addressing: str, address: str) -> None:
        spec = meshed(machine("ore"), mesh={"addressing": addressing})
        member = Member("8046d53400", addresses=("junk", "10.0.0.7", "10.0.0.8"))
        assert reach.mesh_address(spec, "8046d53400", member) == address

    def test_needs_what_it_is_made_of(self) -> None:
        spec = meshed(machine("ore"))
        assert reach.mesh_address(spec, None, None) is None
        assert reach.mesh_address(spec, "not a node", None) is None
        assert reach.mesh_address(spec, NODE, Member(NODE, no_auto_assign=True)) is None
        assert reach.mesh_address(meshed(machine("ore"), mesh={"addressing": "managed"}), NODE, None) is None
        assert reach.mesh_address(fleet(machine("ore")), NODE, None) is None


def test_the_best_of_several_instances_is_the_machine() -> None:
    cloud = LittleCloud("iron", PassingClock(), names_per_zone=True)
    stopped = cloud.put("ore", "there", state=State.STOPPED)
    running = cloud.put("ore", "yonder")
    here = cloud.put("ore", "here")
    assert reach.pick(machine("ore"), [stopped, running, here]) is here
    assert reach.pick(machine("ore"), [stopped, running]) is running
    assert reach.pick(machine("ore", provider="tin"), [running]) is None
