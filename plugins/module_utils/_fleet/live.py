# SPDX-License-Identifier: GPL-3.0-or-later
"""What is: every cloud of the fleet and its mesh, asked at the same time.

One that does not answer never empties the others, and never passes for empty itself: its error is kept by its name.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .clock import Clock
from .errors import FleetError, ProviderError
from .machines import Instance, Member
from .providers.base import Kind, Listing, Provider
from .spec import FleetSpec

MESH = "mesh"
"""The name errors of the mesh's control plane are kept under."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Live:
    """What the clouds and the mesh answered.

    Attributes:
        listings: by provider, for those that answered.
        members: of the mesh; None if it was not asked or did not answer.
        errors: by provider (and ``mesh``), why it did not answer.
        providers: the connected providers, to go on with.
    """

    listings: Mapping[str, Listing] = field(default_factory=dict)
    members: tuple[Member, ...] | None = None
    errors: Mapping[str, FleetError] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Everything that was found, whatever the cloud."""
        return tuple(instance for listing in self.listings.values() for instance in listing.instances)

    @property
    def unreachable(self) -> dict[str, tuple[str, ...]]:
        """By provider, the zones it could not answer for."""
        return {name: listing.unreachable for name, listing in self.listings.items() if listing.unreachable}

    @property
    def sick(self) -> dict[str, FleetError]:
        """By provider, why it could not be asked; without the mesh."""
        return {name: error for name, error in self.errors.items() if name != MESH}


def clouds(spec: FleetSpec, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """The providers this fleet has machines or settings for, of those that can be asked."""
    named = {*spec.providers, *(machine.provider for machine in spec.machines.values())}
    return tuple(sorted(name for name in named if name in kinds and kinds[name].connect))


def look(
    spec: FleetSpec,
    kinds: Mapping[str, Kind],
    clock: Clock,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    mesh: Callable[[], Sequence[Member]] | None = None,
) -> Live:
    """Ask everyone at once.

    Args:
        spec: the fleet.
        kinds: the registry of providers.
        clock: for retries.
        overrides: by provider, settings that take the place of those in the fleet file (tokens, endpoints).
        mesh: asks the mesh's control plane for its members; None leaves it unasked.
    """
    names = clouds(spec, kinds)
    given = overrides or {}

    def provider(name: str) -> tuple[Provider, Listing]:
        connect = kinds[name].connect
        if connect is None:
            raise ProviderError(f"{name} is no cloud and cannot be asked")
        connected = connect(spec, given.get(name, {}), clock)
        return connected, connected.list()

    errors: dict[str, FleetError] = {}
    with ThreadPoolExecutor(max_workers=len(names) + 1, thread_name_prefix="look") as pool:
        asked = {name: pool.submit(provider, name) for name in names}
        members = pool.submit(mesh) if mesh else None
        answers = {
            name: answer for name, future in asked.items() if (answer := _outcome(name, future, errors))
        }
        known = _outcome(MESH, members, errors) if members else None
    return Live(
        listings={name: listing for name, (_dummy, listing) in answers.items()},
        members=None if known is None else tuple(known),
        errors=errors,
        providers={name: connected for name, (connected, _dummy) in answers.items()},
    )


def _outcome(name: str, future: Future[Answer], errors: dict[str, FleetError]) -> Answer | None:
    try:
        return future.result()
    except FleetError as error:
        errors[name] = error
        return None
