# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of ZeroTier Central: its networks, their members, and what a change does to them."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .world import World

NETWORK = "db4344343b14b903"
"""The network the account owns from the start: that of the example fleet."""
FORGETS = "zerotier_forgets"
"""The switch described in :mod:`sandbox.zerotier`."""

Json = dict[str, Any]
USER = "6f6f3f6b-3d1c-4f0e-9d2e-5a4b0c1d2e3f"
CONTROLLER = "8056c2e21c"

_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "description": str,
    "rulesSource": str,
    "hidden": bool,
    "authorized": bool,
    "activeBridge": bool,
    "noAutoAssignIps": bool,
    "ssoExempt": bool,
    "ipAssignments": list,
    "tags": list,
    "capabilities": list,
    "private": bool,
    "enableBroadcast": bool,
    "routes": list,
    "rules": list,
    "ipAssignmentPools": list,
    "v4AssignMode": dict,
    "v6AssignMode": dict,
    "dns": dict,
    "mtu": int,
    "multicastLimit": int,
}
MEMBER, MEMBER_CONFIG = ("name", "description", "hidden"), (
    "authorized", "activeBridge", "ipAssignments", "noAutoAssignIps", "tags", "capabilities", "ssoExempt",
)  # fmt: skip
NETWORK_TOP, NETWORK_CONFIG = ("description", "rulesSource"), (
    "name", "private", "routes", "ipAssignmentPools", "v4AssignMode", "v6AssignMode", "dns", "mtu", "multicastLimit",
    "enableBroadcast", "rules", "tags", "capabilities",
)  # fmt: skip


class Refused(Exception):
    """A request that is refused with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass(slots=True)
class Network:
    """A network and its members by node id; both as the JSON they are shown as."""

    resource: Json
    members: dict[str, Json] = field(default_factory=dict)

    def shown(self, now: int, *, in_list: bool = False) -> Json:
        """With its counts; a list does not know who is online."""
        members = list(self.members.values())
        return self.resource | {
            "clock": now,
            "totalMemberCount": len(members),
            "authorizedMemberCount": sum(member["config"]["authorized"] for member in members),
            "onlineMemberCount": 0
            if in_list
            else sum(now - member["lastSeen"] < 300_000 for member in members),
        }


class Central:
    """The account. Kept by :meth:`World.store`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.recent: deque[float] = deque()
        self.networks: dict[str, Network] = {}
        self.add_network(NETWORK)

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.world.clock.time() * 1000)

    def add_network(self, network_id: str) -> Network:
        """A new network with Central's defaults."""
        now = self.now()
        network = Network(
            {
                "id": network_id,
                "type": "Network",
                "clock": now,
                "config": {
                    "id": network_id,
                    "name": f"sandbox_{network_id[-4:]}",
                    "creationTime": now,
                    "lastModified": now,
                    "private": True,
                    "enableBroadcast": True,
                    "mtu": 2800,
                    "multicastLimit": 32,
                    "dns": {"domain": "", "servers": []},
                    "ipAssignmentPools": [{"ipRangeStart": "10.147.17.1", "ipRangeEnd": "10.147.17.254"}],
                    "routes": [{"target": "10.147.17.0/24"}],
                    "rules": [],
                    "tags": [],
                    "capabilities": [],
                    "ssoConfig": {"enabled": False, "mode": ""},
                    "v4AssignMode": {"zt": True},
                    "v6AssignMode": {"6plane": False, "rfc4193": False, "zt": False},
                },
                "description": "",
                "rulesSource": "accept;",
                "permissions": {USER: {"a": True, "d": True, "m": True, "r": True}},
                "ownerId": USER,
                "capabilitiesByName": {},
                "tagsByName": {},
            }
        )
        self.networks[network_id] = network
        return network

    def add_member(self, network: Network, node: str) -> Json:
        """A new member, not authorised, whose node was never seen."""
        now, network_id = self.now(), network.resource["id"]
        member: Json = {
            "id": f"{network_id}-{node}",
            "type": "Member",
            "clock": now,
            "networkId": network_id,
            "nodeId": node,
            "controllerId": network_id[:10],
            "hidden": False,
            "name": "",
            "description": "",
            "lastOnline": 0,
            "lastSeen": 0,
            "physicalAddress": None,
            "clientVersion": "0.0.0",
            "protocolVersion": 0,
            "supportsRulesEngine": False,
            "config": {
                "activeBridge": False,
                "authorized": False,
                "capabilities": [],
                "creationTime": now,
                "id": node,
                "identity": "",
                "ipAssignments": [],
                "lastAuthorizedTime": 0,
                "lastDeauthorizedTime": 0,
                "noAutoAssignIps": False,
                "revision": 1,
                "ssoExempt": False,
                "tags": [],
                **dict.fromkeys(("vMajor", "vMinor", "vRev", "vProto"), -1),
            },
        }
        network.members[node] = member
        return member

    def change_member(self, network: Network, node: str, given: Json) -> Json:
        """Make or change a member as a request says."""
        config = given.get("config") or {}
        check_kinds(given, MEMBER)
        check_kinds(config, MEMBER_CONFIG)
        member = network.members.get(node)
        if member is None:
            member = self.add_member(network, node)
            if self.world.options[FORGETS]:
                given, config = {}, {key: config[key] for key in ("authorized",) if key in config}
        take(member, given, MEMBER)
        before = member["config"]["authorized"]
        take(member["config"], config, MEMBER_CONFIG)
        if member["config"]["authorized"] != before:
            member["config"]["lastDeauthorizedTime" if before else "lastAuthorizedTime"] = self.now()
        member["config"]["revision"] += 1
        if member["lastSeen"]:
            _assign_address(network, member)
        return member

    def seen(self, network: Network, node: str, given: Mapping[str, object]) -> Json:
        """A node asks for its configuration."""
        member = network.members.get(node) or self.add_member(network, node)
        version = str(given.get("version", "1.14.2"))
        major, minor, revision = (int(part) for part in version.split("."))
        member |= {
            "lastSeen": self.now(),
            "lastOnline": self.now(),
            "physicalAddress": str(given.get("physicalAddress", "198.51.100.7")),
            "clientVersion": version,
            "protocolVersion": 12,
            "supportsRulesEngine": True,
        }
        member["config"] |= {"vMajor": major, "vMinor": minor, "vRev": revision, "vProto": 12}
        if not network.resource["config"]["private"]:
            member["config"]["authorized"] = True
        _assign_address(network, member)
        return member


def check_kinds(given: Json, members: tuple[str, ...]) -> None:
    for name in members:
        value = given.get(name)
        wanted = _KINDS[name]
        if value is not None and (
            not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))
        ):
            raise Refused(400)


def take(into: Json, given: Json, members: tuple[str, ...]) -> None:
    """What may be written; the rest is ignored, as is null."""
    into.update({name: given[name] for name in members if given.get(name) is not None})


def _assign_address(network: Network, member: Json) -> None:
    """An address from the pool, for a member that may have one and has none."""
    config, rules = member["config"], network.resource["config"]
    if (
        not config["authorized"]
        or config["noAutoAssignIps"]
        or config["ipAssignments"]
        or not rules["v4AssignMode"].get("zt")
    ):
        return
    taken = {address for other in network.members.values() for address in other["config"]["ipAssignments"]}
    for pool in rules["ipAssignmentPools"]:
        first, last = (ipaddress.ip_address(pool[key]) for key in ("ipRangeStart", "ipRangeEnd"))
        free = (str(first + step) for step in range(int(last) - int(first) + 1))
        if found := next((address for address in free if address not in taken), None):
            config["ipAssignments"] = [found]
            return
