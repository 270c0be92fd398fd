# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line for a fleet's mesh: read, ask the control plane once, compare, and where it is allowed, carry out.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import live, reach, spec_file
from .clock import Clock
from .errors import FleetError, NotFound
from .live import Connect
from .machines import Member
from .mesh import converge, roster, roster_table
from .mesh.base import ControlPlane
from .mesh.entries import Roster
from .mesh.networks import Network
from .providers.base import Kind
from .spec import FleetSpec

_OWN = "controller"
"""The kind of a control plane that is the fleet's own, where a network can be made under an id that is chosen."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a run.

    Attributes:
        carry_out: do what differs; without it, it is only shown.
        approve, approved_digest: consent to shut out undeclared members, in general or just these.
        nodes: by machine, the ZeroTier node it is, learnt over a verified connection; empty ones are not known.
        only, retire, keep_predecessors: see :func:`.mesh.roster.make`.
        credentials: by provider, and ``mesh``, settings that take the place of those in the fleet file.
    """

    fleet_file: str
    carry_out: bool = False
    approve: bool = False
    approved_digest: str | None = None
    nodes: Mapping[str, str | None] = field(default_factory=dict)
    only: Sequence[str] | None = None
    retire: Sequence[str] = ()
    keep_predecessors: bool = False
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found, and what it did.

    Attributes:
        kind: of the control plane.
        result: what came of it; in a run that only shows, what would be done.
        simulated: the control plane is a sandbox, by its own word.
    """

    spec: FleetSpec
    kind: str
    roster: Roster
    result: converge.Result
    simulated: bool

    @property
    def changed(self) -> bool:
        """Something was, or would be, changed."""
        return any(outcome.status in ("ok", "would") for outcome in self.result.outcomes)

    @property
    def errors(self) -> list[FleetError]:
        """All that went wrong or has to be settled."""
        found = self.roster.errors
        return [*(found[name].about(name) for name in sorted(found)), *self.result.errors]

    @property
    def table(self) -> list[str]:
        """What is to be done, for people."""
        return roster_table.lines(self.roster, addresses=self._addresses(), simulated=self.simulated)

    def to_json(self) -> dict[str, Any]:
        """A module's result."""
        network = self.result.network
        return {
            "fleet": self.spec.fleet,
            "changed": self.changed,
            "controller": self.kind,
            "network": network.to_json() if network else None,
            "network_changes": self.roster.network_json(),
            "plan": [entry.to_json() for entry in self.roster.entries],
            "table": self.table,
            "digest": self.roster.digest,
            "needs_approval": self.roster.needs_approval,
            "results": [outcome.to_json() for outcome in self.result.outcomes],
            "failures": [error.as_failure() for error in self.errors],
            "members": self._members(),
            "simulated": self.simulated,
        }

    def _members(self) -> list[dict[str, Any]]:
        """Every member as it is afterwards, with the machine it is and its address in the mesh."""
        machines = {entry.node_id: entry for entry in self.roster.entries if entry.declared}
        return [
            {
                **member.to_json(),
                "machine": machines[member.node_id].machine if member.node_id in machines else None,
                "declared": member.node_id in machines,
                "address": self._address(member.node_id, member),
            }
            for member in self.result.members
        ]

    def _addresses(self) -> dict[str, str]:
        members = {member.node_id: member for member in self.result.members}
        found = {
            entry.node_id: self._address(entry.node_id, members.get(entry.node_id) or entry.member)
            for entry in self.roster.entries
            if entry.node_id
        }
        return {node_id: address for node_id, address in found.items() if address}

    def _address(self, node_id: str, member: Member | None) -> str | None:
        return reach.mesh_address(self.spec, node_id, member)


def run(
    request: Request,
    kinds: Mapping[str, Kind],
    environ: Mapping[str, str],
    clock: Clock,
    connect: Connect,
) -> Report:
    """Compare a fleet with the members of its mesh, and make them equal where that is asked for and allowed.

    Raises:
        SpecError: the fleet file cannot be used.
        ApprovalRequired: members that are not declared would be shut out. Nothing was touched.
        InvalidRequest: the request names what is not there.
        FleetError: there is no mesh, or its control plane did not answer. Nothing was touched. A controller of the fleet's
            own that does not exist yet keeps nobody from seeing what would be done.
    """
    spec = spec_file.load(request.fleet_file, kinds, environ)
    plane = live.plane(spec, kinds, clock, connect, overrides=request.credentials)
    if plane is None:
        missing = live.no_controller(spec.mesh.controller if spec.mesh else "")
        if request.carry_out:
            raise missing
        return _foreseen(request, spec, missing)
    try:
        return _converge(request, spec, plane)
    finally:
        plane.close()


def _converge(request: Request, spec: FleetSpec, plane: ControlPlane) -> Report:
    try:
        network = plane.network()
    except NotFound as error:
        # Without a code nobody there has answered: zerotier-one is not installed yet.
        if request.carry_out or plane.kind != _OWN or error.code:
            raise
        return _foreseen(request, spec, error)
    if network is None and plane.kind != _OWN:
        raise NotFound(
            f"{plane.kind} has no network {plane.network_id}, and chooses the ids of its networks itself",
            hint="Check mesh.network in the fleet file, and that the token's account owns the network",
        )
    members = plane.members() if network else ()
    made = _compare(request, spec, network, members)
    if request.carry_out:
        made.check_approval(approve=request.approve, approved_digest=request.approved_digest)
        result = converge.apply(made, plane, members)
    else:
        result = converge.Result(converge.would(made), network, members)
    return Report(spec, plane.kind, made, result, plane.simulated)


def _foreseen(request: Request, spec: FleetSpec, reason: FleetError) -> Report:
    """What would be done with a controller that is new: it knows no network and no members."""
    made = _compare(request, spec, None, ())
    made = replace(made, warnings=(f"{reason.what}; it is shown with no members", *made.warnings))
    return Report(spec, _OWN, made, converge.Result(converge.would(made), None, ()), simulated=False)


def _compare(
    request: Request, spec: FleetSpec, network: Network | None, members: tuple[Member, ...]
) -> Roster:
    return roster.make(
        spec,
        network,
        members,
        nodes={name: node_id for name, node_id in request.nodes.items() if node_id},
        retire=request.retire,
        only=request.only,
        keep_predecessors=request.keep_predecessors,
    )
