# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that make, remove, start, stop and relabel one machine, whatever goes wrong in between.

What makes them safe to be killed and run again: a machine's name is its cloud object's name, so a second create of it
is refused by the cloud; whoever is refused, or is not answered, asks for the object by name and adopts what carries
our labels. Only when a create is known to have failed is another zone tried.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from .clock import Clock
from .errors import (
    Conflict,
    NotFound,
    OperationFailed,
    OutOfStock,
    ProviderError,
    QuotaExceeded,
    Unavailable,
    WaitTimeout,
)
from .firstboot import FirstBoot
from .machines import Instance, State, owned
from .providers.base import Operation, Provider
from .scheduler import Ask, Await, Pause
from .spec import MachineBase

_TRIES = 4
"""How often a request the cloud was not ready for, or did not answer, is made in all."""

_MISSING_AFTER = 3
"""How many looks in a row must not find a machine before it counts as gone."""

_PAUSES = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds between looks at a machine on its way; the last one repeats."""

_NOT_STARTED_AFTER = 20.0
"""Seconds after which a new machine that is found stopped is no longer thought to be about to start."""

Steps: TypeAlias = Generator["Ask | Await | Pause", Any, "Instance | None"]
"""What a :class:`scheduler.Scheduler` runs; ends in the machine as it was last seen, None where there is none."""


class _Vanished(NotFound):
    """A machine that was there, or was being made, is gone."""


class _EndedBadly(Exception):
    """An accepted operation failed later: unlike a refused request, it may have left something behind."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.what)
        self.error = error


