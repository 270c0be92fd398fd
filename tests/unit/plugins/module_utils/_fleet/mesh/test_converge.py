# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out a roster: nobody is lost, nobody is let in for a fault, and the next run heals what this one could not do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import converge, roster
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.converge import Outcome, Result
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.entries import Roster
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import Network
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    ExternalMachine,
    FleetSpec,
    MachineBase,
    Mesh,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import fleet, machine
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID, LittleMesh
from hypothesis import given
from hypothesis import strategies as st

FATAL = {
    "revoked": errors.AuthError,
    "down": errors.Unreachable,
    "slow": errors.Unavailable,
    "wrong": errors.Unavailable,
    "missing": errors.NotFound,
}


def meshed(*machines: MachineBase) -> FleetSpec:
    return fleet(*machines, mesh=Mesh(network=NETWORK_ID, controller="central_v1"))


def external(number: int, **fields: Any) -> ExternalMachine:
    return ExternalMachine(name=f"m{number}", node_id=node(number), **fields)


def node(number: int) -> str:
    return f"{number + 1:010x}"


def look(spec: FleetSpec, plane: LittleMesh, **options: Any) -> tuple[Roster, tuple[Member, ...]]:
    network = plane.network()
    members = plane.members() if network else ()
    return roster.make(spec, network, members, **options), members


def run(spec: FleetSpec, plane: LittleMesh, *, workers: int = 4, **options: Any) -> Result:
    made, members = look(spec, plane, **options)
    return converge.apply(made, plane, members, workers=workers)


def statuses(result: Result) -> list[tuple[str, str, str]]:
    return [(outcome.action, outcome.machine, outcome.status) for outcome in result.outcomes]


def one(outcomes: tuple[Outcome, ...]) -> Outcome:
    assert len(outcomes) == 1, outcomes
    return outcomes[0]


def test_everything_at_once() -> None:
    plane = LittleMesh().put(
        Member(node(1), "old", True),
        Member(node(2), "m2", True),
        Member(node(7), "intruder", True),
        Member(node(8)),
    )
    spec = meshed(external(0), external(1), external(2, enabled=False), external(3))
    result = run(spec, plane)
    assert statuses(result) == [
        ("admit", "m0", "ok"),
        ("rename", "m1", "ok"),
        ("remove", "m2", "ok"),
        ("admit", "m3", "ok"),
        ("deauthorize", "intruder", "ok"),
    ]
    assert plane.authorized == {node(0): "m0", node(1): "m1", node(3): "m3"}
    assert result.members == plane.members() and not result.errors
    assert plane.records[node(7)].name == "intruder"


def test_one_request_a_member_and_none_for_those_that_stay() -> None:
    plane = LittleMesh().put(*(Member(node(n), f"m{n}", True) for n in range(50)))
    spec = meshed(*(external(n) for n in range(60)))
    run(spec, plane)
    assert plane.calls == {"network": 1, "members": 1, "save_member": 10}
    plane.calls.clear()
    run(spec, plane)
    assert plane.calls == {"network": 1, "members": 1}


def test_members_are_written_at_the_same_time() -> None:
    meet = threading.Barrier(3, timeout=20)
    plane = LittleMesh(fault=lambda verb, _node: str(meet.wait()) and None if verb == "save_member" else None)
    assert not run(meshed(*(external(n) for n in range(3))), plane, workers=3).errors


def test_who_goes_goes_first() -> None:
    order: list[str] = []
    plane = LittleMesh(fault=lambda verb, _node: order.append(verb)).put(Member(node(5), "m1", True))
    run(meshed(external(0), external(1)), plane, workers=1)
    assert order[2:] == ["delete_member", "save_member", "save_member"]


