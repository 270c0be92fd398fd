# SPDX-License-Identifier: GPL-3.0-or-later
"""``instances.*``: insert, read, start, stop, delete."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from ..backends.base import Addresses
from ..faults import Subject
from . import catalog, guest, rules
from .call import Call, Handler, aggregated, listed
from .description import description
from .errors import ApiError, Json, OperationError, bad_request, invalid, not_ready, quota_exceeded, stockout
from .lifecycle import Life
from .operations import begin
from .store import Instance, fingerprint, gpu_of, new_id, timestamp

_CPU_PLATFORMS = {"a2": "Intel Cascade Lake", "g2": "Intel Cascade Lake", "a3": "Intel Sapphire Rapids"}


async def insert(call: Call) -> Json:
    """``instances.insert``."""
    project, zone = call.project, call.path["zone"]
    instance = _new(call)
    subject = instance.subject("create")
    doomed = _shortage(call, instance, subject)
    instance.addresses = call.world.backend.reserve(instance.key)
    instance.resource["networkInterfaces"] = [
        _interface(call, instance, given, index)
        for index, given in enumerate(instance.resource["networkInterfaces"])
    ]
    if rule := call.world.faults.take("list_lag", service="gce", subject=subject):
        instance.listed_from = call.world.clock.time() + rule.seconds
    project.instances[zone, instance.name] = instance
    project.count(instance, 1)
    guest.note(instance, "created")
    life = Life(call.world, project, instance)
    return begin(
        call, "insert", instance.resource, subject, life.create,
        undo=life.uncreate, instance=instance, doomed=doomed,
    )  # fmt: skip


def _new(call: Call) -> Instance:
    """The instance a request describes, all rules kept; addresses come when nothing can refuse the request any more.

    Raises:
        ApiError: a rule is broken.
    """
    project, zone = call.project, call.path["zone"]
    for parameter in ("sourceInstanceTemplate", "sourceMachineImage"):
        if call.query.get(parameter):
            raise invalid(
                parameter, call.query[parameter], "The sandbox has no templates and no machine images."
            )
    body = deepcopy(description().writable("Instance", call.body))
    name = rules.check_name(body.get("name"))
    shape = rules.machine_type(project, zone, body.get("machineType") or "")
    rules.check_labels(body.get("labels", {}))
    rules.check_metadata(body.get("metadata", {}))
    rules.check_tags(body.get("tags", {}).get("items", ()))
    rules.check_disks(project, zone, body.get("disks", ()))
    image = rules.boot_image(project, body.get("disks", ()))
    if any(body.get("shieldedInstanceConfig", {}).values()) and not image.uefi:
        raise bad_request(
            f"The image {image.name} is not UEFI_COMPATIBLE, so the instance cannot be shielded."
        )
    if not body.get("networkInterfaces"):
        raise invalid("resource.networkInterfaces", "", "At least one network interface is required.")
    for index, interface in enumerate(body["networkInterfaces"]):
        interface["network"] = rules.network(project, interface, index)
    gpus = rules.accelerators(project, zone, shape, body.get("guestAccelerators", ()))
    schedule = rules.scheduling(body.get("scheduling", {}), gpus=bool(gpus))
    project.check_free((zone, name) in project.instances, f"zones/{zone}/instances/{name}")
    number = new_id(call.world)
    metadata = body.get("metadata", {}).get("items", [])
    tags = body.get("tags", {}).get("items", [])
    resource: Json = body | {
        "kind": "compute#instance",
        "id": number,
        "creationTimestamp": timestamp(call.world),
        "name": name,
        "description": body.get("description", ""),
        "status": "PROVISIONING",
        "zone": project.link(f"zones/{zone}"),
        "selfLink": project.link(f"zones/{zone}/instances/{name}"),
        "machineType": project.link(f"zones/{zone}/machineTypes/{shape.name}"),
        "cpuPlatform": _CPU_PLATFORMS.get(shape.family, "Intel Broadwell"),
        "scheduling": schedule,
        "disks": [_disk(call, name, disk, index, image) for index, disk in enumerate(body["disks"])],
        "metadata": {"kind": "compute#metadata", "fingerprint": fingerprint(metadata), "items": metadata},
        "tags": {"fingerprint": fingerprint(tags)} | ({"items": tags} if tags else {}),
        "labelFingerprint": fingerprint(body.get("labels", {})),
        "fingerprint": fingerprint(number),
        "canIpForward": body.get("canIpForward", False),
        "deletionProtection": body.get("deletionProtection", False),
        "startRestricted": False,
    }
    if not metadata:
        del resource["metadata"]["items"]
    if gpus:
        resource |= {"guestAccelerators": gpus, "statusMessage": simulated(gpus)}
    address = any(interface.get("accessConfigs") for interface in body["networkInterfaces"])
    spot = schedule["provisioningModel"] == "SPOT"
    gpu, count = gpu_of(gpus)
    used = catalog.usage(shape, gpu, count, spot=spot, address=address)
    return Instance(resource, zone, f"gce-{number}", image, Addresses("", "", ""), used)


def simulated(accelerators: list[Json]) -> str:
    """What an instance with GPUs says of them."""
    name, count = gpu_of(accelerators)
    return f"{catalog.SIMULATED}: this is a sandbox machine; its {count} x {name} only look like GPUs."


def _disk(call: Call, name: str, given: Json, index: int, image: catalog.OsImage) -> Json:
    params = given.get("initializeParams", {})
    disk_name = params.get("diskName") or (name if given.get("boot") else f"{name}-{index}")
    return {
        "kind": "compute#attachedDisk",
        "type": given.get("type", "PERSISTENT"),
        "mode": given.get("mode", "READ_WRITE"),
        "source": call.project.link(f"zones/{call.path['zone']}/disks/{disk_name}"),
        "deviceName": given.get("deviceName", f"persistent-disk-{index}"),
        "index": index,
        "boot": given.get("boot", False),
        "autoDelete": given.get("autoDelete", False),
        "interface": given.get("interface", "SCSI"),
        "diskSizeGb": params.get("diskSizeGb", str(image.disk_gb)),
        "architecture": "X86_64",
        **({"licenses": [f"{call.world.base_url}/compute/v1/projects/{image.project}/global/licenses/{image.family}"]}
           if given.get("boot") else {}),
    }  # fmt: skip


def _interface(call: Call, instance: Instance, given: Json, index: int) -> Json:
    region = catalog.zones()[instance.zone]
    network = given["network"].rpartition("/")[2]
    interface: Json = {
        "kind": "compute#networkInterface",
        "name": f"nic{index}",
        "network": given["network"],
        "subnetwork": call.project.link(f"regions/{region}/subnetworks/{network}"),
        "networkIP": instance.addresses.internal,
        "stackType": "IPV4_ONLY",
        "fingerprint": fingerprint([instance.key, index]),
    }
    if given.get("accessConfigs"):
        interface["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": "External NAT",
                "networkTier": "PREMIUM",
            }
            | {key: value for key, value in config.items() if key != "natIP"}
            for config in given["accessConfigs"]
        ]
    return interface


def _shortage(call: Call, instance: Instance, subject: Subject) -> OperationError | None:
    """Why there is no room for it: a stock-out or a quota, injected or real.

    Raises:
        ApiError: the fault's rule asks for quotaExceeded, the form that is told at once.
    """
    project, faults = call.project, call.world.faults
    gpu, count = gpu_of(instance.resource.get("guestAccelerators", []))
    region = catalog.zones()[instance.zone]
    if rule := faults.take("stockout", service="gce", subject=subject):
        error = stockout(project.name, instance.zone, subject.type, f"{count} {gpu}" if count else "")
        return OperationError(rule.code or error.code, rule.message or error.message, 503, error.details)
    if rule := faults.take("quota", service="gce", subject=subject):
        metric = next(reversed(instance.used)) if count else "CPUS"
        error = quota_exceeded(metric, catalog.REGION_QUOTAS.get(metric, 0.0), region)
        if rule.code == "quotaExceeded":
            raise ApiError(403, "quotaExceeded", rule.message or error.message)
        return OperationError(rule.code or error.code, rule.message or error.message, 403, error.details)
    return project.over_quota(region, instance.used, count)


def one(call: Call) -> Instance:
    """The instance the path names."""
    return call.project.instance(call.path["zone"], call.path.get("instance") or call.path["resource"])


def path_of(instance: Instance) -> str:
    """``projects/p/zones/z/instances/i``."""
    return str(instance.resource["selfLink"]).partition("/compute/v1/")[2]


async def get(call: Call) -> Json:
    """``instances.get``."""
    return one(call).resource


def _shown(call: Call) -> Iterator[Instance]:
    now = call.world.clock.time()
    return (instance for instance in call.project.instances.values() if instance.listed_from <= now)


async def list_zone(call: Call) -> Json:
    """``instances.list``."""
    zone = call.path["zone"]
    items = (instance.resource for instance in _shown(call) if instance.zone == zone)
    return listed(call, "compute#instanceList", "Instance", f"zones/{zone}/instances", items)


async def list_all(call: Call) -> Json:
    """``instances.aggregatedList``."""
    entries = ((f"zones/{instance.zone}", instance.resource) for instance in _shown(call))
    return aggregated(call, "compute#instanceAggregatedList", "Instance", "instances", entries)


async def delete(call: Call) -> Json:
    """``instances.delete``."""
    instance = one(call)
    if instance.leaving:
        raise not_ready(path_of(instance))
    if instance.resource["deletionProtection"]:
        raise invalid(
            "resource.deletionProtection", "true",
            f"Resource cannot be deleted if it's protected against deletion: '{path_of(instance)}'",
        )  # fmt: skip
    instance.leaving = True
    life = Life(call.world, call.project, instance)
    return begin(
        call, "delete", instance.resource, instance.subject("delete"), life.delete,
        undo=life.undelete, instance=instance,
    )  # fmt: skip


async def start(call: Call) -> Json:
    """``instances.start``."""
    instance = one(call)
    if instance.leaving or instance.status in ("STOPPING", "SUSPENDING"):
        raise not_ready(path_of(instance))
    subject = instance.subject("start")
    doomed: OperationError | None = None
    if instance.status == "TERMINATED" and (
        rule := call.world.faults.take("stockout", service="gce", subject=subject)
    ):
        error = stockout(call.project.name, instance.zone, subject.type, "")
        doomed = OperationError(rule.code or error.code, rule.message or error.message, 503, error.details)
    life = Life(call.world, call.project, instance)
    return begin(
        call, "start", instance.resource, subject, life.start,
        undo=life.unstart, instance=instance, doomed=doomed,
    )  # fmt: skip


async def stop(call: Call) -> Json:
    """``instances.stop``."""
    instance = one(call)
    if instance.leaving or instance.status in ("PROVISIONING", "STAGING"):
        raise not_ready(path_of(instance))
    if call.query.get("discardLocalSsd") == "false" and any(
        disk["type"] == "SCRATCH" for disk in instance.resource["disks"]
    ):
        raise bad_request("VM has a Local SSD attached but an undefined value for `discard-local-ssd`.")
    life = Life(call.world, call.project, instance)
    return begin(
        call,
        "stop",
        instance.resource,
        instance.subject("stop"),
        life.stop,
        undo=life.unstop,
        instance=instance,
    )


HANDLERS: dict[str, Handler] = {
    "instances.insert": insert,
    "instances.get": get,
    "instances.list": list_zone,
    "instances.aggregatedList": list_all,
    "instances.delete": delete,
    "instances.start": start,
    "instances.stop": stop,
}
