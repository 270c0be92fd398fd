# SPDX-License-Identifier: GPL-3.0-or-later
"""What every endpoint of the local Hetzner Cloud has in common: token, rate limit, pages, errors, headers."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..private import read_only, same
from ..world import World
from .errors import ApiError, invalid
from .labels import matches
from .project import Project, cached_selector

Item = TypeVar("Item")
Answer = dict[str, Any] | tuple[int, dict[str, Any] | None]
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has passed the gate."""

    world: World
    project: Project
    request: Request
    body: Mapping[str, Any]

    @property
    def id(self) -> int:
        """The number in the path."""
        return int(self.request.path_params["id"])

    def query(self, name: str) -> str:
        """A query parameter; empty if it is not there."""
        return self.request.query_params.get(name, "")

    def queries(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return self.request.query_params.getlist(name)

    def text(self, field: str, *, required: bool = False) -> str | None:
        """A string of the body.

        Raises:
            ApiError: it is something else, or missing though required.
        """
        value = self.body.get(field)
        if value is None and not required:
            return None
        if not isinstance(value, str) or (required and not value):
            raise invalid(field, "is required" if value is None else "must be a string")
        return value


Handler = Callable[[Call], Awaitable[Answer]]


def route(world: World, path: str, handlers: Mapping[str, Handler]) -> Route:
    """One path with a handler for each method."""

    async def endpoint(request: Request) -> Response:
        project = world.store(Project)
        limits: dict[str, str] = {}
        try:
            _check_token(world, request)
            left, full = project.spend_request()
            limits = {
                "RateLimit-Limit": str(project.rate_limit),
                "RateLimit-Remaining": str(left),
                "RateLimit-Reset": str(full),
            }
            handler = handlers.get(request.method)
            if not handler:
                raise ApiError("method_not_allowed", "method not allowed")
            call = Call(world, project, request, await _body(request))
            answer = await handler(call)
            status, content = answer if isinstance(answer, tuple) else (200, answer)
            response = Response(status_code=204) if content is None else JSONResponse(content, status)
            if content and "meta" in content:
                _add_links(response, request, content["meta"]["pagination"])
        except ApiError as error:
            response = error.response()
        response.headers.update({**limits, "X-Correlation-Id": uuid.uuid4().hex[:16]})
        return response

    return Route(path, endpoint, methods=list(METHODS))


def _check_token(world: World, request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ApiError("unauthorized", "token is required")
    if same(token, world.token):
        return
    if not same(token, read_only(world.token)):
        raise ApiError("unauthorized", "the token you have provided is invalid")
    if request.method != "GET":
        raise ApiError("token_readonly", "token is only allowed to perform GET requests")


async def _body(request: Request) -> Mapping[str, Any]:
    raw = await request.body()
    if not raw:
        return {}
    try:
        given = await request.json()
    except ValueError as error:
        raise ApiError("json_error", "invalid JSON in request body") from error
    if not isinstance(given, dict):
        raise ApiError("json_error", "the request body must be a JSON object")
    return given


def _number(call: Call, name: str, default: int) -> int:
    text = call.query(name)
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise invalid(name, "must be a number of 1 or more")
    return int(text)


def page(
    call: Call, key: str, items: Sequence[Item], show: Callable[[Item], dict[str, Any]]
) -> dict[str, Any]:
    """One page of a list, with ``meta.pagination``. Only what is on the page is rendered."""
    number, size = _number(call, "page", 1), min(50, _number(call, "per_page", 25))
    last = max(1, math.ceil(len(items) / size))
    return {
        key: [show(item) for item in items[(number - 1) * size : number * size]],
        "meta": {
            "pagination": {
                "page": number,
                "per_page": size,
                "previous_page": number - 1 if number > 1 else None,
                "next_page": number + 1 if number < last else None,
                "last_page": last,
                "total_entries": len(items),
            }
        },
    }


def _add_links(response: Response, request: Request, pagination: Mapping[str, Any]) -> None:
    links = []
    others = [(key, value) for key, value in request.query_params.multi_items() if key != "page"]
    for relation, number in (
        ("prev", pagination["previous_page"]),
        ("next", pagination["next_page"]),
        ("last", pagination["last_page"]),
    ):
        if number:
            links.append(
                f'<{request.url.replace(query=urlencode([*others, ("page", number)]))}>; rel="{relation}"'
            )
    response.headers["Link"] = ", ".join(links)


def chosen(call: Call, items: Sequence[Mapping[str, Any]], **equal: str) -> list[Mapping[str, Any]]:
    """Items by ``name``, by ``label_selector``, by what else is given as field=parameter, in the order of ``sort``."""
    found = list(items)
    for field, parameter in {"name": "name", **equal}.items():
        if wanted := call.queries(parameter):
            found = [item for item in found if item.get(field) in wanted]
    if selector := call.query("label_selector"):
        terms = cached_selector(selector)
        found = [item for item in found if matches(terms, item["labels"])]
    return ordered(
        call, found, {"id": lambda i: i["id"], "name": lambda i: i["name"], "created": lambda i: i["created"]}
    )


def ordered(call: Call, items: list[Item], keys: Mapping[str, Callable[[Item], Any]]) -> list[Item]:
    """A list in the order of the ``sort`` parameters, the first the most important."""
    result = items
    for wanted in reversed(call.queries("sort")):
        field, _, direction = wanted.partition(":")
        if field not in keys or direction not in ("", "asc", "desc"):
            raise invalid("sort", f"cannot sort by '{wanted}'")
        result = sorted(result, key=keys[field], reverse=direction == "desc")
    return result