def test_what_the_listing_knew_is_kept() -> None:
    plane = LittleMesh().put(Member(node(0), "old", True, online=True, latency_ms=3.0))

    class Terse(LittleMesh):
        def save_member(self, wish: Any) -> Member:
            super().save_member(wish)
            return Member(wish.node_id, wish.name, True)

    terse = Terse(records=plane.records)
    member = run(meshed(external(0)), terse).members[0]
    assert (member.name, member.online, member.latency_ms) == ("m0", True, 3.0)


class TestTheNetwork:
    def test_comes_first_and_is_told(self) -> None:
        order: list[str] = []
        plane = LittleMesh("controller", None, fault=lambda verb, _node: order.append(verb))
        result = run(meshed(external(0)), plane)
        assert statuses(result) == [("network", "", "ok"), ("admit", "m0", "ok")]
        assert order == ["network", "save_network", "save_member"]
        assert result.network == Network(NETWORK_ID, "minerals", rfc4193=True)

    @pytest.mark.parametrize("fault", [*FATAL, "bent", "defect"])
    def test_without_it_nobody_is_let_in(self, fault: str) -> None:
        public = Network(NETWORK_ID, private=False, rfc4193=True)
        plane = LittleMesh(
            network_=public, fault=lambda verb, _node: fault if verb == "save_network" else None
        )
        result = run(meshed(external(0)), plane)
        assert statuses(result) == [("network", "", "failed"), ("admit", "m0", "skipped")]
        assert len(result.errors) == 1 and not plane.authorized


class TestFaults:
    @pytest.mark.parametrize("fault", FATAL)
    def test_what_all_would_meet_is_told_once(self, fault: str) -> None:
        count = 200
        plane = LittleMesh(fault=lambda verb, node_id: fault if verb == "save_member" else None)
        result = run(meshed(*(external(n) for n in range(count))), plane)
        assert len(result.outcomes) == count, "none is lost"
        assert plane.calls["save_member"] <= 4 and not plane.records
        found = {outcome.status for outcome in result.outcomes}
        assert found == {"failed", "skipped"}
        assert isinstance(result.broken, FATAL[fault]) and result.errors == (result.broken,)
        assert result.broken.hint and "again" in result.broken.hint
        assert result.broken.machine is None, "it is not the matter of one machine"
        failed = next(outcome for outcome in result.outcomes if outcome.error)
        assert failed.error and failed.error.machine == failed.machine

    def test_a_token_that_is_revoked_in_mid_run(self) -> None:
        left = [3]

        def revoke(verb: str, _node: str) -> str | None:
            if verb == "save_member":
                left[0] -= 1
            return "revoked" if left[0] < 0 else None

        plane = LittleMesh(fault=revoke)
        spec = meshed(*(external(n) for n in range(10)))
        result = run(spec, plane, workers=1)
        assert [outcome.status for outcome in result.outcomes] == ["ok"] * 3 + ["failed"] + ["skipped"] * 6
        assert plane.authorized == {node(n): f"m{n}" for n in range(3)}
        plane.fault = lambda verb, _node: None
        again = run(spec, plane)
        assert len(again.outcomes) == 7 and len(plane.authorized) == 10, "the next run does the rest"

    @pytest.mark.parametrize("fault", ["bent", "defect"])
    def test_what_one_meets_leaves_the_others(self, fault: str) -> None:
        plane = LittleMesh(fault=lambda verb, node_id: fault if node_id == node(1) else None)
        result = run(meshed(*(external(n) for n in range(4))), plane)
        assert [outcome.status for outcome in result.outcomes] == ["ok", "failed", "ok", "ok"]
        assert len(result.errors) == 1 and str(result.errors[0]).startswith("m1: ")
        assert "a secret" not in str(result.errors[0])

    def test_a_member_that_somebody_deleted_meanwhile(self) -> None:
        plane = LittleMesh().put(Member(node(0), "m0", True), Member(node(7), "intruder", True))
        made, members = look(meshed(external(0, enabled=False)), plane)
        plane.records.clear()
        plane.fault = lambda verb, _node: "missing" if verb == "save_member" else None
        result = converge.apply(made, plane, members)
        assert [outcome.status for outcome in result.outcomes] == ["ok", "ok"] and not result.errors
        assert result.members == () and not plane.authorized

    def test_a_member_that_somebody_deleted_before_it_is_renamed_is_made_again(self) -> None:
        plane = LittleMesh().put(Member(node(0), "old", True))
        made, members = look(meshed(external(0)), plane)
        plane.records.clear()
        assert not converge.apply(made, plane, members).errors
        assert plane.authorized == {node(0): "m0"}


