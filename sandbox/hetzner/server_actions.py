# SPDX-License-Identifier: GPL-3.0-or-later
"""``/servers/{id}/actions/...`` that start something, and every endpoint that reads actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..world import World
from . import catalog
from .api import Answer, Call, Handler, ordered, page
from .errors import ApiError, invalid, not_found
from .project import Action, Project, Server
from .servers import attach, require_unlocked, server_type


def begin(
    call: Call,
    command: str,
    verb: str,
    during: str,
    work: Callable[[World, Server], Awaitable[None]],
    after: str = "",
) -> Answer:
    """Start an action on a server that has the status ``during`` meanwhile, and ``after`` (or its old one) then."""
    project = call.project
    server = project.server(call.id)
    require_unlocked(server)
    before = server.status
    action = project.action(command, ("server", server.id))
    server.locked, server.status = True, during or before
    call.world.spawn(_carry_out(project, server, action, verb, before, after or before, work))
    return 201, {"action": project.show_actions([action])[0]}


async def _carry_out(
    project: Project,
    server: Server,
    action: Action,
    verb: str,
    before: str,
    after: str,
    work: Callable[[World, Server], Awaitable[None]],
) -> None:
    world, subject = project.world, server.subject(verb)
    failure = world.faults.take("failed_operation", service="hetzner", subject=subject)

    async def unless_it_fails() -> None:
        if not failure:
            await work(world, server)

    good = await project.carry_out(
        action, world.operation_seconds("hetzner", subject), failure, unless_it_fails
    )
    server.status, server.locked = after if good else before, False


async def _start(world: World, server: Server) -> None:
    """Boot it: once from the network, where its rescue system was asked for, else from its disk."""
    if server.rescue_keys is None:
        await world.backend.start(server.key)
        return
    keys, server.rescue_keys = server.rescue_keys, None
    await world.backend.rescue(server.key, keys)


async def _stop(world: World, server: Server) -> None:
    await world.backend.stop(server.key)


async def _restart(world: World, server: Server) -> None:
    await world.backend.stop(server.key)
    await _start(world, server)


async def _nothing(world: World, server: Server) -> None:
    """The change is made when the request is answered."""


async def poweron(call: Call) -> Answer:
    return begin(call, "start_server", "start", "starting", _start, "running")


async def poweroff(call: Call) -> Answer:
    return begin(call, "stop_server", "stop", "stopping", _stop, "off")


async def reset(call: Call) -> Answer:
    return begin(call, "reset_server", "reset", "", _restart, "running")


async def reboot(call: Call) -> Answer:
    return begin(call, "reboot_server", "reboot", "", _restart, "running")


async def shutdown(call: Call) -> Answer:
    """Only sends the ACPI signal: the action ends at once, the server is off a while later."""
    project = call.project
    server = project.server(call.id)
    require_unlocked(server)
    action = project.finish(project.action("shutdown_server", ("server", server.id)))
    if server.status == "running":
        server.status = "stopping"
        call.world.spawn(_obey(project, server))
    return 201, {"action": project.show_actions([action])[0]}


async def _obey(project: Project, server: Server) -> None:
    world = project.world
    await world.clock.sleep(world.operation_seconds("hetzner", server.subject("stop")))
    await world.backend.stop(server.key)
    if server.status == "stopping":
        server.status = "off"


async def change_type(call: Call) -> Answer:
    server, kind = call.project.server(call.id), server_type(call)
    require_unlocked(server)
    if server.status != "off":
        raise ApiError("server_not_stopped", "server must be stopped to change its type")
    if kind.architecture != server.type.architecture or kind.disk < server.disk:
        raise ApiError("invalid_server_type", "the server type does not fit the server")
    if server.location not in kind.locations:
        raise ApiError("invalid_input", "unsupported location for server type")
    upgrade = call.body.get("upgrade_disk")
    if not isinstance(upgrade, bool):
        raise invalid("upgrade_disk", "is required")

    async def work(world: World, server: Server) -> None:
        server.type = catalog.TYPES[kind.name]
        server.disk = kind.disk if upgrade else server.disk

    return begin(call, "change_server_type", "change_type", "migrating", work)


async def change_protection(call: Call) -> Answer:
    wanted = call.body.get("delete"), call.body.get("rebuild")
    if wanted[0] != wanted[1] or not isinstance(wanted[0], bool):
        raise invalid("rebuild", "delete and rebuild must be the same")
    server = call.project.server(call.id)
    require_unlocked(server)
    server.protected = wanted[0]
    return begin(call, "change_protection", "change_protection", "", _nothing)


async def attach_to_network(call: Call) -> Answer:
    server, network = call.project.server(call.id), call.body.get("network")
    if not isinstance(network, int) or network not in call.project.networks:
        raise not_found("network", network)
    require_unlocked(server)
    if network in server.networks:
        raise ApiError("server_already_attached", "server is already attached to the network")
    attach(call.project, server, network)
    return begin(call, "attach_to_network", "attach_to_network", "", _nothing)


async def detach_from_network(call: Call) -> Answer:
    server, network = call.project.server(call.id), call.body.get("network")
    if not isinstance(network, int) or network not in server.networks:
        raise not_found("network", network)
    require_unlocked(server)
    del server.networks[network]
    return begin(call, "detach_from_network", "detach_from_network", "", _nothing)


STARTERS: dict[str, Handler] = {
    "poweron": poweron,
    "poweroff": poweroff,
    "reset": reset,
    "reboot": reboot,
    "shutdown": shutdown,
    "change_type": change_type,
    "change_protection": change_protection,
    "attach_to_network": attach_to_network,
    "detach_from_network": detach_from_network,
}


async def poll(call: Call) -> Answer:
    """``GET /actions?id=1&id=2``: many at once. Without ids it is gone from the API."""
    wanted = call.queries("id")
    if not wanted or not all(number.isdigit() for number in wanted):
        raise invalid("id", "is required")
    return _page(call, [call.project.actions[int(n)] for n in wanted if int(n) in call.project.actions])


async def get(call: Call) -> Answer:
    return _one(call, call.id)


def of_resource(kind: str) -> tuple[Handler, Handler]:
    """The list of one object's actions, and one of them."""

    async def listing(call: Call) -> Answer:
        numbers = call.project.actions_of.get((kind, call.id), [])
        return _page(call, [call.project.actions[number] for number in numbers])

    async def single(call: Call) -> Answer:
        number = int(call.request.path_params["action"])
        if number not in call.project.actions_of.get((kind, call.id), []):
            raise not_found("action", number)
        return _one(call, number)

    return listing, single


def _one(call: Call, number: int) -> Answer:
    if number not in call.project.actions:
        raise not_found("action", number)
    return {"action": call.project.show_actions([call.project.actions[number]])[0]}


def _page(call: Call, actions: list[Action]) -> Answer:
    now = call.world.clock.time()
    if statuses := call.queries("status"):
        actions = [action for action in actions if action.as_json(now)["status"] in statuses]
    found = ordered(
        call,
        actions,
        {"id": lambda a: a.id, "command": lambda a: a.command, "started": lambda a: a.started,
         "finished": lambda a: a.finished or 0.0, "status": lambda a: a.finished is None,
         "progress": lambda a: a.as_json(now)["progress"]},
    )  # fmt: skip
    return page(call, "actions", found, lambda action: action.as_json(now))
