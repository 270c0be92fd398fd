# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier's arithmetic: what follows from a network id and a node id. Written apart from the collection's own, so that
each can be wrong without the other."""

from __future__ import annotations

import base64
from ipaddress import IPv6Address


def hardware_address(network: str, node: str) -> str:
    """The MAC address of a member's interface."""
    number = int(network, 16)
    first = (number & 0xFE) | 0x02
    if first == 0x52:  # belongs to virtual machines
        first = 0x32
    octets = bytes(
        node_octet ^ (number >> shift & 0xFF)
        for node_octet, shift in zip(bytes.fromhex(node), (8, 16, 24, 32, 40), strict=True)
    )
    return ":".join(f"{octet:02x}" for octet in (first, *octets))


def device_name(network: str) -> str:
    """The name of a member's interface, the same on every host."""
    number = int(network, 16)
    folded = (number ^ number >> 24) & 0xFFFFFFFFFF
    return "zt" + base64.b32encode(folded.to_bytes(5, "big")).decode().lower()


def rfc4193(network: str, node: str) -> str:
    """The RFC 4193 address with its prefix length."""
    return f"{IPv6Address(bytes.fromhex(f'fd{network}9993{node}'))}/88"


def sixplane(network: str, node: str) -> str:
    """The 6PLANE address with its prefix length."""
    folded = int(network[:8], 16) ^ int(network[8:], 16)
    return f"{IPv6Address(bytes.fromhex(f'fc{folded:08x}{node}000000000001'))}/40"


def solicited_node(address: IPv6Address) -> str:
    """The Ethernet group an IPv6 address is asked for in."""
    return "33:33:ff:" + ":".join(f"{octet:02x}" for octet in address.packed[-3:])
