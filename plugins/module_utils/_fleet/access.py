# SPDX-License-Identifier: GPL-3.0-or-later
"""Words for who may reach a fleet's machines: how a cloud's firewalls and SSH keys differ from what is declared.

Pure data. Providers say what differs, :mod:`access_rules` asks them and carries it out.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import FleetError

if TYPE_CHECKING:
    from .spec import MachineBase


@dataclass(frozen=True, slots=True)
class AccessChange:
    """One firewall, rule or key that is not as it should be.

    Attributes:
        action: ``create``, ``change`` or ``delete``.
        what: the object, as in ``firewall gpumesh-minerals``.
        before, after: what differs, by words such as ``SSH from``.
    """

    action: str
    what: str
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def between(cls, what: str, before: Mapping[str, str], after: Mapping[str, str]) -> AccessChange:
        """A change of an object, with those words only that differ."""
        differ = {word for word in {**before, **after} if before.get(word) != after.get(word)}
        return cls(
            "change",
            what,
            {word: said for word, said in before.items() if word in differ},
            {word: said for word, said in after.items() if word in differ},
        )

    @property
    def text(self) -> str:
        """The change in one line, for people."""
        if self.action == "delete":
            return f"{self.what}: no machine of the fleet needs it"
        parts = [
            f"{word} {self.before.get(word, 'none')} -> {self.after.get(word, 'none')}"
            if self.action == "change"
            else f"{word} {self.after[word]}"
            for word in {**self.before, **self.after}
        ]
        return f"{self.what}: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "action": self.action,
            "what": self.what,
            "before": dict(self.before),
            "after": dict(self.after),
        }


@dataclass(frozen=True, slots=True)
class Access:
    """What a cloud says of a fleet's access.

    Attributes:
        changes: what differs from what is declared, in a fixed order.
        notes: what the user should know besides, one sentence each.
    """

    changes: tuple[AccessChange, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudAccess:
    """The access of a fleet in one cloud, as a plan has it.

    Attributes:
        machines: those declared there that exist or are to exist; none: what lets people in is to go.
        found: what the cloud said; None if it could not be asked.
        error: why it could not.
    """

    provider: str
    machines: tuple[MachineBase, ...]
    found: Access | None = None
    error: FleetError | None = None

    @property
    def changes(self) -> tuple[AccessChange, ...]:
        """What differs, as far as is known."""
        return self.found.changes if self.found else ()


@dataclass(frozen=True, slots=True)
class AccessOutcome:
    """What came of it in one cloud.

    Attributes:
        status: ``ok``, ``failed``, ``would``, ``skipped`` (machines that were to go are still there), or ``left`` (the
            cloud holds it to be in use still; the next run removes it).
    """

    provider: str
    status: str
    changes: tuple[AccessChange, ...] = ()
    notes: tuple[str, ...] = ()
    error: FleetError | None = None

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data for a module's result, one entry for each object."""
        failure = self.error.as_failure() if self.error else None
        return [
            {"provider": self.provider, **change.to_json(), "status": self.status, "failure": failure}
            for change in self.changes
        ]
