# SPDX-License-Identifier: GPL-3.0-or-later
"""Access as declared state: what differs is found while planning, and brought in line by every apply.

Firewalls come before the machines they are for, and go after the last of them is gone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .access import Access, AccessOutcome, CloudAccess
from .changes import Plan, Verb
from .errors import Conflict, FleetError, ProviderError
from .live import Live
from .machines import State
from .plan import ALL
from .providers.base import Operation, Provider
from .scheduler import Ask, Await, Job, Pause
from .spec import CloudMachine, FleetSpec

_STILL_THERE = (0.5, 1.0, 2.0, 4.0)
"""Seconds between looks at a cloud whose last machine has just been deleted."""


def look(
    spec: FleetSpec,
    seen: Live,
    plan: Plan,
    *,
    only: Collection[str] | None = None,
    retire: Collection[str] = (),
) -> tuple[CloudAccess, ...]:
    """How access differs from what is declared, in every cloud that answered, all asked at the same time.

    It belongs to the fleet as a whole, so ``only`` does not limit it.

    Args:
        plan: of the machines.
        only, retire: as the plan was made with.
    """
    wanted: dict[str, tuple[CloudMachine, ...]] = {}
    deleted = {
        (c.provider, c.instance.id) for c in plan.changes if c.verb is Verb.DELETE and c.instance is not None
    }
    for name, listing in seen.listings.items():
        stay = {
            instance.machine
            for instance in listing.instances
            if instance.fleet == spec.fleet
            and instance.state is not State.DELETING
            and (name, instance.id) not in deleted
        }
        machines = tuple(
            machine
            for machine in spec.machines.values()
            if isinstance(machine, CloudMachine)
            and machine.provider == name
            and (machine.name in stay or (machine.enabled and not _retired(machine.name, only, retire)))
        )
        # What is not declared here, or could not be listed, still has its rules: they are left as they are.
        if machines or not (stay or listing.unreachable):
            wanted[name] = machines

    def ask(name: str) -> CloudAccess:
        try:
            return CloudAccess(name, wanted[name], seen.providers[name].access(wanted[name]))
        except ProviderError as error:
            return CloudAccess(name, wanted[name], error=error)

    with ThreadPoolExecutor(max_workers=len(wanted) + 1, thread_name_prefix="access") as pool:
        return tuple(pool.map(ask, sorted(wanted)))


def _retired(name: str, only: Collection[str] | None, retire: Collection[str]) -> bool:
    return (only is None or name in only) and (name in retire or ALL in retire)


def would(plan: Plan) -> tuple[AccessOutcome, ...]:
    """What an apply would do, in the form it is reported in."""
    return tuple(
        AccessOutcome(
            cloud.provider,
            "failed" if cloud.error else "would",
            cloud.changes,
            cloud.found.notes if cloud.found else (),
            cloud.error,
        )
        for cloud in plan.access
    )


class Preparation:
    """Makes a cloud ready for the machines that are wanted there, once, whoever comes first; everybody gets its end.

    Safe to call from many threads.
    """

    def __init__(self, provider: Provider, cloud: CloudAccess) -> None:
        self._provider = provider
        self._cloud = cloud
        self._lock = threading.Lock()
        self._done = False
        self._error: ProviderError | None = None
        self.found: Access | None = cloud.found
        self.operation: Operation | None = None

    def __call__(self) -> None:
        with self._lock:
            if not self._done:
                try:
                    self._prepare()
                except ProviderError as error:
                    self._error = error
                self._done = True
        if failure := self._error:
            # Everybody gets an error of his own, because each is told of another machine.
            raise type(failure)(
                f"preparing for new machines failed: {failure.what}",
                hint=failure.hint,
                code=failure.code,
                details=failure.details,
            )

    def _prepare(self) -> None:
        if self.found is None:
            # It could not be asked while planning; now it must be.
            self.found = self._provider.access(self._cloud.machines)
        if self.found.changes:
            self.operation = self._provider.prepare(self._cloud.machines)

    def job(self, wait_timeout: float) -> Job[None]:
        """Carry it out also where no machine waits for it."""
        name = self._cloud.provider
        yield Ask(name, self)
        if self.operation:
            yield from _end(name, self.operation, wait_timeout)

    def outcome(self, end: FleetError | None) -> AccessOutcome:
        """What came of :meth:`job`, which ended so."""
        error = self._error or end
        found = self.found or Access()
        return AccessOutcome(
            self._cloud.provider, "failed" if error else "ok", found.changes, found.notes, error
        )


def clear(provider: Provider, fleet: str, wait_timeout: float) -> Job[None]:
    """Remove what let people in, once no machine of the fleet is left.

    Raises:
        Conflict: something is still there, or still in use.
    """
    for pause in (*_STILL_THERE, 0.0):
        listing = yield Ask(provider.name, provider.list)
        if not listing.instances and not listing.unreachable:
            break
        yield Pause(pause)
    else:
        raise Conflict(f"machines of the fleet {fleet} are still listed")
    operation = yield Ask(provider.name, lambda: provider.prepare(()))
    if operation:
        yield from _end(provider.name, operation, wait_timeout)


def _end(name: str, operation: Operation, wait_timeout: float) -> Job[None]:
    progress = yield Await(name, operation, wait_timeout)
    if progress.error:
        raise progress.error


def cleared(cloud: CloudAccess, end: FleetError | None) -> AccessOutcome:
    """What came of :func:`clear`, which ended so."""
    if isinstance(end, Conflict):
        note = (
            f"the firewalls and SSH keys of the fleet in {cloud.provider} are left for now: {end.what}; the next apply "
            "removes them"
        )
        return AccessOutcome(cloud.provider, "left", cloud.changes, (note,))
    return AccessOutcome(cloud.provider, "failed" if end else "ok", cloud.changes, (), end)


def going(plan: Plan) -> Sequence[CloudAccess]:
    """The clouds in which no machine is wanted and something of ours is left, or may be."""
    return [cloud for cloud in plan.access if not cloud.machines and (cloud.changes or cloud.error)]


def preparations(plan: Plan, providers: Mapping[str, Provider]) -> dict[str, Preparation]:
    """By cloud, what it takes to let the right people in to the machines wanted there."""
    return {
        cloud.provider: Preparation(providers[cloud.provider], cloud)
        for cloud in plan.access
        if cloud.machines
    }
