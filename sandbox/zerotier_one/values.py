# SPDX-License-Identifier: GPL-3.0-or-later
"""How the daemon reads JSON: whatever comes is turned into what it wants, and nothing is an error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Json = dict[str, Any]
_MASK = 0xFFFFFFFFFFFFFFFF


class BadJson(Exception):
    """What the JSON library of the daemon throws; the text is its own."""


def dump(value: object) -> str:
    """JSON as the daemon writes it: keys sorted, no spaces, text as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def parse(body: bytes) -> Any:
    """The JSON of a request.

    Raises:
        BadJson: it is none. The text quotes the request unescaped.
    """
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError as error:
        if not text.strip():
            what = "value - unexpected end of input; expected '[', '{', or a literal"
            raise BadJson(
                f"[json.exception.parse_error.101] parse error at line 1, column 1: syntax error while parsing {what}"
            ) from error
        place = error.pos if isinstance(error, json.JSONDecodeError) else 0
        read = text[: place + 1]
        raise BadJson(
            f"[json.exception.parse_error.101] parse error at line {read.count(chr(10)) + 1}, column {place + 1}: "
            f"syntax error while parsing value - invalid literal; last read: '{read[-40:]}'"
        ) from error


def to_bool(value: object, default: bool) -> bool:
    """Of text, only what begins with t, T or 1 is true."""
    match value:
        case bool():
            return value
        case int() | float():
            return value > 0
        case str():
            return value[:1] in ("t", "T", "1")
        case _:
            return default


def to_int(value: object, default: int) -> int:
    """An unsigned number of 64 bits; of text, its leading digits."""
    match value:
        case bool():
            return int(value)
        case int() | float():
            return int(value) & _MASK
        case str():
            digits = re.match(r"\s*(\d+)", value)
            return int(digits[1]) & _MASK if digits else 0
        case _:
            return default


def to_text(value: object, default: str = "") -> str:
    """Numbers as their digits."""
    match value:
        case bool():
            return "1" if value else "0"
        case int() | float():
            return str(int(value) & _MASK)
        case str():
            return value
        case _:
            return default


def kind(value: object) -> str:
    """The JSON library's name of a value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


@dataclass(frozen=True, slots=True)
class Inet:
    """An address with the number after its slash, which is a port or a prefix length; 0 where there is none."""

    ip: IPv4Address | IPv6Address
    bits: int = 0

    @property
    def is_prefix(self) -> bool:
        """Whether the number can be a prefix length."""
        return self.bits <= self.ip.max_prefixlen

    def holds(self, other: IPv4Address | IPv6Address) -> bool:
        """Whether the other is in this prefix."""
        return self.ip.version == other.version and other in ip_network((self.ip, self.bits), strict=False)

    def __str__(self) -> str:
        return f"{self.ip}/{self.bits}"


def inet(text: str) -> Inet | None:
    """An address as the daemon reads it: what looks like one and is none becomes all zero."""
    address, _, number = text.partition("/")
    digits = re.match(r"\d+", number)
    bits = int(digits[0]) & 0xFFFF if digits else 0
    if ":" in address:
        family: type[IPv4Address | IPv6Address] = IPv6Address
    elif "." in address:
        family = IPv4Address
    else:
        return None
    try:
        return Inet(family(address), bits)
    except ValueError:
        return Inet(family(0), bits)


def is_global(address: str) -> bool:
    """Whether an address or prefix is of the internet's own, which a node takes only where ``allowGlobal`` is on."""
    ip = ip_address(address.partition("/")[0])
    if isinstance(ip, IPv6Address) and ip in IPv6Network("fc00::/7"):
        return False
    return ip.is_global
