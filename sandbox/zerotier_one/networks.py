# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's record of a network: what it is at first, and what a request makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .rules import cleaned
from .values import Json, inet, to_bool, to_int, to_text

MTU, LEAST_MTU, MOST_MTU = 2800, 1280, 10000
LONGEST_LIST = 16384
"""Longer lists are cut."""


def initialise(network: Json) -> None:
    """Fill in what a record has to have.

    The level of tracing is set to 0 each time: the daemon looks for it under a misspelt name.
    """
    defaults: Json = {
        "private": True,
        "name": "",
        "multicastLimit": 32,
        "enableBroadcast": True,
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"rfc4193": False, "zt": False, "6plane": False},
        "authTokens": [None],
        "capabilities": [],
        "tags": [],
        "routes": [],
        "ipAssignmentPools": [],
        "mtu": MTU,
        "remoteTraceTarget": None,
        "rulesSource": "",
        "rules": [{"not": False, "or": False, "type": "ACTION_ACCEPT"}],
        "dns": [],
        "ssoEnabled": False,
        "clientId": "",
        "authorizationEndpoint": "",
    }
    for name, value in defaults.items():
        network.setdefault(name, value)
    network |= {"remoteTraceLevel": 0, "objtype": "network"}


def update(network: Json, given: Any) -> None:
    """Take over what a request says; what cannot be read is dropped or ignored, and nothing is an error."""
    if not isinstance(given, dict):
        return
    for name, read in _FIELDS.items():
        if name in given and (value := read(given[name])) is not _IGNORED:
            network[name] = value


_IGNORED = object()


def trace_target(value: object) -> object:
    """A node id, or nothing."""
    text = to_text(value)
    return text if len(text) == 10 else None


def _mtu(value: object) -> object:
    return max(min(to_int(value, MTU), MOST_MTU), LEAST_MTU)


def _v4_mode(value: object) -> object:
    if isinstance(value, str):
        return {"zt": value == "zt"}
    return {"zt": to_bool(value.get("zt"), False) if isinstance(value, dict) else False}


def _v6_mode(value: object) -> object:
    """The whole of it, so that a mode not given is gone."""
    modes = ("rfc4193", "zt", "6plane")
    if isinstance(value, dict):
        return {mode: to_bool(value[mode], False) for mode in modes if mode in value}
    named = value.split(",") if isinstance(value, str) else []
    return {mode: mode in named for mode in modes}


def _routes(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    routes: list[Json] = []
    for route in value:
        if not isinstance(route, dict) or not isinstance(route.get("target"), str):
            continue
        target = inet(route["target"])
        if not target or not target.is_prefix:
            continue
        via = inet(route["via"]) if isinstance(route.get("via"), str) else None
        same = via is not None and via.ip.version == target.ip.version
        routes.append({"target": str(target), "via": str(via.ip) if via and same else None})
    return routes[:LONGEST_LIST]


def _pools(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    pools: list[Json] = []
    for pool in value:
        if not isinstance(pool, dict) or not {"ipRangeStart", "ipRangeEnd"} <= set(pool):
            continue
        first, last = inet(to_text(pool["ipRangeStart"])), inet(to_text(pool["ipRangeEnd"]))
        if first and last and first.ip.version == last.ip.version:
            pools.append({"ipRangeStart": str(first.ip), "ipRangeEnd": str(last.ip)})
    return pools[:LONGEST_LIST]


def _rules(value: object) -> object:
    return cleaned(value)[:LONGEST_LIST] if isinstance(value, list) else _IGNORED


def _auth_tokens(value: object) -> object:
    if not isinstance(value, dict):
        return [None]
    kept = {name: until for name, until in value.items() if type(until) in (int, float) and until >= 0}
    return kept or None


def _capabilities(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    found: dict[int, Json] = {}
    for capability in value:
        if isinstance(capability, dict):
            number, rules = to_int(capability.get("id"), 0), capability.get("rules")
            found[number] = {
                "id": number,
                "default": to_bool(capability.get("default"), False),
                "rules": cleaned(rules)[:LONGEST_LIST] if isinstance(rules, list) else [],
            }
    return [found[number] for number in sorted(found)][:LONGEST_LIST]


def _tags(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    found: dict[int, Json] = {}
    for tag in value:
        if isinstance(tag, dict):
            number, default = to_int(tag.get("id"), 0), tag.get("default")
            found[number] = {"id": number, "default": None if default is None else to_int(default, 0)}
    return [found[number] for number in sorted(found)][:LONGEST_LIST]


def _dns(value: object) -> object:
    if not isinstance(value, dict):
        return _IGNORED
    dns: Json = {"domain": value.get("domain")}
    if isinstance(value.get("servers"), list):
        dns["servers"] = value["servers"]
    return dns


_FIELDS: dict[str, Callable[[Any], object]] = {
    "name": to_text,
    "private": lambda value: to_bool(value, True),
    "enableBroadcast": lambda value: to_bool(value, False),
    "multicastLimit": lambda value: to_int(value, 32),
    "mtu": _mtu,
    "remoteTraceTarget": trace_target,
    "remoteTraceLevel": lambda value: to_int(value, 0),
    "v4AssignMode": _v4_mode,
    "v6AssignMode": _v6_mode,
    "routes": _routes,
    "ipAssignmentPools": _pools,
    "rules": _rules,
    "authTokens": _auth_tokens,
    "capabilities": _capabilities,
    "tags": _tags,
    "dns": _dns,
}
