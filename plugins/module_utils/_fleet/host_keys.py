# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the fleet's known_hosts up to date with what the clouds vouch for.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import known_hosts
from .clock import Clock
from .errors import FleetError, ProviderError, failure_of
from .firstboot import HOST_KEY_LABEL
from .machines import Instance, State
from .providers.base import Kind, Provider
from .scheduler import Ask, Await, Pause, Scheduler
from .spec import BaremetalMachine, FleetSpec

_PAUSE = 2.0
"""Seconds between two looks for the host keys of a machine that is starting."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Host keys to file.

    Attributes:
        keys: by alias, the provider and the keys.
        silent: instances whose cloud has not told their keys.
        errors: what went wrong with us and not with a cloud.
    """

    keys: Mapping[str, tuple[str, tuple[str, ...]]]
    silent: tuple[Instance, ...]
    errors: tuple[FleetError, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of keeping known_hosts up to date.

    Attributes:
        changed: the file was, or would be, changed.
        notes: what the user should know, one sentence each.
        errors: what went wrong.
    """

    changed: bool
    notes: tuple[str, ...] = ()
    errors: tuple[FleetError, ...] = ()


def keep(
    spec: FleetSpec,
    kinds: Mapping[str, Kind],
    instances: Sequence[Instance],
    providers: Mapping[str, Provider],
    path: str,
    complete: Collection[str],
    clock: Clock,
    *,
    fresh: Collection[str] = (),
    patience: float = 0.0,
) -> Kept:
    """Gather the keys of these instances and file them. What goes wrong is told and not raised.

    Args:
        path: of the known_hosts file.
        complete, fresh, patience: see :func:`file_keys` and :func:`gather`.
    """
    try:
        on_file = known_hosts.aliases(known_hosts.read(path), spec.fleet)
        gathered = gather(spec, instances, providers, on_file, clock, fresh=fresh, patience=patience)
        changed = file_keys(spec, path, gathered.keys, complete, write=True)
    except FleetError as error:
        return Kept(False, errors=(error,))
    late = sorted(i.machine for i in gathered.silent if not kinds[i.provider].plants_host_key)
    lost = sorted(i.machine for i in gathered.silent if kinds[i.provider].plants_host_key)
    notes = []
    if late:
        notes.append(
            f"the host keys of {', '.join(late)} are not published yet, so SSH will refuse to connect; "
            "run again in a minute"
        )
    if lost:
        notes.append(
            f"nobody vouches for the host keys of {', '.join(lost)} any more, for the label {HOST_KEY_LABEL} is gone, so "
            "SSH will refuse to connect; put the label back, or retire the machine and provision it again"
        )
    return Kept(changed, tuple(notes), gathered.errors)


def foreseen(spec: FleetSpec, instances: Sequence[Instance], path: str, complete: Collection[str]) -> bool:
    """Whether :func:`keep` would change the file by what the clouds' listings tell; no machine is asked for its keys.

    Raises:
        FleetError: the file cannot be read.
    """
    return file_keys(spec, path, _listed(spec, instances), complete, write=False)


def _listed(spec: FleetSpec, instances: Sequence[Instance]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The keys that are known without asking."""
    keys = {
        known_hosts.alias(spec.fleet, machine.name, machine.provider): (machine.provider, machine.host_keys)
        for machine in spec.machines.values()
        if isinstance(machine, BaremetalMachine) and machine.host_keys
    }
    return keys | {
        known_hosts.alias(spec.fleet, i.machine, i.id): (i.provider, i.host_keys) for i in instances
    }


def gather(
    spec: FleetSpec,
    instances: Sequence[Instance],
    providers: Mapping[str, Provider],
    on_file: Collection[str],
    clock: Clock,
    *,
    fresh: Collection[str] = (),
    patience: float = 0.0,
) -> Gathered:
    """The host keys of every machine.

    Args:
        instances: all there are; those that do not run are not asked for theirs.
        on_file: aliases whose keys are known already; they are not asked for again.
        fresh: ids of instances that have just been started, whose keys are waited for.
        patience: how many seconds.
    """
    keys = _listed(spec, instances)
    unasked: dict[str, Instance] = {}
    for instance in instances:
        alias = known_hosts.alias(spec.fleet, instance.machine, instance.id)
        if not instance.host_keys and alias not in on_file and instance.state is State.RUNNING:
            unasked[alias] = instance
    jobs = {
        alias: _ask(providers[instance.provider], instance, clock, patience if instance.id in fresh else 0.0)
        for alias, instance in unasked.items()
    }
    answers = Scheduler[tuple[str, ...]](providers, clock).run(jobs)
    told = {alias: answer for alias, answer in answers.items() if isinstance(answer, tuple)}
    keys |= {alias: (unasked[alias].provider, answer) for alias, answer in told.items()}
    broken = {
        alias: copy.copy(failure_of(answer)).about(unasked[alias].machine)
        for alias, answer in answers.items()
        if isinstance(answer, Exception) and not isinstance(answer, ProviderError)
    }
    silent = tuple(unasked[alias] for alias in unasked if alias not in broken and not told.get(alias))
    return Gathered(keys, silent, tuple(broken.values()))


def _ask(
    provider: Provider, instance: Instance, clock: Clock, patience: float
) -> Generator[Ask | Await | Pause, Any, tuple[str, ...]]:
    until = clock.now() + patience
    while True:
        try:
            keys: tuple[str, ...] = yield Ask(provider.name, lambda: provider.host_keys(instance))
        except ProviderError:
            keys = ()
        if keys or clock.now() >= until:
            return keys
        yield Pause(_PAUSE)


def file_keys(
    spec: FleetSpec,
    path: str,
    gathered: Mapping[str, tuple[str, tuple[str, ...]]],
    complete: Collection[str],
    *,
    write: bool,
) -> bool:
    """Write the keys, and drop those of machines that are gone; whether that changes the file.

    Args:
        gathered: the keys of every machine there is, by alias.
        complete: providers that answered in full, so that a machine they did not name is no more.

    Raises:
        FleetError: the file cannot be read or written, or something told is no key.
    """
    answered = {*complete, "baremetal"}

    def change(text: str) -> str:
        on_file = known_hosts.aliases(text, spec.fleet)
        gone = {
            alias for alias, provider in on_file.items() if provider in answered and alias not in gathered
        }
        return known_hosts.merge(text, spec.fleet, gathered, gone=gone)

    try:
        return known_hosts.update(path, change, write=write)
    except ValueError as error:
        raise FleetError(
            f"known_hosts was left as it is, for among what the clouds told is something else than host keys: {error}",
            hint="Look at the machine it belongs to, in its cloud or in the fleet file",
        ) from error
