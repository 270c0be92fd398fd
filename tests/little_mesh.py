# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole control plane in memory that keeps the protocol, with nodes that join by themselves and faults to order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.live import Connect
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import members as member_rules
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import networks as network_rules
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import Network, NetworkWish

NETWORK_ID = "db4344343b14b903"

Fault = Callable[[str, str], str | None]
"""From verb and node id (empty for the network) to the name of a fault, or None."""


@dataclass
class LittleMesh:
    """One network. The kinds of fault a request can meet:

    ``revoked``: the token is refused. ``down``: nobody listens. ``slow``: no answer, and nothing done. ``unanswered``: done,
    and not answered. ``wrong``: an answer of another form. ``missing``: the network is not there. ``uninstalled``: nor
    is anything that could be asked. ``bent``: the answer never
    shows what was asked. ``defect``: our own code breaks.

    Attributes:
        network_: None if it does not exist.
        records: members by node id.
        joined: nodes that have joined: they come back by themselves when their record is deleted.
        calls: how often each verb was used.
    """

    kind: str = "central_v1"
    network_: Network | None = field(default_factory=lambda: Network(NETWORK_ID, "minerals", rfc4193=True))
    records: dict[str, Member] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    fault: Fault = lambda verb, node: None
    simulated: bool = False
    network_id: str = NETWORK_ID
    calls: Counter[str] = field(default_factory=Counter)
    closed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._written: set[str] = set()
        self.overlaps: list[str] = []

    # What tests do behind the fleet's back

    def put(self, *members: Member) -> LittleMesh:
        """Let there be these members."""
        self.records |= {member.node_id: member for member in members}
        return self

    def join(self, *nodes: str) -> None:
        """Let these nodes ask to join."""
        for node in nodes:
            self.joined.add(node)
            self.records.setdefault(node, Member(node))

    @property
    def authorized(self) -> dict[str, str]:
        """Who takes part, by node id, and under which name."""
        return {node: member.name for node, member in sorted(self.records.items()) if member.authorized}

    # The protocol

    def network(self) -> Network | None:
        self._meet("network", "")
        return self.network_

    def save_network(self, wish: NetworkWish) -> Network:
        fault = self._meet("save_network", "")
        if self.network_ is None and self.kind != "controller":
            raise errors.NotFound("there is no such network")
        current = self.network_ or Network(self.network_id)
        self.network_ = network_rules.applied(current, wish if self.network_ else wish.to_create())
        self._after(fault, "network")
        return self.network_

    def delete_network(self) -> bool:
        self._meet("delete_network", "")
        was, self.network_ = self.network_, None
        self.records = {}
        return was is not None

    def members(self) -> tuple[Member, ...]:
        self._meet("members", "")
        if self.network_ is None:
            raise errors.NotFound("there is no such network")
        with self._lock:
            return tuple(self.records[node] for node in sorted(self.records))

    def member(self, node_id: str) -> Member | None:
        self._meet("member", node_id)
        return self.records.get(node_id)

    def save_member(self, wish: MemberWish) -> Member:
        fault = self._meet("save_member", wish.node_id)
        self._write(wish.node_id, lambda: member_rules.applied(self.records.get(wish.node_id), wish))
        self._after(fault, wish.node_id)
        return self.records[wish.node_id]

    def delete_member(self, node_id: str) -> bool:
        fault = self._meet("delete_member", node_id)
        found = node_id in self.records
        self._write(node_id, lambda: Member(node_id) if node_id in self.joined else None)
        self._after(fault, node_id)
        return found

    def close(self) -> None:
        self.closed += 1

    # Its insides

    def _write(self, node: str, change: Callable[[], Member | None]) -> None:
        with self._lock:
            if node in self._written:
                self.overlaps.append(node)
            self._written.add(node)
        member = change()
        with self._lock:
            if member is None:
                self.records.pop(node, None)
            else:
                self.records[node] = member
            self._written.discard(node)

    def _meet(self, verb: str, node: str) -> str | None:
        with self._lock:
            self.calls[verb] += 1
        fault = self.fault(verb, node)
        doing = f"{verb} {node or self.network_id}"
        if fault == "revoked":
            raise errors.AuthError(f"{doing}: the token is refused", code="401")
        if fault == "down":
            raise errors.Unreachable(f"{doing}: could not be reached")
        if fault == "slow":
            raise errors.Unavailable(f"{doing}: did not answer in time")
        if fault == "wrong":
            raise errors.Unavailable(f"{doing}: answered in a form that is not ZeroTier's")
        if fault == "missing":
            raise errors.NotFound(f"{doing}: there is no such network", code="404")
        if fault == "uninstalled":
            raise errors.NotFound("zerotier-one is not installed there")
        if fault == "defect":
            raise ZeroDivisionError("a secret")
        return fault

    @staticmethod
    def _after(fault: str | None, what: str) -> None:
        if fault == "unanswered":
            raise errors.Unavailable(f"{what}: the connection was reset")
        if fault == "bent":
            raise errors.WaitTimeout(f"{what}: does not show what it was asked for")


def connecting(plane: LittleMesh) -> Connect:
    """Connects to this control plane, whatever the fleet file says; it remembers the settings it was connected with."""

    def connect(spec: object, settings: Mapping[str, Any], clock: object) -> LittleMesh:
        plane.settings = settings
        return plane

    return connect


def names(members: Iterable[Member]) -> dict[str, str]:
    """Members by node id, and their names."""
    return {member.node_id: member.name for member in members}
