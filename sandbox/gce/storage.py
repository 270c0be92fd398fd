# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage, JSON API v1, as far as images need it: buckets, objects, resumable uploads.

What a client sends is held against the API's discovery document, as for Compute Engine. The document does not describe
how an upload goes on; that is Google's page "Resumable uploads": pieces are multiples of 256 KiB save the last, an
answer 308 names in ``Range`` what is kept, nothing that is kept need be sent again, and the session's URL is all the
authority it takes. A connection that breaks within a piece leaves what had arrived of it, in whole grains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ..faults import Subject
from ..world import Service, World
from .authority import SCOPE, authorize
from .description import Description, Method, load
from .errors import ApiError, Json, injected, invalid, required
from .objects import GRAIN, PREFIX, Bucket, Storage, Upload, timestamp
from .paging import MOST_RESULTS

_READ = frozenset(
    f"{SCOPE}{name}"
    for name in (
        "cloud-platform",
        "cloud-platform.read-only",
        "devstorage.full_control",
        "devstorage.read_only",
        "devstorage.read_write",
    )
)
_WRITE = _READ - {f"{SCOPE}cloud-platform.read-only", f"{SCOPE}devstorage.read_only"}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_LOCATION = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,40}")

Handler = Callable[[World, Request, dict[str, str], Json], Awaitable[Response]]


