# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as an inventory: what is declared and what is, as hosts, groups and variables.

Every declared machine is a host exactly once, whatever the clouds say or do not say. What carries our labels and is not
declared, and what is in the mesh and not declared, are hosts as well, in groups of their own and in no other, so that
no play reaches them by accident. Strings from clouds are data: names are checked before they become names of hosts or
groups, addresses before they are connected to.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypedDict

from . import known_hosts
from .addresses import rfc4193
from .machines import Instance, Member, State
from .prices import Price
from .providers.base import Listing
from .spec import RESERVED_NAMES, BaremetalMachine, ExternalMachine, FleetSpec, MachineBase

ALWAYS = (
    "fleet",
    "enabled",
    "disabled",
    "running",
    "missing",
    "undeclared",
    "gpu",
    "mesh",
    "mesh_online",
    "mesh_offline",
    "mesh_unauthorized",
    "mesh_undeclared",
)
"""Groups that exist even when empty, so that a play over them is no mistake."""

MISSING = "missing"
DISABLED = "disabled"
UNMANAGED = "unmanaged"
EXTERNAL = "external"
UNKNOWN = str(State.UNKNOWN)

_BEST_STATES = (State.RUNNING, State.CREATING, State.STOPPED, State.STOPPING, State.UNKNOWN, State.DELETING)
_HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")
_NOT_IN_GROUP_NAME = re.compile(r"[^A-Za-z0-9_]")


class MeshMember(TypedDict):
    """What the mesh's control plane says of a machine."""

    node_id: str
    authorized: bool
    online: bool | None
    addresses: list[str]
    version: str | None
    last_seen: str | None
    latency_ms: float | None
    physical_address: str | None


class CloudInstance(TypedDict):
    """What a machine's cloud says of it."""

    id: str
    name: str
    cloud_state: str
    zone: str
    type: str
    image: str | None
    created: str | None
    public_ip: str | None
    public_ipv6: str | None
    private_ip: str | None
    labels: dict[str, str]


class HostVars(TypedDict, total=False):
    """Every variable the inventory sets."""

    fleet_name: str
    fleet_machine: dict[str, Any]
    fleet_provider: str
    fleet_state: str
    fleet_gpu_model: str | None
    fleet_gpu_count: int
    fleet_hourly_usd: float | None
    fleet_monthly_usd: float | None
    fleet_simulated: bool
    fleet_user: str
    fleet_ssh_key_files: list[str]
    fleet_ssh_sources: list[str]
    fleet_public_ip: str | None
    fleet_mesh_ip: str | None
    fleet_mesh_node_id: str | None
    fleet_instance: CloudInstance | None
    fleet_mesh_member: MeshMember | None
    fleet_stale: bool
    fleet_host_key_planted: bool
    ansible_host: str
    ansible_user: str
    ansible_port: int
    ansible_ssh_common_args: str


@dataclass(frozen=True, slots=True)
class Host:
    """One host.

    Attributes:
        groups: it is in.
        variables: of ours; untrusted, never templated.
        own: variables the user declared; they win, and are templated like any other of the user's.
    """

    groups: tuple[str, ...]
    variables: HostVars
    own: Mapping[str, Any] = field(default_factory=dict)


def inventory(
    spec: FleetSpec,
    listings: Mapping[str, Listing],
    members: Sequence[Member] | None,
    *,
    stale: Collection[str] = (),
) -> dict[str, Host]:
    """The hosts by name: declared machines in the order of the file, then what nobody declared.

    Args:
        spec: the fleet.
        listings: what each cloud answered, by provider. One that is not there was not asked, or did not answer.
        members: of the mesh, None if they are not known.
        stale: providers whose listing is an old one.
    """
    builder = _Builder(spec, listings, members or (), frozenset(stale))
    hosts = {name: builder.declared(machine) for name, machine in spec.machines.items()}
    for name, host in [*builder.undeclared_instances(), *builder.undeclared_members()]:
        hosts[_free_name(name, hosts)] = host
    return hosts


def group_name(prefix: str, value: str) -> str:
    """``zone_us_central1_c`` for the zone us-central1-c: what Ansible takes as a group name without a warning."""
    return _NOT_IN_GROUP_NAME.sub("_", f"{prefix}_{value}")


