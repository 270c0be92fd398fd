# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses a ZeroTier controller gives to a node: the computed ones, and those from a network's pools.

As a real controller (ZeroTier One 1.14.1) was seen to do it. What a real one leaves to chance, the first try in a small
IPv6 pool, begins at the node id here.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Target = ipaddress.IPv4Network | ipaddress.IPv6Network
Route = Mapping[str, Any]

_TRIES = 1000
"""After so many addresses that are taken a controller goes on to the next pool."""
_WIDE = 0xFFFFFFFFFF
"""An IPv6 pool at least this long has room for every node id."""


def rfc4193(network: str, node: str) -> str:
    """The node's RFC 4193 address with its /88: ``fd``, network id, ``9993``, node id."""
    bits = 0xFD << 120 | int(network, 16) << 56 | 0x9993 << 40 | int(node, 16)
    return f"{ipaddress.IPv6Address(bits)}/88"


def sixplane(network: str, node: str) -> str:
    """The node's 6PLANE address with its /40: ``fc``, the network id's halves XORed, node id, 1."""
    number = int(network, 16)
    folded = (number >> 32) ^ (number & 0xFFFFFFFF)
    return f"{ipaddress.IPv6Address(0xFC << 120 | folded << 88 | int(node, 16) << 48 | 1)}/40"


def mac(network: str, node: str) -> str:
    """The MAC address of the node's interface in the network."""
    number = int(network, 16)
    first = (number & 0xFE) | 0x02
    if first == 0x52:  # QEMU's
        first = 0x32
    whole = first << 40 | int(node, 16)
    for place in range(5):
        whole ^= ((number >> (8 * (place + 1))) & 0xFF) << (32 - 8 * place)
    return ":".join(f"{byte:02x}" for byte in whole.to_bytes(6, "big"))


def parsed(text: object) -> Address | None:
    """An address, with or without a prefix length; None for anything else."""
    try:
        return ipaddress.ip_address(str(text).partition("/")[0])
    except ValueError:
        return None


def on_link(routes: Sequence[Route]) -> tuple[Target, ...]:
    """The targets of the routes without a gateway: what is in the network itself.

    An address outside all of them a controller keeps in the record, but never hands to the node.
    """
    found: list[Target] = []
    for route in routes:
        with contextlib.suppress(ValueError):
            if not route.get("via"):
                found.append(ipaddress.ip_network(str(route.get("target")), strict=False))
    return tuple(found)


def prefix_length(address: Address, targets: Sequence[Target]) -> int | None:
    """That of the smallest target the address is in; None if it is in none."""
    return max((target.prefixlen for target in targets if address in target), default=None)


def from_pools(
    node: str,
    pools: Sequence[Mapping[str, Any]],
    targets: Sequence[Target],
    taken: Container[str],
    version: int,
) -> str | None:
    """The address a controller picks for a node; None when all are taken, or no pool of that IP version is routed."""
    for pool in pools:
        first, last = parsed(pool.get("ipRangeStart")), parsed(pool.get("ipRangeEnd"))
        if first is None or last is None or first.version != version or last.version != version:
            continue
        start, length = int(first), int(last) - int(first)
        if start == 0:
            continue
        for number in _tries(version, int(node, 16), start, length):
            address = type(first)(number)
            if str(address) not in taken and prefix_length(address, targets):
                return str(address)
    return None


def _tries(version: int, node: int, start: int, length: int) -> Iterator[int]:
    """Addresses of a pool in the order a controller tries them. The last one of a pool is never among them."""
    if version == 6 and length >= _WIDE:
        yield start + node
        return
    counter = node & 0xFFFFFFFF if version == 4 else node
    for step in range(min(length + 1, _TRIES)):
        number = start + (counter + step) % length if length else start
        if version == 6 or number & 0xFF != 0xFF:
            yield number
