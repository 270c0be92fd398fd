# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line for one fleet: read, look, plan, and where it is approved, apply and file the host keys.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from . import access_rules, births, host_keys, known_hosts, live, plan, plan_table, spec_file
from .access import AccessOutcome
from .apply import Outcome, apply, would
from .changes import Plan, Verb
from .clock import Clock
from .errors import FleetError
from .firstboot import FirstBoot, HostKey, new_host_key
from .live import Live
from .machines import Instance, State
from .mesh.identity import Identity
from .mesh_birth import Repository, mesh_births
from .prices import Total
from .providers.base import Kind
from .quotes import LiveQuotes
from .spec import CloudMachine, FleetSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a run.

    Attributes:
        carry_out: apply the plan; without it, it is only made.
        approve, approved_digest: consent to buy and destroy, in general or to one plan.
        only, retire, prune: see :func:`plan.make`.
        wait_timeout: seconds to wait for any one operation.
        key_timeout: seconds to wait for the host keys of machines that have just been started.
        known_hosts: file to use instead of the fleet's own.
        credentials: by provider, settings that take the place of those in the fleet file.
        identities: by machine, the ZeroTier identity it is to have from its first boot on, where it is created in this run.
        repository: where ZeroTier's package comes from; needed with `identities`.
    """

    fleet_file: str
    carry_out: bool = False
    approve: bool = False
    approved_digest: str | None = None
    only: Sequence[str] | None = None
    retire: Sequence[str] = ()
    prune: bool = False
    wait_timeout: float = 600.0
    key_timeout: float = 120.0
    known_hosts: str | None = None
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identities: Mapping[str, Identity] = field(default_factory=dict)
    repository: Repository | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found, and what it did.

    Attributes:
        refusal: why the plan will not be carried out.
        outcomes: of each change; in a run that only plans, what would be done.
        machines: every machine of the fleet as it is afterwards.
        keys_changed: known_hosts was changed.
        access: what came of firewalls and registered SSH keys, by cloud.
        trouble: what went wrong after all changes were made.
    """

    spec: FleetSpec
    plan: Plan
    refusal: str | None
    outcomes: tuple[Outcome, ...]
    machines: Mapping[str, dict[str, Any]]
    warnings: tuple[str, ...]
    simulated: tuple[str, ...]
    keys_changed: bool = False
    access: tuple[AccessOutcome, ...] = ()
    trouble: tuple[FleetError, ...] = ()

    @property
    def changed(self) -> bool:
        """Something was, or would be, changed."""
        done = ("ok", "would")
        return (
            self.keys_changed
            or any(outcome.action != Verb.KEEP and outcome.status in done for outcome in self.outcomes)
            or any(outcome.changes and outcome.status in done for outcome in self.access)
        )

    @property
    def errors(self) -> list[FleetError]:
        """All that went wrong: by machine, then what is no single machine's matter."""
        failed = {outcome.machine: outcome.error for outcome in self.outcomes if outcome.error}
        found = {**self.plan.errors, **failed}
        # A machine that could not be made for want of access says so itself.
        told = {o.provider for o in self.outcomes if o.error and o.action == Verb.CREATE}
        others = [o.error for o in self.access if o.error and o.provider not in told]
        return [*(found[name].about(name) for name in sorted(found)), *others, *self.trouble]

    @property
    def table(self) -> list[str]:
        """The plan, for people."""
        return plan_table.lines(
            self.plan,
            types={name: machine.type_name for name, machine in self.spec.machines.items()},
            budget=self.spec.budget,
            refusal=self.refusal,
            simulated=self.simulated,
        )

    def to_json(self) -> dict[str, Any]:
        """A module's result."""
        return {
            "fleet": self.spec.fleet,
            "changed": self.changed,
            "plan": [change.to_json() for change in self.plan.changes],
            "costs": {
                "before": _total(self.plan.before),
                "after": _total(self.plan.after),
                "difference": _total(self.plan.difference),
                "at_most": _total(self.plan.ceiling),
                "budget_hourly_usd": self.spec.budget.hourly_usd if self.spec.budget else None,
                "usd_per_eur": str(self.spec.usd_per["EUR"]),
            },
            "digest": self.plan.digest,
            "needs_approval": self.plan.needs_approval,
            "refusal": self.refusal,
            "access": [entry for outcome in self.access for entry in outcome.to_json()],
            "results": [outcome.to_json() for outcome in self.outcomes],
            "machines": dict(self.machines),
            "failures": [error.as_failure() for error in self.errors],
            "table": self.table,
            "simulated": list(self.simulated),
        }