class _Builder:
    def __init__(
        self,
        spec: FleetSpec,
        listings: Mapping[str, Listing],
        members: Iterable[Member],
        stale: frozenset[str],
    ) -> None:
        self._spec = spec
        self._listings = listings
        self._stale = stale
        self._instances: dict[str, Instance] = {}
        self._others: list[Instance] = []
        self._sort_instances()
        self._members: dict[str, Member] = {}
        self._strangers: list[Member] = []
        self._sort_members(members)
        file = spec.known_hosts.replace("%", "%%")
        self._known_hosts = f'"{file}"' if " " in file else file

    def _sort_instances(self) -> None:
        """Give each declared machine its instance; what is left over is undeclared."""
        candidates: dict[str, list[Instance]] = {}
        for listing in self._listings.values():
            for instance in listing.instances:
                if instance.fleet == self._spec.fleet:
                    candidates.setdefault(instance.machine, []).append(instance)
        for name, found in candidates.items():
            machine = self._spec.machines.get(name)
            ours = [instance for instance in found if machine and instance.provider == machine.provider]
            if machine and ours:
                zone = machine.zone
                found.remove(
                    best := min(
                        ours, key=lambda one: (_BEST_STATES.index(one.state), one.zone != zone, one.id)
                    )
                )
                self._instances[name] = best
            self._others += found

    def _sort_members(self, members: Iterable[Member]) -> None:
        """Give each declared machine its member: by declared node id, else by the name it was admitted under."""
        by_node = {
            machine.node_id: name
            for name, machine in self._spec.machines.items()
            if isinstance(machine, ExternalMachine)
        }
        for member in sorted(members, key=lambda one: (not one.authorized, not one.online, one.node_id)):
            name = by_node.get(member.node_id, member.name)
            machine = self._spec.machines.get(name)
            taken = name in self._members or (
                isinstance(machine, ExternalMachine) and machine.node_id != member.node_id
            )
            if machine is None or taken:
                self._strangers.append(member)
            else:
                self._members[name] = member

    def declared(self, machine: MachineBase) -> Host:
        instance = self._instances.get(machine.name)
        member = self._members.get(machine.name)
        state = self._state(machine, instance)
        gpu_model, gpu_count = _gpu(machine, instance)
        node_id = member.node_id if member else getattr(machine, "node_id", None)
        mesh_ip = self._mesh_ip(node_id, member)
        public_ip = _public_ip(machine, instance)
        variables: HostVars = {
            "fleet_name": self._spec.fleet,
            "fleet_machine": {"name": machine.name, **machine.model_dump(mode="json", exclude={"vars"})},
            "fleet_provider": machine.provider,
            "fleet_state": state,
            "fleet_gpu_model": gpu_model,
            "fleet_gpu_count": gpu_count,
            "fleet_hourly_usd": self._usd(instance.price, instance.price.hourly) if instance else None,
            "fleet_monthly_usd": self._usd(instance.price, instance.price.monthly) if instance else None,
            "fleet_simulated": self._simulated(machine.provider),
            "fleet_public_ip": public_ip,
            "fleet_mesh_ip": mesh_ip,
            "fleet_mesh_node_id": node_id,
            "fleet_instance": _instance_facts(instance) if instance else None,
            "fleet_mesh_member": _member_facts(member) if member else None,
            "fleet_stale": machine.provider in self._stale,
            "fleet_host_key_planted": instance is not None and instance.host_keys_planted,
        }
        online = member is not None and member.authorized and bool(member.online)
        if address := (mesh_ip if online and mesh_ip else public_ip):
            variables["ansible_host"] = address
        if not isinstance(machine, ExternalMachine):
            variables["ansible_user"] = variables["fleet_user"] = self._spec.user(machine)
            variables["fleet_ssh_sources"] = list(self._spec.ssh_sources(machine))
            variables["fleet_ssh_key_files"] = [
                self._spec.file(path) for path in self._spec.defaults.ssh_keys
            ]
            variables["ansible_port"] = self._spec.defaults.ssh_port
            variables["ansible_ssh_common_args"] = self._ssh_args(machine, instance)
        groups = [
            "fleet",
            "enabled" if machine.enabled else "disabled",
            group_name("provider", machine.provider),
            *(group_name("tag", tag) for tag in machine.tags),
        ]
        if zone := (instance.zone if instance else machine.zone):
            groups.append(group_name("zone", zone))
        if gpu_model:
            groups += ["gpu", group_name("gpu", gpu_model)]
        if state == State.RUNNING or (isinstance(machine, BaremetalMachine) and machine.enabled):
            groups.append("running")
        if state == MISSING:
            groups.append("missing")
        if node_id:
            groups += _mesh_groups(member)
        return Host(tuple(dict.fromkeys(groups)), variables, machine.vars)

    def undeclared_instances(self) -> Iterable[tuple[str, Host]]:
        for instance in self._others:
            variables: HostVars = {
                "fleet_name": self._spec.fleet,
                "fleet_provider": instance.provider,
                "fleet_state": str(instance.state),
                "fleet_gpu_model": instance.gpu_model,
                "fleet_gpu_count": instance.gpu_count,
                "fleet_hourly_usd": self._usd(instance.price, instance.price.hourly),
                "fleet_monthly_usd": self._usd(instance.price, instance.price.monthly),
                "fleet_simulated": self._simulated(instance.provider),
                "fleet_public_ip": _address(instance.public_ip) or _address(instance.public_ipv6),
                "fleet_instance": _instance_facts(instance),
                "fleet_stale": instance.provider in self._stale,
            }
            name = (
                instance.name
                if _HOST_NAME.fullmatch(instance.name) and instance.name not in RESERVED_NAMES
                else ""
            )
            yield name or group_name(instance.provider, instance.id), Host(("undeclared",), variables)

    def undeclared_members(self) -> Iterable[tuple[str, Host]]:
        for member in self._strangers:
            variables: HostVars = {
                "fleet_name": self._spec.fleet,
                "fleet_state": "undeclared",
                "fleet_mesh_ip": self._mesh_ip(member.node_id, member),
                "fleet_mesh_node_id": member.node_id,
                "fleet_mesh_member": _member_facts(member),
            }
            yield group_name("mesh", member.node_id), Host(("mesh_undeclared",), variables)

    def _state(self, machine: MachineBase, instance: Instance | None) -> str:
        if isinstance(machine, ExternalMachine):
            return EXTERNAL
        if isinstance(machine, BaremetalMachine):
            return UNMANAGED if machine.enabled else DISABLED
        if instance:
            return str(instance.state)
        listing = self._listings.get(machine.provider)
        if listing is None or listing.unreachable:
            return UNKNOWN
        return MISSING if machine.enabled else DISABLED

    def _mesh_ip(self, node_id: str | None, member: Member | None) -> str | None:
        for text in member.addresses if member else ():
            if address := _address(text):
                return address
        if not node_id or not self._spec.mesh:
            return None
        try:
            return str(rfc4193(self._spec.mesh.network, node_id).ip)
        except ValueError:
            return None

    def _usd(self, price: Price, amount: Decimal | None) -> float | None:
        rate = Decimal(1) if price.currency == "USD" else self._spec.usd_per.get(price.currency)
        return None if amount is None or rate is None else float(amount * rate)

    def _simulated(self, provider: str) -> bool:
        return provider in self._listings and self._listings[provider].simulated

    def _ssh_args(self, machine: MachineBase, instance: Instance | None) -> str:
        """Options for ssh: check the host key, and against the fleet's own list wherever we vouch for the key."""
        options = ["StrictHostKeyChecking=yes"]
        if isinstance(machine, BaremetalMachine):
            alias = (
                known_hosts.alias(self._spec.fleet, machine.name, machine.provider)
                if machine.host_keys
                else ""
            )
        else:
            alias = (
                known_hosts.alias(self._spec.fleet, machine.name, instance.id) if instance else machine.name
            )
        if alias:
            options = [
                f"UserKnownHostsFile={self._known_hosts}",
                *options,
                f"HostKeyAlias={alias}",
                "GlobalKnownHostsFile=/dev/null",
                "UpdateHostKeys=no",
            ]
        return " ".join(f"-o {shlex.quote(option)}" for option in options)


