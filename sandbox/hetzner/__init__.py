# SPDX-License-Identifier: GPL-3.0-or-later
"""A local Hetzner Cloud: the API v1 as far as this collection, the hcloud library and hetzner.hcloud use it."""

from __future__ import annotations

import re
import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from ..faults import Subject
from ..world import Service, World
from . import firewalls, images, rescue, resources, server_actions, servers
from .api import METHODS, Handler, route
from .errors import ApiError, injected
from .project import Project

PREFIX = "/hetzner/v1"
_SERVER_PATH = re.compile(r"/servers/(\d+)(?:/actions/(\w+))?")


def routes(world: World) -> list[BaseRoute]:
    """The cloud's routes; registers it with the world."""

    def describe(path: str) -> Subject | None:
        match = _SERVER_PATH.match(path)
        server = world.store(Project).servers.get(int(match[1])) if match else None
        return server.subject(match[2] or "") if server and match else None

    # The service dropped the servers' field ``datacenter`` on 2026-07-01; older clients cannot do without it.
    world.options.setdefault("hetzner_datacenter", False)
    world.options.setdefault("hetzner_rate_limit", 3600)  # requests an hour
    world.register(Service("hetzner", PREFIX, injected, describe))
    return [
        Mount(PREFIX, routes=[*_endpoints(world), Route("/{rest:path}", _unknown, methods=list(METHODS))])
    ]


async def _unknown(request: Request) -> Response:
    """A path the API does not have: 404 even without a token."""
    response = ApiError("not_found", "not found").response()
    response.headers["X-Correlation-Id"] = uuid.uuid4().hex[:16]
    return response


def _endpoints(world: World) -> list[Route]:
    table: dict[str, dict[str, Handler]] = {
        "/servers": {"GET": servers.listing, "POST": servers.create},
        "/servers/{id:int}": {"GET": servers.get, "PUT": servers.update, "DELETE": servers.delete},
        "/actions": {"GET": server_actions.poll},
        "/actions/{id:int}": {"GET": server_actions.get},
        "/firewalls": {"GET": firewalls.listing, "POST": firewalls.create},
        "/firewalls/{id:int}": {"GET": firewalls.get, "PUT": firewalls.update, "DELETE": firewalls.delete},
        "/firewalls/{id:int}/actions/set_rules": {"POST": firewalls.set_rules},
        "/firewalls/{id:int}/actions/apply_to_resources": {"POST": firewalls.apply_to_resources},
        "/firewalls/{id:int}/actions/remove_from_resources": {"POST": firewalls.remove_from_resources},
        "/server_types": {"GET": resources.list_server_types},
        "/server_types/{id:int}": {"GET": resources.get_server_type},
        "/locations": {"GET": resources.list_locations},
        "/locations/{id:int}": {"GET": resources.get_location},
        "/images": {"GET": images.listing},
        "/images/{id:int}": {"GET": images.get, "PUT": images.update, "DELETE": images.delete},
        "/pricing": {"GET": resources.pricing},
        "/datacenters": {"GET": resources.datacenters},
        "/datacenters/{id:int}": {"GET": resources.datacenters},
        "/networks": {"GET": resources.list_networks, "POST": resources.create_network},
        "/networks/{id:int}": {
            "GET": resources.get_network,
            "PUT": resources.update_network,
            "DELETE": resources.delete_network,
        },
    }
    for name, starter in (server_actions.STARTERS | images.STARTERS | rescue.STARTERS).items():
        table[f"/servers/{{id:int}}/actions/{name}"] = {"POST": starter}
    for plural, singular in (
        ("servers", "server"),
        ("firewalls", "firewall"),
        ("networks", "network"),
        ("images", "image"),
    ):
        listing, single = server_actions.of_resource(singular)
        table[f"/{plural}/{{id:int}}/actions"] = {"GET": listing}
        table[f"/{plural}/{{id:int}}/actions/{{action:int}}"] = {"GET": single}
        table[f"/{plural}/actions/{{id:int}}"] = {"GET": server_actions.get}
    keys, key = resources.reading("ssh_keys", "ssh_keys", "ssh_key", fingerprint="fingerprint")
    table["/ssh_keys"] = {"GET": keys, "POST": resources.create_ssh_key}
    table["/ssh_keys/{id:int}"] = {
        "GET": key,
        "PUT": resources.update_ssh_key,
        "DELETE": resources.delete_ssh_key,
    }
    addresses, address = resources.reading("primary_ips", "primary_ips", "primary_ip", ip="ip")
    table["/primary_ips"] = {"GET": addresses}
    table["/primary_ips/{id:int}"] = {"GET": address}
    return [route(world, path, handlers) for path, handlers in table.items()]
