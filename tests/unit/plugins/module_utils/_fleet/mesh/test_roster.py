# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done with each member: the declared let in, their predecessors out, and nobody by a name alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import roster
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.entries import Act, Entry, Roster
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import Network, Pool, Route
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    ExternalMachine,
    FleetSpec,
    MachineBase,
    Mesh,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import fleet, machine
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID

ORE, TIN, ZINC = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"
PRIVATE = Network(NETWORK_ID, "minerals", rfc4193=True)


def meshed(*machines: MachineBase, **mesh: Any) -> FleetSpec:
    return fleet(*machines, mesh=Mesh(**{"network": NETWORK_ID, "controller": "central_v1", **mesh}))


def make(spec: FleetSpec, *members: Member, network: Network | None = PRIVATE, **options: Any) -> Roster:
    return roster.make(spec, network, members, **options)


def acts(made: Roster) -> list[tuple[str, str, str | None]]:
    return [(str(entry.act), entry.machine, entry.node_id) for entry in made.entries]


def only(made: Roster) -> Entry:
    assert len(made.entries) == 1, made.entries
    return made.entries[0]


def member(node_id: str = ORE, name: str = "ore", **facts: Any) -> Member:
    return Member(node_id, name, **{"authorized": True, **facts})


LAPTOP = ExternalMachine(name="laptop", node_id=TIN)
OFF = ExternalMachine(name="laptop", node_id=TIN, enabled=False)


class TestTheDeclared:
    def test_a_node_that_is_known_is_admitted_before_it_ever_came(self) -> None:
        entry = only(make(meshed(LAPTOP)))
        assert (entry.act, entry.wish) == (Act.ADMIT, MemberWish(TIN, name="laptop", authorized=True))
        assert (entry.before, entry.after) == (
            {"authorized": None, "name": None}, {"authorized": True, "name": "laptop"}
        )  # fmt: skip

    def test_a_node_that_was_learnt_is_admitted(self) -> None:
        spec = meshed(machine("ore"))
        entry = only(make(spec, member(name="", authorized=False), nodes={"ore": ORE.upper()}))
        assert (entry.act, entry.node_id, entry.after) == (
            Act.ADMIT,
            ORE,
            {"authorized": True, "name": "ore"},
        )

    def test_what_is_as_declared_is_kept(self) -> None:
        made = make(meshed(machine("ore"), LAPTOP), member(), member(TIN, "laptop"), nodes={"ore": ORE})
        assert acts(made) == [("keep", "ore", ORE), ("keep", "laptop", TIN)]
        assert not made.differs and not made.needs_approval

    @pytest.mark.parametrize("name", ["", "old-name"])
    def test_another_name_is_changed(self, name: str) -> None:
        entry = only(make(meshed(LAPTOP), member(TIN, name)))
        assert (entry.act, entry.before, entry.after) == (Act.RENAME, {"name": name}, {"name": "laptop"})

    def test_the_controller_is_a_node_that_is_known(self) -> None:
        entry = only(make(meshed(machine("ore"), controller="ore")))
        assert (entry.act, entry.node_id) == (Act.ADMIT, NETWORK_ID[:10])

    def test_a_declared_node_needs_not_be_learnt(self) -> None:
        assert only(make(meshed(machine("ore", node_id=ORE)))).act is Act.ADMIT

    def test_a_member_is_renamed_where_two_have_swapped_their_names(self) -> None:
        spec = meshed(machine("ore", node_id=ORE), LAPTOP)
        made = make(spec, member(ORE, "laptop"), member(TIN, "ore"))
        assert acts(made) == [("rename", "ore", ORE), ("rename", "laptop", TIN)]


class TestNames:
    def test_nobody_is_let_in_by_a_name(self) -> None:
        entry = only(make(meshed(machine("ore")), member(authorized=False)))
        assert (entry.act, entry.node_id) == (Act.KEEP, ORE) and "not authorised" in entry.why

    def test_what_bears_the_name_stays_while_the_node_is_not_known(self) -> None:
        assert only(make(meshed(machine("ore")), member())).act is Act.KEEP

    def test_a_machine_without_node_and_member_is_waited_for(self) -> None:
        entry = only(make(meshed(machine("ore"))))
        assert (entry.act, entry.node_id) == (Act.KEEP, None) and "not known yet" in entry.why

    def test_a_predecessor_goes(self) -> None:
        made = make(meshed(machine("ore")), member(ZINC), nodes={"ore": ORE})
        assert acts(made) == [("admit", "ore", ORE), ("remove", "ore", ZINC)]
        assert not made.needs_approval

    def test_a_predecessor_stays_while_the_machine_changes_over(self) -> None:
        made = make(meshed(machine("ore")), member(TIN), nodes={"ore": ORE}, keep_predecessors=True)
        assert acts(made) == [("admit", "ore", ORE), ("keep", "ore", TIN)]

    def test_a_predecessor_that_is_another_machine_now_is_renamed(self) -> None:
        made = make(meshed(machine("ore", node_id=ORE), LAPTOP), member(TIN, "ore"))
        assert acts(made) == [("admit", "ore", ORE), ("rename", "laptop", TIN)]


