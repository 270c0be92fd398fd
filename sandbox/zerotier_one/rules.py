# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a network's flow rule engine, as the controller reads and shows them."""

from __future__ import annotations

import re
from collections.abc import Callable

from .values import Json, inet, to_bool, to_int, to_text

_Field = Callable[[Json, str], object]


def _number(bits: int) -> _Field:
    def read(rule: Json, name: str) -> object:
        return to_int(rule.get(name), 0) & ((1 << bits) - 1)

    return read


def _end(rule: Json, name: str) -> object:
    """The end of a range, which is its start where it is not given."""
    return to_int(rule.get(name), to_int(rule.get("start"), 0)) & 0xFFFF


def _node(rule: Json, name: str) -> object:
    return f"{_hexadecimal(to_text(rule.get(name), '0')) & 0xFFFFFFFFFF:010x}"


def _mac(rule: Json, name: str) -> object:
    digits = re.sub(r"[^0-9a-fA-F]", "", to_text(rule.get(name), "0"))[:12].lower()
    return ":".join(re.findall("..", digits.ljust(12, "0")))


def _prefix(rule: Json, name: str) -> object:
    version = 4 if "IPV4" in str(rule.get("type")) else 6
    found = inet(to_text(rule.get(name)))
    if found is None or found.ip.version != version:
        return "0.0.0.0/0" if version == 4 else "::/0"
    return f"{found.ip}/{min(found.bits & 0xFF, found.ip.max_prefixlen)}"


def _icmp_code(rule: Json, name: str) -> object:
    return None if rule.get(name) is None else to_int(rule[name], 0) & 0xFF


def _characteristics(rule: Json, name: str) -> object:
    value = rule.get(name)
    return f"{value if isinstance(value, int) else _hexadecimal(to_text(value)):016x}"


def _hexadecimal(text: str) -> int:
    digits = re.match("[0-9a-fA-F]+", text)
    return int(digits[0], 16) if digits else 0


_BYTE, _SHORT, _LONG = _number(8), _number(16), _number(32)
_TAG: dict[str, _Field] = {"id": _LONG, "value": _LONG}
_PORTS: dict[str, _Field] = {"start": _SHORT, "end": _end}
_FORWARD: dict[str, _Field] = {"address": _node, "flags": _LONG, "length": _SHORT}
_ACTIONS: dict[str, dict[str, _Field]] = {
    "ACTION_DROP": {},
    "ACTION_ACCEPT": {},
    "ACTION_BREAK": {},
    "ACTION_TEE": _FORWARD,
    "ACTION_WATCH": _FORWARD,
    "ACTION_REDIRECT": {"address": _node, "flags": _LONG},
}
_MATCHES: dict[str, dict[str, _Field]] = {
    "MATCH_SOURCE_ZEROTIER_ADDRESS": {"zt": _node},
    "MATCH_DEST_ZEROTIER_ADDRESS": {"zt": _node},
    "MATCH_VLAN_ID": {"vlanId": _SHORT},
    "MATCH_VLAN_PCP": {"vlanPcp": _BYTE},
    "MATCH_VLAN_DEI": {"vlanDei": _BYTE},
    "MATCH_MAC_SOURCE": {"mac": _mac},
    "MATCH_MAC_DEST": {"mac": _mac},
    "MATCH_IPV4_SOURCE": {"ip": _prefix},
    "MATCH_IPV4_DEST": {"ip": _prefix},
    "MATCH_IPV6_SOURCE": {"ip": _prefix},
    "MATCH_IPV6_DEST": {"ip": _prefix},
    "MATCH_IP_TOS": {"mask": _BYTE, "start": _BYTE, "end": _BYTE},
    "MATCH_IP_PROTOCOL": {"ipProtocol": _BYTE},
    "MATCH_ETHERTYPE": {"etherType": _SHORT},
    "MATCH_ICMP": {"icmpType": _BYTE, "icmpCode": _icmp_code},
    "MATCH_IP_SOURCE_PORT_RANGE": _PORTS,
    "MATCH_IP_DEST_PORT_RANGE": _PORTS,
    "MATCH_FRAME_SIZE_RANGE": _PORTS,
    "MATCH_CHARACTERISTICS": {"mask": _characteristics},
    "MATCH_RANDOM": {"probability": _LONG},
    "MATCH_TAGS_DIFFERENCE": _TAG,
    "MATCH_TAGS_BITWISE_AND": _TAG,
    "MATCH_TAGS_BITWISE_OR": _TAG,
    "MATCH_TAGS_BITWISE_XOR": _TAG,
    "MATCH_TAGS_EQUAL": _TAG,
    "MATCH_TAG_SENDER": _TAG,
    "MATCH_TAG_RECEIVER": _TAG,
}


def cleaned(rules: list[object]) -> list[Json]:
    """The rules it knows, each with the fields of its kind; the others are dropped without a word."""
    return [clean for rule in rules if (clean := _cleaned(rule)) is not None]


def _cleaned(rule: object) -> Json | None:
    if not isinstance(rule, dict):
        return None
    name = to_text(rule.get("type"))
    if name in _ACTIONS:
        return {"type": name, **{field: read(rule, field) for field, read in _ACTIONS[name].items()}}
    if name in _MATCHES:
        fields = {field: read(rule, field) for field, read in _MATCHES[name].items()}
        marks = {mark: to_bool(rule.get(mark), False) for mark in ("not", "or")}
        return {"type": name, **fields, **marks}
    return None