def run(request: Request, kinds: Mapping[str, Kind], environ: Mapping[str, str], clock: Clock) -> Report:
    """Plan a fleet, and carry the plan out where that is asked for and allowed.

    Raises:
        SpecError: the fleet file cannot be used.
        ApprovalRequired, BudgetExceeded: the plan may not be carried out. Nothing was touched.
        InvalidRequest: the request names what is not there, or the fleet file does.
        FleetError: known_hosts cannot be kept. Nothing was touched.
    """
    spec = spec_file.load(request.fleet_file, kinds, environ)
    seen = live.look(spec, kinds, clock, overrides=request.credentials)
    made = plan.make(
        spec,
        seen.instances,
        LiveQuotes(seen.providers),
        unreachable=seen.unreachable,
        sick=seen.sick,
        only=request.only,
        retire=request.retire,
        prune=request.prune,
    )
    access = access_rules.look(spec, seen, made, only=request.only, retire=request.retire)
    made = replace(made, access=access)
    unused = {provider: error for provider, error in seen.sick.items() if not _wanted(spec, provider)}
    warnings = [*made.warnings, *(f"{provider}: {error}" for provider, error in unused.items())]
    simulated = tuple(sorted(name for name, listing in seen.listings.items() if listing.simulated))
    path = request.known_hosts or spec.known_hosts
    if not request.carry_out:
        refusal, keys_change = _refusal(request, made, spec, kinds, path, seen), False
        with contextlib.suppress(FleetError):  # Said in the refusal.
            keys_change = host_keys.foreseen(spec, _staying(made, seen), path, _complete(seen))
        machines = _machines(spec, seen.instances)
        foreseen = access_rules.would(made)
        warnings += _notes(foreseen)
        return Report(
            spec, made, refusal, would(made), machines, tuple(warnings), simulated, keys_change, foreseen
        )

    made.check_budget(spec.budget)
    made.check_approval(approve=request.approve, approved_digest=request.approved_digest)
    boots = _boots(request, spec, kinds, made, _golden(seen, _new(made, spec)))
    known_hosts.probe(path)
    outcomes, let_in = apply(made, spec, seen.providers, boots, clock, wait_timeout=request.wait_timeout)
    instances = _afterwards(seen, outcomes)
    kept = host_keys.keep(
        spec,
        kinds,
        instances,
        seen.providers,
        path,
        _complete(seen),
        clock,
        fresh={o.instance.id for o in outcomes if o.instance and o.action in (Verb.CREATE, Verb.START)},
        patience=request.key_timeout,
    )
    warnings += [*_notes(let_in), *kept.notes]
    return Report(
        spec,
        made,
        None,
        outcomes,
        _machines(spec, instances),
        tuple(warnings),
        simulated,
        kept.changed,
        let_in,
        kept.errors,
    )


def secrets(fleet_file: str, kinds: Mapping[str, Kind], environ: Mapping[str, str]) -> Iterator[str]:
    """Every secret the fleet file leads to, so that they can be kept out of all output."""
    spec = spec_file.load(fleet_file, kinds, environ)
    for block in (*spec.providers.values(), spec.mesh):
        for name in type(block).model_fields if block else ():
            value = getattr(block, name)
            if isinstance(value, SecretStr) and value.get_secret_value():
                yield value.get_secret_value()


def _boots(
    request: Request,
    spec: FleetSpec,
    kinds: Mapping[str, Kind],
    made: Plan,
    releases: Mapping[str, str],
    new_key: Callable[[], HostKey] = new_host_key,
) -> dict[str, FirstBoot]:
    """What each machine that is to be created is given.

    Args:
        releases: the operating systems of golden images, by machine.
    """
    new = _new(made, spec)
    mesh = mesh_births(spec, new, request.identities, request.repository, releases)
    return births.first_boots(spec, kinds, new, mesh=mesh, new_key=new_key)