class CloudSteps:
    """Steps at one cloud.

    Args:
        fleet: whose machines these are.
        wait_timeout: seconds to wait for any one operation.
    """

    def __init__(self, fleet: str, provider: Provider, clock: Clock, wait_timeout: float) -> None:
        self._fleet = fleet
        self._provider = provider
        self._clock = clock
        self._wait_timeout = wait_timeout

    def _ask(self, call: Callable[[], Any]) -> Ask:
        return Ask(self._provider.name, call)

    # Creating

    def create(self, machine: MachineBase, zones: Sequence[str], boot: FirstBoot) -> Steps:
        """Make it in the first of these zones that takes it, or adopt it where it is."""
        if len(zones) > 1:
            # A list may lag behind a create of our own that was killed; asking by name does not.
            for zone in zones:
                existing = yield from self.find(machine, zone)
                if existing and existing.state is State.DELETING:
                    yield from self._gone(machine, existing)
                elif existing:
                    return (yield from self._adopt(machine, existing))
        refused: list[tuple[str, ProviderError]] = []
        for zone in zones:
            try:
                return (yield from self._create_in(machine, zone, boot))
            except (OutOfStock, QuotaExceeded) as error:
                refused.append((zone, error))
        last = refused[-1][1]
        raise type(last)(
            "; ".join(f"{zone}: {error.what}" for zone, error in refused),
            machine=machine.name,
            hint=last.hint or "Declare fallback_zones or another type, or try again later",
            code=last.code,
            details=last.details,
            request_id=last.request_id,
        )

    def _create_in(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Steps:
        """Create it in this zone, or adopt it there. Only OutOfStock and QuotaExceeded mean that it is not there."""
        trouble: ProviderError | None = None
        for attempt in range(_TRIES):
            if attempt:
                yield Pause(_PAUSES[attempt])
            try:
                operation = yield self._ask(lambda: self._provider.create(machine, zone, boot))
                yield from self._ends(operation)
                return (yield from self.reaches(machine, zone, State.RUNNING))
            except _EndedBadly as end:
                yield from self._sweep(machine, zone, end.error)
                raise end.error from end
            except (OutOfStock, QuotaExceeded) as error:
                if trouble is None:
                    raise
                # An earlier request was not answered; it may have been carried out.
                trouble = error
            except (Conflict, Unavailable, _Vanished) as error:
                # Somebody has that name, or nobody knows whether the request arrived.
                trouble = error
            existing = yield from self.find(machine, zone)
            if existing and existing.state is State.DELETING:
                yield from self._gone(machine, existing)
            elif existing:
                return (yield from self._adopt(machine, existing))
            elif isinstance(trouble, (OutOfStock, QuotaExceeded)):
                raise trouble
        raise trouble or OperationFailed("the machine could not be created", machine=machine.name)

    def _adopt(self, machine: MachineBase, existing: Instance) -> Steps:
        """Take over what an earlier request made, ours by its labels."""
        if existing.state is State.STOPPED:
            try:
                return (yield from self.start(machine, existing))
            except (OutOfStock, QuotaExceeded) as error:
                # Not to be mistaken for a create that was refused: the machine is there, and another would be a second.
                raise OperationFailed(
                    f"the machine exists in {existing.zone} and could not be started: {error.what}",
                    machine=machine.name,
                    hint="Try again later, or retire the machine to have it made in another zone",
                    code=error.code,
                ) from error
        return (yield from self.reaches(machine, existing.zone, State.RUNNING))

    def _sweep(self, machine: MachineBase, zone: str, error: ProviderError) -> Steps:
        """Remove what a failed create left behind, so that it is neither paid for nor in the way."""
        try:
            remnant = yield from self.find(machine, zone)
            if remnant:
                yield from self.delete(remnant)
                yield from self._gone(machine, remnant)
        except ProviderError as second:
            raise OperationFailed(
                f"{error.what}; and what it left behind could not be removed: {second.what}",
                machine=machine.name,
                hint="Run the same command again, or look for the machine in its cloud",
                code=error.code,
            ) from second
        return None

    # Everything else

    def delete(self, instance: Instance) -> Steps:
        """Remove it."""
        with contextlib.suppress(NotFound):  # Somebody else was faster.
            yield from self._insist(lambda: self._provider.delete(instance))
        return None

    def start(self, machine: MachineBase, instance: Instance) -> Steps:
        """Start it, once it has stopped."""
        if instance.state is State.STOPPING:
            yield from self.reaches(machine, instance.zone, State.STOPPED)
        try:
            yield from self._insist(
                lambda: self._provider.start(instance),
                lambda: self._is(machine, instance.zone, State.RUNNING, State.CREATING),
            )
        except (OutOfStock, QuotaExceeded) as error:
            error.hint = (
                error.hint or "Try again later, or retire the machine and provision it in another zone"
            )
            raise
        return (yield from self.reaches(machine, instance.zone, State.RUNNING))

    def stop(self, machine: MachineBase, instance: Instance) -> Steps:
        """Stop it."""
        yield from self._insist(
            lambda: self._provider.stop(instance),
            lambda: self._is(machine, instance.zone, State.STOPPED, State.STOPPING),
        )
        return (yield from self.reaches(machine, instance.zone, State.STOPPED))

    def relabel(self, machine: MachineBase, instance: Instance, labels: Mapping[str, str]) -> Steps:
        """Add these labels to those it has."""
        current = [instance]

        def look_again() -> Steps:
            found = yield from self.find(machine, instance.zone)
            if found:
                current[0] = found
            return found if found and dict(labels).items() <= dict(found.labels).items() else None

        yield from self._insist(
            lambda: self._provider.relabel(current[0], {**current[0].labels, **labels}), look_again
        )
        return replace(current[0], labels={**current[0].labels, **labels})

    def _insist(
        self,
        request: Callable[[], Operation | None],
        reached: Callable[[], Steps] | None = None,
    ) -> Steps:
        """Make a request until it is accepted, and see its operation through.

        Args:
            reached: tells, after a request that was refused as untimely or not answered, whether it is done all the same.
        """
        attempt = 0
        while True:
            try:
                operation = yield self._ask(request)
                if operation:
                    yield from self._ends(operation)
                return None
            except _EndedBadly as end:
                raise end.error from end
            except (Conflict, Unavailable):
                if reached and (yield from reached()):
                    return None
                attempt += 1
                if attempt == _TRIES:
                    raise
            yield Pause(_PAUSES[attempt])

    # Looking

    def _ends(self, operation: Operation) -> Steps:
        """Wait until the operation has ended.

        Raises:
            Conflict: it ended so because somebody else was there first, or it came at the wrong time.
            _EndedBadly: it ended in any other error.
        """
        progress = yield Await(self._provider.name, operation, self._wait_timeout)
        if isinstance(progress.error, Conflict):
            raise progress.error
        if progress.error:
            error = progress.error
            raise _EndedBadly(error if isinstance(error, ProviderError) else OperationFailed(str(error)))
        return None

    def find(self, machine: MachineBase, zone: str) -> Steps:
        """The machine in that zone, asked by name.

        Raises:
            Conflict: what has its name is not this machine.
        """
        found: Instance | None = yield self._ask(lambda: self._provider.find(machine, zone))
        return owned(found, self._fleet, machine.name) if found else None

    def _is(self, machine: MachineBase, zone: str, *states: State) -> Steps:
        found = yield from self.find(machine, zone)
        return found if found and found.state in states else None

    def reaches(self, machine: MachineBase, zone: str, wanted: State) -> Steps:
        """Wait until the machine is in that state.

        Raises:
            _Vanished: it is gone.
            WaitTimeout: naming the state it was last seen in.
        """
        begun = self._clock.now()
        missing = looks = 0
        trouble = ""
        seen: Instance | None = None
        while True:
            try:
                found = yield from self.find(machine, zone)
                missing = 0 if found else missing + 1
                seen, trouble = found or seen, ""
            except Unavailable as error:
                found, trouble = None, f"; asking for it failed last with: {error.what}"
            if found and found.state is wanted:
                return found
            if missing >= _MISSING_AFTER:
                raise _Vanished(
                    f"the machine is not in {zone} any more",
                    machine=machine.name,
                    hint="Run the same command again: it is planned anew from what exists",
                )
            waited = self._clock.now() - begun
            if (
                found
                and found.state is State.STOPPED
                and wanted is State.RUNNING
                and waited >= _NOT_STARTED_AFTER
            ):
                raise OperationFailed(
                    f"the machine exists in {zone} and did not start",
                    machine=machine.name,
                    hint="Run the same command again: it starts what is stopped",
                )
            if waited >= self._wait_timeout:
                state = seen.cloud_state if seen else "not visible"
                raise WaitTimeout(
                    f"waited {waited:.0f} s in {zone} for it to be {wanted}; it was last seen {state}{trouble}",
                    machine=machine.name,
                    hint="Run the same command again, which goes on waiting, or raise wait_timeout",
                )
            yield Pause(_PAUSES[min(looks, len(_PAUSES) - 1)])
            looks += 1

    def _gone(self, machine: MachineBase, leaving: Instance) -> Steps:
        """Wait until this instance, which is being deleted, is there no more."""
        begun, looks = self._clock.now(), 0
        while True:
            found = yield from self.find(machine, leaving.zone)
            if found is None or found.id != leaving.id:
                return None
            if (waited := self._clock.now() - begun) >= self._wait_timeout:
                raise WaitTimeout(
                    f"waited {waited:.0f} s in {leaving.zone} for its predecessor (id {leaving.id}) to be deleted; "
                    f"it was last seen {found.cloud_state}",
                    machine=machine.name,
                    hint="Run the same command again when it is gone",
                )
            yield Pause(_PAUSES[min(looks, len(_PAUSES) - 1)])
            looks += 1
