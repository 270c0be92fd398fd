# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a roster out: the network first, then its members, many at once; every outcome reported, none lost.

A member is written by one thread and in one go, for a controller that is asked for two changes of one member at the same
time loses one of them. Whoever must not take part is shut out before anybody is let in. Once the control plane refuses
our credential or no longer answers, it is asked nothing more: what was not begun is reported as skipped, and the next
run goes on from there.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..errors import AuthError, FleetError, Forbidden, NotFound, RateLimited, Unavailable, failure_of
from ..machines import Member
from .base import ControlPlane
from .entries import Act, Entry, Roster
from .networks import Network

_GO_ON = "Run the same command again once it answers: it goes on from what is there"

NETWORK = "network"
"""In place of an action: what came of the network itself."""

WORKERS = 8
"""How many members are written at once."""

_SHUTTING_OUT = frozenset({Act.REMOVE, Act.DEAUTHORIZE})
_FATAL = (AuthError, Forbidden, NotFound, RateLimited, Unavailable)
"""What the next member would meet as well. A member is made where there is none, so what is not found is the network."""
"""What the next member would meet as well; a member is written where there is none, so what is not found is the network."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one entry that acts, or of the network.

    Attributes:
        action: what was to be done.
        status: ``ok``, ``failed``, ``skipped`` (something that all need failed before), or ``would``.
        member: as the control plane answered afterwards; None once it is removed.
    """

    action: str
    machine: str
    declared: bool
    node_id: str | None
    status: str
    member: Member | None = None
    error: FleetError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "action": self.action,
            "machine": self.machine,
            "node_id": self.node_id,
            "status": self.status,
            "failure": self.error.as_failure() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a roster.

    Attributes:
        outcomes: of the network, where it differed, and of each entry that acts, in the order of the roster.
        network: as it is afterwards.
        members: every member that is known afterwards.
        broken: why the control plane was not asked any further.
    """

    outcomes: tuple[Outcome, ...]
    network: Network | None
    members: tuple[Member, ...]
    broken: FleetError | None = None

    @property
    def errors(self) -> tuple[FleetError, ...]:
        """All that went wrong; what kept the control plane from being asked is told once, however many it met."""
        single = [
            o.error for o in self.outcomes if o.error and not (self.broken and isinstance(o.error, _FATAL))
        ]
        return (*single, *((self.broken,) if self.broken else ()))


def would(roster: Roster) -> tuple[Outcome, ...]:
    """What applying the roster would do, in the form :func:`apply` reports it."""
    network = [Outcome(NETWORK, "", True, None, "would")] if roster.network_changes else []
    return (*network, *(_outcome(entry, "would", member=entry.member) for entry in roster.acting))


def apply(
    roster: Roster, plane: ControlPlane, members: tuple[Member, ...], *, workers: int = WORKERS
) -> Result:
    """Carry out everything in the roster that acts.

    Args:
        roster: what to do; approved, which is for the caller to check.
        plane: connected, and asked for what the roster was made from.
        members: what it answered.
        workers: how many members may be written at once.
    """
    return _Crew(roster, plane, members, workers).result()


class _Crew:
    """One apply."""

    def __init__(
        self, roster: Roster, plane: ControlPlane, members: tuple[Member, ...], workers: int
    ) -> None:
        self._roster = roster
        self._plane = plane
        self._members = {member.node_id: member for member in members}
        self._workers = workers
        self._broken: FleetError | None = None

    def result(self) -> Result:
        network, first = self._network()
        outcomes: dict[int, Outcome] = {}
        if not first or first.status == "ok":
            for shuts_out in (True, False):
                outcomes |= self._all(
                    {
                        index: entry
                        for index, entry in enumerate(self._roster.acting)
                        if (entry.act in _SHUTTING_OUT) is shuts_out
                    }
                )
        for index, entry in enumerate(self._roster.acting):
            outcome = outcomes.setdefault(index, _outcome(entry, "skipped", member=entry.member))
            if entry.node_id and outcome.status == "ok":
                self._keep(entry.node_id, outcome.member)
        done = tuple(outcomes[index] for index in sorted(outcomes))
        members = tuple(self._members[node_id] for node_id in sorted(self._members))
        return Result((*((first,) if first else ()), *done), network, members, self._broken)

    def _network(self) -> tuple[Network | None, Outcome | None]:
        """The network as the roster wants it. Without that nobody is let in, for its ways decide who else is."""
        if not self._roster.network_changes:
            return self._roster.network, None
        outcome = Outcome(NETWORK, "", True, None, "ok")
        saved, error = self._guarded(lambda: self._plane.save_network(self._roster.wish))
        if error is None:
            return saved, outcome
        return self._roster.network, replace(outcome, status="failed", error=error)

    def _all(self, entries: Mapping[int, Entry]) -> dict[int, Outcome]:
        if not entries:
            return {}
        with ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="mesh") as pool:
            futures = {index: pool.submit(self._one, entry) for index, entry in entries.items()}
            return {index: future.result() for index, future in futures.items()}

    def _one(self, entry: Entry) -> Outcome:
        if self._broken:
            return _outcome(entry, "skipped", member=entry.member)
        member, error = self._guarded(lambda: self._write(entry))
        if error is not None:
            # A copy, for what stops all is no matter of this one alone.
            named = copy.copy(error).about(entry.machine or str(entry.node_id))
            return _outcome(entry, "failed", member=entry.member, error=named)
        return _outcome(entry, "ok", member=member)

    def _guarded(self, call: Callable[[], Any]) -> tuple[Any, FleetError | None]:
        """The result of a call, or why there is none; a failure that all others would meet stops them."""
        try:
            return call(), None
        except Exception as exc:  # Whatever one member meets must not cost the report on the others.
            error = failure_of(exc)
            if isinstance(error, _FATAL) and self._broken is None:
                self._broken = error
                error.hint = error.hint or _GO_ON
            return None, error

    def _write(self, entry: Entry) -> Member | None:
        """Do one thing to one member; the member as it is afterwards."""
        wish = entry.wish
        if wish is None:
            self._plane.delete_member(str(entry.node_id))
            return None
        try:
            return self._plane.save_member(wish)
        except NotFound:
            if entry.act is Act.DEAUTHORIZE:
                return None  # Somebody has deleted it meanwhile, and a member that is none takes no part.
            raise

    def _keep(self, node_id: str, member: Member | None) -> None:
        if member is None:
            self._members.pop(node_id, None)
            return
        known = self._members.get(node_id)
        # An answer to a change does not tell who is online where the listing does.
        facts = ("online", "version", "last_seen", "latency_ms", "physical_address")
        old = {name: getattr(known, name) for name in facts if getattr(member, name) is None} if known else {}
        self._members[node_id] = replace(member, **old)


def _outcome(entry: Entry, status: str, *, member: Member | None, error: FleetError | None = None) -> Outcome:
    return Outcome(str(entry.act), entry.machine, entry.declared, entry.node_id, status, member, error)
