# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be had where: ``zones.*``, ``regions.*``, ``machineTypes.*``, ``acceleratorTypes.*``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from . import catalog
from .call import Call, Handler, aggregated, listed
from .errors import Json, not_found

_SINCE = "1969-12-31T16:00:00.000-08:00"


def _id(text: str) -> str:
    """The same for the same thing, always."""
    return str(zlib.crc32(text.encode()) + 1_000_000)


def _zone(call: Call, zone: str) -> Json:
    return {
        "kind": "compute#zone",
        "id": _id(zone),
        "creationTimestamp": _SINCE,
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": call.project.link(f"regions/{catalog.zones()[zone]}"),
        "selfLink": call.project.link(f"zones/{zone}"),
        "availableCpuPlatforms": ["Intel Broadwell", "Intel Cascade Lake", "Intel Skylake"],
        "supportsPzs": False,
    }


def _region(call: Call, region: str) -> Json:
    used = call.project.used[region]
    return {
        "kind": "compute#region",
        "id": _id(region),
        "creationTimestamp": _SINCE,
        "name": region,
        "description": region,
        "status": "UP",
        "zones": [call.project.link(f"zones/{zone}") for zone in catalog.regions()[region]],
        "quotas": [
            {"metric": metric, "limit": limit, "usage": float(used[metric])}
            for metric, limit in catalog.REGION_QUOTAS.items()
        ],
        "selfLink": call.project.link(f"regions/{region}"),
        "supportsPzs": False,
    }


def _machine_type(call: Call, zone: str, shape: catalog.Shape) -> Json:
    memory = f"{shape.memory_mb / 1024:g} GB RAM"
    gpus = (
        f", {shape.gpu_count} {catalog.gpus()[shape.gpu].title} GPU ({catalog.SIMULATED})"
        if shape.gpu
        else ""
    )
    resource: Json = {
        "kind": "compute#machineType",
        "id": _id(shape.name),
        "creationTimestamp": _SINCE,
        "name": shape.name,
        "description": f"{shape.cpus} vCPU{'s' if shape.cpus > 1 else ''}, {memory}{gpus}",
        "guestCpus": shape.cpus,
        "memoryMb": shape.memory_mb,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": 16 if shape.shared else 128,
        "maximumPersistentDisksSizeGb": "3072" if shape.shared else "263168",
        "zone": zone,
        "selfLink": call.project.link(f"zones/{zone}/machineTypes/{shape.name}"),
        "isSharedCpu": shape.shared,
        "architecture": "X86_64",
    }
    if shape.gpu:
        resource["accelerators"] = [
            {"guestAcceleratorType": shape.gpu, "guestAcceleratorCount": shape.gpu_count}
        ]
    return resource


def _accelerator_type(call: Call, zone: str, gpu: catalog.Gpu) -> Json:
    return {
        "kind": "compute#acceleratorType",
        "id": _id(gpu.name),
        "creationTimestamp": _SINCE,
        "name": gpu.name,
        "description": f"{gpu.title} ({catalog.SIMULATED})",
        "zone": call.project.link(f"zones/{zone}"),
        "selfLink": call.project.link(f"zones/{zone}/acceleratorTypes/{gpu.name}"),
        "maximumCardsPerInstance": gpu.most,
    }


def _machine_types(call: Call, zone: str) -> Iterator[Json]:
    for shape in catalog.shapes().values():
        if not shape.gpu or zone in catalog.gpus()[shape.gpu].zones:
            yield _machine_type(call, zone, shape)


def _accelerator_types(call: Call, zone: str) -> Iterator[Json]:
    return (_accelerator_type(call, zone, gpu) for gpu in catalog.gpus().values() if zone in gpu.zones)


async def get_zone(call: Call) -> Json:
    """``zones.get``."""
    return _zone(call, call.path["zone"])


async def list_zones(call: Call) -> Json:
    """``zones.list``."""
    return listed(call, "compute#zoneList", "Zone", "zones", (_zone(call, zone) for zone in catalog.zones()))


async def get_region(call: Call) -> Json:
    """``regions.get``."""
    return _region(call, call.path["region"])


async def list_regions(call: Call) -> Json:
    """``regions.list``."""
    items = (_region(call, region) for region in catalog.regions())
    return listed(call, "compute#regionList", "Region", "regions", items)


async def get_machine_type(call: Call) -> Json:
    """``machineTypes.get``, also of custom ones."""
    zone, name = call.path["zone"], call.path["machineType"]
    found = catalog.shape(name, zone)
    if not found:
        raise not_found(f"projects/{call.project.name}/zones/{zone}/machineTypes/{name}")
    return _machine_type(call, zone, found)


async def list_machine_types(call: Call) -> Json:
    """``machineTypes.list``."""
    zone = call.path["zone"]
    return listed(
        call,
        "compute#machineTypeList",
        "MachineType",
        f"zones/{zone}/machineTypes",
        _machine_types(call, zone),
    )


async def list_all_machine_types(call: Call) -> Json:
    """``machineTypes.aggregatedList``."""
    entries = ((f"zones/{zone}", item) for zone in catalog.zones() for item in _machine_types(call, zone))
    return aggregated(call, "compute#machineTypeAggregatedList", "MachineType", "machineTypes", entries)


async def get_accelerator_type(call: Call) -> Json:
    """``acceleratorTypes.get``."""
    zone, name = call.path["zone"], call.path["acceleratorType"]
    gpu = catalog.gpus().get(name)
    if not gpu or zone not in gpu.zones:
        raise not_found(f"projects/{call.project.name}/zones/{zone}/acceleratorTypes/{name}")
    return _accelerator_type(call, zone, gpu)


async def list_accelerator_types(call: Call) -> Json:
    """``acceleratorTypes.list``."""
    zone = call.path["zone"]
    path = f"zones/{zone}/acceleratorTypes"
    return listed(
        call, "compute#acceleratorTypeList", "AcceleratorType", path, _accelerator_types(call, zone)
    )


async def list_all_accelerator_types(call: Call) -> Json:
    """``acceleratorTypes.aggregatedList``."""
    entries = ((f"zones/{zone}", item) for zone in catalog.zones() for item in _accelerator_types(call, zone))
    return aggregated(
        call, "compute#acceleratorTypeAggregatedList", "AcceleratorType", "acceleratorTypes", entries
    )


HANDLERS: dict[str, Handler] = {
    "zones.get": get_zone,
    "zones.list": list_zones,
    "regions.get": get_region,
    "regions.list": list_regions,
    "machineTypes.get": get_machine_type,
    "machineTypes.list": list_machine_types,
    "machineTypes.aggregatedList": list_all_machine_types,
    "acceleratorTypes.get": get_accelerator_type,
    "acceleratorTypes.list": list_accelerator_types,
    "acceleratorTypes.aggregatedList": list_all_accelerator_types,
}