def routes(world: World) -> list[BaseRoute]:
    """The routes of ``/gcs``."""
    world.register(Service("storage", PREFIX, injected, lambda path: Subject(name=path.rpartition("/")[2])))
    document = load("storage_v1.json")
    found: list[BaseRoute] = []
    for name, handler in _HANDLERS.items():
        method = document.methods[name]
        path = method.path.replace("{object}", "{object:path}")
        place = "/upload/storage/v1" if name == "objects.insert" else "/storage/v1"
        endpoint = _endpoint(world, document, method, handler)
        found.append(Route(f"{place}/{path}", endpoint, methods=[method.verb]))
    upload = f"/upload/storage/v1/{document.methods['objects.insert'].path}"
    found.append(Route(upload, _continue(world), methods=["PUT", "DELETE"]))
    found.append(Route("/{path:path}", _no_such_page, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return [Mount(PREFIX, routes=found)]


async def _no_such_page(request: Request) -> Response:
    return ApiError(404, "notFound", "Not Found").response()


def _endpoint(
    world: World, document: Description, method: Method, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            authorize(world, request, _READ if method.verb == "GET" else _WRITE)
            method.check_query(dict(request.query_params))
            path = {name: str(value) for name, value in request.path_params.items()}
            return await handler(world, request, path, await _body(document, method, request))
        except ApiError as refusal:
            return refusal.response()

    return endpoint


async def _body(document: Description, method: Method, request: Request) -> Json:
    raw = await request.body() if method.request else b""
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise ApiError(400, "parseError", "Parse Error") from error
    document.check_body(method.request, body)
    checked: Json = body
    return checked


# Buckets and objects


async def insert_bucket(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``buckets.insert``."""
    storage, name = world.store(Storage), str(body.get("name") or "")
    if not request.query_params.get("project"):
        raise required("project")
    if not _BUCKET.fullmatch(name):
        raise ApiError(400, "invalid", f"Invalid bucket name: '{name}'")
    location = str(body.get("location") or "US")
    if not _LOCATION.fullmatch(location):
        raise invalid("location", location, "The specified location constraint is not valid.")
    if name in storage.buckets:
        raise ApiError(
            409,
            "conflict",
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
    now = timestamp(world)
    resource: Json = {
        **body,
        "kind": "storage#bucket",
        "id": name,
        "selfLink": f"{world.base_url}{PREFIX}/storage/v1/b/{name}",
        "projectNumber": "100000000001",
        "name": name,
        "location": location.upper(),
        "locationType": "multi-region" if location.upper() in ("US", "EU", "ASIA") else "region",
        "storageClass": body.get("storageClass", "STANDARD"),
        "timeCreated": now,
        "updated": now,
        "metageneration": "1",
        "etag": "CAE=",
    }
    storage.buckets[name] = Bucket(resource)
    return JSONResponse(resource)


async def get_bucket(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``buckets.get``."""
    return JSONResponse(world.store(Storage).bucket(path["bucket"]).resource)


async def list_buckets(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``buckets.list``."""
    if not request.query_params.get("project"):
        raise required("project")
    buckets = world.store(Storage).buckets
    found = [buckets[name].resource for name in sorted(buckets)]
    return JSONResponse({"kind": "storage#buckets"} | ({"items": found} if found else {}))


async def list_objects(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``objects.list``, by prefix, in pages."""
    query = request.query_params
    for name in query:
        if name not in ("prefix", "maxResults", "pageToken", "alt", "prettyPrint"):
            raise invalid(name, query[name], "The sandbox lists objects by prefix only.")
    objects = world.store(Storage).bucket(path["bucket"]).objects
    names = [
        name
        for name in sorted(objects)
        if name.startswith(query.get("prefix", "")) and name > query.get("pageToken", "")
    ]
    size = int(query.get("maxResults", MOST_RESULTS)) or MOST_RESULTS
    answer: Json = {"kind": "storage#objects"}
    if names:
        answer["items"] = [objects[name].resource for name in names[:size]]
    if names[size:]:
        answer["nextPageToken"] = names[size - 1]
    return JSONResponse(answer)


async def get_object(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``objects.get``: what is known of it; nobody has needed the content back."""
    if request.query_params.get("alt", "json") != "json":
        raise invalid("alt", request.query_params["alt"], "The sandbox gives no content back.")
    return JSONResponse(world.store(Storage).blob(path["bucket"], path["object"]).resource)


async def delete_object(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``objects.delete``."""
    storage = world.store(Storage)
    found = storage.blob(path["bucket"], path["object"]).resource
    for name in ("generation", "ifGenerationMatch"):
        wanted = request.query_params.get(name)
        if wanted is not None and wanted != found["generation"]:
            if name == "generation":
                raise ApiError(404, "notFound", f"No such object: {path['bucket']}/{path['object']}")
            raise ApiError(
                412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
            )
    storage.remove(path["bucket"], path["object"])
    return Response(status_code=204)


# Uploads


async def begin_upload(world: World, request: Request, path: dict[str, str], body: Json) -> Response:
    """``objects.insert``, of which only the resumable kind is served."""
    query = request.query_params
    if query.get("uploadType") != "resumable":
        raise invalid("uploadType", query.get("uploadType"), "The sandbox takes resumable uploads only.")
    name = query.get("name") or str(body.get("name") or "")
    if not name:
        raise required("name")
    if len(name.encode()) > 1024 or "\n" in name or "\r" in name:
        raise invalid("name", name, "Object names are up to 1024 bytes without line breaks.")
    wanted = query.get("ifGenerationMatch")
    kind = request.headers.get("x-upload-content-type")
    given = {**({"contentType": kind} if kind else {}), **body}
    upload = world.store(Storage).begin(path["bucket"], name, given, None if wanted is None else int(wanted))
    link = (
        f"{world.base_url}{PREFIX}/upload/storage/v1/b/{path['bucket']}/o"
        f"?uploadType=resumable&name={quote(name, safe='')}&upload_id={upload.id}"
    )
    return Response(status_code=200, headers={"Location": link, "X-GUploader-UploadID": upload.id})


def _continue(world: World) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        storage = world.store(Storage)
        upload = storage.uploads.get(request.query_params.get("upload_id", ""))
        if upload is None or upload.bucket != request.path_params["bucket"]:
            return ApiError(404, "notFound", "Not Found").response()
        async with upload.lock:
            if request.method == "DELETE":
                storage.drop(upload)
                return Response(status_code=499)
            try:
                return await _receive(storage, upload, request)
            except ApiError as refusal:
                return refusal.response()

    return endpoint


async def _receive(storage: Storage, upload: Upload, request: Request) -> Response:
    """Take a piece of an upload, or say how much there is."""
    if upload.done is not None:
        return JSONResponse(upload.done)
    match = _RANGE.fullmatch(request.headers.get("content-range", ""))
    if match is None:
        raise ApiError(400, "badRequest", "Failed to parse Content-Range header.")
    total = None if match[3] == "*" else int(match[3])
    if match[1] is not None:
        first, last = int(match[1]), int(match[2])
        if last < first or (total is not None and last >= total):
            raise ApiError(400, "badRequest", "Failed to parse Content-Range header.")
        if first > upload.received:
            raise ApiError(
                400,
                "badRequest",
                f"Invalid request.  According to the Content-Range header, the upload offset is {first} byte(s), which "
                f"exceeds already uploaded size of {upload.received} byte(s).",
            )
        is_last = total is not None and last + 1 == total
        if not is_last and (last + 1 - first) % GRAIN:
            raise ApiError(
                400,
                "badRequest",
                f"Invalid request.  The number of bytes uploaded is required to be equal or greater than {GRAIN}, except "
                "for the final request (it's recommended to be the exact multiple of 262144).",
            )
        if not await _take(upload, request, first, last, is_last=is_last):
            return Response(status_code=400)
    if total is not None and upload.received == total:
        return JSONResponse(storage.finish(upload))
    headers = {"Range": f"bytes=0-{upload.received - 1}"} if upload.received else {}
    return Response(status_code=308, headers=headers | {"X-GUploader-UploadID": upload.id})


async def _take(upload: Upload, request: Request, first: int, last: int, *, is_last: bool) -> bool:
    """Keep what comes in, in whole grains as it comes; whether all of the piece has come."""
    skip = upload.received - first
    came, waiting = 0, b""
    try:
        async for part in request.stream():
            came += len(part)
            dropped = min(skip, len(part))
            skip -= dropped
            waiting += part[dropped:]
            whole = len(waiting) - len(waiting) % GRAIN
            if whole:
                upload.keep(waiting[:whole])
                waiting = waiting[whole:]
    except ClientDisconnect:
        return False
    if came != last + 1 - first:
        raise ApiError(400, "badRequest", "The body is not as long as the Content-Range header says.")
    if is_last and waiting:
        upload.keep(waiting)
    return True


_HANDLERS: dict[str, Any] = {
    "buckets.insert": insert_bucket,
    "buckets.get": get_bucket,
    "buckets.list": list_buckets,
    "objects.list": list_objects,
    "objects.get": get_object,
    "objects.delete": delete_object,
    "objects.insert": begin_upload,
}
