# SPDX-License-Identifier: GPL-3.0-or-later
"""``/firewalls``. They are kept and shown, not enforced: a container's own firewall is the host's business."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from .api import Answer, Call, chosen, page
from .errors import ApiError, invalid, not_found, taken
from .labels import check_labels
from .project import Project, cached_selector, timestamp

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def _show(project: Project, firewall: dict[str, Any]) -> dict[str, Any]:
    applied: list[dict[str, Any]] = []
    for server in project.servers.values():
        if firewall["id"] in server.firewalls:
            applied.append({"type": "server", "server": {"id": server.id}})
    for entry in firewall["applied_to"]:
        covered = project.select_servers(entry["label_selector"]["selector"])
        resources = [{"type": "server", "server": {"id": server.id}} for server in covered]
        applied.append({**entry, "applied_to_resources": resources})
    return {**firewall, "applied_to": applied}


def _find(call: Call) -> dict[str, Any]:
    if call.id not in call.project.firewalls:
        raise not_found("firewall", call.id)
    return call.project.firewalls[call.id]


async def listing(call: Call) -> Answer:
    found = chosen(call, list(call.project.firewalls.values()))
    return page(call, "firewalls", found, lambda firewall: _show(call.project, dict(firewall)))


async def get(call: Call) -> Answer:
    return {"firewall": _show(call.project, _find(call))}


async def create(call: Call) -> Answer:
    project = call.project
    name = _free_name(project, call.text("name", required=True))
    labels, rules = check_labels(call.body.get("labels")), _rules(call.body.get("rules") or [])
    servers, selectors = _resources(project, call.body.get("apply_to") or [])
    number = call.world.next_id("hetzner-firewall", first=2_000_001)
    project.firewalls[number] = {
        "id": number,
        "name": name,
        "labels": labels,
        "created": timestamp(call.world.clock.time()),
        "rules": rules,
        "applied_to": [],
    }
    actions = [project.finish(project.action("set_firewall_rules", ("firewall", number)))]
    actions += _apply(project, number, servers, selectors)
    return 201, {
        "firewall": _show(project, project.firewalls[number]),
        "actions": project.show_actions(actions),
    }


async def update(call: Call) -> Answer:
    firewall = _find(call)
    labels = check_labels(call.body["labels"]) if call.body.get("labels") is not None else firewall["labels"]
    if (name := call.text("name")) is not None and name != firewall["name"]:
        firewall["name"] = _free_name(call.project, name)
    firewall["labels"] = labels
    return {"firewall": _show(call.project, firewall)}


async def delete(call: Call) -> Answer:
    if _show(call.project, _find(call))["applied_to"]:
        raise ApiError("resource_in_use", "firewall is still in use")
    del call.project.firewalls[call.id]
    return 204, None


async def set_rules(call: Call) -> Answer:
    firewall = _find(call)
    if "rules" not in call.body:
        raise invalid("rules", "is required")
    firewall["rules"] = _rules(call.body["rules"])
    return _done(
        call, [call.project.finish(call.project.action("set_firewall_rules", ("firewall", call.id)))]
    )


async def apply_to_resources(call: Call) -> Answer:
    _find(call)
    servers, selectors = _resources(call.project, call.body.get("apply_to"))
    shown = call.project.firewalls[call.id]["applied_to"]
    if any(call.id in call.project.servers[number].firewalls for number in servers) or any(
        entry["label_selector"]["selector"] in selectors for entry in shown
    ):
        raise ApiError("firewall_already_applied", "firewall is already applied")
    return _done(call, _apply(call.project, call.id, servers, selectors))


async def remove_from_resources(call: Call) -> Answer:
    firewall, project = _find(call), call.project
    servers, selectors = _resources(project, call.body.get("remove_from"))
    present = {entry["label_selector"]["selector"] for entry in firewall["applied_to"]}
    if not present.issuperset(selectors) or any(call.id not in project.servers[n].firewalls for n in servers):
        raise ApiError("firewall_already_removed", "firewall is not applied")
    for number in servers:
        project.servers[number].firewalls.remove(call.id)
    firewall["applied_to"] = [
        e for e in firewall["applied_to"] if e["label_selector"]["selector"] not in selectors
    ]
    resources = [("server", number) for number in servers] or [("firewall", call.id)]
    return _done(call, [project.finish(project.action("remove_firewall", ("firewall", call.id), *resources))])


def _done(call: Call, actions: list[Any]) -> Answer:
    return 201, {"actions": call.project.show_actions(actions)}


def _apply(project: Project, number: int, servers: list[int], selectors: list[str]) -> list[Any]:
    actions = []
    for server in servers:
        project.servers[server].firewalls.append(number)
        actions.append(
            project.finish(project.action("apply_firewall", ("firewall", number), ("server", server)))
        )
    for selector in selectors:
        entry = {"type": "label_selector", "label_selector": {"selector": selector}}
        project.firewalls[number]["applied_to"].append(entry)
        actions.append(project.finish(project.action("apply_firewall", ("firewall", number))))
    return actions


def _free_name(project: Project, name: str | None) -> str:
    if not name or len(name) > 128:
        raise invalid("name", "must have 1 to 128 characters")
    if any(firewall["name"] == name for firewall in project.firewalls.values()):
        raise taken("firewall")
    return name


def _resources(project: Project, given: object) -> tuple[list[int], list[str]]:
    if not isinstance(given, list):
        raise invalid("apply_to", "must be an array")
    servers, selectors = [], []
    for entry in given:
        kind = entry.get("type") if isinstance(entry, dict) else None
        detail = entry.get(kind) if kind in ("server", "label_selector") else None
        if not isinstance(detail, dict):
            raise invalid("apply_to", "must name a server or a label_selector")
        if kind == "server":
            servers.append(project.server(int(detail.get("id", 0))).id)
        else:
            selector = str(detail.get("selector", ""))
            if not selector:
                raise invalid("apply_to", "the selector must not be empty")
            cached_selector(selector)
            selectors.append(selector)
    return servers, selectors


def _rules(given: object) -> list[dict[str, Any]]:
    if not isinstance(given, list) or len(given) > 50:
        raise invalid("rules", "must be an array of at most 50 rules")
    return [_rule(entry) for entry in given]


def _rule(given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise invalid("rules", "must contain objects")
    direction, protocol, port = given.get("direction"), given.get("protocol"), given.get("port")
    if direction not in ("in", "out"):
        raise invalid("rules.direction", "must be one of in, out")
    if protocol not in ("tcp", "udp", "icmp", "esp", "gre"):
        raise invalid("rules.protocol", "must be one of tcp, udp, icmp, esp, gre")
    if (port is not None) != (protocol in ("tcp", "udp")):
        raise invalid("rules.port", "is required for tcp and udp, and not allowed for others")
    if port is not None:
        match = _PORT.fullmatch(port) if isinstance(port, str) else None
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise invalid("rules.port", "must be a port or a range of ports")
    sources, destinations = given.get("source_ips") or [], given.get("destination_ips") or []
    if not (sources if direction == "in" else destinations):
        raise invalid(
            "rules.source_ips" if direction == "in" else "rules.destination_ips", "must not be empty"
        )
    for network in [*sources, *destinations]:
        try:
            if "/" not in network:
                raise ValueError
            ipaddress.ip_network(network)
        except (ValueError, TypeError) as error:
            raise invalid("rules.source_ips", f"'{network}' is no network in CIDR notation") from error
    description = given.get("description")
    if description is not None and (not isinstance(description, str) or len(description) > 255):
        raise invalid("rules.description", "must be a string of at most 255 characters")
    return {
        "direction": direction,
        "protocol": protocol,
        "port": port,
        "source_ips": sources,
        "destination_ips": destinations,
        "description": description,
    }
