# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's firewalls and SSH keys in Hetzner Cloud.

Firewalls hold by label, so a server is under its firewall from its first moment. SSH keys are registered by the create
that needs them, which knows whose they are, and carry the fleet's label, by which they are found again. They go before
the firewalls: while a firewall is there, so may be keys, and where there is none nobody has to ask for them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import errors
from ..access import Access, AccessChange
from ..machines import FLEET_LABEL
from ..spec import FleetSpec, MachineBase
from . import hetzner_view as view
from .hetzner_models import HetznerMachine

if TYPE_CHECKING:
    from ..clock import Clock
    from .hetzner_api import HetznerApi

_TRIES = 5
"""How often the fleet's firewalls are looked at and brought in line before an error is reported."""


class _StillInUse(errors.Conflict):
    """Hetzner is at taking a firewall off; it can be deleted in a moment."""


class HetznerAccess:
    """Who may reach the servers of one fleet. Safe to use from many threads."""

    def __init__(self, api: HetznerApi, spec: FleetSpec, clock: Clock) -> None:
        self._api = api
        self._spec = spec
        self._clock = clock
        self._ours = f"{FLEET_LABEL}=={spec.fleet}"

    def look(self, machines: Sequence[MachineBase]) -> Access:
        """What differs, and nothing else is done."""
        present = self._present()
        changes = []
        for wanted in self._wanted(machines):
            what, after = f"firewall {wanted.name}", wanted.words
            found = present.pop(wanted.name, None)
            if found is None:
                changes.append(AccessChange("create", what, {}, after))
            elif (before := view.words(found["rules"], view.selectors(found))) != after:
                changes.append(AccessChange.between(what, before, after))
        changes += [AccessChange("delete", f"firewall {name}") for name in sorted(present)]
        if present and not machines:
            names = sorted(str(key["name"]) for key in self._api.ssh_keys_of(self._ours))
            changes += [AccessChange("delete", f"SSH key {name}") for name in names]
        return Access(tuple(changes))

    def prepare(self, machines: Sequence[MachineBase]) -> None:
        """Bring the fleet's firewalls to what is declared; without machines, remove them and the fleet's keys."""
        for attempt in range(_TRIES):
            try:
                self._converge_all(machines)
                break
            except errors.Conflict as error:
                # Somebody else was faster, or an earlier request of ours that was not answered: look again.
                if attempt < _TRIES - 1:
                    self._clock.sleep(2.0**attempt / 2)
                elif not (machines and isinstance(error, _StillInUse)):
                    # What is wrong with a firewall that holds for nobody any more is no machine's matter.
                    raise

    def _present(self) -> dict[str, view.Json]:
        return {firewall["name"]: firewall for firewall in self._api.firewalls(self._ours)}

    def _wanted(self, machines: Sequence[MachineBase]) -> list[view.Firewall]:
        """The firewalls of all machines declared here, so that enabling one changes none; for no machine, none."""
        if not machines:
            return []
        declared = [
            machine for machine in self._spec.machines.values() if isinstance(machine, HetznerMachine)
        ]
        own = {machine.name: machine.ssh_sources for machine in declared if machine.ssh_sources is not None}
        defaults = self._spec.defaults
        ports = {22, defaults.ssh_port}
        meshed = self._spec.mesh is not None
        return view.firewalls(self._spec.fleet, defaults.ssh_sources, own, ports, meshed=meshed)

    def _converge_all(self, machines: Sequence[MachineBase]) -> None:
        present = self._present()
        for firewall in self._wanted(machines):
            found = present.pop(firewall.name, None) or self._api.firewall_named(firewall.name)
            if found and found["labels"].get(FLEET_LABEL) != self._spec.fleet:
                raise errors.InvalidRequest(
                    f"the project has a firewall named {firewall.name} that is not of the fleet {self._spec.fleet}",
                    hint="Rename the fleet, or the firewall in the Hetzner console",
                )
            self._converge(firewall, found)
        if present and not machines:
            for key in self._api.ssh_keys_of(self._ours):
                self._api.delete_ssh_key(key["id"])
        for stale in present.values():
            try:
                self._api.retire_firewall(stale["id"], view.selectors(stale))
            except errors.Conflict as error:
                raise _StillInUse(error.what, hint=error.hint, code=error.code) from error

    def _converge(self, wanted: view.Firewall, present: view.Json | None) -> None:
        if present is None:
            self._api.create_firewall(
                wanted.name, {FLEET_LABEL: self._spec.fleet}, wanted.rules, wanted.selector
            )
            return
        if not view.same_rules(present["rules"], wanted.rules):
            self._api.set_firewall_rules(present["id"], wanted.rules)
        applied = view.selectors(present)
        if wanted.selector not in applied:
            self._api.apply_firewall(present["id"], wanted.selector)
        if others := [selector for selector in applied if selector != wanted.selector]:
            self._api.unapply_firewall(present["id"], others)
