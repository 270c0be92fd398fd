# SPDX-License-Identifier: GPL-3.0-or-later
"""Hetzner Cloud as a provider.

What the cloud does differently from what one may expect, and what comes of it:

* A server that is switched off costs what it costs when running, so stopping saves nothing.
* Names are unique in a project, so a machine is found by its name wherever it was placed.
* There is no channel for SSH host keys: a label carries the one-time key that was planted, in the request that creates
  the server.
* A shutdown is a wish the guest may ignore, so a server that is still on after a while is switched off.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import errors
from ..access import Access
from ..firstboot import HOST_KEY_LABEL, NEXT_HOST_KEY_LABEL, FirstBoot, key_to_label
from ..machines import FLEET_LABEL, MACHINE_LABEL, Instance, owned
from ..prices import Price
from ..spec import FleetSpec, MachineBase
from . import hetzner_view as view
from .base import Kind, Listing, Operation, Progress
from .hetzner_access import HetznerAccess
from .hetzner_golden import GoldenImages
from .hetzner_models import HetznerMachine, HetznerSettings

if TYPE_CHECKING:
    from ..clock import Clock
    from .hetzner_api import HetznerApi

SHUTDOWN_GRACE = 60.0
"""Seconds a guest has to shut down before its server is switched off."""


@dataclass(slots=True)
class _Stop:
    """A server on its way down."""

    server: str
    machine: str
    action: int
    begun: float
    forced: bool = False


class Hetzner:
    """One project, seen as one fleet. Safe to use from many threads."""

    name = "hetzner"

    def __init__(self, api: HetznerApi, spec: FleetSpec, clock: Clock) -> None:
        self._api = api
        self._spec = spec
        self._clock = clock
        self._access = HetznerAccess(api, spec, clock)
        self._golden = GoldenImages(api)
        self._tariff: view.Tariff | None = None
        self._tariff_lock = threading.Lock()
        self._stops: dict[str, _Stop] = {}

    def list(self) -> Listing:
        """Every server that carries the fleet's label."""
        with ThreadPoolExecutor(1, thread_name_prefix="hetzner-prices") as pool:
            tariff = pool.submit(self._prices)
            servers = self._api.servers(f"{FLEET_LABEL}=={self._spec.fleet}")
            instances = tuple(instance_of(server, tariff.result()) for server in servers)
        return Listing(instances, simulated=self._api.simulated)

    def find(self, machine: MachineBase, zone: str) -> Instance | None:
        """The server of that name, in whatever location it is."""
        server = self._api.server_named(machine.name)
        if server is None:
            return None
        return owned(instance_of(server, self._prices()), self._spec.fleet, machine.name)

    def zones(self, machine: MachineBase) -> Sequence[str]:
        """Its location, then its fallbacks."""
        mine = _ours(machine)
        return (mine.location, *mine.fallback_locations)

    def access(self, machines: Sequence[MachineBase]) -> Access:
        """What differs of the fleet's firewalls and keys."""
        return self._access.look(machines)

    def prepare(self, machines: Sequence[MachineBase]) -> None:
        """Bring the fleet's firewalls to what is declared, at once."""
        self._access.prepare(machines)

    def golden(self, machines: Sequence[MachineBase]) -> Mapping[str, str]:
        """Find the snapshots that are the golden images of these machines."""
        return self._golden.check([_ours(machine) for machine in machines])

    def create(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Operation:
        """Ask for the server, labelled and with its user data, in one request."""
        mine = _ours(machine)
        if not boot.authorized_keys:
            raise errors.InvalidRequest(
                "no SSH key is declared, so nobody could log in and Hetzner would send a root password by mail",
                machine=machine.name,
                hint="Name a file of public keys in defaults: ssh_keys",
            )
        labels = {**mine.labels, FLEET_LABEL: self._spec.fleet, MACHINE_LABEL: machine.name}
        if boot.host_key:
            labels[HOST_KEY_LABEL] = key_to_label(boot.host_key.public, planted=True)
        _dummy, actions = self._api.create_server(
            {
                "name": machine.name,
                "server_type": mine.type,
                "image": self._golden.wanted(mine.image, mine.type, machine.name),
                "location": zone,
                "ssh_keys": self._api.ssh_keys(boot.authorized_keys, {FLEET_LABEL: self._spec.fleet}),
                "user_data": boot.cloud_config(),
                "labels": labels,
                "public_net": {"enable_ipv4": True, "enable_ipv6": True},
                "start_after_create": True,
            },
            machine.name,
        )
        return Operation(",".join(map(str, actions)), machine.name, "create", zone)

    def delete(self, instance: Instance) -> Operation | None:
        """Ask for its removal; the addresses made with it go with it."""
        try:
            action = self._api.delete_server(instance.id, instance.machine)
        except errors.NotFound:
            return None
        return Operation(str(action), instance.machine, "delete", instance.zone)

    def start(self, instance: Instance) -> Operation:
        """Ask for power."""
        action = self._api.act(instance.id, "poweron", instance.machine)
        return Operation(str(action), instance.machine, "start", instance.zone)

    def stop(self, instance: Instance) -> Operation:
        """Ask the guest to shut down; :meth:`poll` switches it off where it does not."""
        action = self._api.act(instance.id, "shutdown", instance.machine)
        operation = Operation(str(action), instance.machine, "stop", instance.zone)
        self._stops[operation.id] = _Stop(instance.id, instance.machine, action, self._clock.now())
        return operation

    def relabel(self, instance: Instance, labels: Mapping[str, str]) -> Operation | None:
        """Set exactly these labels, at once."""
        self._api.set_labels(instance.id, labels, instance.machine)
        return None

    def poll(self, operations: Sequence[Operation]) -> Mapping[str, Progress]:
        """How these operations stand: one request for up to 50, and one listing if servers are being stopped."""
        wanted = {operation.id: self._action_ids(operation.id) for operation in operations}
        actions = self._api.actions(sorted({number for ids in wanted.values() for number in ids}))
        stopped: set[str] | None = None
        result: dict[str, Progress] = {}
        for operation in operations:
            mine = [actions[number] for number in wanted[operation.id] if number in actions]
            if not mine:
                continue  # not there yet, or forgotten already: for the caller to judge
            failed = next((action for action in mine if action["status"] == "error"), None)
            if failed is not None:
                error = self._api.action_error(
                    failed.get("error") or {}, f"the {operation.verb}", operation.machine
                )
                result[operation.id] = Progress(True, error)
                self._stops.pop(operation.id, None)
                continue
            done = len(mine) == len(wanted[operation.id]) and all(
                action["status"] == "success" for action in mine
            )
            if done and operation.id in self._stops:
                stopped = self._stopped() if stopped is None else stopped
                done = self._is_down(operation.id, stopped)
            result[operation.id] = Progress(done)
        return result

    def _action_ids(self, operation_id: str) -> tuple[int, ...]:
        stop = self._stops.get(operation_id)
        return (stop.action,) if stop else tuple(int(number) for number in operation_id.split(","))

    def _stopped(self) -> set[str]:
        servers = self._api.servers(f"{FLEET_LABEL}=={self._spec.fleet}", status="off")
        return {str(server["id"]) for server in servers}

    def _is_down(self, operation_id: str, stopped: set[str]) -> bool:
        stop = self._stops[operation_id]
        if stop.server in stopped:
            del self._stops[operation_id]
            return True
        if not stop.forced and self._clock.now() - stop.begun >= SHUTDOWN_GRACE:
            stop.action = self._api.act(stop.server, "poweroff", stop.machine)
            stop.forced = True
        return False

    def host_keys(self, instance: Instance) -> tuple[str, ...]:
        """What its labels vouch for."""
        return view.host_keys(instance.labels)[0]

    def publish_host_key(self, instance: Instance, key: str, *, pending: bool = False) -> None:
        """Record a host key in the server's labels, which are read afresh so that nobody else's are lost."""
        try:
            value = key_to_label(key, planted=False)
        except ValueError as exc:
            raise errors.InvalidRequest(
                f"the host key cannot be recorded: {exc}",
                machine=instance.machine,
                hint="Give an ssh-ed25519 key",
            ) from exc
        present = self._api.labels(instance.id, instance.machine)
        labels = {**present, NEXT_HOST_KEY_LABEL if pending else HOST_KEY_LABEL: value}
        if not pending:
            labels.pop(NEXT_HOST_KEY_LABEL, None)
        if labels != present:
            self._api.set_labels(instance.id, labels, instance.machine)

    def price(self, machine: MachineBase, zone: str) -> Price:
        """What the server would cost there, with its IPv4 address."""
        return self._prices().price(_ours(machine).type, zone)

    def stopped_price(self, machine: MachineBase, zone: str) -> Price:
        """The same: Hetzner charges for a server until it is deleted."""
        return self.price(machine, zone)

    def _prices(self) -> view.Tariff:
        """The price list, read once."""
        with self._tariff_lock:
            if self._tariff is None:
                self._tariff = read_tariff(self._api, self._clock)
            return self._tariff


def read_tariff(api: HetznerApi, clock: Clock) -> view.Tariff:
    """The price list of the project. Without one, prices are unknown and everything else goes on."""
    try:
        return view.Tariff.from_pricing(api.pricing(), clock.utc().date())
    except errors.ProviderError as error:
        return view.Tariff.unknown(f"Hetzner's price list could not be read: {error.what}")
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return view.Tariff.unknown("Hetzner's price list has a form this release does not know")


def instance_of(server: view.Json, tariff: view.Tariff) -> Instance:
    """A server in our words.

    Raises:
        Unavailable: it is described in words we do not know.
    """
    try:
        return view.to_instance(server, tariff)
    except (KeyError, TypeError, ValueError) as exc:
        raise errors.Unavailable(
            "a server was described in a form this release does not know", hint="Check the endpoint"
        ) from exc


def _ours(machine: MachineBase) -> HetznerMachine:
    if not isinstance(machine, HetznerMachine):
        raise errors.InvalidRequest(
            f"{machine.name} is not declared as a Hetzner machine", machine=machine.name
        )
    return machine


def open_api(token: str | None, endpoint: str | None, clock: Clock) -> HetznerApi:
    """The API, with a token.

    Raises:
        AuthError: there is no token.
        MissingLibrary: hcloud or requests is not installed.
    """
    if not token or not token.strip():
        raise errors.AuthError(
            "there is no token for Hetzner Cloud",
            hint="Set HCLOUD_TOKEN, and in the fleet file `providers: {hetzner: {token: \"{{ lookup('env', 'HCLOUD_TOKEN') }}\"}}`",
        )
    try:
        from .hetzner_api import HetznerApi
    except ImportError as exc:
        raise errors.MissingLibrary(
            f"Hetzner Cloud needs the Python library {exc.name or 'hcloud'} on the control machine",
            hint="Install it with: python3 -m pip install 'hcloud>=2.10,<3'",
        ) from exc
    return HetznerApi(token.strip(), endpoint, clock)


def connect(spec: FleetSpec, settings: Mapping[str, Any], clock: Clock) -> Hetzner:
    """Make ready to talk; nothing is sent yet.

    Args:
        spec: the fleet, with the ``hetzner`` block of its file.
        settings: ``token`` and ``endpoint`` that take the place of those in the file.
        clock: for waits and dates.
    """
    declared = spec.providers.get("hetzner")
    block = declared if isinstance(declared, HetznerSettings) else HetznerSettings()
    token = settings.get("token") or (block.token.get_secret_value() if block.token else None)
    return Hetzner(open_api(token, settings.get("endpoint") or block.endpoint, clock), spec, clock)


KIND = Kind("hetzner", HetznerMachine, HetznerSettings, connect, plants_host_key=True)
