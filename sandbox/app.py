# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: every cloud's routes, ``/admin``, and the fault middleware around them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import ASGIApp

from . import admin, gce, hetzner, zerotier
from .middleware import FaultMiddleware, RequestLog
from .world import World

CLOUDS = (hetzner, gce, zerotier)


def build(world: World) -> ASGIApp:
    """The application of one sandbox."""
    requests = RequestLog()
    routes = admin.routes(world, requests)
    for cloud in CLOUDS:
        routes += cloud.routes(world)
    return FaultMiddleware(Starlette(routes=routes), world, requests)
