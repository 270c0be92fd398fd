# SPDX-License-Identifier: GPL-3.0-or-later
"""``images.*``: the public ones, and those a project makes from archives in Cloud Storage.

An image is there, PENDING, from the moment it is asked for. Its archive is looked into while the operation runs; what is
no archive of a disk makes it FAILED, and it stays so until it is deleted.
"""

from __future__ import annotations

import asyncio
import re
import tarfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from ..faults import Subject
from . import catalog, rules
from .call import Call, Handler, listed
from .description import description
from .errors import (
    Json,
    OperationError,
    condition_not_met,
    invalid,
    not_found,
    not_ready,
    required,
)
from .objects import find_source
from .operations import begin
from .store import fingerprint, new_id, timestamp

_GIB = 1 << 30
_SOURCES = ("sourceDisk", "sourceImage", "sourceSnapshot")
_UNSERVED = ("imageEncryptionKey", "shieldedInstanceInitialState", "licenses", "licenseCodes", "params")
_SOURCE = re.compile(r"https://storage\.googleapis\.com/[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]/.+")


async def insert(call: Call) -> Json:
    """``images.insert``, from ``rawDisk``, which is the only source served."""
    project = call.project
    body = deepcopy(description().writable("Image", call.body))
    name = rules.check_name(body.get("name"))
    rules.check_labels(body.get("labels", {}))
    _check_family(body.get("family"))
    features = [feature.get("type") for feature in body.get("guestOsFeatures", ())]
    if len(set(features)) != len(features) or None in features:
        raise invalid("resource.guestOsFeatures", "", "Each feature must have a type and be named once.")
    if len(body.get("storageLocations", ())) > 1:
        raise invalid("resource.storageLocations", "", "At most one storage location can be given.")
    for member in (*_SOURCES, *_UNSERVED):
        if body.get(member):
            raise invalid(f"resource.{member}", "", "The sandbox makes images from raw disks only.")
    if not body.get("rawDisk"):
        raise required("resource.rawDisk")
    source = str(body["rawDisk"].get("source") or "")
    blob = find_source(call.world, source) if _SOURCE.fullmatch(source) else None
    if blob is None:
        raise invalid(
            "resource.rawDisk.source", source, "The URL is malformed, or the object it names does not exist."
        )
    project.check_free(name in project.images, f"global/images/{name}")
    image: Json = body | {
        "kind": "compute#image",
        "id": new_id(call.world),
        "creationTimestamp": timestamp(call.world),
        "description": body.get("description", ""),
        "sourceType": "RAW",
        "status": "PENDING",
        "archiveSizeBytes": blob.resource["size"],
        "rawDisk": {"source": "", "containerType": "TAR"},
        "labelFingerprint": fingerprint(body.get("labels", {})),
        "storageLocations": body.get("storageLocations") or ["us"],
        "selfLink": project.link(f"global/images/{name}"),
    }
    project.images[name] = image

    async def work(seconds: float) -> OperationError | None:
        await call.world.clock.sleep(seconds)
        size, problem = await asyncio.to_thread(_disk, blob.path)
        if problem:
            return OperationError("IMAGE_IMPORT_ERROR", problem)
        image.update(status="READY", diskSizeGb=str(size // _GIB))
        return None

    async def undo() -> None:
        image["status"] = "FAILED"

    return begin(call, "insert", image, _subject(image, "create"), work, undo=undo)


def _disk(archive: Path) -> tuple[int, str]:
    """Size of the disk in an archive, or why there is none."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            member = tar.next()
            if member is None or member.name != "disk.raw" or not member.isreg():
                return 0, "The archive must hold the file disk.raw, and nothing before it."
            if member.size == 0 or member.size % _GIB:
                return 0, "The size of disk.raw must be a multiple of 1 GB."
            return member.size, ""
    except (OSError, EOFError, tarfile.TarError):
        return 0, "The source is no tar archive compressed with gzip."


async def get(call: Call) -> Json:
    """``images.get``."""
    name = call.path["image"]
    public = rules.find_image(f"projects/{call.project.name}/global/images/{name}")
    return _public(call, public) if public else call.project.named("images", name)


async def get_from_family(call: Call) -> Json:
    """``images.getFromFamily``: the newest that is ready and not deprecated."""
    path = f"projects/{call.project.name}/global/images/family/{call.path['family']}"
    if public := rules.find_image(path):
        return _public(call, public)
    if found := rules.newest(call.project, call.path["family"]):
        return found
    raise not_found(path)


async def list_images(call: Call) -> Json:
    """``images.list`` of the project's own."""
    return listed(call, "compute#imageList", "Image", "global/images", call.project.images.values())


async def delete(call: Call) -> Json:
    """``images.delete``. Disks made from it do not need it."""
    image = call.project.named("images", call.path["image"])
    if image["status"] in ("PENDING", "DELETING"):
        raise not_ready(f"projects/{call.project.name}/global/images/{image['name']}")
    before = image["status"]
    image["status"] = "DELETING"

    async def undo() -> None:
        image["status"] = before

    async def work(seconds: float) -> OperationError | None:
        await call.world.clock.sleep(seconds)
        call.project.images.pop(image["name"], None)
        return None

    return begin(call, "delete", image, _subject(image, "delete"), work, undo=undo)


async def deprecate(call: Call) -> Json:
    """``images.deprecate``, also back to ACTIVE."""
    image = call.project.named("images", call.path["image"])
    given = dict(call.body)
    if not given.get("state") and not any(given.get(key) for key in ("deprecated", "obsolete", "deleted")):
        raise required("resource.state")

    def apply() -> None:
        if given.get("state", "ACTIVE") == "ACTIVE":
            image.pop("deprecated", None)
        else:
            image["deprecated"] = given

    return _change(call, "deprecate", image, apply)


async def patch(call: Call) -> Json:
    """``images.patch``: family, description and deprecation can be changed, and nothing else."""
    image = call.project.named("images", call.path["image"])
    given = description().writable("Image", call.body)
    if wrong := sorted(set(given) - {"family", "description", "name"}):
        raise invalid(f"resource.{wrong[0]}", "", "The field cannot be changed.")
    if given.get("name", image["name"]) != image["name"]:
        raise invalid("resource.name", given["name"], "The name of an image cannot be changed.")
    _check_family(given.get("family"))
    return _change(call, "patch", image, lambda: image.update(given))


async def set_labels(call: Call) -> Json:
    """``images.setLabels``."""
    image = call.project.named("images", call.path["resource"])
    labels = call.body.get("labels") or {}
    rules.check_labels(labels)
    if call.body.get("labelFingerprint") != image["labelFingerprint"]:
        raise condition_not_met("Labels fingerprint either invalid or resource labels have changed")

    def apply() -> None:
        image.update(labels=dict(labels), labelFingerprint=fingerprint(labels))

    return _change(call, "setLabels", image, apply)


def _change(call: Call, kind: str, image: Json, apply: Callable[[], object]) -> Json:
    async def work(seconds: float) -> OperationError | None:
        await call.world.clock.sleep(seconds)
        apply()
        return None

    return begin(call, kind, image, _subject(image, "change"), work)


def _subject(image: Json, verb: str) -> Subject:
    return Subject(name=image["name"], labels=image.get("labels", {}), type="image", verb=verb)


def _check_family(family: object) -> None:
    if family and not re.fullmatch(rules.NAME, str(family)):
        raise invalid("resource.family", family, f"Must be a match of regex '{rules.NAME}'")


def _public(call: Call, found: catalog.OsImage) -> Json:
    """An image of the public projects, which are all their vendors' and only ever read."""
    return {
        "kind": "compute#image",
        "id": str(1_000_000_000_000_000_000 + catalog.IMAGES.index(found)),
        "creationTimestamp": f"2026-11-{found.name[-2:]}T04:12:07.318-08:00",
        "name": found.name,
        "description": found.description,
        "sourceType": "RAW",
        "status": "READY",
        "archiveSizeBytes": "1208473600",
        "diskSizeGb": str(found.disk_gb),
        "family": found.family,
        "architecture": "X86_64",
        "labelFingerprint": fingerprint({}),
        "guestOsFeatures": [
            {"type": "VIRTIO_SCSI_MULTIQUEUE"},
            {"type": "UEFI_COMPATIBLE"},
            {"type": "GVNIC"},
        ],
        "storageLocations": ["us", "eu", "asia"],
        "selfLink": f"{call.world.base_url}/compute/v1/{found.path}",
    }


HANDLERS: dict[str, Handler] = {
    "images.insert": insert,
    "images.get": get,
    "images.getFromFamily": get_from_family,
    "images.list": list_images,
    "images.delete": delete,
    "images.deprecate": deprecate,
    "images.patch": patch,
    "images.setLabels": set_labels,
}
