# SPDX-License-Identifier: GPL-3.0-or-later
"""Buckets, objects and uploads of Cloud Storage, whose content lies in files below the sandbox's folder.

CRC32C sums are left out of the objects: without a library they would take minutes a gigabyte.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..world import World
from .errors import ApiError, Json, condition_not_met

GRAIN = 256 * 1024
"""Content is kept in multiples of this; the last piece of an object may be any size."""

PREFIX = "/gcs"


@dataclass(slots=True, eq=False)
class Bucket:
    """A bucket, and its objects by name."""

    resource: Json
    objects: dict[str, Blob] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Blob:
    """An object and the file that holds its content."""

    resource: Json
    path: Path


@dataclass(slots=True, eq=False)
class Upload:
    """A resumable upload.

    Attributes:
        id: whoever knows it may go on with the upload, and needs no token.
        given: the object's metadata as the client gave it.
        generation: what the object's generation must be for the upload to end well; 0: there must be none; None: whatever.
        received: bytes that are kept, and will not have to be sent again.
        done: the object, once all is there.
    """

    id: str
    bucket: str
    name: str
    given: Json
    generation: int | None
    path: Path
    received: int = 0
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: Json | None = None

    def keep(self, content: bytes) -> None:
        """Add to what has been received."""
        with self.path.open("ab") as file:
            file.write(content)
        self.md5.update(content)
        self.received += len(content)


class Storage:
    """Everything that is stored. Kept by :meth:`World.store`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        self._folder = world.state_dir / "storage"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)

    def bucket(self, name: str) -> Bucket:
        """By name; bucket names are the whole world's.

        Raises:
            ApiError: there is none.
        """
        if name not in self.buckets:
            raise ApiError(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def blob(self, bucket: str, name: str) -> Blob:
        """An object.

        Raises:
            ApiError: there is none, or no such bucket.
        """
        found = self.bucket(bucket).objects.get(name)
        if found is None:
            raise ApiError(404, "notFound", f"No such object: {bucket}/{name}")
        return found

    def begin(self, bucket: str, name: str, given: Json, generation: int | None) -> Upload:
        """Start an upload."""
        self.bucket(bucket)
        token = secrets.token_urlsafe(24)
        upload = Upload(token, bucket, name, given, generation, self._folder / f"upload-{token}")
        self.uploads[token] = upload
        return upload

    def finish(self, upload: Upload) -> Json:
        """Make the object of an upload whose content is all there.

        Raises:
            ApiError: it is not what was announced, or the object has changed meanwhile; the upload is over.
        """
        md5 = base64.b64encode(upload.md5.digest()).decode()
        objects = self.bucket(upload.bucket).objects
        there = objects.get(upload.name)
        if upload.given.get("md5Hash", md5) != md5:
            self.drop(upload)
            raise ApiError(
                400,
                "invalid",
                f'Provided MD5 hash "{upload.given["md5Hash"]}" doesn\'t match calculated MD5 hash "{md5}".',
            )
        if upload.generation is not None:
            is_ = int(there.resource["generation"]) if there else 0
            if is_ != upload.generation:
                self.drop(upload)
                raise condition_not_met("At least one of the pre-conditions you specified did not hold.")
        generation = str(int(self.world.clock.time() * 1_000_000) + self.world.next_id("gcs"))
        path = self._folder / generation
        upload.path.touch()
        os.replace(upload.path, path)
        if there:
            there.path.unlink(missing_ok=True)
        resource = self._object(upload, generation, md5)
        objects[upload.name] = Blob(resource, path)
        upload.done = resource
        return resource

    def drop(self, upload: Upload) -> None:
        """Forget an upload."""
        self.uploads.pop(upload.id, None)
        upload.path.unlink(missing_ok=True)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self.blob(bucket, name).path.unlink(missing_ok=True)
        del self.bucket(bucket).objects[name]

    def _object(self, upload: Upload, generation: str, md5: str) -> Json:
        now = timestamp(self.world)
        link = f"{self.world.base_url}{PREFIX}/storage/v1/b/{upload.bucket}/o/{upload.name}"
        return {
            "contentType": "application/octet-stream",
            **upload.given,
            "kind": "storage#object",
            "id": f"{upload.bucket}/{upload.name}/{generation}",
            "selfLink": link,
            "mediaLink": f"{link}?generation={generation}&alt=media",
            "name": upload.name,
            "bucket": upload.bucket,
            "generation": generation,
            "metageneration": "1",
            "storageClass": "STANDARD",
            "size": str(upload.received),
            "md5Hash": md5,
            "etag": base64.b64encode(generation.encode()).decode(),
            "timeCreated": now,
            "updated": now,
            "timeFinalized": now,
            "timeStorageClassUpdated": now,
        }


def find_source(world: World, url: str) -> Blob | None:
    """The object that a URL of Cloud Storage names, ``https://storage.googleapis.com/bucket/object``."""
    bucket, _, name = url.removeprefix("https://storage.googleapis.com/").partition("/")
    found = world.store(Storage).buckets.get(bucket)
    return found.objects.get(name) if found else None


def timestamp(world: World) -> str:
    """Now, as Cloud Storage writes it."""
    now = datetime.fromtimestamp(world.clock.time(), UTC).replace(tzinfo=None)
    return f"{now.isoformat(timespec='milliseconds')}Z"
