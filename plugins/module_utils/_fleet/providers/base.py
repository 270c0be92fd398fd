# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol a cloud implements. A third cloud is one new file that does this, and one line in the registry.

Three things make a provider: the shape of its part of the fleet file (``machine_model``, ``settings_model``), known
without any network or library of the cloud; :func:`Kind.connect`, which gives a :class:`Provider`; and the Provider,
whose calls start work and never wait for it, so that :mod:`apply` can start everything and then watch everything.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..access import Access
from ..errors import FleetError
from ..machines import Instance
from ..prices import Price

if TYPE_CHECKING:
    from ..clock import Clock
    from ..firstboot import FirstBoot
    from ..spec import FleetSpec, MachineBase, ProviderSettings


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything of one fleet in one cloud, asked for once.

    Attributes:
        instances: every instance that carries the fleet's label.
        unreachable: zones or scopes the cloud could not answer for. Not empty means: what is missing here may exist.
        simulated: a sandbox answered, and no real cloud.
    """

    instances: tuple[Instance, ...]
    unreachable: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """Work the cloud has accepted and is doing: a GCP operation, a Hetzner action.

    Attributes:
        id: the cloud's name of it.
        machine: the declared machine it is for; empty where it is for the whole fleet.
        verb: ``create``, ``delete``, ``start``, ``stop``, ``change``, ``access``.
        zone: where the cloud keeps it, if it keeps operations by zone.
    """

    id: str
    machine: str
    verb: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How an operation stands.

    Attributes:
        done: it has ended.
        error: why it failed, if it did. Only an operation that is done can have one.
    """

    done: bool
    error: FleetError | None = None


class Provider(Protocol):
    """One cloud, connected. Safe to call from many threads at once.

    Every method raises :class:`errors.ProviderError` and nothing else, and returns when the request is answered, not
    when the work is done. Retries of the request itself happen below, in one place.
    """

    name: str

    def list(self) -> Listing:
        """Every instance of the fleet, in as few requests as the cloud allows."""

    def find(self, machine: MachineBase, zone: str) -> Instance | None:
        """The instance of that name in that zone, asked by name: sees what a lagging list does not show yet.

        Raises:
            Conflict: something of that name exists and does not belong to this fleet.
        """

    def zones(self, machine: MachineBase) -> Sequence[str]:
        """Where the machine may be placed, in order of preference: the declared zone, then its fallbacks."""

    def access(self, machines: Sequence[MachineBase]) -> Access:
        """How what lets people in to these machines differs from what is declared: firewalls, registered SSH keys.

        Only reads, in one request where nothing differs.

        Args:
            machines: all of the fleet that exist here or are to exist. Without any, whatever is the fleet's own is to go.
        """

    def prepare(self, machines: Sequence[MachineBase]) -> Operation | None:
        """Make it as declared: for machines, before any is created; for none, once all are gone.

        Idempotent. Does no harm to what others do at the same time.

        Returns:
            Work that goes on, of verb ``access``; creates may be asked for meanwhile. None if there is none.

        Raises:
            Conflict: something is in use still.
        """

    def golden(self, machines: Sequence[MachineBase]) -> Mapping[str, str]:
        """Find the golden images of these machines, before anything is bought.

        Returns:
            By machine, the operating system its image has, in the words of a fleet file; empty where it does not say.

        Raises:
            NotFound, Conflict, InvalidRequest: an image is not there, there are several, or a machine cannot have it.
        """

    def create(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Operation:
        """Ask for a new instance.

        Raises:
            OutOfStock, QuotaExceeded: try the next zone.
            Conflict: the name is taken; :meth:`find` tells by whom.
        """

    def delete(self, instance: Instance) -> Operation | None:
        """Ask for its removal with everything that was made for it. None if it is gone already."""

    def start(self, instance: Instance) -> Operation: ...

    def stop(self, instance: Instance) -> Operation: ...

    def relabel(self, instance: Instance, labels: Mapping[str, str]) -> Operation | None:
        """Set exactly these labels. None if the cloud does it at once."""

    def poll(self, operations: Sequence[Operation]) -> Mapping[str, Progress]:
        """How these operations stand, by their id, in as few requests as the cloud allows."""

    def host_keys(self, instance: Instance) -> tuple[str, ...]:
        """The instance's public SSH host keys through the cloud's own channel; empty while it has not published them."""

    def publish_host_key(self, instance: Instance, key: str, *, pending: bool = False) -> None:
        """Record a host key where :meth:`host_keys` finds it. Does nothing where the cloud's agent does that itself.

        A key is replaced in two steps, so that at no moment the key the machine shows is an unknown one: publish the
        new key as ``pending`` (both are then good), let the machine use it, publish it again without ``pending`` (it is
        then the only one).
        """

    def price(self, machine: MachineBase, zone: str) -> Price:
        """What the machine would cost while it runs there."""

    def stopped_price(self, machine: MachineBase, zone: str) -> Price:
        """What it still costs while it is stopped."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the registry knows of a provider without talking to it.

    Attributes:
        name: as written in the fleet file.
        machine_model: pydantic model of a machine of this provider, a subclass of ``spec.MachineBase``.
        settings_model: pydantic model of its block under ``providers:``.
        connect: opens the connection; ``None`` for machines no cloud makes (``baremetal``, ``external``).
        plants_host_key: new machines are given a one-time SSH host key, because the cloud has no channel for theirs.
    """

    name: str
    machine_model: type[MachineBase]
    settings_model: type[ProviderSettings] | None = None
    connect: Callable[[FleetSpec, Mapping[str, Any], Clock], Provider] | None = None
    plants_host_key: bool = False
