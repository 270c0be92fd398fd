# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's record of a member: what it is at first, and what a request makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .networks import LONGEST_LIST, trace_target
from .values import BadJson, Json, inet, kind, to_bool, to_int, to_text


def initialise(member: Json, now: int) -> None:
    """Fill in what a record has to have. There is no ``name`` until one is set, no ``identity`` until the node came."""
    defaults: Json = {
        "authorized": False,
        "ssoExempt": False,
        "ipAssignments": [],
        "activeBridge": False,
        "tags": [],
        "capabilities": [],
        "creationTime": now,
        "noAutoAssignIps": False,
        "revision": 0,
        "lastDeauthorizedTime": 0,
        "lastAuthorizedTime": 0,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedCredential": None,
        "authenticationExpiryTime": 0,
        "vMajor": -1,
        "vMinor": -1,
        "vRev": -1,
        "vProto": -1,
        "remoteTraceTarget": None,
    }
    for name, value in defaults.items():
        member.setdefault(name, value)
    # Misspelt in the daemon as it is for networks.
    member |= {"remoteTraceLevel": 0, "objtype": "member"}


def update(member: Json, given: Any, now: int) -> None:
    """Take over what a request says.

    Raises:
        BadJson: an address that is no text.
    """
    if not isinstance(given, dict):
        return
    for name, read in _FIELDS.items():
        if name in given and (value := read(given[name])) is not _IGNORED:
            member[name] = value
    if "authorized" in given:
        _authorise(member, to_bool(given["authorized"], False), now)


def _authorise(member: Json, wanted: bool, now: int) -> None:
    if wanted == member["authorized"]:
        return
    member["authorized"] = wanted
    if wanted:
        member |= {
            "lastAuthorizedTime": now,
            "lastAuthorizedCredentialType": "api",
            "lastAuthorizedCredential": None,
        }
    else:
        member["lastDeauthorizedTime"] = now


_IGNORED = object()


def _addresses(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    for text in value:
        if not isinstance(text, str):
            raise BadJson(f"[json.exception.type_error.302] type must be string, but is {kind(text)}")
    return [str(address.ip) for text in value if (address := inet(text))][:LONGEST_LIST]


def _tags(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
    found = {to_int(pair[0], 0) & 0xFFFFFFFF: to_int(pair[1], 0) & 0xFFFFFFFF for pair in pairs}
    return [[number, found[number]] for number in sorted(found)][:LONGEST_LIST]


def _capabilities(value: object) -> object:
    if not isinstance(value, list):
        return _IGNORED
    return sorted({to_int(number, 0) for number in value[:LONGEST_LIST]})


_FIELDS: dict[str, Callable[[Any], object]] = {
    "activeBridge": lambda value: to_bool(value, False),
    "noAutoAssignIps": lambda value: to_bool(value, False),
    "authenticationExpiryTime": lambda value: to_int(value, 0),
    "name": to_text,
    "remoteTraceTarget": trace_target,
    "remoteTraceLevel": lambda value: to_int(value, 0),
    "ipAssignments": _addresses,
    "tags": _tags,
    "capabilities": _capabilities,
}