def test_what_would_be_done_has_the_form_of_what_was() -> None:
    plane = LittleMesh("controller", None)
    made, _members = look(meshed(external(0)), plane)
    foreseen = converge.would(made)
    done = run(meshed(external(0)), plane).outcomes
    assert [o.to_json() | {"status": "ok"} for o in foreseen] == [o.to_json() for o in done]
    assert {o.status for o in foreseen} == {"would"}


KINDS: dict[str, Callable[[int], MachineBase]] = {
    "external": external,
    "gone external": lambda n: external(n, enabled=False),
    "cloud": lambda n: machine(f"m{n}"),
    "prepared": lambda n: machine(f"m{n}", node_id=node(n)),
    "off": lambda n: machine(f"m{n}", enabled=False),
    "stopped": lambda n: machine(f"m{n}", enabled=False, disabled="stopped"),
}
machines = st.lists(st.sampled_from([*KINDS, None]), max_size=6)
known = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["", "x", *(f"m{n}" for n in range(8))]), st.booleans()),
    max_size=8,
    unique_by=lambda one: one[0],
)


@given(
    machines,
    known,
    st.lists(st.sampled_from([*FATAL, "unanswered", "bent", "defect", None]), max_size=20),
    st.lists(st.integers(0, 9), max_size=3),
    st.booleans(),
)
def test_after_all_faults_the_members_are_exactly_the_declared(
    kinds: list[str | None],
    members: list[tuple[int, str, bool]],
    faults: list[str | None],
    joined: list[int],
    private: bool,
) -> None:
    spec = meshed(*(KINDS[kind](n) for n, kind in enumerate(kinds) if kind))
    nodes = {f"m{n}": node(n) for n, kind in enumerate(kinds) if kind}
    network = Network(NETWORK_ID, private=private)
    plane = LittleMesh(network_=network).put(
        *(Member(node(n), name, admitted) for n, name, admitted in members)
    )
    plane.join(*(node(n) for n in joined))
    wanted = {node(n): f"m{n}" for n, kind in enumerate(kinds) if kind in ("external", "cloud", "prepared")}
    stopped = {node(n) for n, kind in enumerate(kinds) if kind == "stopped"} & set(plane.authorized)
    at_first = set(plane.authorized)
    left = list(faults)

    def order(verb: str, _node: str) -> str | None:
        return left.pop(0) if left and verb not in ("network", "members") else None

    plane.fault = order
    for _ in range(3):
        before = set(plane.authorized)
        made, seen = look(spec, plane, nodes=nodes)
        result = converge.apply(made, plane, seen, workers=3)
        acting = len(made.acting) + bool(made.network_changes)
        assert len(result.outcomes) == acting, "every outcome is reported"
        assert bool(result.errors) == any(o.status != "ok" for o in result.outcomes)
        assert set(plane.authorized) - before <= set(wanted), "nobody is let in that is not declared"
    plane.fault = lambda verb, _node: None
    assert not run(spec, plane, nodes=nodes).errors
    assert plane.authorized.keys() == wanted.keys() | stopped and stopped <= at_first
    assert {n: name for n, name in plane.authorized.items() if n in wanted} == wanted
    assert plane.network_ and plane.network_.private and plane.network_.rfc4193
    assert not plane.overlaps, "no member is written twice at once"
    made, _seen = look(spec, plane, nodes=nodes)
    assert not made.differs, "the second run has nothing to do"
