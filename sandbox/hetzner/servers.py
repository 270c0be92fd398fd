# SPDX-License-Identifier: GPL-3.0-or-later
"""``/servers``: list, create, change, delete."""

from __future__ import annotations

import re
import secrets
from typing import Any

from ..backends.base import BackendError, Machine
from ..faults import Subject
from . import catalog
from .api import Answer, Call, ordered, page
from .errors import ApiError, invalid, not_found, taken
from .labels import check_labels
from .project import Action, Project, Server, timestamp

MAX_USER_DATA = 32 * 1024
"""Bytes."""

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_STATUSES = {
    "initializing", "starting", "running", "stopping", "off", "deleting", "rebuilding", "migrating", "unknown",
}  # fmt: skip
_START_SHARE = 0.2
"""How much of a create's time is the ``start_server`` action after the ``create_server`` one."""


async def listing(call: Call) -> Answer:
    name, selector = call.query("name"), call.query("label_selector")
    found = call.project.named_server(name, selector) if name else call.project.select_servers(selector)
    if statuses := call.queries("status"):
        if not _STATUSES.issuperset(statuses):
            raise invalid("status", "is not a server status")
        found = [server for server in found if server.status in statuses]
    found = ordered(
        call, found, {"id": lambda s: s.id, "name": lambda s: s.name, "created": lambda s: (s.created, s.id)}
    )
    return page(call, "servers", found, call.project.show_server)


async def get(call: Call) -> Answer:
    return {"server": call.project.show_server(call.project.server(call.id))}


async def create(call: Call) -> Answer:
    project, world = call.project, call.world
    name = check_name(call.text("name", required=True))
    if "datacenter" in call.body:
        raise invalid("datacenter", "is no longer supported, use location")
    kind = server_type(call)
    image = _image(call, kind)
    if image["disk_size"] > kind.disk:
        raise invalid("image", "image disk is bigger than server type disk")
    location = _location(call, kind)
    labels = check_labels(call.body.get("labels"))
    user_data = call.text("user_data") or ""
    if len(user_data.encode()) > MAX_USER_DATA:
        raise invalid("user_data", f"must be at most {MAX_USER_DATA} bytes long")
    keys = [_ssh_key(project, wanted)["public_key"] for wanted in _list(call, "ssh_keys")]
    firewalls = [_firewall(project, entry) for entry in _list(call, "firewalls")]
    networks = [_network(project, entry) for entry in _list(call, "networks")]
    starts = call.body.get("start_after_create", True) is not False
    public_net = call.body.get("public_net") or {}
    if not isinstance(public_net, dict):
        raise invalid("public_net", "must be an object")
    if name in project.server_names:
        raise taken("server")
    subject = Subject(name, labels, location, kind.name, "create")
    if rule := world.faults.take("quota", service="hetzner", subject=subject):
        limits = {"limits": [{"name": "server_limit"}]}
        raise ApiError(
            rule.code or "resource_limit_exceeded", rule.message or "server limit exceeded", limits, 403
        )
    if rule := world.faults.take("stockout", service="hetzner", subject=subject):
        raise ApiError(
            rule.code or "resource_unavailable", rule.message or "error during placement", status=412
        )
    lag = world.faults.take("list_lag", service="hetzner", subject=subject)

    now = world.clock.time()
    number = world.next_id("hetzner-server", first=100_000_001)
    try:
        addresses = world.backend.reserve(f"hetzner-{number}")
    except BackendError as error:
        raise ApiError("resource_unavailable", str(error)) from error
    server = Server(
        number,
        name,
        now,
        kind,
        location,
        image,
        addresses,
        labels,
        firewalls=firewalls,
        hidden_until=now + lag.seconds if lag else 0.0,
        disk=kind.disk,
    )
    if public_net.get("enable_ipv4", True):
        server.ipv4_id = _primary_ip(project, server, "ipv4")
    if public_net.get("enable_ipv6", True):
        server.ipv6_id = _primary_ip(project, server, "ipv6")
    for network in networks:
        attach(project, server, network)
    project.add_server(server)
    action = project.action("create_server", ("server", number))
    following = [project.action("start_server", ("server", number))] if starts else []
    machine = Machine(
        key=server.key,
        hostname=name,
        image=image["name"] or f"{image['os_flavor']}-{image['os_version']}",
        user_data=user_data,
        public_keys=tuple(keys),
    )
    world.spawn(_boot(project, server, machine, action, following[0] if following else None))
    return 201, {
        "server": project.show_server(server),
        "action": project.show_actions([action])[0],
        "next_actions": project.show_actions(following),
        "root_password": None if keys else secrets.token_urlsafe(15),
    }


async def _boot(
    project: Project, server: Server, machine: Machine, action: Action, start: Action | None
) -> None:
    world, subject = project.world, server.subject("create")
    failure = world.faults.take("failed_operation", service="hetzner", subject=subject)
    seconds = world.operation_seconds("hetzner", subject)

    async def make() -> None:
        await world.backend.create(machine)
        if failure or not start:
            await world.backend.stop(machine.key)

    made = await project.carry_out(action, seconds * (1 - _START_SHARE), failure, make)
    if start and made:
        server.status = "starting"

        async def switch_on() -> None:
            await world.backend.start(machine.key)

        made = await project.carry_out(start, seconds * _START_SHARE, None, switch_on)
    elif start:
        project.finish(start, ("action_failed", "the server could not be created"))
    server.status = "running" if start and made else "off"
    server.locked = False