class TestLeaving:
    @pytest.mark.parametrize("members", [(), (member(TIN, "laptop"),), (member(TIN, "x", authorized=False),)])
    def test_a_machine_that_is_not_enabled_is_out(self, members: tuple[Member, ...]) -> None:
        entry = only(make(meshed(OFF), *members))
        assert entry.act is (Act.REMOVE if members else Act.KEEP)

    def test_a_machine_of_unknown_node_goes_by_its_name(self) -> None:
        made = make(meshed(machine("ore", enabled=False)), member(), member(ZINC))
        assert acts(made) == [("remove", "ore", ORE), ("remove", "ore", ZINC)]

    def test_a_machine_that_is_only_stopped_stays(self) -> None:
        off = machine("ore", enabled=False, disabled="stopped", node_id=ORE)
        assert only(make(meshed(off), member())).act is Act.KEEP
        assert only(make(meshed(off))).act is Act.KEEP, "and is not admitted while it is off"
        assert only(make(meshed(off), member(authorized=False))).act is Act.KEEP
        made = make(meshed(off), member(), member(ZINC))
        assert acts(made) == [("keep", "ore", ORE), ("remove", "ore", ZINC)]

    def test_what_is_retired_is_out_though_enabled(self) -> None:
        made = make(meshed(machine("ore"), LAPTOP), member(), member(TIN, "laptop"), retire=["ore", "laptop"])
        assert acts(made) == [("remove", "ore", ORE), ("remove", "laptop", TIN)]

    def test_all_but_the_external(self) -> None:
        made = make(meshed(machine("ore"), LAPTOP), member(), member(TIN, "laptop"), retire=["all"])
        assert acts(made) == [("remove", "ore", ORE), ("keep", "laptop", TIN)]

    def test_a_machine_that_was_taken_from_the_file_needs_no_approval_when_it_is_retired(self) -> None:
        made = make(meshed(LAPTOP), member(), member(TIN, "laptop"), retire=["ore"], only=["ore"])
        assert acts(made) == [("remove", "ore", ORE)] and not made.needs_approval
        assert acts(make(meshed(LAPTOP), retire=["ore"], only=["ore"])) == [], "no member is no error"

    def test_a_node_that_comes_back_by_itself_is_out_already(self) -> None:
        entry = only(make(meshed(OFF), Member(TIN)))
        assert entry.act is Act.KNOCKING and entry.declared and "still asks to join" in entry.why

    def test_a_member_is_taken_out_once_though_two_machines_claim_it(self) -> None:
        # Its node is the laptop, its name is that of the other machine.
        made = make(meshed(machine("ore"), OFF), member(TIN, "ore"), nodes={"ore": ORE})
        assert acts(made) == [("admit", "ore", ORE), ("remove", "laptop", TIN)]


class TestTheUndeclared:
    def test_who_is_authorised_is_shut_out_with_an_approval(self) -> None:
        made = make(meshed(LAPTOP), member(TIN, "laptop"), member(ORE, "intruder"))
        assert acts(made) == [("keep", "laptop", TIN), ("deauthorize", "intruder", ORE)]
        assert made.entries[1].wish == MemberWish(ORE, authorized=False), "its name is nobody's business"
        assert made.needs_approval
        with pytest.raises(errors.ApprovalRequired, match=r"deauthorize intruder \(aaaaaaaaaa\), which"):
            made.check_approval(approve=False, approved_digest=None)
        made.check_approval(approve=True, approved_digest=None)
        made.check_approval(approve=False, approved_digest=made.digest)

    def test_who_knocks_is_shown_and_left_alone(self) -> None:
        made = make(meshed(), Member(ORE))
        assert acts(made) == [("knocking", "", ORE)] and not made.differs and not made.needs_approval

    def test_an_approval_is_for_what_was_shown(self) -> None:
        shown = make(meshed(), member(ORE, "one"))
        now = make(meshed(), member(ORE, "one"), member(TIN, "two"))
        with pytest.raises(errors.ApprovalRequired, match="no longer what was approved"):
            now.check_approval(approve=False, approved_digest=shown.digest)

    def test_only_leaves_them_alone(self) -> None:
        made = make(meshed(LAPTOP, machine("ore")), member(ZINC, "intruder"), Member(ORE), only=["laptop"])
        assert acts(made) == [("admit", "laptop", TIN)]


