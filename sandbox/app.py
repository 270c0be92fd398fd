# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: every cloud's routes, ``/admin``, the fault middleware around them, and the guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import ASGIApp

from . import admin, gce, hetzner, zerotier, zerotier_operator, zerotier_root, zerotier_v2
from .middleware import FaultMiddleware, RequestLog
from .private import Guard
from .world import World

CLOUDS = (hetzner, gce, zerotier, zerotier_v2)


def build(world: World) -> ASGIApp:
    """The application of one sandbox."""
    requests = RequestLog()
    routes = admin.routes(world, requests)
    for cloud in CLOUDS:
        routes += cloud.routes(world)
    routes += zerotier_operator.routes(zerotier_root.attach(world))
    return Guard(FaultMiddleware(Starlette(routes=routes), world, requests), world.token)
