# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its new API v2: organisation, network groups, networks, members of the same account as v1's.

**Not verified against the service.** Paths, fields, kinds, and the statuses 200, 400, 401, 403, 413, 500 are those of a
public third-party client that was generated from ZeroTier's own description of the API; where that is silent, this is a
guess, and no client should rely on it:

* what an unknown network or member answers: 404 here, or 403 with the switch ``zerotier_v2_hides``;
* that a member added by its id is ``not_authorized``, and that adding one that exists changes the fields named;
* that ids which are no members are skipped when members are removed, and refused when they are authorised;
* that a body may be 1 MiB long.

Only ``Bearer`` opens it. Rules, tags and capabilities cannot be written here. Lists are objects with ``items``, but for
that of members, which is an array.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from . import zerotier_v2_form as form
from .faults import Subject
from .private import same
from .world import Service, World
from .zerotier_account import ORGANISATION, Central
from .zerotier_network import Network
from .zerotier_records import Json, Refused

SERVICE = "zerotier_v2"
PREFIX = "/zerotier/api/v2"
HIDES = "zerotier_v2_hides"
LONGEST = 1024 * 1024
"""Bytes of a body."""

_ORGANISATION = {"id": ORGANISATION, "name": "Sandbox"}
_PATH = re.compile(r"/network/([0-9a-f]{16})(?:/member(?:/([0-9a-f]{10})(?:/[a-z-]+)?)?)?")
_DONE = {"message": "success"}

Handler = Callable[[Central, Request], Awaitable[object]]


async def _body(request: Request) -> object:
    content = await request.body()
    if len(content) > LONGEST:
        raise Refused(413, "the request body is too large")
    try:
        return json.loads(content)
    except ValueError as error:
        raise Refused(400, "the request body is not JSON") from error


async def _list(request: Request) -> list[object]:
    body = await _body(request)
    if not isinstance(body, list):
        raise form.Invalid("body", "must be an array")
    return body


def _network(central: Central, request: Request) -> Network:
    return central.network(request.path_params["network"])


# Organisations and network groups


async def _list_orgs(central: Central, request: Request) -> object:
    return {"items": [_ORGANISATION]}


async def _get_org(central: Central, request: Request) -> object:
    if request.path_params["org"] != ORGANISATION:
        raise Refused(404)
    return _ORGANISATION


async def _list_groups(central: Central, request: Request) -> object:
    wanted = request.path_params.get("org", request.query_params.get("org-id", ORGANISATION))
    return {"items": [group for group in central.groups.values() if group["orgId"] == wanted]}


async def _create_group(central: Central, request: Request) -> object:
    await _get_org(central, request)
    given = form.check(await _body(request), {"name": str, "description": str})
    if not given.get("name"):
        raise form.Invalid("name", "is required")
    number = f"{central.world.next_id('zerotier-network-group'):08x}-0000-4000-8000-000000000000"
    return central.add_group(number, given["name"], given.get("description", ""))


def _group(central: Central, request: Request) -> Json:
    if found := central.groups.get(request.path_params["group"]):
        return found
    raise Refused(404)


async def _get_group(central: Central, request: Request) -> object:
    return _group(central, request)


# Networks


async def _list_networks(central: Central, request: Request) -> object:
    group = _group(central, request)["id"] if "group" in request.path_params else None
    items = []
    for network in central.networks.values():
        if group in (None, network.group):
            item = form.summary(network, central.groups[network.group])
            if request.query_params.get("stats") == "true":
                item["stats"] = form.statistics(network, central.now())
            items.append(item)
    return {"items": items}


async def _create_network(central: Central, request: Request) -> object:
    given = form.check(await _body(request), {"name": str})
    if not given.get("name"):
        raise form.Invalid("name", "is required")
    group, number = _group(central, request)["id"], central.new_id()

    def create() -> Json:
        network = central.add_network(number, group)
        try:
            return _apply(central, network, given)
        except Refused:
            central.remove_network(network)
            raise

    return central.carry_out(SERVICE, number, "", "create", create)


def _apply(central: Central, network: Network, given: Json) -> Json:
    change, subnets = form.network_change(network, given)
    network.subnets |= subnets
    central.change_network(network, change)
    return form.shown_network(network)


async def _get_network(central: Central, request: Request) -> object:
    return form.shown_network(_network(central, request))


async def _change_network(central: Central, request: Request) -> object:
    given, number = form.check(await _body(request), {}), _network(central, request).id
    return central.carry_out(
        SERVICE, number, "", "change", lambda: _apply(central, central.network(number), given)
    )


async def _delete_network(central: Central, request: Request) -> object:
    number = _network(central, request).id
    central.carry_out(SERVICE, number, "", "delete", lambda: central.remove_network(central.network(number)))
    return _DONE


# Members


async def _list_members(central: Central, request: Request) -> object:
    network = _network(central, request)
    listed = network.listed(central.world.clock.time())
    return [form.shown_member(network, member) for member in listed]


async def _get_member(central: Central, request: Request) -> object:
    network = _network(central, request)
    return form.shown_member(network, central.member(network, request.path_params["node"]))


