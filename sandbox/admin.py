# SPDX-License-Identifier: GPL-3.0-or-later
"""``/admin``: what tests use to look into the sandbox and to break it. Needs the token (sandbox.private).

GET    /admin/health     what runs; needs no token
GET    /admin/faults     the rules in force
POST   /admin/faults     a new rule (sandbox.faults.Rule as JSON); answers it with its id
DELETE /admin/faults     all of them;  DELETE /admin/faults/{id}  one
GET    /admin/requests   the log; ?service= &method= &path=<regex> filter, ?count=1 gives only the number
DELETE /admin/requests   empty the log
GET    /admin/machines   what exists behind the clouds, whatever their lists say
GET    /admin/settings   and  PUT: ``{"operation_seconds": 5}`` and World.options
POST   /admin/reset      an empty cloud: no machines, no objects, no faults, an empty log
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from .faults import Rule
from .middleware import RequestLog
from .world import World


class Admin:
    """The handlers."""

    def __init__(self, world: World, requests: RequestLog) -> None:
        self.world = world
        self.requests = requests

    async def health(self, request: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "backend": self.world.backend.name, "services": sorted(self.world.services)}
        )

    async def faults(self, request: Request) -> Response:
        return JSONResponse({"faults": [rule.as_json() for rule in self.world.faults.rules.values()]})

    async def add_fault(self, request: Request) -> Response:
        try:
            given = await request.json()
            if not isinstance(given, dict):
                raise ValueError("a fault is a JSON object")
            rule = self.world.faults.add(Rule.parse(given))
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse(rule.as_json(), 201)

    async def clear_faults(self, request: Request) -> Response:
        self.world.faults.clear()
        return Response(status_code=204)

    async def remove_fault(self, request: Request) -> Response:
        found = self.world.faults.remove(request.path_params["id"])
        return Response(status_code=204) if found else JSONResponse({"error": "no such fault"}, 404)

    async def log(self, request: Request) -> Response:
        wanted = request.query_params
        try:
            path = re.compile(wanted.get("path", ""))
        except re.error as error:
            return JSONResponse({"error": f"path is no regular expression: {error}"}, 422)
        found = [
            entry
            for entry in self.requests.entries
            if wanted.get("service", entry.service) == entry.service
            and wanted.get("method", entry.method) == entry.method
            and path.search(entry.path)
        ]
        answer: dict[str, Any] = {"total": len(found)}
        if "count" not in wanted:
            answer["requests"] = [asdict(entry) for entry in found]
        return JSONResponse(answer)

    async def clear_log(self, request: Request) -> Response:
        self.requests.entries.clear()
        return Response(status_code=204)

    async def machines(self, request: Request) -> Response:
        return JSONResponse({"machines": await self.world.backend.inventory()})

    async def settings(self, request: Request) -> Response:
        world = self.world
        if request.method == "PUT":
            given = await request.json()
            seconds = given.pop("operation_seconds", world.base_seconds) if isinstance(given, dict) else None
            if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
                return JSONResponse(
                    {"error": "operation_seconds must be a number of seconds, 0 or more"}, 422
                )
            for name, value in given.items():
                if type(value) is not type(world.options.get(name)):
                    known = ", ".join(f"{key} ({type(now).__name__})" for key, now in world.options.items())
                    return JSONResponse({"error": f"other settings are {known}"}, 422)
            world.base_seconds = float(seconds)
            world.options.update(given)
        return JSONResponse({"operation_seconds": world.base_seconds, **world.options})

    async def reset(self, request: Request) -> Response:
        await self.world.reset()
        self.requests.entries.clear()
        return Response(status_code=204)


def routes(world: World, requests: RequestLog) -> list[BaseRoute]:
    """The routes of ``/admin``."""
    admin = Admin(world, requests)
    return [
        Mount(
            "/admin",
            routes=[
                Route("/health", admin.health),
                Route("/faults", admin.faults, methods=["GET"]),
                Route("/faults", admin.add_fault, methods=["POST"]),
                Route("/faults", admin.clear_faults, methods=["DELETE"]),
                Route("/faults/{id:int}", admin.remove_fault, methods=["DELETE"]),
                Route("/requests", admin.log, methods=["GET"]),
                Route("/requests", admin.clear_log, methods=["DELETE"]),
                Route("/machines", admin.machines),
                Route("/settings", admin.settings, methods=["GET", "PUT"]),
                Route("/reset", admin.reset, methods=["POST"]),
            ],
        )
    ]
