# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules an instance must keep: names, labels, metadata, GPUs and machine types, scheduling, disks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import catalog
from .call import resource_path
from .errors import Json, bad_request, invalid, not_found, not_ready, required
from .store import Compute, Project

NAME = r"(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)"
_METADATA_KEY = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_METADATA_VALUE, _METADATA_TOTAL = 262_144, 524_288
_MOST_LABELS = 64
_LABEL_KEY = (
    "The key must start with a lowercase character, can only contain lowercase letters, numeric characters, underscores "
    "and dashes. The key can be at most 63 characters long. International characters are allowed."
)
_LABEL_VALUE = (
    "The value can only contain lowercase letters, numeric characters, underscores and dashes. The value can be at most "
    "63 characters long. International characters are allowed."
)


def check_name(name: object) -> str:
    """A resource's name."""
    if name is None or name == "":
        raise required("resource.name")
    if not re.fullmatch(NAME, str(name)):
        raise invalid("resource.name", name, f"Must be a match of regex '{NAME}'")
    return str(name)


def check_labels(labels: dict[str, str]) -> None:
    """Keys and values of labels, and how many there are."""
    if len(labels) > _MOST_LABELS:
        raise invalid("resource.labels", "", f"The number of labels must be at most {_MOST_LABELS}.")
    for key, value in labels.items():
        if not 1 <= len(key) <= 63 or not _is_label_text(key) or not key[0].isalpha():
            raise invalid(
                "resource.labels", "", f"Label key '{key}' violates format constraints. {_LABEL_KEY}"
            )
        if len(value) > 63 or not _is_label_text(value):
            raise invalid(
                "resource.labels", "", f"Label value '{value}' violates format constraints. {_LABEL_VALUE}"
            )


def _is_label_text(text: str) -> bool:
    return all(char in "_-" or char.isdigit() or (char.isalpha() and char == char.lower()) for char in text)


def check_metadata(metadata: Json) -> None:
    """Keys, doubles and sizes."""
    seen: set[str] = set()
    total = 0
    for item in metadata.get("items", ()):
        key, value = item.get("key"), item.get("value") or ""
        if not key or not _METADATA_KEY.fullmatch(key):
            raise invalid(
                "resource.metadata.items.key", key, f"Must be a match of regex '{_METADATA_KEY.pattern}'"
            )
        if key in seen:
            raise invalid("resource.metadata", key, "Metadata has duplicate keys.")
        seen.add(key)
        size = len(value.encode())
        if size > _METADATA_VALUE:
            raise invalid("resource.metadata", key, f"The value must be at most {_METADATA_VALUE} bytes.")
        total += len(key) + size
    if total > _METADATA_TOTAL:
        raise invalid(
            "resource.metadata", "", f"The total size of metadata must be at most {_METADATA_TOTAL} bytes."
        )


def check_tags(tags: Sequence[str]) -> None:
    """Network tags."""
    for tag in tags:
        if not re.fullmatch(NAME, tag):
            raise invalid("resource.tags.items[0]", tag, f"Must be a match of regex '{NAME}'")
    if len(set(tags)) != len(tags) or len(tags) > 64:
        raise invalid("resource.tags", "", "Tags must be unique, and 64 at most.")


def machine_type(
    project: Project, zone: str, link: str, field: str = "resource.machineType"
) -> catalog.Shape:
    """The machine type a link in a request names."""
    path = resource_path(link, project.name, zone)
    match = re.fullmatch(r"projects/[^/]+/zones/([^/]+)/machineTypes/([^/]+)", path)
    if not match:
        raise invalid(field, link, "The URL is malformed.")
    if match[1] != zone:
        raise invalid(field, link, "Machine type must be in the same zone as the instance.")
    found = catalog.shape(match[2], zone)
    if not found:
        raise invalid(field, link, f"Machine type with name '{match[2]}' does not exist in zone '{zone}'.")
    return found


