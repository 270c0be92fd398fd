# SPDX-License-Identifier: GPL-3.0-or-later
"""Google Compute Engine, by its REST API.

A list is one request for all zones (and one more for each further 500 instances), so that an instance of ours is seen
wherever it is. Every change carries a ``requestId``, by which Google drops the repeat of a request whose answer was
lost; each call of ours has a new one, because under an old one Google would repeat an old failure, too. A second create
of the same machine meets its name, which is unique in a zone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from ..access import Access
from ..machines import FLEET_LABEL, Instance, owned
from ..prices import Price
from . import gcp_golden, gcp_prices, gcp_shapes, gcp_wire
from .base import Kind, Listing, Operation, Progress
from .gcp_access import GcpAccess
from .gcp_models import GcpMachine, GcpSettings

if TYPE_CHECKING:
    from ..clock import Clock
    from ..firstboot import FirstBoot
    from ..images.reference import GoldenReference
    from ..spec import FleetSpec, MachineBase
    from .gcp_api import Compute

_PAGE = "500"
_AT_ONCE = 8
_FEW = 3
"""So many operations of a zone are asked for one by one; more are looked up in the list of the newest."""

_OPERATION_PAGES = 4
_OPERATION_FIELDS = "name,status,error,httpErrorStatusCode,httpErrorMessage"
_RELABEL_TRIES = 4
_SICK = frozenset({"UNREACHABLE", "PARTIAL_SUCCESS"})

Item = TypeVar("Item")
Result = TypeVar("Result")


class GcpProvider:
    """One project of Google Cloud, for one fleet."""

    name = "gcp"

    def __init__(self, spec: FleetSpec, api: Compute) -> None:
        self._spec = spec
        self._api = api
        self._ask_for_partial = True
        self._access = GcpAccess(spec, api)

    def list(self) -> Listing:
        instances: dict[str, Instance] = {}
        unreachable: dict[str, None] = {}
        page = ""
        while True:
            answer = self._list_page(page)
            unreachable |= dict.fromkeys(gcp_wire.last(scope) for scope in answer.get("unreachables") or ())
            for scope, content in (answer.get("items") or {}).items():
                if (content.get("warning") or {}).get("code") in _SICK:
                    unreachable[gcp_wire.last(scope)] = None
                for raw in content.get("instances") or ():
                    found = gcp_wire.instance(raw)
                    if found.fleet == self._spec.fleet:
                        instances[found.id] = found
            if (answer.get("warning") or {}).get("code") in _SICK and not unreachable:
                unreachable["some zones"] = None
            page = answer.get("nextPageToken") or ""
            if not page:
                return Listing(tuple(instances.values()), tuple(unreachable), self._api.simulated)

    def _list_page(self, page: str) -> dict[str, Any]:
        query = {
            "filter": f"labels.{FLEET_LABEL}={self._spec.fleet}",
            "maxResults": _PAGE,
            "fields": "nextPageToken,unreachables,warning/code,"
            f"items/*(warning/code,instances({gcp_wire.INSTANCE_FIELDS}))",
        } | ({"pageToken": page} if page else {})
        doing = f"listing the instances of project {self._api.project}"
        if self._ask_for_partial:
            try:
                return self._api.get("aggregated/instances", doing, **query, returnPartialSuccess="true")
            except errors.InvalidRequest as exc:
                # Google recommends the parameter, but some revisions of the API do not list it.
                if "returnPartialSuccess" not in exc.what:
                    raise
                self._ask_for_partial = False
        return self._api.get("aggregated/instances", doing, **query)

    def find(self, machine: MachineBase, zone: str) -> Instance | None:
        return self.find_named(machine.name, zone)

    def find_named(self, name: str, zone: str) -> Instance | None:
        """As :meth:`find`, for whoever knows no more of the machine than its name."""
        path, doing = f"zones/{zone}/instances/{name}", f"looking for {name} in {zone}"
        try:
            found = gcp_wire.instance(self._api.get(path, doing, fields=gcp_wire.INSTANCE_FIELDS))
        except errors.NotFound:
            return None
        return owned(found, self._spec.fleet, name)

    def zones(self, machine: MachineBase) -> Sequence[str]:
        return _gcp(machine).zones

    def access(self, machines: Sequence[MachineBase]) -> Access:
        return self._access.look(machines)

    def prepare(self, machines: Sequence[MachineBase]) -> Operation | None:
        """Firewall rules that open SSH to declared sources and to nobody else."""
        return self._access.prepare(machines)

    def golden(self, machines: Sequence[MachineBase]) -> Mapping[str, str]:
        """Find the images of the project that are the golden images of these machines."""
        return gcp_golden.find(self._api, [_gcp(machine) for machine in machines])

    def newest(self, image: GoldenReference, machine: str) -> GoldenReference:
        """The newest version of a golden image, for whoever makes one instance and names none."""
        return gcp_golden.newest(self._api, image, machine)

    def create(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Operation:
        declared = _gcp(machine)
        body = gcp_wire.insert_body(
            declared,
            zone,
            boot,
            fleet=self._spec.fleet,
            project=self._api.project,
            tags=self._access.tags(declared),
        )
        doing = f"making instance {machine.name} in {zone}"
        try:
            operation = self._api.write("POST", f"zones/{zone}/instances", doing, body)
        except errors.ProviderError as exc:
            raise self._advised(exc, declared, zone) from exc
        return Operation(str(operation["name"]), machine.name, "create", zone)

    def delete(self, instance: Instance) -> Operation | None:
        try:
            operation = self._api.write("DELETE", _path(instance), f"deleting instance {instance.name}")
        except errors.NotFound:
            return None
        return Operation(str(operation["name"]), instance.machine, "delete", instance.zone)

    def start(self, instance: Instance) -> Operation:
        verb = "resume" if instance.cloud_state == "SUSPENDED" else "start"
        operation = self._api.write("POST", f"{_path(instance)}/{verb}", f"starting instance {instance.name}")
        return Operation(str(operation["name"]), instance.machine, "start", instance.zone)

    def stop(self, instance: Instance) -> Operation:
        operation = self._api.write("POST", f"{_path(instance)}/stop", f"stopping instance {instance.name}")
        return Operation(str(operation["name"]), instance.machine, "stop", instance.zone)

    def relabel(self, instance: Instance, labels: Mapping[str, str]) -> Operation | None:
        doing = f"labelling instance {instance.name}"
        tries = 0
        while True:
            now = self._api.get(_path(instance), doing, fields="labels,labelFingerprint")
            if now.get("labels", {}) == dict(labels):
                return None
            body = {"labels": dict(labels), "labelFingerprint": now["labelFingerprint"]}
            try:
                operation = self._api.write("POST", f"{_path(instance)}/setLabels", doing, body)
            except errors.Conflict:
                # The labels changed between our look and our write.
                tries += 1
                if tries == _RELABEL_TRIES:
                    raise
            else:
                return Operation(str(operation["name"]), instance.machine, "change", instance.zone)

    def poll(self, operations: Sequence[Operation]) -> Mapping[str, Progress]:
        by_id = {operation.id: operation for operation in operations}
        zones: dict[str, set[str]] = defaultdict(set)
        for operation in operations:
            if operation.verb != "access":
                zones[operation.zone].add(operation.id)
        self._access.watch()
        found = _parallel(lambda zone: self._operations(zone, zones[zone]), sorted(zones))
        stand = {
            operation.id: self._access.progress for operation in operations if operation.verb == "access"
        }
        return stand | {
            raw["name"]: self._progress(by_id[raw["name"]], raw) for part in found for raw in part
        }

    def _operations(self, zone: str, wanted: Set[str]) -> Sequence[Mapping[str, Any]]:
        """These operations as they stand; one that Google no longer knows is left out."""
        found: dict[str, Mapping[str, Any]] = {}
        if len(wanted) > _FEW:
            query = {
                "orderBy": "creationTimestamp desc",
                "maxResults": _PAGE,
                "fields": f"nextPageToken,items({_OPERATION_FIELDS})",
            }
            for _dummy in range(_OPERATION_PAGES):
                answer = self._api.get(f"zones/{zone}/operations", f"watching operations in {zone}", **query)
                found |= {raw["name"]: raw for raw in answer.get("items") or () if raw["name"] in wanted}
                if len(found) == len(wanted) or not answer.get("nextPageToken"):
                    break
                query["pageToken"] = str(answer["nextPageToken"])
        missing = sorted(wanted - found.keys())
        asked = _parallel(lambda name: self._operation(f"zones/{zone}/operations/{name}"), missing)
        return [*found.values(), *(raw for raw in asked if raw is not None)]

    def _operation(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._api.get(path, "watching an operation", fields=_OPERATION_FIELDS)
        except errors.NotFound:
            return None

    def _progress(self, operation: Operation, raw: Mapping[str, Any]) -> Progress:
        if raw.get("status") != "DONE":
            return Progress(done=False)
        error = _operation_error(raw, f"to {operation.verb} instance {operation.machine} in {operation.zone}")
        if error is not None:
            return Progress(
                True,
                self._advised(error, self._spec.machines.get(operation.machine), operation.zone).about(
                    operation.machine
                ),
            )
        if operation.verb == "create":
            return self._access.progress
        return Progress(True)

    def _advised(
        self, error: errors.ProviderError, machine: MachineBase | None, zone: str
    ) -> errors.ProviderError:
        """The error, with what our tables know about GPUs in that zone, and about images of ours."""
        image = machine.golden if isinstance(machine, GcpMachine) else None
        if image and isinstance(error, errors.NotFound) and f"images/{image.gcp_name}" in error.what:
            error.hint = gcp_golden.advice(image)
            return error
        if isinstance(machine, GcpMachine) and isinstance(
            error, (errors.OutOfStock, errors.InvalidRequest, errors.NotFound)
        ):
            advice = gcp_shapes.zone_advice(machine.gpus[0], zone)
            if advice:
                error.hint = f"{error.hint}. {advice}" if error.hint else advice
        return error

    def host_keys(self, instance: Instance) -> tuple[str, ...]:
        try:
            answer = self._api.get(
                f"{_path(instance)}/getGuestAttributes",
                f"reading the host keys of {instance.name}",
                queryPath="hostkeys/",
            )
        except errors.NotFound:
            return ()
        return gcp_wire.host_keys(answer)

    def publish_host_key(self, instance: Instance, key: str, *, pending: bool = False) -> None:
        """Nothing: the guest agent publishes the keys itself."""

    def price(self, machine: MachineBase, zone: str) -> Price:
        declared = _gcp(machine)
        model, count = declared.gpus
        return gcp_prices.price(declared.type, zone, gpu_model=model, gpu_count=count, spot=declared.spot)

    def stopped_price(self, machine: MachineBase, zone: str) -> Price:
        return gcp_prices.stopped_price()


def _gcp(machine: MachineBase) -> GcpMachine:
    if not isinstance(machine, GcpMachine):
        raise errors.InvalidRequest(
            f"{machine.name} is not a machine of Compute Engine", machine=machine.name
        )
    return machine


def _path(instance: Instance) -> str:
    return f"zones/{instance.zone}/instances/{instance.name}"


def _parallel(call: Callable[[Item], Result], items: Sequence[Item]) -> Sequence[Result]:
    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(_AT_ONCE, len(items)), thread_name_prefix="gcp") as pool:
        return [*pool.map(call, items)]


def _operation_error(raw: Mapping[str, Any], doing: str) -> errors.ProviderError | None:
    from .gcp_api import operation_error

    return operation_error(raw, doing)


def connect(spec: FleetSpec, overrides: Mapping[str, Any], clock: Clock) -> GcpProvider:
    """Sign in and give the provider of a fleet. The first request comes with the first call.

    Args:
        spec: the fleet; its block ``providers: gcp:`` says which project.
        overrides: ``project``, ``credentials_file`` or ``endpoint``, in place of those in the block.
        clock: for retries.

    Raises:
        MissingLibrary: google-auth or requests is not installed.
        AuthError: there are no credentials.
        InvalidRequest: no project is named.
    """
    try:
        from . import gcp_api
    except ImportError as exc:
        raise errors.MissingLibrary(
            f"the Python package {exc.name} is not installed, without which Google Cloud cannot be asked",
            hint="Install it for the Python that runs Ansible: pip install google-auth requests",
        ) from exc
    declared = spec.providers.get("gcp")
    settings = declared if isinstance(declared, GcpSettings) else None

    def setting(name: str) -> str | None:
        value = overrides.get(name) or getattr(settings, name, None)
        return str(value) if value else None

    project = setting("project")
    if project is None:
        raise errors.InvalidRequest(
            "no project of Google Cloud is named",
            hint="Declare `providers: {gcp: {project: <id>}}` in the fleet file",
        )
    key_file = setting("credentials_file")
    credentials = gcp_api.find_credentials(spec.file(key_file) if key_file else None, os.environ, clock)
    return GcpProvider(
        spec, gcp_api.Compute(credentials, project, clock, setting("endpoint") or gcp_api.ENDPOINT)
    )


KIND = Kind("gcp", GcpMachine, GcpSettings, connect)
"""For the registry."""