async def update(call: Call) -> Answer:
    project = call.project
    server = project.server(call.id)
    labels = check_labels(call.body["labels"]) if call.body.get("labels") is not None else server.labels
    name = server.name
    if call.body.get("name") is not None:
        name = check_name(call.text("name"))
        if project.server_names.get(name, server.id) != server.id:
            raise taken("server")
    del project.server_names[server.name]
    server.name, server.labels = name, labels
    project.server_names[name] = server.id
    project.touch()
    return {"server": project.show_server(server)}


async def delete(call: Call) -> Answer:
    project = call.project
    server = project.server(call.id)
    if server.protected:
        raise ApiError("protected", "server deletion is protected")
    require_unlocked(server)
    action = project.action("delete_server", ("server", server.id))
    server.status, server.locked = "deleting", True
    call.world.spawn(_remove(project, server, action))
    return {"action": project.show_actions([action])[0]}


async def _remove(project: Project, server: Server, action: Action) -> None:
    world, subject = project.world, server.subject("delete")
    failure = world.faults.take("failed_operation", service="hetzner", subject=subject)

    async def work() -> None:
        if not failure:
            await world.backend.delete(server.key)

    if await project.carry_out(action, world.operation_seconds("hetzner", subject), failure, work):
        project.remove_server(server)
    else:
        server.status, server.locked = "running" if world.backend.running(server.key) else "off", False


def check_name(name: str | None) -> str:
    if not name or not _HOST_NAME.fullmatch(name):
        raise invalid("name", "must be a valid hostname as per RFC 1123")
    return name


def require_unlocked(server: Server) -> None:
    if server.locked:
        raise ApiError("locked", "server is locked")


def server_type(call: Call) -> catalog.Type:
    """The type a body names, by name or id."""
    wanted = call.body.get("server_type")
    if wanted is None:
        raise invalid("server_type", "is required")
    kind = catalog.TYPES.get(str(wanted)) or (
        catalog.TYPES_BY_ID.get(int(wanted)) if str(wanted).isdigit() else None
    )
    if not kind:
        raise invalid("server_type", f"server type '{wanted}' not found")
    return kind


def _image(call: Call, kind: catalog.Type) -> dict[str, Any]:
    wanted = call.body.get("image")
    if wanted is None:
        raise invalid("image", "is required")
    for image in (*catalog.IMAGES.values(), *call.project.snapshots.values()):
        if image["status"] != "available":
            continue
        if str(image["id"]) == str(wanted) and image["architecture"] != kind.architecture:
            raise invalid("image", "image architecture does not match the server type's")
        if image["architecture"] == kind.architecture and str(wanted) in (image["name"], str(image["id"])):
            return image
    raise invalid("image", f"image '{wanted}' not found")


def _location(call: Call, kind: catalog.Type) -> str:
    wanted = call.body.get("location")
    if wanted is None:
        return kind.locations[0]
    names = {str(place["id"]): name for name, place in catalog.LOCATIONS.items()}
    name = names.get(str(wanted), str(wanted))
    if name not in catalog.LOCATIONS:
        raise invalid("location", f"location '{wanted}' not found")
    if name not in kind.locations:
        raise ApiError("invalid_input", "unsupported location for server type")
    return name


def _list(call: Call, field: str) -> list[Any]:
    value = call.body.get(field)
    if value is not None and not isinstance(value, list):
        raise invalid(field, "must be an array")
    return value or []


def _ssh_key(project: Project, wanted: object) -> dict[str, Any]:
    for key in project.ssh_keys.values():
        if wanted in (key["id"], key["name"], str(key["id"])):
            return key
    raise not_found("SSH key", wanted)


def _firewall(project: Project, entry: object) -> int:
    wanted = entry.get("firewall") if isinstance(entry, dict) else None
    if not isinstance(wanted, int) or wanted not in project.firewalls:
        raise not_found("firewall", wanted)
    return wanted


def _network(project: Project, wanted: object) -> int:
    if not isinstance(wanted, int) or wanted not in project.networks:
        raise not_found("network", wanted)
    return wanted


def attach(project: Project, server: Server, network: int) -> None:
    """Give a server the next address of a network's first subnet."""
    from ipaddress import ip_network

    found = project.networks[network]
    if not found["subnets"]:
        raise ApiError("invalid_input", "network has no subnet")
    used = {other.networks.get(network) for other in project.servers.values()}
    hosts = ip_network(found["subnets"][0]["ip_range"]).hosts()
    next(hosts)  # the gateway
    ip = next((str(host) for host in hosts if str(host) not in used), None)
    if not ip:
        raise ApiError("resource_unavailable", "no IP address available in the network")
    server.networks[network] = ip


def _primary_ip(project: Project, server: Server, kind: str) -> int:
    number = project.world.next_id("hetzner-primary-ip", first=50_000_001)
    project.primary_ips[number] = {
        "id": number,
        "name": f"primary_ip-{number}",
        "type": kind,
        "ip": server.addresses.ipv4 if kind == "ipv4" else server.addresses.ipv6,
        "labels": {},
        "created": timestamp(server.created),
        "blocked": False,
        "location": catalog.LOCATIONS[server.location],
        "dns_ptr": [],
        "protection": {"delete": False},
        "assignee_type": "server",
        "assignee_id": server.id,
        "auto_delete": True,
    }
    return number