def accelerators(project: Project, zone: str, shape: catalog.Shape, given: Sequence[Json]) -> list[Json]:
    """The GPUs an instance of that machine type gets, as its ``guestAccelerators`` show them.

    Raises:
        ApiError: they are not in the zone, or do not go with the machine type, or not that many.
    """
    wanted = [entry for entry in given if entry.get("acceleratorCount", 0)]
    if len(wanted) > 1:
        raise invalid(
            "resource.guestAccelerators", "", "At most one accelerator type can be attached to an instance."
        )
    name, count = shape.gpu, shape.gpu_count
    if wanted:
        link = str(wanted[0].get("acceleratorType", ""))
        path = resource_path(link, project.name, zone)
        match = re.fullmatch(r"projects/[^/]+/zones/([^/]+)/acceleratorTypes/([^/]+)", path)
        if not match:
            raise invalid("resource.guestAccelerators[0].acceleratorType", link, "The URL is malformed.")
        gpu = catalog.gpus().get(match[2])
        if not gpu or match[1] != zone or zone not in gpu.zones:
            raise not_found(path)
        _check_fit(shape, gpu, int(wanted[0]["acceleratorCount"]))
        name, count = gpu.name, int(wanted[0]["acceleratorCount"])
    if not count:
        return []
    return [
        {"acceleratorType": project.link(f"zones/{zone}/acceleratorTypes/{name}"), "acceleratorCount": count}
    ]


def _check_fit(shape: catalog.Shape, gpu: catalog.Gpu, count: int) -> None:
    """Whether so many of the GPU go with the machine type."""
    field = "resource.guestAccelerators[0].acceleratorCount"
    if shape.gpu:
        if gpu.name != shape.gpu or count != shape.gpu_count:
            raise invalid(
                field,
                count,
                f"Machine type {shape.name} comes with {shape.gpu_count} {shape.gpu} and takes no others.",
            )
        return
    if not shape.takes_gpus or not gpu.n1_limits:
        raise bad_request(f"[{gpu.name}, {shape.name}] features are not compatible for creating instance.")
    if count not in gpu.n1_limits:
        counts = ", ".join(str(number) for number in gpu.n1_limits)
        raise invalid(field, count, f"Number of {gpu.name} cards must be one of [{counts}].")
    cpus, memory = gpu.n1_limits[count]
    if shape.cpus > cpus or shape.memory_mb > memory * 1024:
        raise bad_request(
            f"[{gpu.name}, {shape.name}] features are not compatible for creating instance. With {count} of this "
            f"accelerator an instance has at most {cpus} vCPUs and {memory} GB of memory."
        )


def scheduling(given: Json, *, gpus: bool) -> Json:
    """What the ``scheduling`` of an instance becomes, defaults filled in."""
    model = given.get("provisioningModel") or ("SPOT" if given.get("preemptible") else "STANDARD")
    spot = model == "SPOT"
    result = {
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        "automaticRestart": not spot,
        "provisioningModel": model,
        **given,
        "preemptible": spot,
    }
    if spot and result["automaticRestart"]:
        raise bad_request("Scheduling must have preemptible be false when AutomaticRestart is true.")
    if spot and result["onHostMaintenance"] == "MIGRATE":
        raise bad_request("Scheduling must have preemptible be false when OnHostMaintenance is MIGRATE.")
    if gpus and result["onHostMaintenance"] == "MIGRATE":
        raise bad_request("Instances with guest accelerators do not support live migration.")
    action = given.get("instanceTerminationAction")
    limited = "maxRunDuration" in given or "terminationTime" in given
    if action and not (spot or limited):
        raise invalid(
            "resource.scheduling.instanceTerminationAction", action,
            "It can be set for Spot VMs and for VMs with a limited run time only.",
        )  # fmt: skip
    if limited and action not in ("STOP", "DELETE"):
        raise required("resource.scheduling.instanceTerminationAction")
    if spot:
        result.setdefault("instanceTerminationAction", "STOP")
    if "maxRunDuration" in given and not 30 <= run_seconds(given) <= 120 * 86400:
        raise invalid(
            "resource.scheduling.maxRunDuration",
            run_seconds(given),
            "Must be between 30 seconds and 120 days.",
        )
    return result


def run_seconds(schedule: Json) -> int:
    """``maxRunDuration`` in seconds; 0 for none."""
    return int(schedule.get("maxRunDuration", {}).get("seconds", 0))


