# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its legacy API v1: the account's status, networks, members.

The account owns one network from the start (:data:`.zerotier_account.NETWORK`). A test without hosts lets a node appear with
``POST /zerotier/simulation/network/{id}/node/{node}`` (``{"physicalAddress": ..., "version": ...}``).

As the description of the API has it, errors have no body, a bad token is 401 (403 on the list of networks), and the
status can be asked without one. With the switch ``zerotier_forgets`` a member keeps only its authorisation from the
request that creates it before its node was ever seen; name, description and addresses stick from the next one on, which
is what users of the service report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from .faults import Subject
from .private import same
from .world import Service, World
from .zerotier_account import Central
from .zerotier_network import Network
from .zerotier_records import USER, Json, Refused

SERVICE = "zerotier"
PREFIX = "/zerotier/api/v1"
FORGETS = "zerotier_forgets"
"""The switch described above."""

_PATH = re.compile(r"/network/([0-9a-f]{16})(?:/member(?:/([0-9a-f]{10}))?)?")

Handler = Callable[[Central, Request], Awaitable[object]]


def _network(central: Central, request: Request) -> Network:
    return central.network(request.path_params["network"])


def _shown(central: Central, network: Network, *, in_list: bool = False) -> Json:
    """With its counts; a list does not know who is online."""
    now = central.now()
    return network.resource | {
        "clock": now,
        "totalMemberCount": len(network.members),
        "authorizedMemberCount": network.authorized(),
        "onlineMemberCount": 0 if in_list else network.online(now),
    }


async def _json(request: Request) -> Json:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise Refused(400) from error
    if not isinstance(body, dict) or not isinstance(body.get("config") or {}, dict):
        raise Refused(400)
    return body


async def _list_networks(central: Central, request: Request) -> object:
    return [_shown(central, network, in_list=True) for network in central.networks.values()]


async def _create_network(central: Central, request: Request) -> object:
    body, number = await _json(request), central.new_id()

    def create() -> Json:
        network = central.add_network(number)
        try:
            central.change_network(network, body)
        except Refused:
            central.remove_network(network)
            raise
        return _shown(central, network)

    return central.carry_out(SERVICE, number, "", "create", create)


async def _get_network(central: Central, request: Request) -> object:
    return _shown(central, _network(central, request))


async def _change_network(central: Central, request: Request) -> object:
    body, number = await _json(request), _network(central, request).id

    def change() -> Json:
        network = central.network(number)
        central.change_network(network, body)
        return _shown(central, network)

    return central.carry_out(SERVICE, number, "", "change", change)


async def _delete_network(central: Central, request: Request) -> object:
    number = _network(central, request).id
    central.carry_out(SERVICE, number, "", "delete", lambda: central.remove_network(central.network(number)))
    return None


async def _list_members(central: Central, request: Request) -> object:
    now = central.now()
    listed = _network(central, request).listed(central.world.clock.time())
    return [member.record | {"clock": now} for member in listed]


async def _get_member(central: Central, request: Request) -> object:
    member = central.member(_network(central, request), request.path_params["node"])
    return member.record | {"clock": central.now()}


async def _change_member(central: Central, request: Request) -> object:
    network, node = _network(central, request), request.path_params["node"]
    if not re.fullmatch("[0-9a-f]{10}", node):
        raise Refused(400)
    number, given, known = network.id, await _json(request), node in network.members
    if not known and central.world.options[FORGETS]:
        authorized = (given.get("config") or {}).get("authorized")
        given = {"config": {"authorized": authorized}}

    def change() -> Json:
        member = central.change_member(central.network(number), node, given)
        return member.record | {"clock": central.now()}

    return central.carry_out(SERVICE, number, node, "change" if known else "create", change)


async def _delete_member(central: Central, request: Request) -> object:
    network = _network(central, request)
    number, node = network.id, central.member(network, request.path_params["node"]).node

    def delete() -> None:
        network = central.network(number)
        central.remove_member(network, central.member(network, node))

    return central.carry_out(SERVICE, number, node, "delete", delete)


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
    world.register(Service(SERVICE, PREFIX, _injected, _describe))

    def known(request: Request) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return kind.lower() in ("token", "bearer") and same(token.strip(), world.token)

    def endpoint(handler: Handler, denied: int = 401) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            central = world.store(Central)
            if not known(request):
                return Response(status_code=denied)
            if central.too_many():
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
            network = _network(central, request)
            return JSONResponse(central.seen(network, request.path_params["node"], given))
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


def _describe(path: str) -> Subject | None:
    match = _PATH.fullmatch(path)
    return Subject(name=match[2] or match[1], zone=match[1]) if match else None
