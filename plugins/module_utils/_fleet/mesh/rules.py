# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a network's traffic: which there are, and one normal form of each. Pure.

A controller drops a rule whose type it does not know, reads 0 where a number is missing or misspelt, adds ``not`` and
``or`` to what matches, takes them from what acts, and answers 200 all the while. A rule that is lost in silence is a
hole in somebody's wall; so a wished rule is checked against this table, field by field, and what is read is brought to
the same form before both are compared.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from typing import Any

from ..errors import InvalidRequest

Rule = Mapping[str, Any]

_NEEDED = object()
"""The default of a field that has none."""

_SAME_AS_START = object()
"""The default of the end of a range: one value only."""


def _number(bits: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**bits:
            raise ValueError(f"is to be a number from 0 to {2**bits - 1}")
        return value

    return read


def _perhaps(bits: int) -> Callable[[Any], int | None]:
    return lambda value: None if value is None else _number(bits)(value)


def _hex(digits: int, what: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        text = str(value).replace(":", "").replace("-", "").lower()
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
            raise ValueError(f"is to be {what}")
        return text

    return read


def _mac(value: Any) -> str:
    digits = _hex(12, "a MAC address")(value)
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


def _mask(value: Any) -> str:
    number = int(value, 16) if isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{1,16}", value) else value
    try:
        return f"{_number(64)(number):016x}"
    except ValueError:
        raise ValueError("is to be a number of 64 bits, or its hexadecimal digits as text") from None


def _prefix(version: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        # Without /bits a controller reads /0, which matches every address there is.
        if isinstance(value, str) and "/" in value:
            try:
                found = ip_interface(value)
            except ValueError:
                found = None
            if found is not None and found.version == version:
                return found.with_prefixlen
        raise ValueError(f"is to be an IPv{version} address with prefix length")

    return read


Field = tuple[Callable[[Any], Any], Any]

_RANGE: dict[str, Field] = {"start": (_number(16), _NEEDED), "end": (_number(16), _SAME_AS_START)}
_TAG: dict[str, Field] = {"id": (_number(32), _NEEDED), "value": (_number(32), _NEEDED)}
_NODE = _hex(10, "a node id")
_FORWARD: dict[str, Field] = {
    "address": (_NODE, _NEEDED),
    "flags": (_number(32), 0),
    "length": (_number(16), 0),
}

ACTIONS: dict[str, dict[str, Field]] = {
    "ACTION_ACCEPT": {},
    "ACTION_BREAK": {},
    "ACTION_DROP": {},
    "ACTION_REDIRECT": {"address": (_NODE, _NEEDED), "flags": (_number(32), 0)},
    "ACTION_TEE": _FORWARD,
    "ACTION_WATCH": _FORWARD,
}
"""What a rule does, with the fields each has."""

MATCHES: dict[str, dict[str, Field]] = {
    "MATCH_CHARACTERISTICS": {"mask": (_mask, _NEEDED)},
    "MATCH_DEST_ZEROTIER_ADDRESS": {"zt": (_NODE, _NEEDED)},
    "MATCH_ETHERTYPE": {"etherType": (_number(16), _NEEDED)},
    "MATCH_FRAME_SIZE_RANGE": _RANGE,
    "MATCH_ICMP": {"icmpType": (_number(8), _NEEDED), "icmpCode": (_perhaps(8), None)},
    "MATCH_IPV4_DEST": {"ip": (_prefix(4), _NEEDED)},
    "MATCH_IPV4_SOURCE": {"ip": (_prefix(4), _NEEDED)},
    "MATCH_IPV6_DEST": {"ip": (_prefix(6), _NEEDED)},
    "MATCH_IPV6_SOURCE": {"ip": (_prefix(6), _NEEDED)},
    "MATCH_IP_DEST_PORT_RANGE": _RANGE,
    "MATCH_IP_PROTOCOL": {"ipProtocol": (_number(8), _NEEDED)},
    "MATCH_IP_SOURCE_PORT_RANGE": _RANGE,
    "MATCH_IP_TOS": {
        "mask": (_number(8), _NEEDED),
        "start": (_number(8), _NEEDED),
        "end": (_number(8), _NEEDED),
    },
    "MATCH_MAC_DEST": {"mac": (_mac, _NEEDED)},
    "MATCH_MAC_SOURCE": {"mac": (_mac, _NEEDED)},
    "MATCH_RANDOM": {"probability": (_number(32), _NEEDED)},
    "MATCH_SOURCE_ZEROTIER_ADDRESS": {"zt": (_NODE, _NEEDED)},
    "MATCH_TAGS_BITWISE_AND": _TAG,
    "MATCH_TAGS_BITWISE_OR": _TAG,
    "MATCH_TAGS_BITWISE_XOR": _TAG,
    "MATCH_TAGS_DIFFERENCE": _TAG,
    "MATCH_TAGS_EQUAL": _TAG,
    "MATCH_TAG_RECEIVER": _TAG,
    "MATCH_TAG_SENDER": _TAG,
    "MATCH_VLAN_DEI": {"vlanDei": (_number(8), _NEEDED)},
    "MATCH_VLAN_ID": {"vlanId": (_number(16), _NEEDED)},
    "MATCH_VLAN_PCP": {"vlanPcp": (_number(8), _NEEDED)},
}
"""What a rule looks for, with the fields each has besides ``not`` and ``or``.

INTEGER_RANGE is not among them: the controller of zerotier-one knows it when it writes a rule and drops it when it
reads one.
"""


def checked(rule: Rule) -> Rule:
    """A wished rule in normal form.

    Raises:
        InvalidRequest: it is none that a controller would keep as it is.
    """
    kind = _kind(rule)
    if kind is None:
        given = rule.get("type") if isinstance(rule, Mapping) else None
        raise InvalidRequest(
            f"{given or rule!r} is no type of rule that a controller keeps",
            hint=f"The types are {', '.join([*ACTIONS, *MATCHES])}",
        )
    known = {"type", *_fields(kind), "not", "or"}
    if unknown := sorted(set(rule) - known):
        raise InvalidRequest(
            f"the rule {kind} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    try:
        return _normal(kind, rule)
    except ValueError as exc:
        raise InvalidRequest(f"the rule {kind}: {exc}") from exc


def normalised(rule: Rule) -> Rule:
    """A rule as the control plane tells it, in normal form; one we do not know stays as it is."""
    kind = _kind(rule)
    if kind is None:
        return dict(rule)
    try:
        return _normal(
            kind, {name: value for name, value in rule.items() if name in _fields(kind) or name in _FLAGS}
        )
    except ValueError:
        return dict(rule)


_FLAGS = ("not", "or")


def _kind(rule: Rule) -> str | None:
    """The type of a rule, if it is one that is known."""
    kind = rule.get("type") if isinstance(rule, Mapping) else None
    return kind if isinstance(kind, str) and (kind in ACTIONS or kind in MATCHES) else None


def _fields(kind: str) -> dict[str, Field]:
    return ACTIONS[kind] if kind in ACTIONS else MATCHES[kind]


def _normal(kind: str, rule: Rule) -> Rule:
    found: dict[str, Any] = {"type": kind}
    for name, (read, default) in _fields(kind).items():
        if name in rule:
            value = rule[name]
        elif default is _NEEDED:
            raise ValueError(f"{name} is missing")
        else:
            value = found["start"] if default is _SAME_AS_START else default
        try:
            found[name] = read(value)
        except ValueError as exc:
            raise ValueError(f"{name} {exc}, not {value!r}") from None
    for flag in _FLAGS:
        if not isinstance(rule.get(flag, False), bool):
            raise ValueError(f"{flag} is to be true or false, not {rule[flag]!r}")
        if kind in MATCHES:
            found[flag] = rule.get(flag, False)
        elif rule.get(flag):
            # The default rule of a new network carries both as false; as true they would mean nothing.
            raise ValueError(f"{flag} is for rules that match")
    return found