class TestContradictions:
    def test_another_node_than_the_declared_one(self) -> None:
        spec = meshed(machine("ore", node_id=ORE), LAPTOP)
        made = make(spec, member(ZINC, "ore"), nodes={"ore": ZINC})
        assert acts(made) == [("keep", "ore", ZINC), ("admit", "laptop", TIN)], "the others go on"
        assert str(made.errors["ore"]).startswith(
            "ore: it is the node cccccccccc, and the fleet file says that it is aaaaaaaaaa."
        )

    def test_the_learnt_node_is_not_shut_out_for_a_slip_in_the_file(self) -> None:
        made = make(meshed(machine("ore", node_id=ORE)), member(ZINC, "anything"), nodes={"ore": ZINC})
        assert acts(made) == [("keep", "ore", ZINC)] and made.errors

    def test_two_machines_with_one_identity(self) -> None:
        spec = meshed(machine("ore"), machine("tin"))
        made = make(spec, member(), nodes={"ore": ORE, "tin": ORE})
        assert {entry.act for entry in made.entries} == {Act.KEEP}
        assert set(made.errors) == {"ore", "tin"} and "so is tin" in str(made.errors["ore"])

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"nodes": {"oer": ORE}}, r"`nodes` names 'oer'.*You may have meant ore"),
            ({"nodes": {"ore": "xyz"}}, "no node id"),
            ({"only": ["oer"]}, r"`only` names 'oer'.*You may have meant ore"),
        ],
    )
    def test_what_is_not_there_is_not_guessed(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(errors.InvalidRequest, match=match):
            make(meshed(machine("ore")), **options)

    def test_a_fleet_without_a_mesh(self) -> None:
        with pytest.raises(errors.FleetError, match="declares no mesh"):
            make(fleet(machine("ore")))


class TestTheNetwork:
    def test_is_private_and_has_the_mode(self) -> None:
        public = Network(NETWORK_ID, "any", private=False, sixplane=True)
        made = make(meshed(), network=public)
        assert made.network_changes == {"private": (False, True), "rfc4193": (False, True)}
        assert made.differs and "is public" in made.warnings[0]
        assert make(meshed(addressing="6plane"), network=public).network_changes == {"private": (False, True)}

    def test_is_made_where_there_is_none(self) -> None:
        made = make(meshed(), network=None)
        assert made.network_changes == {
            "name": (None, "minerals"), "private": (None, True), "rfc4193": (None, True)
        }  # fmt: skip

    def test_that_should_manage_addresses_and_cannot_is_warned_of(self) -> None:
        managed = meshed(addressing="managed")
        able = Network(
            NETWORK_ID, routes=(Route("10.0.0.0/24"),), pools=(Pool("10.0.0.1", "10.0.0.9"),), v4_auto=True
        )
        assert make(managed, network=able).warnings == ()
        assert "managed" in make(managed, network=PRIVATE).warnings[0]
        assert not make(managed, network=PRIVATE).network_changes, "somebody else's to decide"


class TestWarnings:
    def test_an_address_that_two_members_have(self) -> None:
        made = make(
            meshed(), member(ORE, "", addresses=("10.0.0.1",)), member(TIN, "two", addresses=("10.0.0.1",))
        )
        text = "the address 10.0.0.1 is assigned to aaaaaaaaaa and two (bbbbbbbbbb): traffic reaches only one of them"
        assert made.warnings == (f"{text}; give each its own",)

    def test_a_member_that_is_given_no_address(self) -> None:
        exempt = member(TIN, "laptop", no_auto_assign=True)
        assert "so it has no rfc4193 address" in make(meshed(LAPTOP), exempt).warnings[0]
        assert make(meshed(OFF), exempt).warnings == (), "it goes"


class TestTheDigest:
    def test_names_what_would_be_done(self) -> None:
        spec = meshed(LAPTOP, machine("ore"))
        digests = [
            make(spec).digest,
            make(spec, nodes={"ore": ORE}).digest,
            make(spec, nodes={"ore": ZINC}).digest,
            make(spec, network=None).digest,
            make(meshed(OFF), member(TIN)).digest,
            make(spec, member(TIN, "laptop")).digest,
        ]
        assert len(set(digests)) == len(digests)

    def test_does_not_name_what_stays(self) -> None:
        spec = meshed(LAPTOP)
        one = make(spec, member(TIN, "laptop", online=True, latency_ms=1.0))
        assert one.digest == make(spec, member(TIN, "laptop", online=False), Member(ZINC)).digest
