# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of a roster: what is to be done with each member of the mesh, and whether that is allowed.

Pure data. :mod:`roster` makes rosters, :mod:`converge` carries them out.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ApprovalRequired, FleetError
from ..machines import Member
from . import networks as network_rules
from .members import MemberWish
from .networks import Network, NetworkWish


class Act(enum.StrEnum):
    """What is to be done with a member."""

    ADMIT = "admit"
    RENAME = "rename"
    REMOVE = "remove"
    DEAUTHORIZE = "deauthorize"
    KNOCKING = "knocking"
    KEEP = "keep"


ACTING = frozenset({Act.ADMIT, Act.RENAME, Act.REMOVE, Act.DEAUTHORIZE})
"""What touches the control plane."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member, or one machine that is none yet.

    Attributes:
        act: what is to be done; ``keep`` and ``knocking`` touch nothing.
        machine: the declared machine; for others the name the member has.
        declared: it is a machine of the fleet file.
        node_id: the node; None for a machine whose node is not known.
        why: one sentence without a full stop, for the reader.
        before, after: what differs, by field; plain JSON data.
        member: as the control plane has it, if it does.
        error: what the reader must settle before this machine can be as declared.
    """

    act: Act
    machine: str
    declared: bool
    node_id: str | None
    why: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    member: Member | None = None
    error: FleetError | None = None

    @property
    def acts(self) -> bool:
        """Carrying it out touches the control plane."""
        return self.act in ACTING

    @property
    def wish(self) -> MemberWish | None:
        """What the member shall be, where it is to stay."""
        if self.node_id is None or self.act not in (Act.ADMIT, Act.RENAME, Act.DEAUTHORIZE):
            return None
        if self.act is Act.DEAUTHORIZE:
            return MemberWish(self.node_id, authorized=False)
        return MemberWish(self.node_id, name=self.machine, authorized=True)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "action": str(self.act),
            "machine": self.machine,
            "declared": self.declared,
            "node_id": self.node_id,
            "why": self.why,
            "before": dict(self.before),
            "after": dict(self.after),
            "failure": self.error.as_failure() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Roster:
    """All that is to be done about one network.

    Attributes:
        entries: machines in the order of the fleet file, then what is not declared.
        network: as it is; None if it does not exist.
        wish: what the network shall be.
        warnings: what the reader should know besides, one sentence each.
    """

    fleet: str
    network_id: str
    entries: tuple[Entry, ...]
    network: Network | None
    wish: NetworkWish
    warnings: tuple[str, ...] = ()

    @property
    def acting(self) -> tuple[Entry, ...]:
        """What touches the control plane."""
        return tuple(entry for entry in self.entries if entry.acts)

    @property
    def network_changes(self) -> network_rules.Changes:
        """What differs of the network itself, by field."""
        return network_rules.changes(self.network, self.wish)

    @property
    def differs(self) -> bool:
        """Carrying it out touches the control plane."""
        return bool(self.acting or self.network_changes)

    @property
    def errors(self) -> dict[str, FleetError]:
        """What must be settled by the reader, by machine."""
        return {entry.machine: entry.error for entry in self.entries if entry.error}

    @property
    def needs_approval(self) -> bool:
        """It would shut somebody out that the fleet file never mentioned."""
        return any(entry.act is Act.DEAUTHORIZE for entry in self.entries)

    @property
    def digest(self) -> str:
        """What would be done, in 16 hexadecimal digits; an approval is given for these."""
        parts = sorted(
            json.dumps([entry.act, entry.machine, entry.node_id, dict(entry.after)], sort_keys=True)
            for entry in self.acting
        )
        parts.append(json.dumps(_plain(self.network_changes), sort_keys=True))
        return hashlib.sha256("\n".join([self.fleet, self.network_id, *parts]).encode()).hexdigest()[:16]

    def check_approval(self, *, approve: bool, approved_digest: str | None) -> None:
        """Refuse to shut out what nobody has approved.

        Raises:
            ApprovalRequired: with what would be done.
        """
        if approve or not self.needs_approval or approved_digest == self.digest:
            return
        what = ", ".join(
            f"deauthorize {called(entry.node_id or '', entry.machine)}"
            for entry in self.entries
            if entry.act is Act.DEAUTHORIZE
        )
        if approved_digest:
            raise ApprovalRequired(
                f"what is to be done is no longer what was approved ({approved_digest}); it would now {what}",
                hint="Look at it again and approve it",
            )
        raise ApprovalRequired(
            f"applying would {what}, which the fleet file does not declare",
            hint="Declare them (provider: external, with their node_id), or approve: answer the question with yes, "
            "or set fleet_auto_approve: true",
        )

    def network_json(self) -> list[dict[str, Any]]:
        """What differs of the network, as plain data."""
        return [
            {"field": name, "before": before, "after": after}
            for name, (before, after) in _plain(self.network_changes).items()
        ]


def called(node_id: str, name: str) -> str:
    """A member for the reader: nodes have no other name of their own than their id."""
    return f"{name} ({node_id})" if name else node_id


def _plain(changes: network_rules.Changes) -> dict[str, tuple[Any, Any]]:
    return {
        name: (network_rules.plain(before), network_rules.plain(after))
        for name, (before, after) in changes.items()
    }
