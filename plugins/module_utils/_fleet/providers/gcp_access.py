# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's firewall rules in a project of Google Cloud. What they are is in :mod:`gcp_firewall`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import errors
from ..access import Access, AccessChange
from . import gcp_firewall
from .base import Operation, Progress
from .gcp_models import GcpMachine

if TYPE_CHECKING:
    from ..spec import FleetSpec, MachineBase
    from .gcp_api import Compute

_PAGE = "500"
_TRIES = 3

Rule = Mapping[str, Any]


class GcpAccess:
    """Who may reach the instances of one fleet. Safe to use from many threads."""

    def __init__(self, spec: FleetSpec, api: Compute) -> None:
        self._spec = spec
        self._api = api
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._error: errors.FleetError | None = None

    def look(self, machines: Sequence[MachineBase]) -> Access:
        """What differs, and nothing else is done."""
        existing = self._existing()
        changes = []
        for name, wanted in self._wanted(machines, existing).items():
            what, actual = f"firewall rule {name}", existing.get(name)
            if actual is None and wanted is not None:
                changes.append(AccessChange("create", what, {}, gcp_firewall.traffic(wanted)))
            elif actual is not None and wanted is None:
                changes.append(AccessChange("delete", what))
            elif actual is not None and wanted is not None and not gcp_firewall.same_firewall(actual, wanted):
                before, after = gcp_firewall.words(actual), gcp_firewall.words(wanted)
                changes.append(AccessChange.between(what, before, after))
        notes = []
        for rule in self._rules(machines).values():
            if not rule.sources:
                notes.append(
                    f"ssh_sources names no IPv4 network, so nobody can reach the machines tagged {rule.tag} by SSH"
                )
            notes += gcp_firewall.wider_rules(existing.values(), rule)
        return Access(tuple(changes), tuple(notes))

    def prepare(self, machines: Sequence[MachineBase]) -> Operation | None:
        """Ask for whatever rule differs to be made, changed or removed."""
        with self._lock:
            self._error = None
        for attempt in range(_TRIES):
            try:
                self._converge_all(machines)
                break
            except (errors.Conflict, errors.NotFound):
                # Somebody else was at the same rule: look again.
                if attempt == _TRIES - 1:
                    raise
        with self._lock:
            return Operation("access", "", "access") if self._pending else None

    def tags(self, machine: GcpMachine) -> tuple[str, ...]:
        """The network tags of an instance."""
        return gcp_firewall.tags(self._spec.fleet, machine)

    def _rules(self, machines: Sequence[MachineBase]) -> dict[str, gcp_firewall.SshRule]:
        """The rules these machines are under, by tag."""
        port = self._spec.defaults.ssh_port
        found = (
            gcp_firewall.ssh_rule(self._spec.fleet, machine, self._spec.ssh_sources(machine), port)
            for machine in machines
            if isinstance(machine, GcpMachine)
        )
        return {rule.tag: rule for rule in found}

    def _wanted(
        self, machines: Sequence[MachineBase], existing: Mapping[str, Rule]
    ) -> dict[str, Rule | None]:
        """The firewall rules as they should be, by name; None: there must be none of that name."""
        fleet = self._spec.fleet
        ours = {
            name
            for name, rule in existing.items()
            if rule.get("description") == gcp_firewall.description(fleet)
        }
        if not machines:
            return dict.fromkeys(sorted(ours))
        wanted: dict[str, Rule | None] = {}
        for rule in self._rules(machines).values():
            wanted |= rule.firewalls(fleet)
        # Rules of a machine's own come first, so those it no longer declares must go. They go last, when what it is under
        # instead is there.
        for machine in self._spec.machines.values():
            if isinstance(machine, GcpMachine) and machine.ssh_sources is None:
                own = self.tags(machine)[1]
                wanted |= dict.fromkeys((own, f"{own}-deny"))
        return {name: body for name, body in wanted.items() if body is not None or name in ours}

    def _existing(self) -> dict[str, Rule]:
        """The project's firewall rules, by name."""
        found: dict[str, Rule] = {}
        query = {"maxResults": _PAGE}
        while True:
            answer = self._api.get("global/firewalls", "listing the firewall rules", **query)
            found |= {str(rule["name"]): rule for rule in answer.get("items") or ()}
            if not answer.get("nextPageToken"):
                return found
            query["pageToken"] = str(answer["nextPageToken"])

    def _converge_all(self, machines: Sequence[MachineBase]) -> None:
        existing = self._existing()
        for name, wanted in self._wanted(machines, existing).items():
            self._converge(name, existing.get(name), wanted)

    def _converge(self, name: str, actual: Rule | None, wanted: Rule | None) -> None:
        path = f"global/firewalls/{name}"
        if wanted is None:
            if actual is not None:
                self._follow("DELETE", path, f"removing firewall rule {name}")
            return
        if actual is None:
            try:
                self._follow("POST", "global/firewalls", f"making firewall rule {name}", wanted)
            except errors.Conflict:
                # Somebody else made it since we looked, and a list may not show it yet.
                actual = {}
        if actual is not None and not gcp_firewall.same_firewall(actual, wanted):
            self._follow("PATCH", path, f"changing firewall rule {name}", wanted)

    def _follow(self, method: str, path: str, doing: str, body: Rule | None = None) -> None:
        """Ask for work that creates depend on; :meth:`watch` looks after it while instances are being made."""
        operation = self._api.write(method, path, doing, body)
        with self._lock:
            self._pending.add(str(operation["name"]))

    def watch(self) -> None:
        """See how the work that :meth:`prepare` asked for stands."""
        from .gcp_api import operation_error

        with self._lock:
            pending = sorted(self._pending)
        for name in pending:
            try:
                raw = self._api.get(f"global/operations/{name}", "watching a firewall rule")
            except errors.NotFound:
                raw = {"status": "DONE"}
            if raw.get("status") == "DONE":
                error = operation_error(raw, "to open SSH by a firewall rule")
                with self._lock:
                    self._pending.discard(name)
                    if error is not None:
                        # Whatever its kind, no other zone would help.
                        self._error = errors.OperationFailed(
                            error.what, hint=error.hint, code=error.code, details=error.details
                        )

    @property
    def progress(self) -> Progress:
        """How all of that work stands, as :meth:`watch` has last seen it."""
        with self._lock:
            if self._error is None and self._pending:
                return Progress(done=False)
            return Progress(True, self._error)
