# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of ZeroTier Central: its networks, their members, and what a change does to them.

Records are kept as API v1 shows them; :mod:`sandbox.zerotier_v2` shows the same ones in v2's form. The account is also the
controller of its networks: :meth:`Central.configuration` is what a node gets when it asks for a network's
configuration. Whoever serves the nodes puts a function into :attr:`Central.listeners` to learn of changes at once.

Faults that change what Central does. Their service is the API a request comes through (``zerotier`` for what nodes do);
the subject's name is a member's node id, or a network's id where a request is about the network itself; its zone is the
network's id, its verb ``create``, ``change`` or ``delete``:

``list_lag``          a new member stays out of lists for ``seconds``, though asked by its id it is there
``failed_operation``  the request is answered as if it had been carried out, but nothing changes
``slow_operation``    it is answered at once, and takes effect ``seconds`` later
``quota``             a new member or network is refused with 403: more than the plan allows

``stockout`` and ``unreachable`` have no meaning here.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from .faults import Rule, Subject
from .world import World
from .zerotier_network import Member, Network, assign_addresses, denied, handed_out
from .zerotier_records import (
    CONTROLLER,
    MEMBER,
    MEMBER_CONFIG,
    NETWORK_CONFIG,
    NETWORK_TOP,
    Json,
    Refused,
    check_kinds,
    new_member,
    new_network,
    take,
)

NETWORK = "db4344343b14b903"
"""The network the account owns from the start: that of the example fleet."""
ORGANISATION = "0b5cf6f1-6b62-4f38-9a26-2f1f1f4f6a01"
GROUP = "5a8d1c74-7f0e-4f3c-8a53-3f6f0e2d9b02"
"""The organisation and the network group the account has from the start; only API v2 knows them."""
REQUESTS_PER_SECOND = 100
"""Of a paid plan; more are answered with 429 (API v1)."""

Listener = Callable[[str, str | None], None]
Answer = TypeVar("Answer")


