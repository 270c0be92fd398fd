# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of all projects: instances, firewalls, networks, operations, what is used of each quota.

Every project exists from its first use and belongs to the sandbox's service account; the projects of public images can
only be read. A resource is kept as the JSON it is shown as.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ..backends.base import Addresses
from ..faults import Subject
from ..world import World
from . import catalog
from .errors import ApiError, Json, OperationError, already_exists, not_found, quota_exceeded

_PACIFIC = timezone(timedelta(hours=-8))


@dataclass(slots=True, eq=False)
class Operation:
    """An operation and what waits for it."""

    resource: Json
    subject: Subject
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scope(self) -> str:
        """``zones/us-central1-a`` or ``global``."""
        zone = self.resource.get("zone", "")
        return f"zones/{zone.rpartition('/')[2]}" if zone else "global"


@dataclass(slots=True, eq=False)
class Instance:
    """An instance and what the service knows of it beyond its resource.

    Attributes:
        key: of the machine behind it.
        image: what it was made from; None for an image we cannot boot.
        used: what it takes of its region's quotas.
        lock: held by the operation at work on it; others wait.
        leaving: its deletion has been asked for.
        listed_from: time before which lists do not show it.
        guest_attributes: as last read from the machine, by (namespace, key).
        boots: how often it was started; a timer of an earlier boot must not stop a later one.
    """

    resource: Json
    zone: str
    key: str
    image: catalog.OsImage
    addresses: Addresses
    used: dict[str, float]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    leaving: bool = False
    listed_from: float = 0.0
    guest_attributes: dict[tuple[str, str], str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    boots: int = 0

    @property
    def name(self) -> str:
        return str(self.resource["name"])

    @property
    def status(self) -> str:
        return str(self.resource["status"])

    def subject(self, verb: str) -> Subject:
        """What an operation on it is about."""
        machine_type = self.resource["machineType"].rpartition("/")[2]
        return Subject(self.name, self.resource.get("labels", {}), self.zone, machine_type, verb)


def gpu_of(accelerators: list[Json]) -> tuple[str, int]:
    """Name and number of an instance's GPUs; an empty name for none."""
    if not accelerators:
        return "", 0
    return accelerators[0]["acceleratorType"].rpartition("/")[2], accelerators[0]["acceleratorCount"]


class Project:
    """One project."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.instances: dict[tuple[str, str], Instance] = {}
        self.operations: dict[tuple[str, str], Operation] = {}
        self.requests: dict[tuple[str, str, str], Operation] = {}
        self.used: dict[str, Counter[str]] = {region: Counter() for region in catalog.regions()}
        self.gpus = 0
        self.created = timestamp(world)
        self.networks: dict[str, Json] = {}
        self.firewalls: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self._first_objects()

    def link(self, path: str) -> str:
        """The URL of something in this project, ``zones/us-central1-a``."""
        return f"{self.world.base_url}/compute/v1/projects/{self.name}/{path}"

    def instance(self, zone: str, name: str) -> Instance:
        """By name or id.

        Raises:
            ApiError: there is none.
        """
        found = self.instances.get((zone, name))
        if not found and name.isdigit():
            found = next(
                (one for one in self.instances.values() if one.zone == zone and one.resource["id"] == name),
                None,
            )
        if not found:
            raise not_found(f"projects/{self.name}/zones/{zone}/instances/{name}")
        return found

    def named(self, kind: str, name: str) -> Json:
        """A global object: ``networks``, ``firewalls`` or ``images``, by name or id."""
        objects: dict[str, Json] = getattr(self, kind)
        found = objects.get(name) or next((one for one in objects.values() if one["id"] == name), None)
        if not found:
            raise not_found(f"projects/{self.name}/global/{kind}/{name}")
        return found

    def check_free(self, taken: bool, path: str) -> None:
        """Refuse a name that is in use."""
        if taken:
            raise already_exists(f"projects/{self.name}/{path}")

    def over_quota(self, region: str, used: dict[str, float], gpus: int) -> OperationError | None:
        """The quota these would exceed."""
        for metric, amount in used.items():
            if self.used[region][metric] + amount > catalog.REGION_QUOTAS[metric]:
                return quota_exceeded(metric, catalog.REGION_QUOTAS[metric], region)
        if self.gpus + gpus > catalog.PROJECT_QUOTAS["GPUS_ALL_REGIONS"]:
            return quota_exceeded("GPUS_ALL_REGIONS", catalog.PROJECT_QUOTAS["GPUS_ALL_REGIONS"], "")
        return None

    def count(self, instance: Instance, sign: int) -> None:
        """Add what an instance uses to the quotas' usage, or take it away again."""
        usage = self.used[catalog.zones()[instance.zone]]
        for metric, amount in instance.used.items():
            usage[metric] += sign * amount  # type: ignore[assignment]  # a Counter of floats
        self.gpus += sign * sum(
            gpu["acceleratorCount"] for gpu in instance.resource.get("guestAccelerators", ())
        )

    def _first_objects(self) -> None:
        """The network every new project has, with the firewall rules that come with it."""
        network = self.link("global/networks/default")
        self.networks["default"] = {
            "kind": "compute#network",
            "id": new_id(self.world),
            "creationTimestamp": self.created,
            "name": "default",
            "description": "Default network for the project",
            "selfLink": network,
            "autoCreateSubnetworks": True,
            "mtu": 1460,
            "routingConfig": {"routingMode": "REGIONAL"},
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
        }
        for name, source, allowed in (
            ("default-allow-icmp", "0.0.0.0/0", [{"IPProtocol": "icmp"}]),
            ("default-allow-internal", "10.128.0.0/9", [
                {"IPProtocol": "tcp", "ports": ["0-65535"]}, {"IPProtocol": "udp", "ports": ["0-65535"]},
                {"IPProtocol": "icmp"}]),
            ("default-allow-rdp", "0.0.0.0/0", [{"IPProtocol": "tcp", "ports": ["3389"]}]),
            ("default-allow-ssh", "0.0.0.0/0", [{"IPProtocol": "tcp", "ports": ["22"]}]),
        ):  # fmt: skip
            self.firewalls[name] = {
                "kind": "compute#firewall",
                "id": new_id(self.world),
                "creationTimestamp": self.created,
                "name": name,
                "description": "",
                "network": network,
                "priority": 65534,
                "sourceRanges": [source],
                "allowed": allowed,
                "direction": "INGRESS",
                "logConfig": {"enable": False},
                "disabled": False,
                "selfLink": self.link(f"global/firewalls/{name}"),
            }


class Compute:
    """All projects. Kept by :meth:`World.store`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.projects: dict[str, Project] = {}

    def project(self, name: str, *, write: bool = False) -> Project:
        """The project of that name.

        Raises:
            ApiError: it would be written to, and is not ours.
        """
        if write and name in catalog.IMAGE_PROJECTS:
            raise ApiError(
                403, "forbidden", f"Required 'compute.instances.create' permission for 'projects/{name}'"
            )
        if name not in self.projects:
            self.projects[name] = Project(self.world, name)
        return self.projects[name]


def timestamp(world: World) -> str:
    """Now, as the service writes it."""
    now = datetime.fromtimestamp(world.clock.time(), UTC).astimezone(_PACIFIC)
    return now.isoformat(timespec="milliseconds")


def new_id(world: World) -> str:
    """An id never given before, nor by an earlier run of the sandbox."""
    return str((int(world.clock.time()) << 30) + world.next_id("gce"))


def fingerprint(content: Any) -> str:
    """Changes with the content."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return base64.b64encode(digest[:8]).decode()
