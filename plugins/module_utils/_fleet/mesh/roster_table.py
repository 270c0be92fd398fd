# SPDX-License-Identifier: GPL-3.0-or-later
"""A roster as lines of text, for people.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..machines import Member
from ..text_table import aligned
from .entries import Act, Entry, Roster

_SIGNS = {
    Act.ADMIT: "+",
    Act.RENAME: "~",
    Act.REMOVE: "-",
    Act.DEAUTHORIZE: "!",
    Act.KNOCKING: "?",
    Act.KEEP: "=",
}

_WORDS = {
    Act.ADMIT: "to admit",
    Act.RENAME: "to rename",
    Act.REMOVE: "to remove",
    Act.DEAUTHORIZE: "to deauthorize",
    Act.KNOCKING: "knocking",
    Act.KEEP: "to keep",
}

_KEEPS_SHOWN = 50
"""More members that stay as they are than this are summed up in one line."""


def lines(
    roster: Roster,
    *,
    addresses: Mapping[str, str],
    simulated: bool = False,
) -> list[str]:
    """What is to be done with each member, and what the reader must settle or approve of.

    Args:
        addresses: by node id, its address in the mesh.
        simulated: the control plane is a sandbox.
    """
    counted = Counter(entry.act for entry in roster.entries)
    summary = ", ".join(f"{counted[act]} {_WORDS[act]}" for act in Act if counted[act])
    result = [f"Mesh of {roster.fleet}, network {roster.network_id}: {summary or 'no members'}."]
    if simulated:
        result.append("SIMULATED: the control plane is a sandbox; no node is let in or shut out.")
    keeps = [entry for entry in roster.entries if entry.act is Act.KEEP]
    shown = [entry for entry in roster.entries if entry.act is not Act.KEEP or len(keeps) <= _KEEPS_SHOWN]
    rows = [*_network_rows(roster), *_rows(shown, addresses)]
    if rows:
        result += ["", *aligned([["", "action", "machine", "node", "state", "address", "why"], *rows])]
    if len(shown) < len(roster.entries):
        result.append(f"  and {len(keeps)} as declared.")
    notes = [f"Warning: {text}." for text in roster.warnings]
    notes += [f"Problem: {error}" for error in roster.errors.values()]
    if roster.needs_approval:
        notes.append(f"This needs an approval. Its digest is {roster.digest}.")
    return [*result, *([""] if notes else []), *notes]


def _network_rows(roster: Roster) -> Iterable[list[str]]:
    changes = roster.network_json()
    if not changes:
        return
    said = "; ".join(
        f"{change['field']}: {_said(change['before'])} -> {_said(change['after'])}" for change in changes
    )
    action, sign = ("change", "~") if roster.network else ("create", "+")
    yield [sign, action, "(the network)", "", "", "", said]


def _rows(entries: Iterable[Entry], addresses: Mapping[str, str]) -> Iterable[list[str]]:
    for entry in entries:
        yield [
            _SIGNS[entry.act],
            str(entry.act),
            entry.machine or "-",
            entry.node_id or "-",
            _state(entry.member),
            addresses.get(entry.node_id or "") or "-",
            _why(entry),
        ]


def _state(member: Member | None) -> str:
    """How the member is now."""
    if member is None:
        return "-"
    if not member.authorized:
        return "unauthorized"
    return {True: "online", False: "offline", None: "authorized"}[member.online]


def _why(entry: Entry) -> str:
    if entry.act is not Act.RENAME:
        return entry.why
    named = f"name: {_said(entry.before.get('name') or None)} -> {_said(entry.after.get('name'))}"
    return f"{named} ({entry.why})"


def _said(value: Any) -> str:
    return {None: "none", True: "true", False: "false"}[value] if value in (None, True, False) else str(value)