def _mesh_groups(member: Member | None) -> list[str]:
    if member is None:
        return ["mesh"]
    if not member.authorized:
        return ["mesh", "mesh_unauthorized"]
    if member.online is None:
        return ["mesh"]
    return ["mesh", "mesh_online" if member.online else "mesh_offline"]


def _gpu(machine: MachineBase, instance: Instance | None) -> tuple[str | None, int]:
    if machine.gpu:
        return machine.gpu.model, machine.gpu.count
    return (instance.gpu_model, instance.gpu_count) if instance else (None, 0)


def _public_ip(machine: MachineBase, instance: Instance | None) -> str | None:
    if isinstance(machine, BaremetalMachine):
        return machine.address
    if instance is None:
        return None
    return _address(instance.public_ip) or _address(instance.public_ipv6)


def _address(text: str | None) -> str | None:
    """The text if it is an IP address: what ssh is given must not be an option or a command."""
    try:
        return str(ipaddress.ip_address(text)) if text else None
    except ValueError:
        return None


def _instance_facts(instance: Instance) -> CloudInstance:
    return {
        "id": instance.id,
        "name": instance.name,
        "cloud_state": instance.cloud_state,
        "zone": instance.zone,
        "type": instance.type,
        "image": instance.image,
        "created": instance.created,
        "public_ip": instance.public_ip,
        "public_ipv6": instance.public_ipv6,
        "private_ip": instance.private_ip,
        "labels": dict(instance.labels),
    }


def _member_facts(member: Member) -> MeshMember:
    return {
        "node_id": member.node_id,
        "authorized": member.authorized,
        "online": member.online,
        "addresses": list(member.addresses),
        "version": member.version,
        "last_seen": member.last_seen,
        "latency_ms": member.latency_ms,
        "physical_address": member.physical_address,
    }


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with a number if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
