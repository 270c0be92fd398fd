# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and members between the form of ZeroTier Central's API v1, in which they are kept, and that of v2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from . import zerotier_addresses as addresses
from .zerotier_network import Member, Network
from .zerotier_records import Json, Refused

_SAME_CONFIG = ("private", "enableBroadcast", "mtu", "multicastLimit", "dns", "routes")
_RENAMED = {"v4AssignmentMode": "v4AssignMode", "v6AssignmentMode": "v6AssignMode"}
_POOLS = {"v4IpAssignmentPools": 4, "v6IpAssignmentPools": 6}
_SUBNETS = {"v4Subnet": 4, "v6Subnet": 6}
_ASSIGNMENTS = {"ipv4Assignments": 4, "ipv6Assignments": 6}
_V6_MODES = ("6plane", "rfc4193", "zt")

_CONFIG_KINDS: Mapping[str, type] = {
    "private": bool,
    "enableBroadcast": bool,
    "mtu": int,
    "multicastLimit": int,
    "dns": dict,
    "routes": list,
    "v4AssignmentMode": dict,
    "v6AssignmentMode": dict,
    "v4IpAssignmentPools": list,
    "v6IpAssignmentPools": list,
    "v4Subnet": str,
    "v6Subnet": str,
}
_MEMBER_KINDS: Mapping[str, type] = {
    "name": str,
    "description": str,
    "activeBridge": bool,
    "noAutoAssignIps": bool,
    "ipv4Assignments": list,
    "ipv6Assignments": list,
}


class Invalid(Refused):
    """A body with a field that is not as it should be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(400, "invalid request body")
        self.field = field
        self.message = message


def time(milliseconds: float) -> str:
    """Milliseconds since 1970 as API v2 writes time."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# What is shown


def summary(network: Network, group: Json) -> Json:
    """A network as lists show it."""
    return {
        "id": network.id,
        "name": network.config["name"],
        "description": network.resource["description"],
        "kind": "v1",
        "networkGroupId": network.group,
        "networkGroupName": group["name"],
    }


def statistics(network: Network, now: int) -> Json:
    """How many devices a network has; lists tell when asked."""
    authorized = network.authorized()
    rejected = sum(member.rejected for member in network.members.values())
    return {
        "activeDevices": network.online(now),
        "authorizedDevices": authorized,
        "rejectedDevices": rejected,
        "notAuthorizedDevices": len(network.members) - authorized - rejected,
        "totalDevices": len(network.members),
    }


def shown_network(network: Network) -> Json:
    """A network with its configuration."""
    config = network.config
    return {
        "id": network.id,
        "name": config["name"],
        "description": network.resource["description"],
        "kind": "v1",
        "networkGroupId": network.group,
        "creationTime": time(config["creationTime"]),
        "lastModified": time(config["lastModified"]),
        "config": {
            **{name: config[name] for name in _SAME_CONFIG},
            "routes": [
                {"target": route.get("target"), "via": route.get("via")} for route in config["routes"]
            ],
            "v4AssignmentMode": {"zt": config["v4AssignMode"].get("zt") is True},
            "v6AssignmentMode": {name: config["v6AssignMode"].get(name) is True for name in _V6_MODES},
            **{name: _pools(network, version) for name, version in _POOLS.items()},
            **{name: network.subnets[version] for name, version in _SUBNETS.items()},
        },
    }


def _pools(network: Network, version: int) -> list[Json]:
    return [
        pool
        for pool in network.config["ipAssignmentPools"]
        if (start := addresses.parsed(pool.get("ipRangeStart"))) and start.version == version
    ]


def _assignments(member: Member, version: int) -> list[str]:
    return [
        text
        for text in member.config["ipAssignments"]
        if (address := addresses.parsed(text)) and address.version == version
    ]


def shown_member(network: Network, member: Member) -> Json:
    """A member, which v2 also calls a device."""
    record, config = member.record, member.config
    modes, exempt = network.config["v6AssignMode"], config["noAutoAssignIps"]
    seen, address = record["lastSeen"], record["physicalAddress"] or ""
    status = "authorized" if config["authorized"] else "rejected" if member.rejected else "not_authorized"
    return {
        "deviceId": member.node,
        "networkId": network.id,
        "name": record["name"],
        "description": record["description"],
        "status": status,
        "activeBridge": config["activeBridge"],
        "noAutoAssignIps": exempt,
        **{name: _assignments(member, version) for name, version in _ASSIGNMENTS.items()},
        "ipAssignmentRfc4193": _computed(addresses.rfc4193, network, member, modes.get("rfc4193"), exempt),
        "ipAssignment6plane": _computed(addresses.sixplane, network, member, modes.get("6plane"), exempt),
        "identity": config["identity"],
        "macAddress": addresses.mac(network.id, member.node),
        "agentVersion": record["clientVersion"] if seen else "",
        "os": "",
        "arch": "",
        "lastSeen": {f"{address}/9993": time(seen)} if seen and address else {},
        "lastSeenIp": address,
        **({"lastSeenTime": time(seen)} if seen else {}),
        "creationTime": time(config["creationTime"]),
        "lastModified": time(member.modified),
        **{
            name: time(config[name])
            for name in ("lastAuthorizedTime", "lastDeauthorizedTime")
            if config[name]
        },
        "revision": config["revision"],
        "tags": [str(tag[0]) for tag in config["tags"] if isinstance(tag, list) and tag],
        "capabilities": [str(number) for number in config["capabilities"]],
    }


