# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out: many machines at once, every outcome reported, none lost. The steps are in :mod:`steps`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import access_rules
from .access import AccessOutcome
from .changes import Change, Plan, Verb
from .clock import Clock
from .errors import FleetError, OperationFailed, ProviderError, WaitTimeout, failure_of
from .firstboot import FirstBoot
from .machines import Instance, State
from .providers.base import Provider
from .scheduler import Ask, Job, Scheduler
from .spec import FleetSpec
from .steps import CloudSteps, Steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one change.

    Attributes:
        status: ``ok``, ``failed``, ``skipped`` (an earlier step for the same machine failed), or ``would``.
        instance_id: of the instance it was about, if there was one.
        instance: the machine as it was last seen; None once it is deleted, or if it was never seen.
        seconds: how long it took.
    """

    machine: str
    provider: str
    action: str
    status: str
    zone: str
    instance_id: str | None = None
    instance: Instance | None = None
    seconds: float = 0.0
    error: FleetError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "machine": self.machine,
            "provider": self.provider,
            "action": self.action,
            "status": self.status,
            "zone": self.zone,
            "instance_id": self.instance.id if self.instance else self.instance_id,
            "instance": self.instance.to_json() if self.instance else None,
            "seconds": round(self.seconds, 1),
            "failure": self.error.as_failure() if self.error else None,
        }


def would(plan: Plan) -> tuple[Outcome, ...]:
    """What applying the plan would do, in the form :func:`apply` reports it."""
    return tuple(_outcome(change, "would", instance=change.instance) for change in plan.acting)


def _outcome(change: Change, status: str, **facts: Any) -> Outcome:
    return Outcome(
        change.machine,
        change.provider,
        str(change.verb),
        status,
        facts["instance"].zone if facts["instance"] else change.zone,
        instance_id=change.instance.id if change.instance else None,
        **facts,
    )


def apply(
    plan: Plan,
    spec: FleetSpec,
    providers: Mapping[str, Provider],
    boots: Mapping[str, FirstBoot],
    clock: Clock,
    *,
    wait_timeout: float = 600.0,
    workers: int = 16,
) -> tuple[tuple[Outcome, ...], tuple[AccessOutcome, ...]]:
    """Carry out everything in the plan that acts, and wait for machines that are on their way up already.

    Access is brought in line before machines are created; where none is left, it is taken away after all else.

    Args:
        plan: what to do; approved and within the budget, which is for the caller to check.
        providers: connected, by name.
        boots: by machine, what each one to be created is given at birth.
        wait_timeout: seconds to wait for any one operation.
        workers: how many requests to one provider may be under way at once.

    Returns:
        One outcome for each of these changes, in the order of the plan; and what came of access, by cloud.
    """
    queues: dict[str, list[tuple[int, Change]]] = {}
    for index, change in enumerate(plan.changes):
        if change.acts or _on_its_way(change):
            # The changes of one instance are made one after the other; different instances do not wait for each other.
            key = f"{change.machine}/{change.instance.id if change.instance else ''}"
            queues.setdefault(key, []).append((index, change))
    crew = _Crew(spec, providers, boots, clock, wait_timeout, plan)
    jobs = {key: crew.job(queue) for key, queue in queues.items()}
    # No key of a machine's changes begins like this.
    jobs |= {f"/{name}": ready.job(wait_timeout) for name, ready in crew.prepared.items()}
    ended = Scheduler[None](providers, clock, workers=workers).run(jobs)
    for key, queue in queues.items():
        crew.account_for(queue, ended[key])
    outcomes = tuple(crew.outcomes[index] for index in sorted(crew.outcomes))
    access = [ready.outcome(_failure(ended[f"/{name}"])) for name, ready in crew.prepared.items()]
    return outcomes, (*access, *_clear(plan, outcomes, providers, clock, wait_timeout))


def _clear(
    plan: Plan,
    outcomes: Sequence[Outcome],
    providers: Mapping[str, Provider],
    clock: Clock,
    wait_timeout: float,
) -> list[AccessOutcome]:
    """Take access away where the last machine has gone."""
    failed = {outcome.provider for outcome in outcomes if outcome.status != "ok"}
    going = {cloud.provider: cloud for cloud in access_rules.going(plan)}
    jobs = {
        name: access_rules.clear(providers[name], plan.fleet, wait_timeout)
        for name in going
        if name not in failed
    }
    ended = Scheduler[None](providers, clock).run(jobs)
    return [
        access_rules.cleared(cloud, _failure(ended[name]))
        if name in ended
        else AccessOutcome(name, "skipped", cloud.changes)
        for name, cloud in going.items()
    ]


def _on_its_way(change: Change) -> bool:
    return (
        change.verb is Verb.KEEP and change.instance is not None and change.instance.state is State.CREATING
    )


class _Crew:
    """What all jobs of one apply share."""

    def __init__(
        self,
        spec: FleetSpec,
        providers: Mapping[str, Provider],
        boots: Mapping[str, FirstBoot],
        clock: Clock,
        wait_timeout: float,
        plan: Plan,
    ) -> None:
        self._spec = spec
        self._clouds = {
            name: CloudSteps(spec.fleet, provider, clock, wait_timeout)
            for name, provider in providers.items()
        }
        self._boots = boots
        self._clock = clock
        self._begun: dict[int, float] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.prepared = access_rules.preparations(plan, providers)

    def job(self, queue: Sequence[tuple[int, Change]]) -> Job[None]:
        """Carry out the changes of one machine in order; the first that fails ends it."""
        for index, change in queue:
            self._begun[index] = self._clock.now()
            try:
                instance = yield from self._steps(change)
            except WaitTimeout as error:
                yield from self._last_seen(change, error)
                raise
            self.outcomes[index] = self._outcome(index, change, "ok", instance=instance)

    def _last_seen(self, change: Change, error: WaitTimeout) -> Steps:
        """Add to an operation that has not ended how the machine stands."""
        machine = self._spec.machines.get(change.machine)
        if machine is not None and "last seen" not in error.what:
            zone = change.instance.zone if change.instance else change.zone
            try:
                found = yield from self._clouds[change.provider].find(machine, zone)
            except ProviderError:
                return None
            error.what += f"; the machine was last seen {found.cloud_state if found else 'nowhere'} in {zone}"
        return None

    def account_for(self, queue: Sequence[tuple[int, Change]], end: Exception | None) -> None:
        """Report what a job that failed did not get to."""
        open_ends = [(index, change) for index, change in queue if index not in self.outcomes]
        for position, (index, change) in enumerate(open_ends):
            if position:
                self.outcomes[index] = self._outcome(index, change, "skipped", instance=change.instance)
                continue
            # A copy, because one failure of a cloud may be the end of many machines, and each says its own name.
            error = copy.copy(failure_of(end or RuntimeError()))
            error.machine = change.machine
            self.outcomes[index] = self._outcome(
                index, change, "failed", instance=change.instance, error=error
            )

    def _outcome(
        self,
        index: int,
        change: Change,
        status: str,
        *,
        instance: Instance | None,
        error: FleetError | None = None,
    ) -> Outcome:
        seconds = self._clock.now() - self._begun[index] if index in self._begun else 0.0
        return _outcome(change, status, instance=instance, seconds=seconds, error=error)

    def _steps(self, change: Change) -> Steps:
        cloud = self._clouds[change.provider]
        machine = self._spec.machines.get(change.machine)
        if change.verb is Verb.CREATE and machine:
            yield Ask(change.provider, self.prepared[change.provider])
            return (yield from cloud.create(machine, change.zones, self._boots[change.machine]))
        if change.verb is Verb.DELETE and change.instance:
            return (yield from cloud.delete(change.instance))
        if machine is None or change.instance is None:
            raise OperationFailed(
                f"the plan wants to {change.verb} what is not there", machine=change.machine
            )
        if change.verb is Verb.START:
            return (yield from cloud.start(machine, change.instance))
        if change.verb is Verb.STOP:
            return (yield from cloud.stop(machine, change.instance))
        if change.verb is Verb.CHANGE:
            return (yield from cloud.relabel(machine, change.instance, change.after["labels"]))
        return (yield from cloud.reaches(machine, change.instance.zone, State.RUNNING))


def _failure(end: Exception | None) -> FleetError | None:
    return failure_of(end) if end else None
