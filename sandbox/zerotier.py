# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its legacy API v1: the account's status, networks, members.

The account owns one network from the start (:data:`.zerotier_account.NETWORK`). No node talks to this controller; a test
lets one appear
with ``POST /zerotier/simulation/network/{id}/node/{node}`` (``{"physicalAddress": ..., "version": ...}``).

As the description of the API has it, errors have no body, a bad token is 401 (403 on the list of networks), and the
status can be asked without one. With the switch ``zerotier_forgets`` a member keeps only its authorisation from the
request that creates it before its node was ever seen; name, description and addresses stick from the next one on, which
is what users of the service report.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from .faults import Subject
from .private import same
from .world import Service, World
from .zerotier_account import (
    CONTROLLER,
    FORGETS,
    NETWORK_CONFIG,
    NETWORK_TOP,
    USER,
    Central,
    Json,
    Network,
    Refused,
    check_kinds,
    take,
)

PREFIX = "/zerotier/api/v1"
REQUESTS_PER_SECOND = 100
"""Of a paid plan; more are answered with 429."""

_MEMBER_PATH = re.compile(r"/network/([0-9a-f]{16})/member/([0-9a-f]{10})")

Handler = Callable[[Central, Request], Awaitable[object]]


def _network(central: Central, request: Request) -> Network:
    found = central.networks.get(request.path_params["network"])
    if not found:
        raise Refused(404)
    return found


def _member(central: Central, request: Request) -> Json:
    found = _network(central, request).members.get(request.path_params["node"])
    if not found:
        raise Refused(404)
    return found | {"clock": central.now()}


async def _json(request: Request) -> Json:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise Refused(400) from error
    if not isinstance(body, dict) or not isinstance(body.get("config") or {}, dict):
        raise Refused(400)
    return body


async def _list_networks(central: Central, request: Request) -> object:
    return [network.shown(central.now(), in_list=True) for network in central.networks.values()]


async def _create_network(central: Central, request: Request) -> object:
    body = await _json(request)
    network = central.add_network(CONTROLLER + secrets.token_hex(3))
    return await _apply_network(central, network, body)


async def _apply_network(central: Central, network: Network, body: Json) -> Json:
    config = body.get("config") or {}
    check_kinds(body, NETWORK_TOP)
    check_kinds(config, NETWORK_CONFIG)
    take(network.resource, body, NETWORK_TOP)
    take(network.resource["config"], config, NETWORK_CONFIG)
    network.resource["config"]["lastModified"] = central.now()
    return network.shown(central.now())


async def _get_network(central: Central, request: Request) -> object:
    return _network(central, request).shown(central.now())


async def _change_network(central: Central, request: Request) -> object:
    return await _apply_network(central, _network(central, request), await _json(request))


async def _delete_network(central: Central, request: Request) -> object:
    del central.networks[_network(central, request).resource["id"]]
    return None


async def _list_members(central: Central, request: Request) -> object:
    return [member | {"clock": central.now()} for member in _network(central, request).members.values()]


async def _get_member(central: Central, request: Request) -> object:
    return _member(central, request)


async def _change_member(central: Central, request: Request) -> object:
    network, node = _network(central, request), request.path_params["node"]
    if not re.fullmatch("[0-9a-f]{10}", node):
        raise Refused(400)
    return central.change_member(network, node, await _json(request))


async def _delete_member(central: Central, request: Request) -> object:
    del _network(central, request).members[_member(central, request)["nodeId"]]
    return None


def _status(central: Central, *, known: bool) -> Json:
    user: Json = {
        "id": USER,
        "orgId": "",
        "globalPermissions": {"a": False, "d": False, "m": False, "r": False},
        "displayName": "Sandbox",
        "email": "sandbox@example.com",
        "auth": {"local": "sandbox@example.com"},
        "smsNumber": "",
        "tokens": ["sandbox"],
    }
    return {
        "id": "central_status",
        "type": "CentralStatus",
        "clock": central.now(),
        "version": "1.16.0-sandbox",
        "apiVersion": "4",
        "uptime": 1000,
        "readOnlyMode": False,
        "loginMethods": {"local": True, "google": True, "github": True, "saml": False, "oidc": True},
        **({"user": user} if known else {}),
    }


def _injected(status: int) -> Response:
    return Response(status_code=status)


def routes(world: World) -> list[BaseRoute]:
    """The routes of ``/zerotier/api/v1``, and the one by which tests let nodes appear."""
    world.options.setdefault(FORGETS, False)
    world.register(Service("zerotier", PREFIX, _injected, _describe))

    def known(request: Request) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return kind.lower() in ("token", "bearer") and same(token.strip(), world.token)

    def endpoint(handler: Handler, denied: int = 401) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            central = world.store(Central)
            if not known(request):
                return Response(status_code=denied)
            if _too_many(central):
                return Response(status_code=429)
            try:
                content = await handler(central, request)
            except Refused as refusal:
                return Response(status_code=refusal.status)
            return Response() if content is None else JSONResponse(content)

        return answer

    async def status(request: Request) -> Response:
        return JSONResponse(_status(world.store(Central), known=known(request)))

    async def simulate(request: Request) -> Response:
        central = world.store(Central)
        try:
            given = await _json(request)
            return JSONResponse(central.seen(_network(central, request), request.path_params["node"], given))
        except Refused as refusal:
            return Response(status_code=refusal.status)

    network, member = "/network/{network}", "/network/{network}/member"
    return [
        Route("/zerotier/simulation/network/{network}/node/{node}", simulate, methods=["POST"]),
        Mount(
            PREFIX,
            routes=[
                Route("/status", status),
                Route("/network", endpoint(_list_networks, denied=403), methods=["GET"]),
                Route("/network", endpoint(_create_network, denied=403), methods=["POST"]),
                Route(network, endpoint(_get_network), methods=["GET"]),
                Route(network, endpoint(_change_network), methods=["POST"]),
                Route(network, endpoint(_delete_network), methods=["DELETE"]),
                Route(member, endpoint(_list_members), methods=["GET"]),
                Route(member + "/{node}", endpoint(_get_member), methods=["GET"]),
                Route(member + "/{node}", endpoint(_change_member), methods=["POST"]),
                Route(member + "/{node}", endpoint(_delete_member), methods=["DELETE"]),
            ],
        ),
    ]


def _too_many(central: Central) -> bool:
    """Whether the account has used up this second; counts the request if not."""
    now = central.world.clock.time()
    while central.recent and central.recent[0] <= now - 1:
        central.recent.popleft()
    if len(central.recent) >= REQUESTS_PER_SECOND:
        return True
    central.recent.append(now)
    return False


def _describe(path: str) -> Subject | None:
    match = _MEMBER_PATH.fullmatch(path)
    return Subject(name=match[2], zone=match[1]) if match else None