def boot_image(project: Project, disks: Sequence[Json]) -> catalog.OsImage:
    """The image of the boot disk.

    Raises:
        ApiError: there is no boot disk, or no such image.
    """
    boot = [disk for disk in disks if disk.get("boot")]
    if len(boot) != 1:
        raise invalid("resource.disks", "", "Boot disk must be specified.")
    link = boot[0].get("initializeParams", {}).get("sourceImage", "")
    field = "resource.disks[0].initializeParams.sourceImage"
    if not link:
        raise invalid(field, "", "The sandbox makes boot disks from images only.")
    path = resource_path(link, project.name)
    found = find_image(path) or own_image(project, path)
    if not found:
        if not re.fullmatch(r"projects/[^/]+/global/images/(family/)?[^/]+", path):
            raise invalid(field, link, "The URL is malformed.")
        raise not_found(path)
    size = int(boot[0]["initializeParams"].get("diskSizeGb") or found.disk_gb)
    if size < found.disk_gb:
        raise invalid(
            "resource.disks[0].initializeParams.diskSizeGb", size,
            f"Requested disk size cannot be smaller than the image size ({found.disk_gb} GB)",
        )  # fmt: skip
    return found


def find_image(path: str) -> catalog.OsImage | None:
    """The public image at ``projects/p/global/images/...``, by name or family."""
    for image in catalog.IMAGES:
        if path in (image.path, f"projects/{image.project}/global/images/family/{image.family}"):
            return image
    return None


def newest(project: Project, family: str) -> Json | None:
    """The image a family of a project stands for: its newest that is ready and not deprecated."""
    found = [
        image
        for image in project.images.values()
        if image.get("family") == family and image["status"] == "READY" and "deprecated" not in image
    ]
    return max(found, key=lambda image: int(image["id"]), default=None)


def own_image(project: Project, path: str) -> catalog.OsImage | None:
    """The image of a project's own at that path.

    What is in its archive nobody looks at: the back end starts the system that the label ``gpumesh-image-os`` names
    (``debian-13``), and Debian 13 where there is none.

    Raises:
        ApiError: it cannot be used, or not yet.
    """
    match = re.fullmatch(r"projects/([^/]+)/global/images/(family/)?([^/]+)", path)
    if not match:
        return None
    owner = project.world.store(Compute).project(match[1])
    image = newest(owner, match[3]) if match[2] else owner.images.get(match[3])
    if image is None:
        return None
    if image["status"] != "READY":
        raise not_ready(path)
    if (state := image.get("deprecated", {}).get("state")) in ("OBSOLETE", "DELETED"):
        raise bad_request(f"The resource '{path}' is {state.lower()}.")
    named = image.get("labels", {}).get("gpumesh-image-os", "debian-13")
    return catalog.OsImage(
        owner.name,
        image.get("family", ""),
        image["name"],
        image["description"],
        {"ubuntu-24-04": "ubuntu-24.04"}.get(named, named),
        cloud_init=True,
        guest_agent=False,
        disk_gb=int(image["diskSizeGb"]),
        uefi={"type": "UEFI_COMPATIBLE"} in image.get("guestOsFeatures", ()),
    )


def check_disks(project: Project, zone: str, disks: Sequence[Json]) -> None:
    """Types and sizes of new disks."""
    for index, disk in enumerate(disks):
        params = disk.get("initializeParams", {})
        field = f"resource.disks[{index}].initializeParams"
        if kind := params.get("diskType"):
            path = resource_path(kind, project.name, zone)
            match = re.fullmatch(r"projects/[^/]+/zones/([^/]+)/diskTypes/([^/]+)", path)
            if not match:
                raise invalid(f"{field}.diskType", kind, "The URL is malformed.")
            if match[1] != zone or match[2] not in catalog.DISK_TYPES:
                raise not_found(path)
        size = int(params.get("diskSizeGb") or 1)
        if not 1 <= size <= 65536:
            raise invalid(f"{field}.diskSizeGb", size, "Disk size must be between 1 GB and 65536 GB.")


def network(project: Project, interface: Json, index: int) -> str:
    """The URL of the network an interface is in; the default one if it names none."""
    field = f"resource.networkInterfaces[{index}]"
    link = interface.get("network") or ""
    if not link and interface.get("subnetwork"):
        # Networks here are of the automatic kind: each has one subnetwork in every region, of its own name.
        link = f"global/networks/{str(interface['subnetwork']).rpartition('/')[2]}"
    path = resource_path(link or "global/networks/default", project.name)
    found = project.networks.get(path.rpartition("/")[2])
    if not found or path != f"projects/{project.name}/global/networks/{found['name']}":
        raise invalid(f"{field}.network", link, "The referenced network resource cannot be found.")
    return str(found["selfLink"])
