# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request to its handler: token, method, parameters, body, requestId; and back, through the ``fields`` mask."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from .. import oauth
from ..backends.base import BackendError
from ..faults import Subject
from ..world import Service, World
from . import catalog, changes, guest, images, instances, operations, places, project_wide, storage
from .authority import SCOPE, authorize
from .call import Call, Handler, mask
from .description import Method, description
from .errors import (
    ApiError,
    Json,
    injected,
    invalid,
    not_found,
    required,
)
from .store import Compute

PREFIX = "/compute/v1"
HANDLERS: dict[str, Handler] = {
    **instances.HANDLERS,
    **changes.HANDLERS,
    **guest.HANDLERS,
    **operations.HANDLERS,
    **project_wide.HANDLERS,
    **images.HANDLERS,
    **places.HANDLERS,
}

_READ_SCOPES = frozenset({f"{SCOPE}{name}" for name in ("cloud-platform", "compute", "compute.readonly")})
_WRITE_SCOPES = _READ_SCOPES - {f"{SCOPE}compute.readonly"}
_INSTANCE = re.compile(r"/projects/([^/]+)/zones/([^/]+)/instances/([^/]+)(?:/(\w+))?")
_OPERATION = re.compile(r"/projects/([^/]+)/(zones/[^/]+|global)/operations/([^/]+)(?:/wait)?")
_NO_SUCH_PAGE = (
    "<!DOCTYPE html>\n<html lang=en>\n  <title>Error 404 (Not Found)!!1</title>\n"
    "  <p><b>404.</b> <ins>That's an error.</ins>\n  <p>The requested URL was not found on this server.\n"
)


def routes(world: World) -> list[BaseRoute]:
    """The routes of ``/compute/v1``, of ``/gcs`` and of ``/oauth2/token``."""
    world.register(Service("gce", PREFIX, injected, lambda path: describe(world, path)))
    known = [
        Route(f"/{method.path}", _endpoint(world, method, HANDLERS[name]), methods=[method.verb])
        for name, method in description().methods.items()
    ]
    # "family" must not be taken for the name of an image.
    known.sort(key=lambda route: route.path.count("{"))
    known.append(Route("/{path:path}", _no_such_page, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return [Mount(PREFIX, routes=known), *storage.routes(world), *oauth.routes(world)]


async def _no_such_page(request: Request) -> Response:
    """What Google's front end says to a path no API has: a page for people."""
    return HTMLResponse(_NO_SUCH_PAGE, 404)


def _endpoint(world: World, method: Method, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            call = await _call(world, method, request)
            fields = call.query.get("fields", "")
            # Compiled first: a bad mask must not refuse what has been done already.
            apply = mask(fields, method.response) if fields else lambda answer: answer
            request_id = call.query.get("requestId")
            earlier = (
                call.project.requests.get((method.verb, call.url_path, request_id)) if request_id else None
            )
            answer = apply(earlier.resource if earlier else await handler(call))
        except ApiError as refusal:
            return refusal.response()
        except BackendError as failure:
            return ApiError(503, "backendError", str(failure), front=True).response()
        return JSONResponse(answer)

    return endpoint


async def _call(world: World, method: Method, request: Request) -> Call:
    """The request, checked.

    Raises:
        ApiError: no good token, or something in it that the API does not have.
    """
    authorize(world, request, _READ_SCOPES if method.verb == "GET" else _WRITE_SCOPES)
    path = {name: str(value) for name, value in request.path_params.items()}
    query = dict(request.query_params)
    method.check_path(path)
    method.check_query(query)
    if "zone" in path and path["zone"] not in catalog.zones():
        raise not_found(f"projects/{path['project']}/zones/{path['zone']}")
    if "region" in path and path["region"] not in catalog.regions():
        raise not_found(f"projects/{path['project']}/regions/{path['region']}")
    if "requestId" in query:
        _check_request_id(query["requestId"])
    writes = method.verb != "GET" and not method.id.endswith("Operations.wait")
    project = world.store(Compute).project(path["project"], write=writes)
    body = await _body(method, request)
    return Call(world, project, method, path, query, body, oauth.ACCOUNT, request.url.path)


def _check_request_id(text: str) -> None:
    try:
        good = uuid.UUID(text).int != 0 and len(text) == 36
    except ValueError:
        good = False
    if not good:
        raise invalid("requestId", text, "Must be a valid non-zero UUID.")


async def _body(method: Method, request: Request) -> Json:
    raw = await request.body() if method.request else b""
    if not method.request:
        return {}
    if not raw.strip():
        raise required("resource")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise ApiError(
            400, "parseError", "Invalid JSON payload received. Parse error.", front=True
        ) from error
    description().check_body(method.request, body)
    if not body:
        raise required("resource")
    checked: Json = body
    return checked


def describe(world: World, path: str) -> Subject | None:
    """Which instance a request is about, by the path below the prefix, for the faults that ask."""
    compute = world.store(Compute)
    if match := _OPERATION.fullmatch(path):
        project = compute.projects.get(match[1])
        operation = project.operations.get((match[2], match[3])) if project else None
        return operation.subject if operation else None
    if match := _INSTANCE.fullmatch(path):
        project = compute.projects.get(match[1])
        instance = project.instances.get((match[2], match[3])) if project else None
        return instance.subject(match[4] or "") if instance else Subject(name=match[3], zone=match[2])
    return None
