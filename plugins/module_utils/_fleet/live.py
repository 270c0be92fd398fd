# SPDX-License-Identifier: GPL-3.0-or-later
"""What is: every cloud of the fleet and its mesh, asked at the same time.

One that does not answer never empties the others, and never passes for empty itself: its error is kept by its name.

A control plane that runs on a machine of the fleet is reached through SSH at that machine, so the mesh waits for the one
cloud that knows where it is, and for nobody else.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from . import reach
from .clock import Clock
from .errors import FleetError, NotFound, ProviderError, Unreachable
from .machines import MESH, Instance, Member, State
from .mesh.base import ControlPlane
from .providers.base import Kind, Listing, Provider
from .spec import CloudMachine, FleetSpec, MachineBase

Answer = TypeVar("Answer")

Connect: TypeAlias = Callable[[FleetSpec, Mapping[str, Any], Clock], ControlPlane]
"""Makes ready to talk to the mesh's control plane, as :func:`.mesh.connect` does."""

_Found: TypeAlias = "tuple[Provider, Listing]"


@dataclass(frozen=True, slots=True)
class Live:
    """What the clouds and the mesh answered.

    Attributes:
        listings: by provider, for those that answered.
        members: of the mesh; None if it was not asked or did not answer.
        errors: by provider (and ``mesh``), why it did not answer.
        providers: the connected providers, to go on with.
        simulated_mesh: the members were told by a sandbox.
    """

    listings: Mapping[str, Listing] = field(default_factory=dict)
    members: tuple[Member, ...] | None = None
    errors: Mapping[str, FleetError] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    simulated_mesh: bool = False

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
    mesh: Connect | None = None,
    only: Collection[str] | None = None,
) -> Live:
    """Ask everyone at once.

    Args:
        spec: the fleet.
        kinds: the registry of providers.
        clock: for retries.
        overrides: by provider (and ``mesh``), settings that take the place of those in the fleet file (tokens, endpoints).
        mesh: connects to the mesh's control plane; None leaves it unasked. A fleet without a mesh has none to ask.
        only: limits the clouds that are asked to these.
    """
    names = [name for name in clouds(spec, kinds) if only is None or name in only]
    given = overrides or {}

    def provider(name: str) -> _Found:
        connect = kinds[name].connect
        if connect is None:
            raise ProviderError(f"{name} is no cloud and cannot be asked")
        connected = connect(spec, given.get(name, {}), clock)
        return connected, connected.list()

    _load_requests()
    errors: dict[str, FleetError] = {}
    with ThreadPoolExecutor(max_workers=len(names) + 1, thread_name_prefix="look") as pool:
        asked = {name: pool.submit(provider, name) for name in names}
        members = None
        if mesh and spec.mesh:
            members = pool.submit(_members, spec, given.get(MESH, {}), clock, mesh, asked)
        answers = {
            name: answer for name, future in asked.items() if (answer := _outcome(name, future, errors))
        }
        known = _outcome(MESH, members, errors) if members else None
    return Live(
        listings={name: listing for name, (_dummy, listing) in answers.items()},
        members=None if known is None else known[0],
        errors=errors,
        providers={name: connected for name, (connected, _dummy) in answers.items()},
        simulated_mesh=known is not None and known[1],
    )


def _load_requests() -> None:
    """Import what all of them talk with. Threads that do so at the same time may each see it half made."""
    with contextlib.suppress(ImportError):  # Whoever needs it says that it is missing.
        importlib.import_module(".http", __package__)


def plane(
    spec: FleetSpec,
    kinds: Mapping[str, Kind],
    clock: Clock,
    connect: Connect,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> ControlPlane | None:
    """The fleet's control plane, connected; None where it is a machine that does not exist yet.

    Only the cloud that its machine is in is asked, and none for ZeroTier Central.

    Raises:
        FleetError: there is no mesh.
        Unreachable: the machine with the controller does not run, or nobody could tell where it is.
        AuthError, MissingLibrary: see ``connect``.
    """
    given = overrides or {}
    machine = _on_machine(spec, given.get(MESH, {}))
    instance = None
    if isinstance(machine, CloudMachine):
        seen = look(spec, kinds, clock, overrides=given, only=[machine.provider])
        listing, error = seen.listings.get(machine.provider), seen.errors.get(machine.provider)
        if (instance := _running(spec, machine, listing, error)) is None:
            return None
    return connect(spec, _settings(spec, given.get(MESH, {}), machine, instance), clock)


def _members(
    spec: FleetSpec,
    given: Mapping[str, Any],
    clock: Clock,
    connect: Connect,
    asked: Mapping[str, Future[_Found]],
) -> tuple[tuple[Member, ...], bool]:
    """The members of the mesh, and whether a sandbox told them."""
    machine = _on_machine(spec, given)
    instance = None
    if isinstance(machine, CloudMachine):
        future = asked.get(machine.provider)
        answer = _outcome(machine.provider, future, {}) if future else None
        # Why its cloud did not answer is told with that cloud.
        if (instance := _running(spec, machine, answer[1] if answer else None, None)) is None:
            raise no_controller(machine.name)
    connected = connect(spec, _settings(spec, given, machine, instance), clock)
    try:
        return tuple(connected.members()), connected.simulated
    except NotFound as error:
        if spec.mesh is None or spec.mesh.controller not in spec.machines:
            raise
        # A machine that is new has no controller yet, and a controller that is new has no network.
        raise Unreachable(
            error.what, machine=error.machine, hint=error.hint, code=error.code, details=error.details
        ) from error
    finally:
        connected.close()


def _on_machine(spec: FleetSpec, given: Mapping[str, Any]) -> MachineBase | None:
    """The machine to ask through SSH; None where the control plane is asked directly."""
    if spec.mesh is None or spec.mesh.endpoint or given.get("endpoint"):
        return None
    return spec.machines.get(spec.mesh.controller)


def no_controller(machine: str) -> Unreachable:
    """What to report where there is nobody to be asked yet."""
    return Unreachable(f"the mesh's controller {machine} does not exist yet", hint="Provision it first")


def _running(
    spec: FleetSpec, machine: CloudMachine, listing: Listing | None, error: FleetError | None
) -> Instance | None:
    """The controller's machine, from what its cloud answered; None if it does not exist.

    Raises:
        Unreachable: it is not there to be asked. That is no failure of the mesh's, which was asked nothing.
    """
    doing = f"the mesh's controller {machine.name}"
    if listing is None:
        reason = f": {error.what}" if error else ""
        raise Unreachable(f"{doing} cannot be found, for {machine.provider} did not tell where it is{reason}")
    mine = [one for one in listing.instances if (one.fleet, one.machine) == (spec.fleet, machine.name)]
    found = reach.pick(machine, mine)
    if found is None and listing.unreachable:
        zones = ", ".join(listing.unreachable)
        raise Unreachable(f"{doing} cannot be found, for {machine.provider} did not answer for {zones}")
    if found is not None and found.state is not State.RUNNING:
        raise Unreachable(
            f"{doing} is not running but {found.state}", hint="Start it, or wait until it is up"
        )
    return found


def _settings(
    spec: FleetSpec, given: Mapping[str, Any], machine: MachineBase | None, instance: Instance | None
) -> dict[str, Any]:
    """What the control plane is connected with."""
    return {**given, "ssh": reach.target(spec, machine, instance)} if machine else dict(given)


def _outcome(name: str, future: Future[Answer], errors: dict[str, FleetError]) -> Answer | None:
    try:
        return future.result()
    except FleetError as error:
        errors[name] = error
        return None
