# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh as it is: every member with its state, and the latency that was just measured, as data and as lines of text.

Pure. Works on the variables of hosts as the inventory leaves them, and on what the measuring hosts said.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..text_table import aligned
from . import durations
from .watch_table import milliseconds

Variables = Mapping[str, Mapping[str, Any]]

MEASURED = "__mesh_watch_measured"
"""The variable in which the role mesh_watch keeps what a host measured."""

WIDEST = 24
"""More columns than this are no table any more, but one line a machine."""

_EXTERNAL = "external"
_KNOCKING = "knocking"
_ADMITTED = "ADMITTED, undeclared"
_SIMULATED = (
    "SIMULATED machines are in a sandbox, where all share one computer: no latency measured there is real."
)


def peers(variables: Variables, hosts: Iterable[str], *, external: bool = True) -> dict[str, str]:
    """The mesh addresses of members that should answer, by name.

    Args:
        hosts: of those, declared machines.
        external: those that Ansible never configures as well.
    """
    named = list(hosts)
    known = _members_known(variables, named)
    result = {}
    for host in named:
        its = variables[host]
        member = its.get("fleet_mesh_member")
        if not its.get("fleet_mesh_ip") or (its.get("fleet_provider") == _EXTERNAL and not external):
            continue
        # Where the control plane told nothing of anybody, everybody may be a member.
        if member["authorized"] if member else not known:
            result[host] = str(its["fleet_mesh_ip"])
    return result


