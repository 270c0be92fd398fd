# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of ZeroTier Central as its controller sees it: members, who has which address, what a node is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from . import zerotier_addresses as addresses
from .zerotier_records import Json

ONLINE_WITHIN = 300_000
"""Milliseconds since it was last seen in which a member counts as online."""


@dataclass(slots=True)
class Member:
    """A member.

    Attributes:
        record: as API v1 shows it, but for its ``clock``.
        modified: milliseconds since 1970.
        rejected: somebody said no to it; API v1 has no word for that.
        hidden_until: before that time (seconds since 1970) no list shows it.
    """

    record: Json
    modified: int
    rejected: bool = False
    hidden_until: float = 0.0

    @property
    def node(self) -> str:
        return str(self.record["nodeId"])

    @property
    def config(self) -> Json:
        config: Json = self.record["config"]
        return config


@dataclass(slots=True)
class Network:
    """A network and its members by node id.

    Attributes:
        resource: as API v1 shows it, but for its ``clock`` and counts.
        group: the network group it is in; API v1 has none.
        subnets: its boundaries by IP version, as API v2 calls them; API v1 has none.
        taken: how many members have an address.
    """

    resource: Json
    group: str
    revision: int = 1
    members: dict[str, Member] = field(default_factory=dict)
    subnets: dict[int, str] = field(default_factory=lambda: {4: "", 6: ""})
    taken: Counter[str] = field(default_factory=Counter)

    @property
    def id(self) -> str:
        return str(self.resource["id"])

    @property
    def config(self) -> Json:
        config: Json = self.resource["config"]
        return config

    def listed(self, now: float) -> Iterator[Member]:
        """The members a list shows at that time."""
        return (member for member in self.members.values() if member.hidden_until <= now)

    def online(self, now: int) -> int:
        """How many members were seen lately."""
        return sum(now - member.record["lastSeen"] < ONLINE_WITHIN for member in self.members.values())

    def authorized(self) -> int:
        return sum(member.config["authorized"] for member in self.members.values())

    def forget(self, member: Member) -> None:
        """Remove a member, and free its addresses."""
        self._release(member)
        del self.members[member.node]

    def assign(self, member: Member, given: Iterable[str]) -> None:
        """Give a member these addresses and no others."""
        self._release(member)
        member.config["ipAssignments"] = [str(address).partition("/")[0] for address in given]
        self.taken.update(member.config["ipAssignments"])

    def _release(self, member: Member) -> None:
        for address in member.config["ipAssignments"]:
            self.taken[address] -= 1
            if not self.taken[address]:
                del self.taken[address]


def denied(status: str) -> Json:
    """What a node is told that gets no configuration."""
    return {
        "status": status,
        "name": "",
        "mtu": 2800,
        "addresses": [],
        "routes": [],
        "dns": {"domain": "", "servers": []},
        "revision": 0,
        "private": True,
        "broadcast": False,
        "bridge": False,
    }


def handed_out(network: Network, member: Member) -> list[str]:
    """The addresses a node is told to have, in the order of a real controller."""
    found: list[str] = []
    modes, targets = network.config["v6AssignMode"], addresses.on_link(network.config["routes"])
    if not member.config["noAutoAssignIps"]:
        if modes.get("rfc4193") is True:
            found.append(addresses.rfc4193(network.id, member.node))
        if modes.get("6plane") is True:
            found.append(addresses.sixplane(network.id, member.node))
    for address in map(addresses.parsed, member.config["ipAssignments"]):
        if address and (bits := addresses.prefix_length(address, targets)):
            found.append(f"{address}/{bits}")
    return found


def assign_addresses(network: Network, member: Member) -> None:
    """From the pools an address of each IP version they serve, for a member that may have one and was handed none."""
    rules = network.config
    if not member.config["authorized"] or member.config["noAutoAssignIps"]:
        return
    targets = addresses.on_link(rules["routes"])
    usable = {
        address.version
        for address in map(addresses.parsed, member.config["ipAssignments"])
        if address and addresses.prefix_length(address, targets)
    }
    for version, mode in ((6, "v6AssignMode"), (4, "v4AssignMode")):
        if version in usable or rules[mode].get("zt") is not True:
            continue
        pools = rules["ipAssignmentPools"]
        if found := addresses.from_pools(member.node, pools, targets, network.taken, version):
            network.assign(member, [*member.config["ipAssignments"], found])
