# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and members as JSON: the words that a controller of one's own and Central v1 share. Pure.

Central puts most of them one level down, under ``config``; which, its own file knows.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..addresses import NODE_DIGITS
from . import rules
from .networks import Changes, Dns, Network, Pool, Route, address_text, in_order, plain, prefix_text

Json = dict[str, Any]

DEFAULT_MTU = 2800
DEFAULT_MULTICAST_LIMIT = 32

_V6_MODES = {"v6_auto": "zt", "rfc4193": "rfc4193", "sixplane": "6plane"}

_NETWORK_NAMES = {
    "name": "name",
    "private": "private",
    "mtu": "mtu",
    "multicast_limit": "multicastLimit",
    "broadcast": "enableBroadcast",
    "dns": "dns",
    "rules": "rules",
}
_MEMBER_NAMES = {
    "name": "name",
    "authorized": "authorized",
    "active_bridge": "activeBridge",
    "no_auto_assign": "noAutoAssignIps",
    "addresses": "ipAssignments",
    "tags": "tags",
}


def network_from(record: Mapping[str, Any], network_id: str) -> Network:
    """A network in our words.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has not the shape of one.
    """
    v4, v6 = record.get("v4AssignMode") or {}, record.get("v6AssignMode") or {}
    return Network(
        id=network_id,
        name=record.get("name") or "",
        private=flag(record, "private"),
        routes=routes_from(record.get("routes")),
        pools=pools_from(record.get("ipAssignmentPools")),
        v4_auto=v4.get("zt") is True,
        v6_auto=v6.get("zt") is True,
        rfc4193=v6.get("rfc4193") is True,
        sixplane=v6.get("6plane") is True,
        mtu=int(record.get("mtu") or DEFAULT_MTU),
        multicast_limit=int(record.get("multicastLimit", DEFAULT_MULTICAST_LIMIT)),
        broadcast=record.get("enableBroadcast") is not False,
        dns=dns_from(record.get("dns")),
        rules=tuple(rules.normalised(rule) for rule in record.get("rules") or ()),
        revision=record.get("revision"),
    )


def flag(record: Mapping[str, Any], name: str) -> bool:
    """A true or false that must be there: whether a network is private is nothing to guess.

    Raises:
        KeyError, TypeError: it is not.
    """
    value = record[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is not true or false")
    return value


def routes_from(records: Iterable[Mapping[str, Any]] | None) -> tuple[Route, ...]:
    """Routes in normal order."""
    return in_order(
        Route(prefix_text(record["target"]), address_text(record["via"]) if record.get("via") else None)
        for record in records or ()
    )


def pools_from(records: Iterable[Mapping[str, Any]] | None) -> tuple[Pool, ...]:
    """Pools in normal order."""
    return in_order(
        Pool(address_text(record["ipRangeStart"]), address_text(record["ipRangeEnd"]))
        for record in records or ()
    )


def dns_from(record: Any) -> Dns:
    """DNS; a controller has an empty list until it was set once, and an object with null after it was taken away."""
    if not record:
        return Dns()
    return Dns(record.get("domain") or "", tuple(address_text(text) for text in record.get("servers") or ()))


def network_body(left: Changes, current: Network | None) -> Json:
    """What to send so that a network changes in these fields, by the names of the API.

    The two modes are always sent whole, for each replaces what is there: what one of them does not name, vanishes.
    """
    after = {name: value for name, (_before, value) in left.items()}
    body = {_NETWORK_NAMES[name]: plain(value) for name, value in after.items() if name in _NETWORK_NAMES}
    if "routes" in after:
        body["routes"] = [{"target": route.target, "via": route.via} for route in after["routes"]]
    if "pools" in after:
        body["ipAssignmentPools"] = [pool_body(pool) for pool in after["pools"]]
    if "v4_auto" in after:
        body["v4AssignMode"] = {"zt": after["v4_auto"]}
    if not after.keys().isdisjoint(_V6_MODES):
        body["v6AssignMode"] = v6_mode(after, current)
    return body


def pool_body(pool: Pool) -> Json:
    """A pool by the names of the API."""
    return {"ipRangeStart": pool.start, "ipRangeEnd": pool.end}


def v6_mode(after: Mapping[str, Any], current: Network | None) -> dict[str, bool]:
    """The whole of it: what changes, and what stays."""
    return {
        word: bool(after.get(name, getattr(current, name) if current else False))
        for name, word in _V6_MODES.items()
    }


def member_body(after: Mapping[str, Any]) -> Json:
    """What to send so that a member has these values, by the names of the API."""
    return {_MEMBER_NAMES[name]: plain(value) for name, value in after.items()}


def member_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a member that are called the same by both, as arguments of :class:`~..machines.Member`."""
    return {
        "authorized": record.get("authorized") is True,
        "addresses": tuple(address_text(text) for text in record.get("ipAssignments") or ()),
        "active_bridge": record.get("activeBridge") is True,
        "no_auto_assign": record.get("noAutoAssignIps") is True,
        "tags": tuple(sorted((int(tag), int(value)) for tag, value in record.get("tags") or ())),
        "identity": record.get("identity") or None,
    }


def node_from(text: str) -> str:
    """A node id in lower case: a controller keeps one as somebody wrote it.

    Raises:
        ValueError: it is not one.
    """
    node_id = text.lower()
    if len(node_id) != NODE_DIGITS or not set(node_id) <= set("0123456789abcdef"):
        raise ValueError("not a node id")
    return node_id


def version(text: str | None) -> str | None:
    """A version of zerotier-one; None for what Central says of a node it never saw."""
    bare = (text or "").removeprefix("v")
    return bare if bare[:1].isdigit() and bare != "0.0.0" else None


def moment(milliseconds: float) -> str:
    """Milliseconds since 1970 as RFC 3339."""
    when = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