def status(
    variables: Variables, declared: Sequence[str], undeclared: Sequence[str], now: datetime
) -> dict[str, Any]:
    """All that is known of the mesh, as plain data.

    Args:
        declared: machines of the fleet file.
        undeclared: hosts that stand for members nobody declared.
        now: the time, for ages.
    """
    known = _members_known(variables, (*declared, *undeclared))
    members = [_member(host, variables[host], known, now) for host in declared]
    strangers = [_member(host, variables[host], known, now, declared=False) for host in undeclared]
    members += sorted(strangers, key=lambda one: not one["authorized"])
    mesh: Mapping[str, Any] = next(
        (variables[host]["fleet_mesh"] for host in declared if variables[host].get("fleet_mesh")), {}
    )
    shown = [member for member in members if member["state"] != "disabled"]
    measured, unmeasured = _measured(variables, declared)
    return {
        "fleet": next((str(variables[host].get("fleet_name", "")) for host in declared), ""),
        "network": mesh.get("network"),
        "controller": mesh.get("controller"),
        "addressing": mesh.get("addressing"),
        "domain": mesh.get("domain"),
        "time": _rfc3339(now),
        "simulated": any(member["simulated"] for member in shown),
        "members": shown,
        "latency": measured,
        "unmeasured": unmeasured,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What :func:`status` found, for people."""
    if not found["network"]:
        return ["The fleet file declares no mesh."]
    members: Sequence[Mapping[str, Any]] = found["members"]
    counted = Counter(member["state"].removeprefix("external, ") for member in members)
    summary = ", ".join(f"{count} {state.replace(', ', ' and ')}" for state, count in counted.items())
    result = [
        f"Mesh {found['network']} of {found['fleet']}, controlled by {found['controller']}, addresses {found['addressing']}: {summary or 'no members'}."
    ]
    if found["simulated"]:
        result.append(_SIMULATED)
    if not members:
        return result
    rows = [
        [
            "machine",
            "node",
            "address",
            "state",
            "version",
            "physical address",
            "last seen",
            "ms to controller",
        ]
    ]
    rows += [
        [
            f"{member['name']} (SIMULATED)" if member["simulated"] else str(member["name"]),
            *(str(member[field] or "-") for field in ("node_id", "address", "state", "version", "physical_address")),
            _age(member["last_seen_seconds"]),
            _milliseconds(member["latency_ms"]),
        ]
        for member in members
    ]  # fmt: skip
    result += ["", *aligned(rows, right=(6, 7))]
    result += _latency(found)
    return result


def _members_known(variables: Variables, hosts: Iterable[str]) -> bool:
    """Whether the control plane told who its members are, if only that it has none."""
    return any(
        variables[host].get("fleet_mesh_member")
        or (variables[host].get("fleet_mesh") or {}).get("members_known")
        for host in hosts
    )


def _member(
    host: str, its: Mapping[str, Any], known: bool, now: datetime, *, declared: bool = True
) -> dict[str, Any]:
    member: Mapping[str, Any] = its.get("fleet_mesh_member") or {}
    external = its.get("fleet_provider") == _EXTERNAL
    enabled = bool((its.get("fleet_machine") or {}).get("enabled", True))
    seen = _time(member.get("last_seen"))
    return {
        "name": host,
        "declared": declared,
        "external": external,
        "enabled": enabled,
        "simulated": bool(its.get("fleet_simulated")) or bool(member.get("simulated")),
        "node_id": its.get("fleet_mesh_node_id"),
        "mesh_name": (its.get("fleet_mesh") or {}).get("name"),
        "address": its.get("fleet_mesh_ip"),
        "state": _state(member, known=known, declared=declared, external=external, enabled=enabled),
        "authorized": member.get("authorized"),
        "online": member.get("online"),
        "version": member.get("version"),
        "physical_address": member.get("physical_address"),
        "last_seen": member.get("last_seen"),
        "last_seen_seconds": None if seen is None else max(0, round((now - seen).total_seconds())),
        "latency_ms": member.get("latency_ms"),
    }


def _state(member: Mapping[str, Any], *, known: bool, declared: bool, external: bool, enabled: bool) -> str:
    """A member's state in a word or two."""
    if not declared:
        return _ADMITTED if member.get("authorized") else _KNOCKING
    if not member:
        word = "disabled" if not enabled else "not a member" if known else "unknown"
    elif not member["authorized"]:
        word = "unauthorized"
    else:
        word = {True: "online", False: "offline", None: "authorized"}[member.get("online")]
    if word == "disabled":
        return word
    if not enabled:
        word = f"{word}, disabled"
    return f"external, {word}" if external else word


def _measured(variables: Variables, hosts: Iterable[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the hosts measured, and why the others did not."""
    known = list(hosts)
    measured: dict[str, dict[str, Any]] = {}
    unmeasured: dict[str, str] = {}
    for host in known:
        result = variables[host].get(MEASURED)
        if not isinstance(result, Mapping) or result.get("skipped"):
            continue
        if result.get("unreachable"):
            unmeasured[host] = "does not answer to Ansible"
            continue
        try:
            said = json.loads(result.get("stdout") or "")
            if "problem" in said:
                unmeasured[host] = _printable(str(said["problem"]))
            else:
                answers = said["peers"]
                measured[host] = {peer: _answer(answers[peer]) for peer in known if peer in answers}
        except (ValueError, KeyError, TypeError, AttributeError):
            said_so = str(result.get("stderr") or result.get("msg") or "").strip().splitlines()
            unmeasured[host] = _printable(said_so[-1]) if said_so else "gave no answer that could be read"
    return measured, unmeasured


def _answer(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a host says of one peer, checked: it may not be ours any more."""
    answers = int(said["answers"])
    if answers <= 0:
        return {
            "answers": 0,
            "median_ms": None,
            "min_ms": None,
            "max_ms": None,
            "says": str(said.get("says", "")),
        }
    figures = {f"{name}_ms": float(said[name]) for name in ("median", "min", "max")}
    return {"answers": answers, **figures, "says": ""}


def _latency(found: Mapping[str, Any]) -> list[str]:
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]] = found["latency"]
    result: list[str] = []
    if measured:
        targets = list(
            dict.fromkeys([*measured, *(peer for answers in measured.values() for peer in answers)])
        )
        heading = "Round trips in ms, measured now, the median of three, from the row to the column; - is no answer:"
        result += ["", heading]
        result += _matrix(measured, targets) if len(targets) <= WIDEST else _summaries(measured)
    for host, why in found["unmeasured"].items():
        result += [*([""] if not result else []), f"Nothing measured from {host}: {why}"]
    return result


def _matrix(measured: Mapping[str, Mapping[str, Mapping[str, Any]]], targets: Sequence[str]) -> list[str]:
    rows = [["", *targets]]
    for host, answers in measured.items():
        rows.append([host, *(_cell(host, target, answers) for target in targets)])
    return aligned(rows, right=range(1, len(targets) + 1))


def _cell(host: str, target: str, answers: Mapping[str, Mapping[str, Any]]) -> str:
    if target == host:
        return "."
    return milliseconds(answers[target]["median_ms"]) if target in answers else ""


def _summaries(measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    rows = [["from", "to", "answer", "nearest", "median", "farthest", "no answer from"]]
    for host, answers in measured.items():
        reached = sorted(
            answer["median_ms"] for answer in answers.values() if answer["median_ms"] is not None
        )
        silent = [peer for peer, answer in answers.items() if answer["median_ms"] is None]
        middle = reached[len(reached) // 2] if reached else None
        shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
        rows.append(
            [
                host,
                str(len(answers)),
                str(len(reached)),
                milliseconds(reached[0] if reached else None),
                milliseconds(middle),
                milliseconds(reached[-1] if reached else None),
                shown or "-",
            ]
        )
    return aligned(rows, right=range(1, 6))


def _printable(text: str) -> str:
    """What a machine said, without what would drive a terminal."""
    return "".join(letter for letter in text[:200] if letter.isprintable())


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else durations.words(seconds)


def _milliseconds(value: Any) -> str:
    return milliseconds(float(value)) if isinstance(value, (int, float)) else "-"
