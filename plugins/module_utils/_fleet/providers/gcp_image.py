# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image in Compute Engine is to be, what it is, and what follows from that. Pure.

An image carries the SHA-256 of what it was made from in a label, and that decides everything: the same content is
nothing to do, other content under the same name is refused, and what does not carry the label is somebody else's.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import errors
from ..images.reference import GoldenReference, is_golden
from .gcp_wire import last

if TYPE_CHECKING:
    from .gcp_storage import StoredObject

CONTENT_LABEL = "gpumesh-image-sha256"
"""The label with the first 63 digits of the SHA-256: a label holds no more, and the last one tells nothing new."""

FEATURES = ("GVNIC", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE")
"""What is said of a guest unless something else is asked for; the module's documentation says why these and no others."""

Seen = dict[str, Any]

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OURS = "gpumesh-"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the image should be.

    Attributes:
        name: of the image.
        state: ``present``, ``absent`` or ``deprecated``.
        source: the archive; needed only where there is something to upload.
        content: SHA-256 of what the image holds, in hexadecimal; that of the archive if None.
        bucket, object: where the archive is put; a name made of the image's and its content if the latter is None.
        family, description, labels: of the image; None leaves them alone.
        own: labels that a golden image has whatever ``labels`` says.
        features: of the guest; None for ours.
        architecture, storage_locations: of a new image.
        keep_object: leave the archive in the bucket.
        replacement: name of the image to use instead of a deprecated one.
        timeout: seconds to wait for each operation.
    """

    name: str
    state: str = "present"
    source: Path | None = None
    content: str | None = None
    bucket: str | None = None
    object: str | None = None
    family: str | None = None
    description: str | None = None
    labels: Mapping[str, str] | None = None
    own: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] | None = None
    architecture: str = "X86_64"
    storage_locations: tuple[str, ...] = ()
    keep_object: bool = False
    replacement: str | None = None
    timeout: float = 1800.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: what of the image and its object can be told beforehand; the same in check mode.
        image: as it is now; in check mode as it was.
        notes: what the user should know, one sentence each.
        uploaded: bytes that this run brought to the bucket.
    """

    before: Seen
    after: Seen
    image: Seen | None
    notes: tuple[str, ...] = ()
    uploaded: int = 0

    @property
    def changed(self) -> bool:
        """Something was changed, or would be."""
        return self.before != self.after


def named(wish: Wish) -> Wish:
    """The wish with everything that the name of a golden image stands for, held to Google's rules.

    Raises:
        InvalidRequest: it breaks one.
    """
    name, family, own = wish.name, wish.family, dict(wish.own)
    if is_golden(name):
        reference = _golden(name)
        name, own = reference.gcp_name, reference.gcp_labels
        family = reference.gcp_family if family is None else family
    replacement = wish.replacement
    if replacement is not None and is_golden(replacement):
        replacement = _golden(replacement).gcp_name
    for what, value, pattern, rule in (
        ("name", name, _NAME, "1 to 63 of a-z 0-9 -, a letter first and no dash last"),
        ("family", family, _NAME, "1 to 63 of a-z 0-9 -, a letter first and no dash last"),
        ("replacement", replacement, _NAME, "the name of an image of the same project"),
        ("bucket", wish.bucket, _BUCKET, "3 to 63 of a-z 0-9 . _ -, without gs://"),
        ("content", wish.content, _SHA256, "64 hexadecimal digits in small letters"),
    ):
        if value is not None and not pattern.fullmatch(value):
            raise errors.InvalidRequest(f"the {what} '{value}' is not valid: {rule}")
    for key, value in {**(wish.labels or {}), **own}.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise errors.InvalidRequest(
                f"the label {key}: {value} is not valid: up to 63 of a-z 0-9 _ -, and a letter first in the key",
                hint="Write a version with dashes, as in 1-2-0",
            )
        if key == CONTENT_LABEL:
            raise errors.InvalidRequest(f"the label {key} is written by the module and by nobody else")
    return replace(wish, name=name, family=family, own=own, replacement=replacement)


def _golden(text: str) -> GoldenReference:
    try:
        return GoldenReference.parse(text)
    except ValueError as exc:
        raise errors.InvalidRequest(str(exc)) from exc


def seen(image: Mapping[str, Any] | None, stored: StoredObject | None) -> Seen:
    """Those properties of an image that this file changes or compares, and the object left of its making."""
    left = f"gs://{stored.bucket}/{stored.name}" if stored else None
    if image is None:
        return {"state": "absent", "object": left}
    labels = dict(image.get("labels") or {})
    deprecated = image.get("deprecated") or {}
    state = "present" if deprecated.get("state", "ACTIVE") == "ACTIVE" else "deprecated"
    return {
        "state": "failed" if image.get("status") == "FAILED" else state,
        "sha256": labels.pop(CONTENT_LABEL, None),
        "family": image.get("family"),
        "description": image.get("description") or "",
        "labels": labels,
        "architecture": image.get("architecture"),
        "guest_os_features": _features(image),
        "replacement": last(deprecated.get("replacement")) or None,
        "object": left,
    }


def shown(image: Mapping[str, Any] | None) -> Seen | None:
    """An image for whoever called the module."""
    if image is None:
        return None
    labels = dict(image.get("labels") or {})
    deprecated = image.get("deprecated") or {}
    return {
        "name": str(image.get("name") or ""),
        "id": str(image.get("id") or ""),
        "self_link": str(image.get("selfLink") or ""),
        "status": str(image.get("status") or ""),
        "family": image.get("family"),
        "description": str(image.get("description") or ""),
        "labels": labels,
        "sha256": labels.get(CONTENT_LABEL),
        "architecture": image.get("architecture"),
        "guest_os_features": _features(image),
        "disk_gb": int(image.get("diskSizeGb") or 0),
        "archive_bytes": int(image.get("archiveSizeBytes") or 0),
        "storage_locations": list(image.get("storageLocations") or ()),
        "created": image.get("creationTimestamp"),
        "deprecated": deprecated.get("state", "ACTIVE") != "ACTIVE",
        "replacement": last(deprecated.get("replacement")) or None,
    }


def _features(image: Mapping[str, Any]) -> list[str]:
    return sorted(str(feature.get("type")) for feature in image.get("guestOsFeatures") or ())


def predict(wish: Wish, before: Seen, content: str | None) -> tuple[Seen, tuple[str, ...]]:
    """What will be, and what the user should know of it.

    Args:
        wish: as :func:`named` gives it.
        content: SHA-256 of what the image should hold; None if nothing says so.

    Raises:
        Conflict: an image of that name holds something else, or is none of ours.
        InvalidRequest: not enough is known to make it, or there is nothing to deprecate.
    """
    if before["state"] not in ("absent", "failed"):
        return _predict_existing(wish, before, content)
    if before["state"] == "failed":
        _check_ours(wish, before)
    if wish.state == "absent":
        return {"state": "absent", "object": None}, ()
    if wish.state == "deprecated":
        raise errors.InvalidRequest(
            f"there is no image {wish.name}, so it cannot be deprecated",
            hint="Correct its name, or use state=absent",
        )
    if content is None or wish.bucket is None:
        missing = " and ".join(
            what for what, given in (("source", content), ("bucket", wish.bucket)) if given is None
        )
        raise errors.InvalidRequest(
            f"the image {wish.name} does not exist, and {missing} must be given to make it"
        )
    where = wish.object or object_name(wish.name, content)
    return {
        "state": "present",
        "sha256": content[:63],
        "family": wish.family,
        "description": wish.description or "",
        "labels": {**(wish.labels or {}), **wish.own},
        "architecture": wish.architecture,
        "guest_os_features": sorted(FEATURES if wish.features is None else wish.features),
        "replacement": None,
        "object": f"gs://{wish.bucket}/{where}" if wish.keep_object else None,
    }, ()


def _predict_existing(wish: Wish, before: Seen, content: str | None) -> tuple[Seen, tuple[str, ...]]:
    _check_ours(wish, before)
    if wish.state != "absent" and content is not None and before["sha256"] != content[:63]:
        raise errors.Conflict(
            f"the image {wish.name} exists with other content: its SHA-256 begins with {str(before['sha256'])[:12]}, and "
            f"{content[:12]} is asked for",
            hint="A version never changes its content: give the new image a new version",
        )
    left = before["object"] if wish.keep_object else None
    if wish.state == "absent":
        return {"state": "absent", "object": left}, ()
    notes = []
    for what, wanted in (
        ("guest_os_features", None if wish.features is None else sorted(wish.features)),
        ("architecture", wish.architecture),
    ):
        if wanted is not None and before[what] not in (None, wanted):
            notes.append(
                f"{what} of the image {wish.name} are {before[what]}, and not {wanted}: only a new image can have others"
            )
    kept = {key: value for key, value in before["labels"].items() if key.startswith(_OURS)}
    return {
        **before,
        "state": wish.state,
        "family": before["family"] if wish.family is None else wish.family,
        "description": before["description"] if wish.description is None else wish.description,
        "labels": {**(before["labels"] if wish.labels is None else {**kept, **wish.labels}), **wish.own},
        "replacement": (wish.replacement or before["replacement"]) if wish.state == "deprecated" else None,
        "object": left,
    }, tuple(notes)


def _check_ours(wish: Wish, before: Seen) -> None:
    if not before["sha256"]:
        raise errors.Conflict(
            f"the image {wish.name} exists and was not made by this collection: it has no label {CONTENT_LABEL}",
            hint="Give yours another name, or remove that one by hand if nobody needs it",
        )


def object_name(name: str, content: str) -> str:
    """Where an archive is put: other content has another name, so nobody's image is made of somebody else's upload."""
    return f"{name}-{content[:16]}.tar.gz"


def insert_body(wish: Wish, content: str, source: str) -> dict[str, Any]:
    """The request that makes an image."""
    body: dict[str, Any] = {
        "name": wish.name,
        "description": wish.description or "",
        "labels": {**(wish.labels or {}), **wish.own, CONTENT_LABEL: content[:63]},
        "architecture": wish.architecture,
        "guestOsFeatures": [
            {"type": feature} for feature in (FEATURES if wish.features is None else wish.features)
        ],
        "rawDisk": {"source": source, "containerType": "TAR"},
    }
    if wish.family:
        body["family"] = wish.family
    if wish.storage_locations:
        body["storageLocations"] = list(wish.storage_locations)
    return body
