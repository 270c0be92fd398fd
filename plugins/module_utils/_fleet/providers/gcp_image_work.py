# SPDX-License-Identifier: GPL-3.0-or-later
"""One image in Compute Engine, made of a local archive by way of Cloud Storage.

Whatever moment a run ends at, the next one goes on: an upload from where it got to, an object that is there is used, an
image being made is waited for, one that failed is made again, an object left over is removed.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import errors
from . import gcp_archive
from .gcp_image import (
    CONTENT_LABEL,
    Outcome,
    Seen,
    Wish,
    insert_body,
    named,
    object_name,
    predict,
    seen,
    shown,
)

if TYPE_CHECKING:
    from ..clock import Clock
    from .gcp_api import Compute
    from .gcp_storage import Storage, StoredObject

_POLL_SECONDS = 2.0
_MOST_REPEATS = 16
_ON_THE_WAY = frozenset({"PENDING", "DELETING"})


def connect(settings: Mapping[str, Any], clock: Clock) -> tuple[Compute, Storage]:
    """Sign in to both services. The first request comes with the first call.

    Args:
        settings: ``project``, ``credentials_file``, ``endpoint``, ``storage_endpoint``.

    Raises:
        MissingLibrary: google-auth or requests is not installed.
        AuthError: there are no credentials.
        InvalidRequest: no project is named.
    """
    try:
        from . import gcp_api, gcp_storage
    except ImportError as exc:
        raise errors.MissingLibrary(
            f"the Python package {exc.name} is not installed, without which Google Cloud cannot be asked",
            hint="Install it for the Python that runs Ansible: pip install google-auth requests",
        ) from exc
    project = settings.get("project")
    if not project:
        raise errors.InvalidRequest(
            "no project of Google Cloud is named", hint="Give project, or set GCP_PROJECT"
        )
    credentials = gcp_api.find_credentials(
        settings.get("credentials_file") or None, os.environ, clock, (gcp_api.SCOPE, gcp_storage.SCOPE)
    )
    return (
        gcp_api.Compute(credentials, str(project), clock, settings.get("endpoint") or gcp_api.ENDPOINT),
        gcp_storage.Storage(credentials, clock, settings.get("storage_endpoint") or gcp_storage.ENDPOINT),
    )


def converge(
    api: Compute,
    storage: Storage,
    wish: Wish,
    clock: Clock,
    *,
    check: bool,
    progress: Callable[[int], None] = lambda sent: None,
) -> Outcome:
    """Make the image what is wished, and wait until it is.

    Args:
        check: find out only what would change.
        progress: told how many bytes of the archive are in the bucket.
    """
    wish = named(wish)
    return _Work(api, storage, wish, clock, progress).run(check=check)


class _Work:
    """Requests and the waiting for them."""

    def __init__(
        self, api: Compute, storage: Storage, wish: Wish, clock: Clock, progress: Callable[[int], None]
    ) -> None:
        self._api = api
        self._storage = storage
        self._wish = wish
        self._clock = clock
        self._progress = progress
        self._path = f"global/images/{wish.name}"
        self._archive: gcp_archive.Archive | None = None
        self._uploaded = 0

    def run(self, *, check: bool) -> Outcome:
        """Look, compare, change."""
        wish = self._wish
        image = self._look() if check else self._settled()
        if image is not None and image.get("status") == "DELETING":
            # A run would wait until it is gone.
            image = None
        content = self._content(image)
        stored = self._left(content)
        before = seen(image, stored)
        after, notes = predict(wish, before, content)
        if check or before == after:
            return Outcome(before, after, shown(image), notes)
        if wish.state != "absent" and before["state"] in ("absent", "failed"):
            # Before anything is touched: without a good archive nothing comes of it.
            self._read()
        if wish.state == "absent" and stored is not None and after["object"] is None:
            # Only the image tells the name of its archive, which would be billed for ever.
            self._storage.delete(stored)
        if before["state"] == "failed" or (image is not None and wish.state == "absent"):
            self._end(self._delete())
            image = None
        if wish.state != "absent":
            image = self._present(image, before, after, content, stored)
        if wish.state != "absent" and after["object"] is None:
            left = self._left(content)
            if left is not None:
                self._storage.delete(left)
        return Outcome(before, after, shown(image), notes, self._uploaded)

    def _present(
        self,
        image: Mapping[str, Any] | None,
        before: Seen,
        after: Seen,
        content: str | None,
        stored: StoredObject | None,
    ) -> Mapping[str, Any]:
        if image is None:
            return self._make(content or "", stored)
        changes = {key: after[key] for key in ("family", "description") if after[key] != before[key]}
        if changes:
            self._end(self._api.write("PATCH", self._path, f"changing image {self._wish.name}", changes))
        if after["labels"] != before["labels"]:
            self._relabel(after["labels"])
        if (after["state"], after["replacement"]) != (before["state"], before["replacement"]):
            self._deprecate(after)
        return self._settled() or {}

    def _look(self) -> Mapping[str, Any] | None:
        try:
            return self._api.get(self._path, f"looking for image {self._wish.name}")
        except errors.NotFound:
            return None

    def _settled(self) -> Mapping[str, Any] | None:
        """The image, once nobody is making or deleting it any more."""
        stop = self._clock.now() + self._wish.timeout
        while True:
            image = self._look()
            if image is None or image.get("status") not in _ON_THE_WAY:
                return image
            if self._clock.now() >= stop:
                raise errors.WaitTimeout(
                    f"the image {self._wish.name} was still {image.get('status')} after {self._wish.timeout:.0f} s",
                    hint="Run the same task again: it goes on from there",
                )
            self._clock.sleep(_POLL_SECONDS)

    def _content(self, image: Mapping[str, Any] | None) -> str | None:
        """SHA-256 of what the image should hold; where that does not matter, of what it holds, as far as is known."""
        wish = self._wish
        if wish.state == "present" and wish.content is None and wish.source is not None:
            return self._read().sha256
        if wish.content is not None:
            return wish.content
        return (
            None
            if image is None or wish.state == "present"
            else (image.get("labels") or {}).get(CONTENT_LABEL)
        )

    def _read(self) -> gcp_archive.Archive:
        if self._wish.source is None:
            raise errors.InvalidRequest(
                f"the image {self._wish.name} does not exist, and source must be given to make it"
            )
        if self._archive is None:
            self._archive = gcp_archive.read(self._wish.source)
        return self._archive

    def _left(self, content: str | None) -> StoredObject | None:
        """The object of this image in the bucket, if it is ours."""
        wish = self._wish
        if wish.bucket is None or content is None:
            return None
        name = wish.object or object_name(wish.name, content)
        stored = self._storage.find(wish.bucket, name)
        if stored is None:
            return None
        if stored.metadata.get("gpumesh-image") != wish.name:
            if wish.state == "present":
                raise errors.Conflict(
                    f"gs://{wish.bucket}/{name} exists and was not put there for the image {wish.name}",
                    hint="Give another object, or another bucket",
                )
            return None
        return stored

    def _make(self, content: str, stored: StoredObject | None) -> Mapping[str, Any]:
        """Upload what is not there yet and have an image made of it."""
        wish, archive = self._wish, self._read()
        bucket, name = wish.bucket or "", wish.object or object_name(wish.name, content)
        if stored is None or not stored.holds(archive):
            stored = self._upload(archive, bucket, name, content, stored)
        else:
            self._storage.forget(archive)
        self._insert(content, stored)
        image = self._settled()
        if image is None or image.get("status") != "READY":
            status = "gone" if image is None else image.get("status")
            raise errors.OperationFailed(
                f"the image {wish.name} is {status} instead of READY",
                hint="Run the same task again: what failed is removed and made again",
            )
        if (found := (image.get("labels") or {}).get(CONTENT_LABEL)) != content[:63]:
            if not wish.keep_object:
                self._storage.delete(stored)
            raise errors.Conflict(
                f"somebody else has made the image {wish.name} meanwhile, with other content ({str(found)[:12]})",
                hint="A version never changes its content: give the new image a new version",
            )
        return image

    def _upload(
        self,
        archive: gcp_archive.Archive,
        bucket: str,
        name: str,
        content: str,
        replaced: StoredObject | None,
    ) -> StoredObject:
        metadata = {"gpumesh-image": self._wish.name, "gpumesh-image-sha256": content}
        try:
            stored = self._storage.upload(
                archive, bucket, name, metadata, replaced=replaced, progress=self._progress
            )
        except errors.Conflict:
            # Another run with the same archive was quicker.
            found = self._left(content)
            if found is None or not found.holds(archive):
                raise
            return found
        self._uploaded = archive.size
        return stored

    def _insert(self, content: str, stored: StoredObject) -> None:
        """Ask for the image once, whichever run asks, and wait.

        Google answers a request id that it knows with what came of the first request. So the ids of one content and upload
        are numbered, and one whose answer tells of an earlier failure, or of an image that is gone again, is passed over.
        """
        wish = self._wish
        body = insert_body(wish, content, stored.url)
        seed = f"gpumesh.fleet/{self._api.project}/{wish.name}/{content}/{stored.bucket}/{stored.name}/{stored.generation}"
        doing = f"making image {wish.name}"
        for number in range(_MOST_REPEATS):
            request_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{seed}/{number}")
            try:
                operation = self._api.write("POST", "global/images", doing, body, request_id=request_id)
            except (errors.Conflict, errors.InvalidRequest):
                # Another run was quicker, and may have removed the archive already; what it has made is looked at next.
                if self._look() is None:
                    raise
                return
            except errors.Forbidden as exc:
                exc.hint = (
                    "Give the identity compute.images.create and compute.images.setLabels in the project, "
                    f"and storage.objects.get on the bucket {stored.bucket}"
                )
                raise
            if operation.get("status") != "DONE":
                self._end(operation)
                return
            if not _failure(operation, doing) and self._look() is not None:
                return
        raise errors.OperationFailed(
            f"{doing}: it has failed {_MOST_REPEATS} times with the same upload",
            hint=f"Remove gs://{stored.bucket}/{stored.name} and run the same task again",
        )

    def _delete(self) -> Mapping[str, Any]:
        return self._api.write("DELETE", self._path, f"deleting image {self._wish.name}")

    def _relabel(self, labels: Mapping[str, str]) -> None:
        doing = f"labelling image {self._wish.name}"
        now = self._api.get(self._path, doing, fields="labels,labelFingerprint")
        content = (now.get("labels") or {}).get(CONTENT_LABEL, "")
        body = {"labels": {**labels, CONTENT_LABEL: content}, "labelFingerprint": now["labelFingerprint"]}
        self._end(self._set_labels(doing, body))

    def _set_labels(self, doing: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        # The one change of an image that takes no requestId: the fingerprint makes a repeat harmless.
        return self._api.change("POST", f"{self._path}/setLabels", doing, body)

    def _deprecate(self, after: Seen) -> None:
        body: dict[str, Any] = {"state": "DEPRECATED" if after["state"] == "deprecated" else "ACTIVE"}
        if after["replacement"]:
            project = quote(self._api.project, safe=":")
            body["replacement"] = f"projects/{project}/global/images/{after['replacement']}"
        verb = "deprecating" if after["state"] == "deprecated" else "taking back into use"
        self._end(self._api.write("POST", f"{self._path}/deprecate", f"{verb} image {self._wish.name}", body))

    def _end(self, operation: Mapping[str, Any]) -> None:
        """Wait until an operation has ended well."""
        name, kind = str(operation["name"]), str(operation.get("operationType") or "change")
        doing = f"to {kind} image {self._wish.name}"
        stop = self._clock.now() + self._wish.timeout
        while operation.get("status") != "DONE":
            if self._clock.now() >= stop:
                raise errors.WaitTimeout(
                    f"{doing} had not ended after {self._wish.timeout:.0f} s",
                    hint="Run the same task again: it goes on from there",
                )
            self._clock.sleep(_POLL_SECONDS)
            try:
                operation = self._api.get(f"global/operations/{name}", "watching an operation")
            except errors.NotFound:
                return
        if error := _failure(operation, doing):
            raise error


def _failure(operation: Mapping[str, Any], doing: str) -> errors.ProviderError | None:
    from .gcp_api import operation_error

    return operation_error(operation, doing)
