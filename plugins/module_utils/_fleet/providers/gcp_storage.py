# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage, JSON API v1, as far as it takes to bring one large file there: resumable uploads.

A file goes in pieces. After a piece whose answer was lost the service is asked how much it has, and the upload goes on
from there, within a run and, by a note beside the file, in the next run. The URL of an upload is all the authority it
takes to go on with it, so the note is its owner's alone, is removed at the end, and the URL is in no message.

What arrives is checked twice: Google is told the MD5 beforehand and refuses anything else, and what it says it has is
compared with what was sent.

Needs ``requests`` and ``google-auth``, so it is imported where a connection is opened.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import requests

from .. import errors, http
from ..clock import Clock
from .gcp_api import Credentials, Signed, body_of, error_of
from .gcp_archive import Archive

ENDPOINT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
SERVICE = "Cloud Storage"

PIECE = 16 * 1024 * 1024
"""Bytes sent at once: a multiple of 256 KiB, as the service wants it, and little enough to be sent again."""

PATIENCE = 300.0
"""Seconds without any progress after which an upload is given up; the next run goes on with it."""

_FIELDS = "bucket,name,generation,size,md5Hash,metadata"
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_NEW_SESSIONS = 3
_RANGE = re.compile(r"bytes=0-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What is stored under a name.

    Attributes:
        generation: which of the contents that the name has had.
        md5: in base64; empty for an object put together of others, which none of ours is.
    """

    bucket: str
    name: str
    generation: str
    size: int
    md5: str
    metadata: Mapping[str, str]

    def holds(self, archive: Archive) -> bool:
        """Whether its content is that of the archive."""
        return (self.size, self.md5) == (archive.size, archive.md5)

    @property
    def url(self) -> str:
        """As Compute Engine wants it named, whatever endpoint we use ourselves."""
        return f"{ENDPOINT}/{self.bucket}/{quote(self.name)}"


class Note:
    """Where an upload has got to, for the next run: a file beside the archive that only its owner can read."""

    def __init__(self, archive: Archive) -> None:
        self._path = archive.path.with_name(f".{archive.path.name}.upload")

    def read(self, target: Mapping[str, str]) -> str | None:
        """The session of an earlier run that was bringing the same content to the same place."""
        try:
            noted = json.loads(self._own() or "null")
        except (OSError, ValueError):
            return None
        if not isinstance(noted, dict) or noted.get("target") != dict(target):
            return None
        session = noted.get("session")
        return session if isinstance(session, str) and session.startswith(("https://", "http://")) else None

    def _own(self) -> str | None:
        """What is noted; None where somebody else may have written it, who would be sent the archive."""
        handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return None
            return file.read()

    def write(self, target: Mapping[str, str], session: str) -> None:
        """Remember a session. Where nothing can be written, the next run begins again, and that is all."""
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"target": dict(target), "session": session}, file)
            os.replace(temporary, self._path)
        except OSError:
            return

    def remove(self) -> None:
        """Forget it."""
        try:
            self._path.unlink()
        except OSError:
            return


class Storage:
    """Objects of Cloud Storage.

    Args:
        credentials: who we are.
        clock: for waits between tries.
        endpoint: base URL, without ``/storage/v1``.
        piece: bytes sent at once.
    """

    def __init__(
        self, credentials: Credentials, clock: Clock, endpoint: str = ENDPOINT, *, piece: int = PIECE
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._clock = clock
        self._piece = piece
        # To begin an upload twice does no harm: a session that nothing is sent to ends by itself.
        self._signed = Signed(
            credentials, clock, SERVICE, lambda request: "uploadType=" in (request.url or "")
        )
        self._policy = http.RetryPolicy()
        # A piece must not be sent again before the service was asked what it has, so no adapter repeats any.
        self._plain = http.new_session(
            http.RetryAdapter(clock, http.RetryPolicy(deadline=-1.0, connect_deadline=-1.0))
        )

    @property
    def simulated(self) -> bool:
        """Whether a sandbox has answered, and no real cloud."""
        return self._signed.simulated

    def find(self, bucket: str, name: str) -> StoredObject | None:
        """What is stored under that name."""
        doing = f"looking for gs://{bucket}/{name}"
        response = self._signed.send("GET", self._url(bucket, name), doing, {"fields": _FIELDS})
        if response.status_code == 404:
            return None
        return _stored(self._good(response, doing, bucket))

    def delete(self, found: StoredObject) -> None:
        """Remove exactly that content; nothing where it is gone, or another has taken its place."""
        doing = f"removing gs://{found.bucket}/{found.name}"
        query = {"ifGenerationMatch": found.generation}
        response = self._signed.send("DELETE", self._url(found.bucket, found.name), doing, query)
        if response.status_code not in (404, 412):
            self._good(response, doing, found.bucket)

    def forget(self, archive: Archive) -> None:
        """Remove the note of an upload that turned out to be complete."""
        Note(archive).remove()

    def upload(
        self,
        archive: Archive,
        bucket: str,
        name: str,
        metadata: Mapping[str, str],
        *,
        replaced: StoredObject | None = None,
        progress: Callable[[int], None] = lambda sent: None,
    ) -> StoredObject:
        """Bring an archive to a bucket.

        Args:
            metadata: of the object.
            replaced: what is there under the name and may be replaced; nothing else is.
            progress: told how many bytes the service has, each time it has said so.

        Raises:
            ProviderError: it is not there.
        """
        generation = replaced.generation if replaced else "0"
        target = {"bucket": bucket, "object": name, "md5": archive.md5, "generation": generation}
        work = _Upload(self, archive, bucket, name, Note(archive), target, dict(metadata), progress)
        stored = work.run()
        if (stored.bucket, stored.name) != (bucket, name):
            raise errors.OperationFailed(
                f"what was sent for gs://{bucket}/{name} has arrived as gs://{stored.bucket}/{stored.name}",
                hint="Check storage_endpoint, and run the same task again",
            )
        if not stored.holds(archive):
            self.delete(stored)
            raise errors.OperationFailed(
                f"what arrived as gs://{bucket}/{name} is not what was sent: {stored.size} bytes with MD5 {stored.md5}, "
                f"and not {archive.size} with {archive.md5}",
                hint="It was removed again; run the same task again",
            )
        return stored

    def _url(self, bucket: str, name: str) -> str:
        return f"{self._endpoint}/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"

    def _good(self, response: requests.Response, doing: str, bucket: str) -> dict[str, Any]:
        if response.ok:
            return body_of(response)
        raise _refusal(response, doing, bucket)


class _Upload:
    """One upload under way."""

    def __init__(
        self,
        storage: Storage,
        archive: Archive,
        bucket: str,
        name: str,
        note: Note,
        target: Mapping[str, str],
        metadata: Mapping[str, str],
        progress: Callable[[int], None],
    ) -> None:
        self._storage = storage
        self._archive = archive
        self._bucket = bucket
        self._name = name
        self._note = note
        self._target = target
        self._metadata = metadata
        self._progress = progress
        self._doing = f"uploading {archive.path.name} to gs://{bucket}/{name}"

    def run(self) -> StoredObject:
        """Go on, or begin, until all is there."""
        session = self._note.read(self._target)
        begun = 0
        while True:
            if session is None:
                if begun == _NEW_SESSIONS:
                    raise errors.OperationFailed(
                        f"{self._doing}: {SERVICE} has forgotten {begun} uploads in a row",
                        hint="Run the same task again later",
                    )
                begun += 1
                session = self._begin()
                self._note.write(self._target, session)
                known: int | None = 0
            else:
                known = None
            stored = self._send(session, known)
            if stored is not None:
                self._note.remove()
                return stored
            self._note.remove()
            session = None

    def _begin(self) -> str:
        """Ask for an upload; its URL."""
        storage = self._storage
        url = f"{storage._endpoint}/upload/storage/v1/b/{quote(self._bucket, safe='')}/o"
        query = {
            "uploadType": "resumable",
            "name": self._name,
            "ifGenerationMatch": self._target["generation"],
            "fields": _FIELDS,
        }
        headers = {
            "X-Upload-Content-Type": "application/gzip",
            "X-Upload-Content-Length": str(self._archive.size),
        }
        body = {"name": self._name, "md5Hash": self._archive.md5, "metadata": dict(self._metadata)}
        response = storage._signed.send("POST", url, self._doing, query, body, headers)
        storage._good(response, self._doing, self._bucket)
        session = response.headers.get("Location", "")
        if urlsplit(session).scheme not in ("http", "https"):
            raise errors.OperationFailed(
                f"{self._doing}: {SERVICE} has named no place for the upload",
                hint="Check storage_endpoint, and whether a proxy removes the header Location",
            )
        return session

    def _send(self, session: str, known: int | None) -> StoredObject | None:
        """Send until all is there; None if the service does not know the upload any more.

        Args:
            known: bytes it has; None if that is not known.
        """
        clock, since, attempt = self._storage._clock, self._storage._clock.now(), 0
        most = -1
        with self._archive.path.open("rb") as file:
            while True:
                response = self._ask(session, file, known)
                if response is not None and response.status_code in (200, 201):
                    return _stored(body_of(response))
                if response is not None and response.status_code in _GONE:
                    return None
                if response is not None and response.status_code == 308:
                    match = _RANGE.fullmatch(response.headers.get("Range", ""))
                    known = int(match[1]) + 1 if match else 0
                    self._progress(known)
                    if known > most:
                        most, since, attempt = known, clock.now(), 0
                        continue
                elif response is not None and response.status_code not in _TRANSIENT:
                    raise self._storage_refusal(response)
                else:
                    known = None
                wait = self._storage._policy.delay(attempt, _asked_to_wait(response, clock))
                attempt += 1
                if clock.now() - since + wait > PATIENCE:
                    raise errors.Unavailable(
                        f"{self._doing}: {SERVICE} has taken nothing for {PATIENCE:.0f} s, after {max(most, 0)} of "
                        f"{self._archive.size} bytes",
                        hint="Run the same task again: it goes on from there",
                    )
                clock.sleep(wait)

    def _ask(self, session: str, file: BinaryIO, known: int | None) -> requests.Response | None:
        """Send the next piece, or ask how much is there; None if there was no answer."""
        size = self._archive.size
        if known is None or known >= size:
            content, span = b"", "*"
        else:
            file.seek(known)
            content = file.read(min(self._storage._piece, size - known))
            if len(content) < min(self._storage._piece, size - known):
                raise errors.InvalidRequest(
                    f"{self._archive.path} has become shorter while it was uploaded",
                    hint="Let nothing write to it, and run the same task again",
                )
            span = f"{known}-{known + len(content) - 1}"
        try:
            # As a file the piece goes out in blocks each with its own time-out; as bytes it would have to go in one.
            return self._storage._plain.put(
                session,
                data=io.BytesIO(content) if content else b"",
                headers={"Content-Range": f"bytes {span}/{size}"},
                timeout=http.TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            failure = http.no_answer(exc, SERVICE, self._doing, [session, urlsplit(session).query])
            if not isinstance(failure, errors.Unavailable):
                raise failure from exc
            return None

    def _storage_refusal(self, response: requests.Response) -> errors.ProviderError:
        self._note.remove()
        return _refusal(response, self._doing, self._bucket)


def _asked_to_wait(response: requests.Response | None, clock: Clock) -> float | None:
    return None if response is None else http.retry_after(response.headers, clock.utc())


def _stored(raw: Mapping[str, Any]) -> StoredObject:
    return StoredObject(
        bucket=str(raw.get("bucket") or ""),
        name=str(raw.get("name") or ""),
        generation=str(raw.get("generation") or ""),
        size=int(raw.get("size") or 0),
        md5=str(raw.get("md5Hash") or ""),
        metadata={str(key): str(value) for key, value in (raw.get("metadata") or {}).items()},
    )


def _refusal(response: requests.Response, doing: str, bucket: str) -> errors.ProviderError:
    """What an error answer of Cloud Storage means."""
    error = error_of(response.status_code, body_of(response), doing)
    if isinstance(error, errors.Forbidden):
        error.hint = (
            f"Give the identity the role roles/storage.objectUser on the bucket {bucket}, or at least "
            "storage.objects.create, get and delete"
        )
    elif isinstance(error, errors.NotFound):
        error.hint = f"Make the bucket first: gcloud storage buckets create gs://{bucket} --uniform-bucket-level-access"
    elif isinstance(error, errors.Conflict):
        error.hint = "Somebody else has stored something under that name meanwhile; run the same task again"
    elif isinstance(error, errors.InvalidRequest):
        error.hint = "Correct what the message names, or give another bucket or object"
    return error