def _golden(seen: Live, new: Sequence[CloudMachine]) -> dict[str, str]:
    """The operating systems of the golden images that machines are to be made from.

    Raises:
        ProviderError: such an image is not there, or it is not clear which it is.
    """
    wanted: dict[str, list[CloudMachine]] = {}
    for machine in new:
        if machine.golden:
            wanted.setdefault(machine.provider, []).append(machine)
    return {
        name: release
        for provider, machines in wanted.items()
        if provider in seen.providers
        for name, release in seen.providers[provider].golden(machines).items()
    }


def _refusal(
    request: Request, made: Plan, spec: FleetSpec, kinds: Mapping[str, Kind], path: str, seen: Live
) -> str | None:
    """What an apply would refuse, whoever approves."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: made.check_budget(spec.budget),
        lambda: _boots(
            request, spec, kinds, made, _golden(seen, _new(made, spec)), new_key=lambda: HostKey("", "")
        ),
        lambda: known_hosts.probe(path, write=False),
    )
    said = []
    for check in checks:
        try:
            check()
        except FleetError as error:
            said.append(str(error))
    return " ".join(said) or None


def _new(made: Plan, spec: FleetSpec) -> list[CloudMachine]:
    declared = [spec.machines[change.machine] for change in made.changes if change.verb is Verb.CREATE]
    return [machine for machine in declared if isinstance(machine, CloudMachine)]


def _staying(made: Plan, seen: Live) -> tuple[Instance, ...]:
    """What exists now and is not to be deleted."""
    going = {(c.provider, c.instance.id) for c in made.changes if c.verb is Verb.DELETE and c.instance}
    return tuple(
        i for i in seen.instances if i.state is not State.DELETING and (i.provider, i.id) not in going
    )


def _notes(access: Sequence[AccessOutcome]) -> list[str]:
    return list(dict.fromkeys(note for outcome in access for note in outcome.notes))


def _wanted(spec: FleetSpec, provider: str) -> bool:
    return any(machine.provider == provider for machine in spec.machines.values())


def _complete(seen: Live) -> set[str]:
    return {name for name, listing in seen.listings.items() if not listing.unreachable}


def _afterwards(seen: Live, outcomes: Sequence[Outcome]) -> tuple[Instance, ...]:
    """What exists after these outcomes."""
    now = {(i.provider, i.id): i for i in seen.instances if i.state is not State.DELETING}
    for outcome in outcomes:
        if outcome.action == Verb.DELETE and outcome.status == "ok":
            now = {key: i for key, i in now.items() if key != (outcome.provider, outcome.instance_id)}
        elif outcome.instance:
            now[outcome.instance.provider, outcome.instance.id] = outcome.instance
    return tuple(now.values())


def _machines(spec: FleetSpec, instances: Sequence[Instance]) -> dict[str, dict[str, Any]]:
    """Every machine by name: the declared ones in the order of the file, then the others."""
    found: dict[str, dict[str, Any]] = {
        name: {
            "provider": machine.provider,
            "declared": True,
            "enabled": machine.enabled,
            "state": "missing" if isinstance(machine, CloudMachine) else "unmanaged",
        }
        for name, machine in spec.machines.items()
    }
    for instance in sorted(instances, key=lambda i: (i.machine, i.id)):
        if found.get(instance.machine, {}).get("state") == "unmanaged":
            continue  # It only has the name of a machine that no cloud makes.
        entry = found.setdefault(instance.machine, {"declared": False, "enabled": False})
        entry |= {
            **instance.to_json(),
            "host_key_alias": known_hosts.alias(spec.fleet, instance.machine, instance.id),
            "host_key_planted": instance.host_keys_planted,
        }
    return found


def _total(total: Total) -> dict[str, Any]:
    return {"hourly_usd": str(total.hourly), "monthly_usd": str(total.monthly), "unknown": total.unknown}