async def _change_member(central: Central, request: Request) -> object:
    network = _network(central, request)
    node = central.member(network, request.path_params["node"]).node
    return _save(central, network, node, await _body(request))


async def _add_members(central: Central, request: Request) -> object:
    network, entries = _network(central, request), await _list(request)
    wanted = {form.device(form.check(entry, {}).get("deviceId")): entry for entry in entries}
    # Nothing is done where one of them cannot be.
    for node, entry in wanted.items():
        form.member_change(network.members.get(node), entry)
    return [_save(central, network, node, entry) for node, entry in wanted.items()]


def _save(central: Central, network: Network, node: str, given: object) -> Json:
    number, verb = network.id, "change" if node in network.members else "create"

    def save() -> Json:
        network = central.network(number)
        change = form.member_change(network.members.get(node), given)
        return form.shown_member(network, central.change_member(network, node, change))

    return central.carry_out(SERVICE, number, node, verb, save)


async def _remove_members(central: Central, request: Request) -> object:
    number, entries = _network(central, request).id, await _list(request)
    for node in [form.device(form.check(entry, {}).get("deviceId")) for entry in entries]:

        def remove(node: str = node) -> None:
            network = central.network(number)
            if found := network.members.get(node):
                central.remove_member(network, found)

        central.carry_out(SERVICE, number, node, "delete", remove)
    return _DONE


def _decide(decision: str) -> tuple[Handler, Handler]:
    """The handlers that authorise, or the opposite, one member, and many."""

    def decide(central: Central, number: str, node: str) -> Json:
        network = central.network(number)
        member = central.member(network, node)
        if decision == "reject":
            central.reject_member(network, member)
        else:
            central.change_member(network, node, {"config": {"authorized": decision == "authorize"}})
            member.rejected = False
        return form.shown_member(network, member)

    async def one(central: Central, request: Request) -> object:
        network = _network(central, request)
        node = central.member(network, request.path_params["node"]).node
        return central.carry_out(
            SERVICE, network.id, node, "change", lambda: decide(central, network.id, node)
        )

    async def many(central: Central, request: Request) -> object:
        network = _network(central, request)
        nodes = [central.member(network, form.device(entry)).node for entry in await _list(request)]
        for node in nodes:
            work = functools.partial(decide, central, network.id, node)
            central.carry_out(SERVICE, network.id, node, "change", work)
        return _DONE

    return one, many


# Answers


def _error(status: int, reason: str = "") -> Response:
    body: Json = {"message": reason or HTTPStatus(status).phrase}
    return JSONResponse({"code": status, **body} if status == 400 else body, status)


def _refusal(refused: Refused, hides: bool) -> Response:
    if isinstance(refused, form.Invalid):
        details = [{"field": refused.field, "message": refused.message}]
        return JSONResponse({"code": 400, "message": refused.reason, "details": details}, 400)
    return _error(403 if refused.status == 404 and hides else refused.status, refused.reason)


def routes(world: World) -> list[BaseRoute]:
    """The routes of ``/zerotier/api/v2``."""
    world.options.setdefault(HIDES, False)
    world.register(Service(SERVICE, PREFIX, _error, _describe))

    def route(path: str, method: str, handler: Handler) -> Route:
        async def answer(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not same(token.strip(), world.token):
                return _error(401)
            try:
                return JSONResponse(await handler(world.store(Central), request))
            except Refused as refused:
                return _refusal(refused, world.options[HIDES] is True)

        return Route(path, answer, methods=[method])

    network, member = "/network/{network}", "/network/{network}/member"
    decisions = []
    for decision in ("authorize", "de-authorize", "reject"):
        one, many = _decide(decision)
        # Before the member of that id, which it is not.
        decisions.append(route(f"{member}/{decision}", "POST", many))
        decisions.append(route(f"{member}/{{node}}/{decision}", "POST", one))
    return [
        Mount(
            PREFIX,
            routes=[
                route("/org", "GET", _list_orgs),
                route("/org/{org}", "GET", _get_org),
                route("/org/{org}/network-group", "GET", _list_groups),
                route("/org/{org}/network-group", "POST", _create_group),
                route("/network-group", "GET", _list_groups),
                route("/network-group/{group}", "GET", _get_group),
                route("/network-group/{group}/network", "GET", _list_networks),
                route("/network-group/{group}/network", "POST", _create_network),
                route("/network", "GET", _list_networks),
                route(network, "GET", _get_network),
                route(network, "POST", _change_network),
                route(network, "DELETE", _delete_network),
                route(member, "GET", _list_members),
                route(member, "POST", _add_members),
                route(member, "DELETE", _remove_members),
                *decisions,
                route(f"{member}/{{node}}", "GET", _get_member),
                route(f"{member}/{{node}}", "POST", _change_member),
            ],
        )
    ]


def _describe(path: str) -> Subject | None:
    match = _PATH.fullmatch(path)
    return Subject(name=match[2] or match[1], zone=match[1]) if match else None
