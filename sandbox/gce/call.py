# SPDX-License-Identifier: GPL-3.0-or-later
"""One request as a handler sees it, and the two shapes every list has."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..faults import Subject
from ..world import World
from . import catalog
from .description import Method, description
from .errors import ApiError, Json
from .masks import compile_mask
from .paging import page
from .store import Project

_LINK = re.compile(r"(?:https?://[^/]+/compute/(?:v1|beta|alpha)/)?(?P<path>[^?#]+)")


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request.

    Attributes:
        user: who asks, the service account's address.
        url_path: of the request.
    """

    world: World
    project: Project
    method: Method
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Json
    user: str
    url_path: str


Handler = Callable[[Call], Awaitable[Json]]


def resource_path(link: str, project: str, zone: str = "") -> str:
    """``projects/p/zones/z/machineTypes/t`` from a whole or partial URL; empty if it is none.

    Args:
        project, zone: what a partial URL is taken to mean.
    """
    match = _LINK.fullmatch(link)
    path = match["path"].strip("/") if match else ""
    if path.startswith("projects/"):
        return path
    if path.startswith(("zones/", "regions/", "global/")):
        return f"projects/{project}/{path}"
    return f"projects/{project}/zones/{zone}/{path}" if zone and "/" in path else ""


def listed(call: Call, kind: str, schema: str, path: str, items: Iterable[Json]) -> Json:
    """The list of one scope, or one page of it."""
    found = page((("", item) for item in items), call.query, schema)
    answer: Json = {
        "kind": kind,
        "id": f"projects/{call.project.name}/{path}",
        "items": [item for _, item in found.entries],
        "selfLink": call.project.link(path),
    }
    if not found.entries:
        del answer["items"]
    if found.token:
        answer["nextPageToken"] = found.token
    return answer


def aggregated(
    call: Call,
    kind: str,
    schema: str,
    name: str,
    entries: Iterable[tuple[str, Json]],
    *,
    extra: tuple[str, ...] = (),
) -> Json:
    """The list over all zones, or one page of it, with every zone in it: those with nothing on this page say so.

    A zone that an ``unreachable`` fault hits is left out and named; without ``returnPartialSuccess`` the list fails.

    Args:
        name: of the items in a scope, and the last part of the URL.
        entries: pairs of scope and item.
        extra: scopes beside the zones.
    """
    faults = call.world.faults
    dead = [
        zone
        for zone in (catalog.zones() if faults.rules else ())
        if faults.take("unreachable", service="gce", subject=Subject(zone=zone, verb="list"))
    ]
    if dead and call.query.get("returnPartialSuccess") != "true":
        raise ApiError(
            503, "backendError", f"The zone '{dead[0]}' cannot be reached. Try again later.", front=True
        )
    silent = {f"zones/{zone}" for zone in dead}
    found = page((entry for entry in entries if entry[0] not in silent), call.query, schema)
    items: dict[str, Json] = {}
    for scope, item in found.entries:
        items.setdefault(scope, {name: []})[name].append(item)
    for scope in (*extra, *(f"zones/{zone}" for zone in catalog.zones())):
        if scope in silent:
            items[scope] = _warning("UNREACHABLE", f"The scope '{scope}' is not reachable.", scope)
        elif scope not in items:
            items[scope] = _warning(
                "NO_RESULTS_ON_PAGE", f"There are no results for scope '{scope}' on this page.", scope
            )
    answer: Json = {
        "kind": kind,
        "id": f"projects/{call.project.name}/aggregated/{name}",
        "items": dict(sorted(items.items())),
        "selfLink": call.project.link(f"aggregated/{name}"),
    }
    if found.token:
        answer["nextPageToken"] = found.token
    if dead:
        answer["unreachables"] = [call.project.link(scope) for scope in sorted(silent)]
    return answer


def _warning(code: str, message: str, scope: str) -> Json:
    return {"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}}


@lru_cache(maxsize=256)
def mask(text: str, schema: str) -> Callable[[Json], Json]:
    """The ``fields`` parameter, ready to be applied."""
    return compile_mask(text, dict(description().schemas), schema)