class Central:
    """The account. Kept by :meth:`World.store`, so a reset makes a new one: without networks, members, listeners.

    Attributes:
        listeners: called with a network's id and a node id, or None for all nodes of it, after a change that a node
            should hear of at once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.listeners: list[Listener] = []
        self.networks: dict[str, Network] = {}
        self.groups: dict[str, Json] = {}
        self.add_group(GROUP, "Sandbox", "")
        self._recent: deque[float] = deque()
        self._service = "zerotier"
        self._silent = False
        self.add_network(NETWORK)

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.world.clock.time() * 1000)

    def too_many(self) -> bool:
        """Whether the account has used up this second; counts the request if not."""
        now = self.world.clock.time()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        if len(self._recent) >= REQUESTS_PER_SECOND:
            return True
        self._recent.append(now)
        return False

    # Faults

    def carry_out(
        self, service: str, network_id: str, node: str, verb: str, work: Callable[[], Answer]
    ) -> Answer:
        """Do what a request asks for, unless a fault says otherwise; the answer to the request.

        Args:
            node: the member it is about; empty where it is about the network.
            work: gets the network by its id each time, for it may be done to a copy, or later.

        Raises:
            Refused: by ``work``, or by a fault.
        """
        self._service = service
        try:
            if verb == "create" and self._fault("quota", network_id, node, verb):
                raise Refused(403, "the plan does not allow more")
            late = self._fault("slow_operation", network_id, node, verb)
            if not late and not self._fault("failed_operation", network_id, node, verb):
                return work()
            answer = self._rehearse(network_id, work)
            if late:
                self.world.spawn(self._later(late.seconds, work))
            return answer
        finally:
            self._service = "zerotier"

    def _rehearse(self, network_id: str, work: Callable[[], Answer]) -> Answer:
        """The answer that work would give; it is done to a copy, and nobody is told."""
        real = self.networks.get(network_id)
        if real:
            self.networks[network_id] = copy.deepcopy(real)
        self._silent = True
        try:
            return work()
        finally:
            self._silent = False
            if real:
                self.networks[network_id] = real
            else:
                self.networks.pop(network_id, None)

    async def _later(self, seconds: float, work: Callable[[], object]) -> None:
        await self.world.clock.sleep(seconds)
        # What it was about may be gone by then.
        with contextlib.suppress(Refused):
            work()

    def _fault(self, kind: str, network_id: str, node: str, verb: str) -> Rule | None:
        subject = Subject(name=node or network_id, zone=network_id, verb=verb)
        return self.world.faults.take(kind, service=self._service, subject=subject)

    # Networks

    def network(self, network_id: str) -> Network:
        """By id.

        Raises:
            Refused: there is none.
        """
        if found := self.networks.get(network_id):
            return found
        raise Refused(404)

    def new_id(self) -> str:
        """A network id of Central's controller that is not in use."""
        return f"{CONTROLLER}{self.world.next_id('zerotier-network', 0x10):06x}"

    def add_group(self, group_id: str, name: str, description: str) -> Json:
        """A new network group of the account's organisation (API v2)."""
        self.groups[group_id] = {
            "id": group_id,
            "name": name,
            "description": description,
            "orgId": ORGANISATION,
        }
        return self.groups[group_id]

    def add_network(self, network_id: str, group: str = GROUP) -> Network:
        """A new network with Central's defaults."""
        network = Network(new_network(network_id, self.now()), group)
        self.networks[network_id] = network
        return network

    def change_network(self, network: Network, given: Json) -> None:
        """Change a network as a request of API v1 says.

        Raises:
            Refused: the request makes no sense.
        """
        config = given.get("config") or {}
        check_kinds(given, NETWORK_TOP)
        check_kinds(config, NETWORK_CONFIG)
        take(network.resource, given, NETWORK_TOP)
        take(network.config, config, NETWORK_CONFIG)
        network.config["lastModified"] = self.now()
        network.revision += 1
        self._tell(network)

    def remove_network(self, network: Network) -> None:
        self.networks.pop(network.id, None)
        self._tell(network)

    # Members

    def member(self, network: Network, node: str) -> Member:
        """By node id.

        Raises:
            Refused: there is none.
        """
        if found := network.members.get(node):
            return found
        raise Refused(404)

    def add_member(self, network: Network, node: str) -> Member:
        """A new member, not authorised, whose node was never seen."""
        now = self.now()
        member = Member(new_member(network.id, node, now), now)
        if rule := self._fault("list_lag", network.id, node, "create"):
            member.hidden_until = self.world.clock.time() + rule.seconds
        network.members[node] = member
        return member

    def change_member(self, network: Network, node: str, given: Json) -> Member:
        """Make or change a member as a request of API v1 says.

        Raises:
            Refused: the request makes no sense.
        """
        config = given.get("config") or {}
        check_kinds(given, MEMBER)
        check_kinds(config, MEMBER_CONFIG)
        member = network.members.get(node) or self.add_member(network, node)
        take(member.record, given, MEMBER)
        before = member.config["authorized"]
        take(member.config, config, tuple(name for name in MEMBER_CONFIG if name != "ipAssignments"))
        if config.get("ipAssignments") is not None:
            network.assign(member, config["ipAssignments"])
        if member.config["authorized"] != before:
            member.config["lastDeauthorizedTime" if before else "lastAuthorizedTime"] = self.now()
        if member.config["authorized"]:
            member.rejected = False
        self._touched(network, member)
        return member

    def reject_member(self, network: Network, member: Member) -> None:
        """Not authorised, and not to be asked about again."""
        self.change_member(network, member.node, {"config": {"authorized": False}})
        member.rejected = True

    def remove_member(self, network: Network, member: Member) -> None:
        """Forget a member. A node that is still joined comes back, unauthorised, when it next asks."""
        network.forget(member)
        self._tell(network, member.node)

    def _touched(self, network: Network, member: Member) -> None:
        member.config["revision"] += 1
        member.modified = self.now()
        # Only an online node's request makes the controller look for addresses, and it has it ask at once.
        if member.record["lastSeen"]:
            assign_addresses(network, member)
        self._tell(network, member.node)

    def _tell(self, network: Network, node: str | None = None) -> None:
        for listener in [] if self._silent else self.listeners:
            listener(network.id, node)

    # Nodes

    def seen(self, network: Network, node: str, given: Mapping[str, object]) -> Json:
        """A node asks for its configuration (``physicalAddress``, ``version``, ``identity``); its record after that."""
        member = network.members.get(node) or self.add_member(network, node)
        version = str(given.get("version", "1.14.2"))
        parts = [*re.findall(r"\d+", version), "0", "0", "0"][:3]
        now = self.now()
        member.record |= {
            "lastSeen": now,
            "lastOnline": now,
            "physicalAddress": str(given.get("physicalAddress", "198.51.100.7")).partition("/")[0] or None,
            "clientVersion": version,
            "protocolVersion": 12,
            "supportsRulesEngine": True,
        }
        if not member.config["identity"]:
            member.config["identity"] = str(given.get("identity", ""))
        numbers = dict(zip(("vMajor", "vMinor", "vRev"), map(int, parts), strict=True))
        member.config.update(numbers, vProto=12)
        if not network.config["private"] and not member.config["authorized"]:
            # They stay authorised when the network turns private again.
            member.config.update(authorized=True, lastAuthorizedTime=now)
        assign_addresses(network, member)
        return member.record

    def configuration(
        self, network_id: str, node_id: str, physical_address: str, version: str, identity: str = ""
    ) -> Json:
        """What a node gets that asks for a network's configuration, which also makes it a member that was seen.

        Args:
            identity: the node's public identity. The first one presented for a node id is kept; another one with the same
                id is denied from then on.

        Returns:
            ``status`` (``OK``, ``ACCESS_DENIED``, ``NOT_FOUND``), and of the network ``name``, ``mtu``, ``addresses``
            with their prefix lengths, ``routes``, ``dns``, ``revision``, ``private``, ``broadcast``, and whether the node may
            ``bridge``: all empty unless the status is OK.
        """
        network = self.networks.get(network_id)
        if network is None:
            return denied("NOT_FOUND")
        known = network.members.get(node_id)
        if known and identity and known.config["identity"] not in ("", identity):
            return denied("ACCESS_DENIED")
        self.seen(
            network,
            node_id,
            {"physicalAddress": physical_address, "version": version, "identity": identity},
        )
        member, config = network.members[node_id], network.config
        if not member.config["authorized"]:
            return denied("ACCESS_DENIED")
        return {
            "status": "OK",
            "name": config["name"],
            "mtu": config["mtu"],
            "addresses": handed_out(network, member),
            "routes": [
                {"target": route.get("target"), "via": route.get("via")} for route in config["routes"]
            ],
            "dns": config["dns"],
            "revision": network.revision,
            "private": config["private"],
            "broadcast": config["enableBroadcast"],
            "bridge": member.config["activeBridge"],
        }
