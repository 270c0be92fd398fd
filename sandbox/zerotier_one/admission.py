# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller answers a node that asks for its configuration: the addresses it gets, and whether it gets any."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from .formulas import rfc4193, sixplane
from .values import Inet, Json, inet, to_bool

ROUTES, ADDRESSES = 128, 32
"""As many as a configuration has room for."""
_TRIES = 1000


def configuration(network: Json, member: Json, taken: set[str]) -> Json:
    """The configuration of an authorised member. What it is given from the pools is added to its record.

    Args:
        taken: addresses of all members of the network.
    """
    routes = network["routes"][:ROUTES]
    targets = [(found, route["via"]) for route in routes if (found := inet(route["target"]))]
    automatic = not to_bool(member["noAutoAssignIps"], False)
    v4, v6 = network["v4AssignMode"], network["v6AssignMode"]
    node, network_id = member["id"], network["id"]

    addresses: list[str] = []
    if automatic and v6.get("rfc4193"):
        addresses.append(rfc4193(network_id, node))
    if automatic and v6.get("6plane"):
        addresses.append(sixplane(network_id, node))
    families = set()
    for text in member["ipAssignments"]:
        address = inet(text)
        bits = max((target.bits for target, _ in targets if address and target.holds(address.ip)), default=-1)
        if address and bits >= 0:
            addresses.append(f"{address.ip}/{bits}")
            families.add(address.ip.version)
    for wanted, family in ((v6.get("zt"), 6), (v4.get("zt"), 4)):
        if wanted and automatic and family not in families:
            found = _choose(network, int(node, 16), family, targets, taken | set(member["ipAssignments"]))
            if found:
                member["ipAssignments"] = [*member["ipAssignments"], str(found.ip)]
                addresses.append(str(found))
    return {
        "status": "OK",
        "name": network["name"],
        "type": "PRIVATE" if network["private"] else "PUBLIC",
        "revision": network["revision"],
        "mtu": network["mtu"],
        "broadcast": network["enableBroadcast"],
        "bridge": member["activeBridge"],
        "addresses": addresses[:ADDRESSES],
        "routes": routes,
        "dns": _dns(network["dns"]),
    }


def _dns(dns: object) -> Json:
    if not isinstance(dns, dict):
        return {"domain": "", "servers": []}
    servers = [
        str(found.ip) for text in dns.get("servers") or [] if isinstance(text, str) and (found := inet(text))
    ]
    return {"domain": dns.get("domain") or "", "servers": servers}


def _choose(
    network: Json, node: int, family: int, targets: list[tuple[Inet, object]], taken: set[str]
) -> Inet | None:
    """A free address of the first pool that has one, with the prefix length of the route it is in."""
    for pool in network["ipAssignmentPools"]:
        first, last = inet(pool["ipRangeStart"]), inet(pool["ipRangeEnd"])
        if not first or not last or first.ip.version != family or last.ip.version != family:
            continue
        tried = (
            _v4(int(first.ip), int(last.ip), node) if family == 4 else _v6(int(first.ip), int(last.ip), node)
        )
        for ip in tried:
            # An IPv6 address has to be on the members' own Ethernet; for IPv4 any route will do.
            bits = [
                target.bits
                for target, via in targets
                if target.bits and target.holds(ip) and (family == 4 or not via)
            ]
            if bits and str(ip) not in taken:
                return Inet(ip, bits[0 if family == 4 else -1])
    return None


def _v4(first: int, last: int, node: int) -> Iterator[IPv4Address]:
    """From the place the node id points at onwards; never the last one, never one that ends in .255."""
    if last < first or first == 0:
        return
    length, place = last - first, node & 0xFFFFFFFF
    for step in range(min(length + 1, _TRIES)):
        number = first + (place + step) % length if length else first
        if number & 0xFF != 0xFF:
            yield IPv4Address(number)


def _v6(first: int, last: int, node: int) -> Iterator[IPv6Address]:
    """The node id itself where the pool is wide enough, then any."""
    half = 1 << 64
    high, low = divmod(first, half)
    high_room, low_room = last // half - high, last % half - low
    for step in range(_TRIES):
        if step == 0 and low_room >= 0xFFFFFFFFFF:
            yield IPv6Address((high << 64) + (low + node) % half)
            continue
        more_high = secrets.randbelow(high_room) if high_room > 0 else 0
        more_low = secrets.randbelow(low_room) if low_room > 0 else 0
        yield IPv6Address((high + more_high) % half * half + (low + more_low) % half)
