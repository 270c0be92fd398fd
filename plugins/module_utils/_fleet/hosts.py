# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as an inventory: what is declared and what is, as hosts, groups and variables.

Every declared machine is a host exactly once, whatever the clouds say or do not say. What carries our labels and is not
declared, and what is in the mesh and not declared, are hosts as well, in groups of their own and in no other, so that
no play reaches them by accident. Strings from clouds are data: names are checked before they become names of hosts or
groups, addresses before they are connected to.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypedDict

from . import reach
from .machines import MESH, Instance, Member, State
from .prices import Price
from .providers.base import Listing
from .spec import RESERVED_NAMES, BaremetalMachine, CloudMachine, ExternalMachine, FleetSpec, MachineBase

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

REFUSED = "gpumesh.fleet.refused"
"""The connection that is never made."""

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
    simulated: bool


class FleetMesh(TypedDict):
    """What is declared of the mesh, for one machine. Holds no secret."""

    network: str
    controller: str
    domain: str
    addressing: str
    name: str
    members_known: bool


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
    fleet_known_hosts: str
    fleet_host_key_alias: str | None
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
    fleet_mesh: FleetMesh
    fleet_mesh_ip: str | None
    fleet_mesh_node_id: str | None
    fleet_instance: CloudInstance | None
    fleet_mesh_member: MeshMember | None
    fleet_stale: bool
    fleet_host_key_planted: bool
    ansible_connection: str
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
    simulated_mesh: bool = False,
) -> dict[str, Host]:
    """The hosts by name: declared machines in the order of the file, then what nobody declared.

    Args:
        spec: the fleet.
        listings: what each cloud answered, by provider. One that is not there was not asked, or did not answer.
        members: of the mesh, None if they are not known.
        stale: providers, and ``mesh``, whose answer is an old one.
        simulated_mesh: the members were told by a sandbox.
    """
    builder = _Builder(spec, listings, members, frozenset(stale), simulated_mesh)
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
        members: Sequence[Member] | None,
        stale: frozenset[str],
        simulated_mesh: bool,
    ) -> None:
        self._spec = spec
        self._listings = listings
        self._stale = stale
        self._simulated_mesh = simulated_mesh
        self._members_known = members is not None
        self._instances: dict[str, Instance] = {}
        self._others: list[Instance] = []
        self._sort_instances()
        self._members: dict[str, Member] = {}
        self._strangers: list[Member] = []
        self._sort_members(members or ())

    def _sort_instances(self) -> None:
        """Give each declared machine its instance; what is left over is undeclared."""
        candidates: dict[str, list[Instance]] = {}
        for listing in self._listings.values():
            for instance in listing.instances:
                if instance.fleet == self._spec.fleet:
                    candidates.setdefault(instance.machine, []).append(instance)
        for name, found in candidates.items():
            machine = self._spec.machines.get(name)
            if machine and (best := reach.pick(machine, found)):
                found.remove(best)
                self._instances[name] = best
            self._others += found

    def _sort_members(self, members: Iterable[Member]) -> None:
        """Give each declared machine its member: by its node id where that is known beforehand, else by its name.

        A name is the control plane's own, which no node can give itself.
        """
        known = {name: self._spec.node_id(machine) for name, machine in self._spec.machines.items()}
        by_node = {node_id: name for name, node_id in known.items() if node_id}
        for member in sorted(members, key=lambda one: (not one.authorized, not one.online, one.node_id)):
            name = by_node.get(member.node_id, member.name)
            if name not in known or name in self._members or known[name] not in (None, member.node_id):
                self._strangers.append(member)
            else:
                self._members[name] = member

    def declared(self, machine: MachineBase) -> Host:
        instance = self._instances.get(machine.name)
        member = self._members.get(machine.name)
        state = self._state(machine, instance)
        gpu_model, gpu_count = _gpu(machine, instance)
        node_id = member.node_id if member else self._spec.node_id(machine)
        mesh_ip = reach.mesh_address(self._spec, node_id, member)
        public_ip = reach.public_address(machine, instance)
        variables: HostVars = {
            "fleet_name": self._spec.fleet,
            "fleet_known_hosts": self._spec.known_hosts,
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
            "fleet_mesh_member": self._member_facts(member) if member else None,
            "fleet_stale": machine.provider in self._stale or (member is not None and MESH in self._stale),
            "fleet_host_key_planted": instance is not None and instance.host_keys_planted,
        }
        if mesh := self._spec.mesh:
            variables["fleet_mesh"] = {
                "network": mesh.network,
                "controller": mesh.controller,
                "domain": mesh.domain,
                "addressing": mesh.addressing,
                "name": f"{machine.name}.{mesh.domain}",
                "members_known": self._members_known,
            }
        over_mesh = self._over_mesh(machine, member) and mesh_ip is not None
        if address := (mesh_ip if over_mesh else public_ip):
            variables["ansible_host"] = address
        if not isinstance(machine, ExternalMachine):
            variables["ansible_user"] = variables["fleet_user"] = self._spec.user(machine)
            variables["fleet_ssh_sources"] = list(self._spec.ssh_sources(machine))
            variables["fleet_ssh_key_files"] = [
                self._spec.file(path) for path in self._spec.defaults.ssh_keys
            ]
            variables["ansible_port"] = self._spec.defaults.ssh_port
            variables["fleet_host_key_alias"] = reach.host_key_alias(self._spec, machine, instance)
            options = reach.ssh_options(self._spec, machine, instance, over_mesh=over_mesh)
            variables["ansible_ssh_common_args"] = " ".join(f"-o {shlex.quote(option)}" for option in options)
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
        if member or (node_id and machine.enabled):
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
                "fleet_public_ip": reach.checked(instance.public_ip) or reach.checked(instance.public_ipv6),
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
                "fleet_mesh_ip": reach.mesh_address(self._spec, member.node_id, member),
                "fleet_mesh_node_id": member.node_id,
                "fleet_mesh_member": self._member_facts(member),
                "fleet_stale": MESH in self._stale,
            }
            if self._spec.mesh and self._spec.mesh.strict:
                variables["ansible_connection"] = REFUSED
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

    def _over_mesh(self, machine: MachineBase, member: Member | None) -> bool:
        """Whether Ansible reaches it by its address in the mesh."""
        mesh = self._spec.mesh
        if not (mesh and mesh.connect == "mesh" and member and member.authorized):
            return False
        # Where no public SSH is open there is no other way, and one that has just been made is about to come.
        return bool(member.online) or (
            isinstance(machine, CloudMachine) and not self._spec.ssh_sources(machine)
        )

    def _member_facts(self, member: Member) -> MeshMember:
        return {
            "node_id": member.node_id,
            "authorized": member.authorized,
            "online": member.online,
            "addresses": list(member.addresses),
            "version": member.version,
            "last_seen": member.last_seen,
            "latency_ms": member.latency_ms,
            "physical_address": member.physical_address,
            "simulated": self._simulated_mesh,
        }

    def _usd(self, price: Price, amount: Decimal | None) -> float | None:
        rate = Decimal(1) if price.currency == "USD" else self._spec.usd_per.get(price.currency)
        return None if amount is None or rate is None else float(amount * rate)

    def _simulated(self, provider: str) -> bool:
        return provider in self._listings and self._listings[provider].simulated


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


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with a number if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
