# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the fleet's known_hosts up to date with what the clouds vouch for.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import known_hosts
from .clock import Clock
from .errors import ProviderError
from .machines import Instance, State
from .providers.base import Provider
from .scheduler import Ask, Await, Pause, Scheduler
from .spec import BaremetalMachine, FleetSpec

_PAUSE = 2.0
"""Seconds between two looks for the host keys of a machine that is starting."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Host keys to file.

    Attributes:
        keys: by alias, the provider and the keys.
        silent: machines whose cloud has not told their keys.
    """

    keys: Mapping[str, tuple[str, tuple[str, ...]]]
    silent: tuple[str, ...]


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
    keys: dict[str, tuple[str, tuple[str, ...]]] = {
        known_hosts.alias(spec.fleet, machine.name, machine.provider): (machine.provider, machine.host_keys)
        for machine in spec.machines.values()
        if isinstance(machine, BaremetalMachine) and machine.host_keys
    }
    unasked: dict[str, Instance] = {}
    for instance in instances:
        alias = known_hosts.alias(spec.fleet, instance.machine, instance.id)
        keys[alias] = (instance.provider, instance.host_keys)
        if not instance.host_keys and alias not in on_file and instance.state is State.RUNNING:
            unasked[alias] = instance
    jobs = {
        alias: _ask(providers[instance.provider], instance, clock, patience if instance.id in fresh else 0.0)
        for alias, instance in unasked.items()
    }
    answers = Scheduler[tuple[str, ...]](providers, clock).run(jobs)
    told = {alias: answer for alias, answer in answers.items() if isinstance(answer, tuple)}
    keys |= {alias: (unasked[alias].provider, answer) for alias, answer in told.items()}
    return Gathered(keys, tuple(sorted(unasked[alias].machine for alias in unasked if not told.get(alias))))


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
    """
    answered = {*complete, "baremetal"}

    def change(text: str) -> str:
        on_file = known_hosts.aliases(text, spec.fleet)
        gone = {
            alias for alias, provider in on_file.items() if provider in answered and alias not in gathered
        }
        return known_hosts.merge(text, spec.fleet, gathered, gone=gone)

    return known_hosts.update(path, change, write=write)
