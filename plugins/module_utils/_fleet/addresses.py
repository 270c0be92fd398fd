# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier ids to IPv6 addresses: RFC 4193 and 6PLANE. The same arithmetic every node does, so an address is known before a node exists.

An id is hexadecimal text in either case: a network id has 16 digits and begins with its controller's node id, a node
id has 10.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Interface, IPv6Network

NODE_DIGITS = 10
NETWORK_DIGITS = 16

_RFC4193_PREFIX_BITS = 88
_SIXPLANE_PREFIX_BITS = 40
_SIXPLANE_NODE_BITS = 80


def _number(value: str, digits: int, what: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
        raise ValueError(f"{what} has {digits} hexadecimal digits")
    return int(value, 16)


def network_number(network: str) -> int:
    """A network id as a number.

    Raises:
        ValueError: it is not one.
    """
    return _number(network, NETWORK_DIGITS, "a ZeroTier network id")


def node_number(node: str) -> int:
    """A node id as a number.

    Raises:
        ValueError: it is not one, or one that no node can have (all zero, or beginning with ff).
    """
    number = _number(node, NODE_DIGITS, "a ZeroTier node id")
    if number == 0 or number >> 32 == 0xFF:
        raise ValueError("a ZeroTier node id is not all zero and does not begin with ff")
    return number


def controller(network: str) -> str:
    """The node id of a network's controller, lower case."""
    return f"{network_number(network) >> 24:0{NODE_DIGITS}x}"


def rfc4193(network: str, node: str) -> IPv6Interface:
    """A node's RFC 4193 address in a network: ``fd``, network id, ``9993``, node id, as a /88.

    Raises:
        ValueError: one of the ids is not one.
    """
    bits = 0xFD << 120 | network_number(network) << 56 | 0x9993 << 40 | node_number(node)
    return IPv6Interface((bits, _RFC4193_PREFIX_BITS))


def sixplane(network: str, node: str) -> IPv6Interface:
    """A node's 6PLANE address in a network: ``fc``, folded network id, node id, ``::1``, as a /40.

    Raises:
        ValueError: one of the ids is not one.
    """
    return IPv6Interface((_sixplane_base(network, node) | 1, _SIXPLANE_PREFIX_BITS))


def sixplane_subnet(network: str, node: str) -> IPv6Network:
    """The /80 behind a node in a 6PLANE network, all of it that node's own."""
    return IPv6Network((_sixplane_base(network, node), _SIXPLANE_NODE_BITS))


def _sixplane_base(network: str, node: str) -> int:
    number = network_number(network)
    folded = (number >> 32) ^ (number & 0xFFFFFFFF)
    return int(IPv6Address(0xFC << 120 | folded << 88 | node_number(node) << 48))
