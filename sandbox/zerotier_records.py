# SPDX-License-Identifier: GPL-3.0-or-later
"""What ZeroTier Central's API v1 calls a network and a member, and what of them a request may write."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
USER = "6f6f3f6b-3d1c-4f0e-9d2e-5a4b0c1d2e3f"
CONTROLLER = "8056c2e21c"

_KINDS: dict[str, type] = {
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
_ENTRIES: dict[str, type] = {
    "ipAssignments": str,
    "routes": dict,
    "rules": dict,
    "ipAssignmentPools": dict,
}
"""What the lists hold."""

MEMBER, MEMBER_CONFIG = ("name", "description", "hidden"), (
    "authorized", "activeBridge", "ipAssignments", "noAutoAssignIps", "tags", "capabilities", "ssoExempt",
)  # fmt: skip
NETWORK_TOP, NETWORK_CONFIG = ("description", "rulesSource"), (
    "name", "private", "routes", "ipAssignmentPools", "v4AssignMode", "v6AssignMode", "dns", "mtu", "multicastLimit",
    "enableBroadcast", "rules", "tags", "capabilities",
)  # fmt: skip


class Refused(Exception):
    """A request that is refused with this status; the reason is for APIs that tell one."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(f"{status} {reason}".strip())
        self.status = status
        self.reason = reason


def check_kinds(given: Json, fields: tuple[str, ...]) -> None:
    """Look at the kinds of what a request would write.

    Raises:
        Refused: a field has another kind than it should.
    """
    for name in fields:
        value, wanted = given.get(name), _KINDS[name]
        if value is None:
            continue
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise Refused(400, f"{name}: not of type {wanted.__name__}")
        entry = _ENTRIES.get(name)
        if entry and isinstance(value, list) and not all(isinstance(item, entry) for item in value):
            raise Refused(400, f"{name}: an entry is not of type {entry.__name__}")


def take(into: Json, given: Json, fields: tuple[str, ...]) -> None:
    """What may be written; the rest is ignored, as is null."""
    into.update({name: given[name] for name in fields if given.get(name) is not None})


def new_network(network_id: str, now: int) -> Json:
    """A network with Central's defaults."""
    return {
        "id": network_id,
        "type": "Network",
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


def new_member(network_id: str, node: str, now: int) -> Json:
    """A member, not authorised, whose node was never seen."""
    return {
        "id": f"{network_id}-{node}",
        "type": "Member",
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
