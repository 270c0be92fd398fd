# SPDX-License-Identifier: GPL-3.0-or-later
"""From the fleet file and the members a control plane knows to what is to be done with each member.

Pure: nothing is asked and nothing is touched here.

A machine is a node. Which node it is, the fleet file knows beforehand, or somebody has learnt it over a verified
connection. The name a member has at the control plane only tells what is to stay or to go; it never lets anybody in.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..errors import Conflict, FleetError, InvalidRequest
from ..machines import Member
from ..spec import ExternalMachine, FleetSpec, MachineBase
from . import members as member_rules
from .entries import Act, Entry, Roster, called
from .members import MemberWish
from .networks import Network, NetworkWish

ALL = "all"
"""In place of machine names: every machine of the fleet that Ansible configures."""


def make(
    spec: FleetSpec,
    network: Network | None,
    members: Iterable[Member],
    *,
    nodes: Mapping[str, str] | None = None,
    retire: Collection[str] = (),
    only: Collection[str] | None = None,
    keep_predecessors: bool = False,
) -> Roster:
    """Compare the wish with what is.

    Args:
        spec: a fleet with a mesh.
        network: as the control plane has it.
        members: every member it knows.
        nodes: by machine, the node it is, learnt over a verified connection.
        retire: machines to take out of the mesh whatever the file says, declared or not; ``all`` means all but the
            external ones.
        only: limit changes to these machines, and leave what is not declared alone; None means all.
        keep_predecessors: leave the former node of a machine in, so that a machine may change from one to the other.

    Raises:
        FleetError: the fleet has no mesh.
        InvalidRequest: ``nodes`` or ``only`` names a machine that is not declared, or a node id is none.
    """
    if spec.mesh is None:
        raise FleetError(
            f"the fleet {spec.fleet} declares no mesh", hint="Add a mesh block to the fleet file"
        )
    learnt = {name: member_rules.node(node_id) for name, node_id in (nodes or {}).items()}
    known = sorted(members, key=lambda one: (not one.authorized, not one.online, one.node_id))
    _check_names("nodes", learnt, spec.machines)
    _check_names("only", only or (), {*spec.machines, *retire, *(one.name for one in known if one.name)})
    scribe = _Scribe(spec, known, learnt, frozenset(retire), keep_predecessors=keep_predecessors)
    entries = [
        entry
        for name, machine in spec.machines.items()
        if only is None or name in only
        for entry in scribe.declared(machine)
    ]
    entries += scribe.others(only)
    wish = _network_wish(spec, network)
    return Roster(
        fleet=spec.fleet,
        network_id=spec.mesh.network,
        entries=tuple(entries),
        network=network,
        wish=wish,
        warnings=(*_network_warnings(spec, network), *scribe.warnings(entries)),
    )


class _Scribe:
    """Goes through machines and members, and writes each member down under one machine or under none."""

    def __init__(
        self,
        spec: FleetSpec,
        members: Sequence[Member],
        learnt: Mapping[str, str],
        retire: frozenset[str],
        *,
        keep_predecessors: bool,
    ) -> None:
        self._spec = spec
        self._keep_predecessors = keep_predecessors
        self._learnt = learnt
        self._retire = retire
        self._nodes = {
            name: spec.node_id(machine) or learnt.get(name) for name, machine in spec.machines.items()
        }
        self._errors = self._contradictions()
        self._by_node = {member.node_id: member for member in members}
        self._mine: dict[str | None, list[Member]] = {}
        owners = self._owners()
        for member in members:
            by_name = member.name if member.name in spec.machines else None
            self._mine.setdefault(owners.get(member.node_id, by_name), []).append(member)

    def _owners(self) -> dict[str, str]:
        """The machines by the nodes they are, or say they are."""
        owners = {node: name for name, node in self._learnt.items()}
        owners |= {node: name for name, node in self._nodes.items() if node}
        return owners

    def declared(self, machine: MachineBase) -> list[Entry]:
        """What to do about a machine of the fleet file, and about members that bear its name."""
        name, node = machine.name, self._nodes[machine.name]
        mine = self._mine.get(name, [])
        known: Sequence[Member | None] = mine or [None]
        if error := self._errors.get(name):
            return [
                Entry(
                    Act.KEEP,
                    name,
                    True,
                    member.node_id if member else node,
                    "left alone",
                    member=member,
                    error=error,
                )
                for member in known
            ]
        if self._leaves(machine):
            return self._leaving(machine, node, mine)
        if node is None:
            return self._unknown(machine, mine)
        member = next((member for member in mine if member.node_id == node), None)
        first = (
            self._admitted(machine, node, member) if machine.enabled else self._asleep(machine, node, member)
        )
        why = f"it was {name}, which is the node {node} now"
        others = [one for one in mine if one.node_id != node]
        if self._keep_predecessors:
            why += ", and stays until that is proved"
            return [first, *(Entry(Act.KEEP, name, True, one.node_id, why, member=one) for one in others)]
        return [first, *(_remove(one, name, why, declared=True) for one in others)]

    def others(self, only: Collection[str] | None) -> Iterator[Entry]:
        """What to do about members that are no machine of the fleet file."""
        for member in sorted(self._mine.get(None, ()), key=lambda one: (one.name, one.node_id)):
            name, node = member.name, member.node_id
            if only is not None and name not in only:
                continue
            if name in self._retire:
                yield _remove(member, name, "to be retired", declared=False)
            elif member.authorized:
                before, after = {"authorized": True}, {"authorized": False}
                why = "is authorised and not declared"
                yield Entry(Act.DEAUTHORIZE, name, False, node, why, before, after, member)
            else:
                why = "is not authorised and not declared; it is left alone"
                yield Entry(Act.KNOCKING, name, False, node, why, member=member)

    def warnings(self, entries: Iterable[Entry]) -> Iterator[str]:
        """What to know of members that are as declared, and still not as one would expect."""
        for address, nodes in member_rules.duplicates(self._by_node.values()).items():
            names = " and ".join(called(node, self._by_node[node].name) for node in nodes)
            yield f"the address {address} is assigned to {names}: traffic reaches only one of them; give each its own"
        if self._spec.mesh is None or self._spec.mesh.addressing == "managed":
            return
        for entry in entries:
            if (
                entry.declared
                and entry.act is not Act.REMOVE
                and entry.member
                and entry.member.no_auto_assign
            ):
                yield (
                    f"{entry.machine} is exempt from automatic addresses (no_auto_assign), "
                    f"so it has no {self._spec.mesh.addressing} address"
                )

    def _contradictions(self) -> dict[str, FleetError]:
        """By machine, why nobody can tell which node it is."""
        found: dict[str, FleetError] = {}
        owners: dict[str, str] = {}
        for name, node in self._nodes.items():
            learnt = self._learnt.get(name)
            if learnt and node != learnt:
                found[name] = Conflict(
                    f"it is the node {learnt}, and the fleet file says that it is {node}",
                    machine=name,
                    hint="Correct the fleet file, or give the machine the identity that was prepared for it",
                )
            if node and (other := owners.setdefault(node, name)) != name:
                for one, two in ((name, other), (other, name)):
                    found[one] = Conflict(
                        f"it is the node {node}, and so is {two}",
                        machine=one,
                        hint="An identity must not be copied: on one of them stop zerotier-one, remove "
                        "/var/lib/zerotier-one/identity.*, and start it again",
                    )
        return found

    def _leaves(self, machine: MachineBase) -> bool:
        return self._retired(machine) or (not machine.enabled and machine.disabled == "absent")

    def _retired(self, machine: MachineBase) -> bool:
        everyone = ALL in self._retire and not isinstance(machine, ExternalMachine)
        return everyone or machine.name in self._retire

    def _leaving(self, machine: MachineBase, node: str | None, mine: Sequence[Member]) -> list[Entry]:
        name, why = machine.name, "to be retired" if self._retired(machine) else "not enabled"
        if not mine:
            return [Entry(Act.KEEP, name, True, node, f"{why} and no member")]
        return [
            # A node that was removed and has not left comes back unasked, as a record that says nothing.
            Entry(Act.KNOCKING, name, True, one.node_id, f"{why}; its node still asks to join", member=one)
            if member_rules.is_blank(one)
            else _remove(one, name, why, declared=True)
            for one in mine
        ]

    @staticmethod
    def _unknown(machine: MachineBase, mine: Sequence[Member]) -> list[Entry]:
        """A machine whose node nobody told: what bears its name stays, and nobody is let in."""
        if not mine:
            why = "no member; its node is not known yet" if machine.enabled else "stopped and no member"
            return [Entry(Act.KEEP, machine.name, True, None, why)]
        return [
            Entry(
                Act.KEEP,
                machine.name,
                True,
                member.node_id,
                f"{'a member' if member.authorized else 'not authorised'}, by its name; this run does not know its node",
                member=member,
            )
            for member in mine
        ]

    @staticmethod
    def _admitted(machine: MachineBase, node: str, member: Member | None) -> Entry:
        wish = MemberWish(node, name=machine.name, authorized=True)
        differs = member_rules.changes(member, wish)
        if not differs:
            return Entry(Act.KEEP, machine.name, True, node, "a member, as declared", member=member)
        before = {name: value for name, (value, _after) in differs.items()}
        after = {name: value for name, (_before, value) in differs.items()}
        if "authorized" not in differs:
            why = "a member under another name" if member and member.name else "a member without a name"
            return Entry(Act.RENAME, machine.name, True, node, why, before, after, member)
        why = "declared, and not authorised" if member else "declared, and no member yet"
        return Entry(Act.ADMIT, machine.name, True, node, why, before, after, member)

    @staticmethod
    def _asleep(machine: MachineBase, node: str, member: Member | None) -> Entry:
        why = "stopped; its membership stays" if member else "stopped and no member"
        return Entry(Act.KEEP, machine.name, True, node, why, member=member)


def _remove(member: Member, name: str, why: str, *, declared: bool) -> Entry:
    return Entry(
        Act.REMOVE, name, declared, member.node_id, why, {"authorized": member.authorized}, {}, member
    )


def _network_wish(spec: FleetSpec, network: Network | None) -> NetworkWish:
    """Only the declared are let in, and each has the address the fleet file chose. All else of the network is somebody else's."""
    form = spec.mesh.addressing if spec.mesh else "rfc4193"
    return NetworkWish(
        name=None if network else spec.fleet,
        private=True,
        rfc4193=True if form == "rfc4193" else None,
        sixplane=True if form == "6plane" else None,
    )


def _network_warnings(spec: FleetSpec, network: Network | None) -> list[str]:
    found = []
    if network and not network.private:
        found.append(
            f"the network {network.id} is public: whoever has joined it was authorised, and stays so once it is private"
        )
    managed = spec.mesh is not None and spec.mesh.addressing == "managed"
    if managed and not (network and network.pools and (network.v4_auto or network.v6_auto)):
        found.append(
            "mesh.addressing is managed, and the network assigns no addresses by itself: give it a pool and a route "
            "with gpumesh.fleet.zerotier_network, or each member its address with gpumesh.fleet.zerotier_member"
        )
    return found


def _check_names(option: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in sorted(given):
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise InvalidRequest(
                f"`{option}` names {name!r}, which is neither declared in the fleet file nor a member of the mesh",
                hint=f"You may have meant {near[0]}"
                if near
                else "Look at the names with ansible-inventory --graph",
            )