def _computed(how: object, network: Network, member: Member, on: object, exempt: bool) -> str:
    if on is not True or exempt or not callable(how):
        return ""
    return str(how(network.id, member.node)).partition("/")[0]


# What is asked for


def check(given: object, kinds: Mapping[str, type], where: str = "") -> Json:
    """A JSON object whose known fields are of these kinds; null counts as not given.

    Raises:
        Invalid: it is none, or one of them is not.
    """
    if not isinstance(given, dict):
        raise Invalid(where.rstrip(".") or "body", "must be an object")
    for name, kind in kinds.items():
        value = given.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise Invalid(f"{where}{name}", f"must be of type {kind.__name__}")
    return {name: value for name, value in given.items() if value is not None}


def network_change(network: Network, given: Json) -> tuple[Json, dict[int, str]]:
    """A request about a network as one of API v1, and the boundaries it sets.

    Raises:
        Invalid: a field is not as it should be.
    """
    given = check(given, {"name": str, "description": str, "config": dict})
    config = check(given.get("config", {}), _CONFIG_KINDS, "config.")
    if given.get("name") == "":
        raise Invalid("name", "must not be empty")
    wanted: Json = {name: config[name] for name in _SAME_CONFIG if name in config}
    for route in wanted.get("routes", []):
        if not isinstance(route, dict) or not isinstance(route.get("target"), str) or "via" not in route:
            raise Invalid("config.routes", "must hold objects with target and via")
    for name, old_name in _RENAMED.items():
        if name in config:
            modes = ("zt",) if name.startswith("v4") else _V6_MODES
            wanted[old_name] = {mode: config[name].get(mode) is True for mode in modes}
    pools = {version: _pools(network, version) for version in (4, 6)}
    for name, version in _POOLS.items():
        if name in config:
            pools[version] = [_pool(pool, name, version) for pool in config[name]]
            wanted["ipAssignmentPools"] = pools[4] + pools[6]
    if "name" in given:
        wanted["name"] = given["name"]
    change: Json = {"config": wanted}
    if "description" in given:
        change["description"] = given["description"]
    return change, {version: config[name] for name, version in _SUBNETS.items() if name in config}


def _pool(pool: object, name: str, version: int) -> Json:
    ends = (
        [addresses.parsed(pool.get(key)) for key in ("ipRangeStart", "ipRangeEnd")]
        if isinstance(pool, dict)
        else []
    )
    if not ends or any(end is None or end.version != version for end in ends):
        raise Invalid(f"config.{name}", f"must hold ranges of IPv{version} addresses")
    return {"ipRangeStart": str(ends[0]), "ipRangeEnd": str(ends[1])}


def member_change(member: Member | None, given: object) -> Json:
    """A request about a member (None: a new one) as one of API v1.

    Raises:
        Invalid: a field is not as it should be.
    """
    wanted = check(given, _MEMBER_KINDS)
    change: Json = {name: wanted[name] for name in ("name", "description") if name in wanted}
    config: Json = {name: wanted[name] for name in ("activeBridge", "noAutoAssignIps") if name in wanted}
    assigned = {version: _assignments(member, version) if member else [] for version in (4, 6)}
    for name, version in _ASSIGNMENTS.items():
        if name in wanted:
            for text in wanted[name]:
                address = addresses.parsed(text)
                if address is None or address.version != version:
                    raise Invalid(name, f"must hold IPv{version} addresses")
            assigned[version] = wanted[name]
            config["ipAssignments"] = assigned[4] + assigned[6]
    return change | {"config": config}


def device(given: object) -> str:
    """A node id in a body.

    Raises:
        Invalid: it is none.
    """
    if not isinstance(given, str) or not re.fullmatch("[0-9a-fA-F]{10}", given):
        raise Invalid("deviceId", "must have 10 hexadecimal digits")
    return given.lower()
