# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cloud in memory that keeps the protocol of providers, with time of its own and faults to order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.access import Access, AccessChange
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    MACHINE_LABEL,
    Instance,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import (
    Kind,
    Listing,
    Operation,
    Progress,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    CloudMachine,
    FleetSpec,
    MachineBase,
    ProviderSettings,
)

FLEET = "minerals"


class LittleMachine(CloudMachine):
    """A machine of a little cloud."""

    place: str = "here"
    fallbacks: tuple[str, ...] = ()

    @property
    def zone(self) -> str:
        return self.place


class PassingClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0

    def now(self) -> float:
        with self._lock:
            return self._seconds

    def utc(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.now())

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds


class Killed(BaseException):
    """The process is shot."""


@dataclass
class _Work:
    operation: Operation
    ends: float
    instance: Instance
    error: errors.FleetError | None = None
    applied: bool = False


Fault = Callable[[str, str, str], str | None]
"""From verb, machine and zone to the name of a fault, or None."""


@dataclass
class LittleCloud:
    """One cloud. The kinds of fault a request can meet:

    ``stockout``, ``quota``: refused. ``late``, ``late_stockout``: accepted, fails at the end and leaves a stopped
    remnant. ``lost``: not answered and not done. ``unanswered``: done and not answered. ``twice``: done, and then
    refused because it is done already. ``locked``: refused as untimely. ``lag``: done, and not in lists for a while.
    ``slow``: takes ten times as long. ``stuck``: never ends. ``kill``: we are shot before it; ``kill_after``: after it.
    """

    name: str
    clock: PassingClock
    fault: Fault = lambda verb, machine, zone: None
    names_per_zone: bool = False
    seconds: float = 5.0
    hourly: Decimal = Decimal("0.01")
    stopped_hourly: Decimal = Decimal("0.01")
    unreachable: tuple[str, ...] = ()
    simulated: bool = False
    refuses: errors.FleetError | None = None
    late: errors.FleetError | None = None
    objects: dict[tuple[str, str], Instance] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    doors: dict[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    given: dict[str, FirstBoot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._work: dict[str, _Work] = {}
        self._hidden: dict[tuple[str, str], float] = {}
        self._last = 0

    # What tests do behind the fleet's back

    def put(
        self, machine: str, zone: str = "here", *, state: State = State.RUNNING, **facts: Any
    ) -> Instance:
        """Make an instance that has always been there."""
        with self._lock:
            labels = {FLEET_LABEL: FLEET, MACHINE_LABEL: machine, **facts.pop("labels", {})}
            self._last += 1
            made = Instance(
                provider=self.name,
                id=str(self._last),
                name=facts.pop("name", machine),
                state=state,
                cloud_state=state.upper(),
                zone=zone,
                type=facts.pop("type", "small"),
                image=facts.pop("image", "debian-13"),
                labels=labels,
                price=Price(self.hourly if state is State.RUNNING else self.stopped_hourly),
                **facts,
            )
            self.objects[self._key(made.name, zone)] = made
            return made

    def truth(self) -> list[Instance]:
        """What exists once everything under way has ended."""
        with self._lock:
            self._advance(float("inf"))
            return sorted(self.objects.values(), key=lambda i: i.name)

    # The protocol

    def list(self) -> Listing:
        with self._lock:
            self._meet("list", "", "")
            now = self.clock.now()
            return Listing(
                tuple(
                    i
                    for key, i in self.objects.items()
                    if self._hidden.get(key, 0.0) <= now and i.zone not in self.unreachable
                ),
                self.unreachable,
                self.simulated,
            )

    def find(self, machine: MachineBase, zone: str) -> Instance | None:
        with self._lock:
            self._meet("find", machine.name, zone)
            found = self.objects.get(self._key(machine.name, zone))
            if found and found.fleet != FLEET:
                raise errors.Conflict("the name belongs to somebody else", machine=machine.name)
            return found

    def zones(self, machine: MachineBase) -> Sequence[str]:
        assert isinstance(machine, LittleMachine)
        return (machine.place, *machine.fallbacks)

    def access(self, machines: Sequence[MachineBase]) -> Access:
        with self._lock:
            self._meet("access", "", "")
            wanted = self._doors(machines)
            changes = [
                AccessChange.between(f"door {door}", {"SSH from": self.doors[door]}, {"SSH from": sources})
                if door in self.doors
                else AccessChange("create", f"door {door}", {}, {"SSH from": sources})
                for door, sources in wanted.items()
                if self.doors.get(door) != sources
            ]
            changes += [
                AccessChange("delete", f"door {door}") for door in sorted(self.doors) if door not in wanted
            ]
            return Access(tuple(changes), self.says)

    def prepare(self, machines: Sequence[MachineBase]) -> Operation | None:
        with self._lock:
            fault = self._meet("prepare", "", "")
            if not machines:
                assert all(i.fleet != FLEET for i in self.objects.values()), "doors go after the last machine"
            self.doors = self._doors(machines)
            if fault != "late":
                return None
            operation = Operation(f"{self.name}-access-{len(self._work)}", "", "access")
            nowhere = Instance(self.name, "", "", State.UNKNOWN, "", "", "")
            error = errors.OperationFailed("it broke")
            self._work[operation.id] = _Work(operation, self.clock.now() + self.seconds, nowhere, error)
            return operation

    def _doors(self, machines: Sequence[MachineBase]) -> dict[str, str]:
        return {FLEET: ", ".join(self.sources)} if machines else {}

    def create(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Operation:
        with self._lock:
            fault = self._meet("create", machine.name, zone)
            if self._key(machine.name, zone) in self.objects:
                raise errors.Conflict("the name is taken", machine=machine.name)
            assert isinstance(machine, LittleMachine)
            self.given[machine.name] = boot
            made = self.put(
                machine.name,
                zone,
                state=State.CREATING,
                type=machine.type,
                image=machine.image,
                labels=machine.labels,
            )
            late = {
                "late": self.late or errors.OperationFailed("it broke"),
                "late_stockout": errors.OutOfStock("none left"),
            }
            return self._begin("create", made, fault, late.get(fault or ""))

    def delete(self, instance: Instance) -> Operation | None:
        with self._lock:
            fault = self._meet("delete", instance.machine, instance.zone)
            found = self._same(instance)
            if found is None:
                return None
            if found.state is State.CREATING:
                raise errors.Conflict("it is locked", machine=instance.machine)
            return self._begin("delete", self._set(found, State.DELETING), fault)

    def start(self, instance: Instance) -> Operation:
        with self._lock:
            fault = self._meet("start", instance.machine, instance.zone)
            found = self._there(instance)
            if found.state is not State.STOPPED:
                raise errors.Conflict(f"it is {found.state}", machine=instance.machine)
            late = errors.OutOfStock("none left") if fault in ("late", "late_stockout") else None
            return self._begin("start", self._set(found, State.CREATING), fault, late)

    def stop(self, instance: Instance) -> Operation:
        with self._lock:
            fault = self._meet("stop", instance.machine, instance.zone)
            found = self._there(instance)
            if found.state is not State.RUNNING:
                raise errors.Conflict(f"it is {found.state}", machine=instance.machine)
            return self._begin("stop", self._set(found, State.STOPPING), fault)

    def relabel(self, instance: Instance, labels: Mapping[str, str]) -> Operation | None:
        with self._lock:
            fault = self._meet("change", instance.machine, instance.zone)
            found = self._there(instance)
            changed = replace(found, labels=dict(labels))
            self.objects[self._key(found.name, found.zone)] = changed
            return self._begin("change", changed, fault)

    def poll(self, operations: Sequence[Operation]) -> Mapping[str, Progress]:
        with self._lock:
            self._meet("poll", "", "")
            return {
                operation.id: Progress(
                    (work := self._work[operation.id]).ends <= self.clock.now(),
                    work.error if work.ends <= self.clock.now() else None,
                )
                for operation in operations
            }

    def host_keys(self, instance: Instance) -> tuple[str, ...]:
        return instance.host_keys

    def publish_host_key(self, instance: Instance, key: str, *, pending: bool = False) -> None:
        self.calls["publish"] += 1

    def price(self, machine: MachineBase, zone: str) -> Price:
        return Price(self.hourly)

    def stopped_price(self, machine: MachineBase, zone: str) -> Price:
        return Price(self.stopped_hourly)

    # Its insides

    def _key(self, name: str, zone: str) -> tuple[str, str]:
        return (name, zone) if self.names_per_zone else (name, "")

    def _meet(self, verb: str, machine: str, zone: str) -> str | None:
        """Count the request, let time's work happen, and meet the fault ordered for it."""
        with self._lock:
            self.calls[verb] += 1
            if self.refuses:
                raise self.refuses
            self._advance(self.clock.now())
            fault = self.fault(verb, machine, zone)
            if fault == "kill":
                raise Killed
            if fault == "stockout":
                raise errors.OutOfStock("none left", code="ZONE_RESOURCE_POOL_EXHAUSTED")
            if fault == "quota":
                raise errors.QuotaExceeded("not so many", code="QUOTA_EXCEEDED")
            if fault == "lost":
                raise errors.Unavailable("no answer")
            if fault == "locked":
                raise errors.Conflict("it is locked")
            return fault

    def _begin(
        self, verb: str, instance: Instance, fault: str | None, error: errors.FleetError | None = None
    ) -> Operation:
        key = self._key(instance.name, instance.zone)
        factor = {"slow": 10.0, "stuck": float("inf")}.get(fault or "", 1.0)
        operation = Operation(f"{self.name}-{verb}-{len(self._work)}", instance.machine, verb, instance.zone)
        self._work[operation.id] = _Work(operation, self.clock.now() + self.seconds * factor, instance, error)
        if fault == "lag":
            self._hidden[key] = self.clock.now() + 60
        if fault == "kill_after":
            raise Killed
        if fault == "unanswered":
            raise errors.Unavailable("the connection was reset")
        if fault == "twice":
            raise errors.Conflict("the name is taken")
        return operation

    def _advance(self, now: float) -> None:
        for work in self._work.values():
            if work.ends > now or work.applied:
                continue
            work.applied = True
            found, verb = self._same(work.instance), work.operation.verb
            if found is None or found.state is not work.instance.state:
                continue
            if verb == "delete":
                del self.objects[self._key(found.name, found.zone)]
            elif verb in ("create", "start"):
                self._set(found, State.STOPPED if work.error else State.RUNNING)
            elif verb == "stop":
                self._set(found, State.STOPPED)

    def _set(self, instance: Instance, state: State) -> Instance:
        hourly = self.stopped_hourly if state is State.STOPPED else self.hourly
        changed = replace(instance, state=state, cloud_state=state.upper(), price=Price(hourly))
        self.objects[self._key(instance.name, instance.zone)] = changed
        return changed

    def _same(self, instance: Instance) -> Instance | None:
        found = self.objects.get(self._key(instance.name, instance.zone))
        return found if found and found.id == instance.id else None

    def _there(self, instance: Instance) -> Instance:
        found = self._same(instance)
        if found is None:
            raise errors.NotFound("it is not there", machine=instance.machine)
        return found


def kinds(*clouds: LittleCloud, plants: bool = False) -> dict[str, Kind]:
    """A registry of these clouds."""

    def kind(cloud: LittleCloud) -> Kind:
        def connect(spec: FleetSpec, overrides: Mapping[str, Any], clock: object) -> LittleCloud:
            cloud.sources = spec.defaults.ssh_sources
            return cloud

        return Kind(cloud.name, LittleMachine, ProviderSettings, connect, plants)

    return {cloud.name: kind(cloud) for cloud in clouds}


def machine(name: str, **fields: Any) -> LittleMachine:
    """A declared machine, enabled unless said otherwise."""
    return LittleMachine(**{"name": name, "provider": "iron", "type": "small", "enabled": True, **fields})


def fleet(*machines: MachineBase, **fields: Any) -> FleetSpec:
    """A fleet of these machines."""
    return FleetSpec(
        **{
            "fleet": FLEET,
            "providers": {},
            "machines": {one.name: one for one in machines},
            "base_dir": "/nowhere",
            "known_hosts": "/nowhere/known_hosts",
            **fields,
        }
    )


def boots(spec: FleetSpec) -> dict[str, FirstBoot]:
    """Something to be born with, for every machine."""
    return {name: FirstBoot("admin", ("ssh-ed25519 AAAA",)) for name in spec.machines}
