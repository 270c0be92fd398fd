# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not in a zone: ``firewalls.*``, ``networks.*``, ``projects.get``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from copy import deepcopy

from ..faults import Subject
from . import catalog, rules
from .call import Call, Handler, listed, resource_path
from .description import description
from .errors import Json, OperationError, invalid, not_ready, required
from .operations import begin
from .store import fingerprint, new_id, timestamp

_PROTOCOLS = frozenset({"tcp", "udp", "icmp", "esp", "ah", "ipip", "sctp", "all"})
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


async def insert_firewall(call: Call) -> Json:
    """``firewalls.insert``. The rule is there at once and in force when the operation ends."""
    project = call.project
    rule = _checked(call, deepcopy(description().writable("Firewall", call.body)))
    name = rule["name"]
    project.check_free(name in project.firewalls, f"global/firewalls/{name}")
    rule |= {
        "kind": "compute#firewall",
        "id": new_id(call.world),
        "creationTimestamp": timestamp(call.world),
        "selfLink": project.link(f"global/firewalls/{name}"),
    }
    project.firewalls[name] = rule

    async def undo() -> None:
        project.firewalls.pop(name, None)

    return _begin(call, "insert", rule, lambda: None, undo=undo)


async def patch_firewall(call: Call) -> Json:
    """``firewalls.patch``: members given are replaced, others stay."""
    rule = call.project.named("firewalls", call.path["firewall"])
    given = deepcopy(description().writable("Firewall", call.body))
    if given.get("name", rule["name"]) != rule["name"]:
        raise invalid("resource.name", given["name"], "The name of a firewall cannot be changed.")
    merged = _checked(call, rule | given)
    for member in ("network", "direction"):
        if merged[member] != rule[member]:
            raise invalid(
                f"resource.{member}", given[member], f"The {member} of a firewall cannot be changed."
            )
    return _begin(call, "patch", rule, lambda: rule.update(merged))


async def delete_firewall(call: Call) -> Json:
    """``firewalls.delete``."""
    rule = call.project.named("firewalls", call.path["firewall"])
    if any(
        operation.resource["operationType"] == "delete"
        and operation.resource["status"] != "DONE"
        and operation.resource["targetId"] == rule["id"]
        for operation in call.project.operations.values()
    ):
        raise not_ready(f"projects/{call.project.name}/global/firewalls/{rule['name']}")
    return _begin(call, "delete", rule, lambda: call.project.firewalls.pop(rule["name"], None))


def _begin(call: Call, kind: str, rule: Json, apply: Callable[[], object], **more: object) -> Json:
    async def work(seconds: float) -> OperationError | None:
        await call.world.clock.sleep(seconds)
        apply()
        return None

    verb = {"insert": "create"}.get(kind, kind)
    subject = Subject(name=rule["name"], type="firewall", verb=verb)
    return begin(call, kind, rule, subject, work, **more)  # type: ignore[arg-type]  # only undo


def _checked(call: Call, rule: Json) -> Json:
    """The rule with its defaults, if it keeps the rules."""
    rules.check_name(rule.get("name"))
    if bool(rule.get("allowed")) == bool(rule.get("denied")):
        raise (
            required("resource.allowed")
            if not rule.get("allowed")
            else invalid("resource.denied", "", "Only one of allowed or denied can be specified.")
        )
    for entry in rule.get("allowed") or rule["denied"]:
        _check_ports(entry)
    link = rule.get("network") or "global/networks/default"
    path = resource_path(link, call.project.name)
    found = call.project.networks.get(path.rpartition("/")[2])
    if not found or path != f"projects/{call.project.name}/global/networks/{found['name']}":
        raise invalid("resource.network", link, "The referenced network resource cannot be found.")
    for member in ("sourceRanges", "destinationRanges"):
        for text in rule.get(member) or ():
            _check_range(member, text)
    if not 0 <= rule.get("priority", 1000) <= 65535:
        raise invalid("resource.priority", rule["priority"], "Must be between 0 and 65535.")
    rules.check_tags(rule.get("sourceTags") or ())
    rules.check_tags(rule.get("targetTags") or ())
    direction = rule.get("direction", "INGRESS")
    if direction == "INGRESS" and not (
        rule.get("sourceRanges") or rule.get("sourceTags") or rule.get("sourceServiceAccounts")
    ):
        rule["sourceRanges"] = ["0.0.0.0/0"]
    return {"description": "", "priority": 1000, "disabled": False, "logConfig": {"enable": False}} | rule | {
        "network": found["selfLink"],
        "direction": direction,
    }  # fmt: skip


def _check_ports(entry: Json) -> None:
    protocol = str(entry.get("IPProtocol", ""))
    if protocol not in _PROTOCOLS and not (protocol.isdigit() and int(protocol) < 256):
        raise invalid("resource.allowed[0].IPProtocol", protocol, "Unknown protocol.")
    for port in entry.get("ports") or ():
        match = _PORT.fullmatch(port)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= low <= high <= 65535 or protocol not in ("tcp", "udp", "sctp", "6", "17", "132"):
            raise invalid(
                "resource.allowed[0].ports[0]",
                port,
                f"Ports are not allowed here for protocol {protocol}, or not valid.",
            )


def _check_range(member: str, text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise invalid(f"resource.{member}[0]", text, "Must be a valid CIDR address range.") from error


async def get_firewall(call: Call) -> Json:
    """``firewalls.get``."""
    return call.project.named("firewalls", call.path["firewall"])


async def list_firewalls(call: Call) -> Json:
    """``firewalls.list``."""
    return listed(
        call, "compute#firewallList", "Firewall", "global/firewalls", call.project.firewalls.values()
    )


async def get_network(call: Call) -> Json:
    """``networks.get``."""
    return call.project.named("networks", call.path["network"])


async def list_networks(call: Call) -> Json:
    """``networks.list``."""
    return listed(call, "compute#networkList", "Network", "global/networks", call.project.networks.values())


async def get_project(call: Call) -> Json:
    """``projects.get``."""
    project = call.project
    metadata: list[Json] = []
    return {
        "kind": "compute#project",
        "id": "100000000001",
        "creationTimestamp": project.created,
        "name": project.name,
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": fingerprint(metadata)},
        "quotas": [
            {"metric": "CPUS_ALL_REGIONS", "limit": catalog.PROJECT_QUOTAS["CPUS_ALL_REGIONS"],
             "usage": float(sum(used["CPUS"] for used in project.used.values()))},
            {"metric": "GPUS_ALL_REGIONS", "limit": catalog.PROJECT_QUOTAS["GPUS_ALL_REGIONS"],
             "usage": float(project.gpus)},
            {"metric": "FIREWALLS", "limit": 1000.0, "usage": float(len(project.firewalls))},
            {"metric": "NETWORKS", "limit": 100.0, "usage": float(len(project.networks))},
        ],
        "selfLink": f"{call.world.base_url}/compute/v1/projects/{project.name}",
        "defaultServiceAccount": "100000000001-compute@developer.gserviceaccount.com",
        "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        "defaultNetworkTier": "PREMIUM",
        "vmDnsSetting": "ZONAL_ONLY",
    }  # fmt: skip


HANDLERS: dict[str, Handler] = {
    "firewalls.insert": insert_firewall,
    "firewalls.patch": patch_firewall,
    "firewalls.delete": delete_firewall,
    "firewalls.get": get_firewall,
    "firewalls.list": list_firewalls,
    "networks.get": get_network,
    "networks.list": list_networks,
    "projects.get": get_project,
}
