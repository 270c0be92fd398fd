# SPDX-License-Identifier: GPL-3.0-or-later
"""The smaller resources: SSH keys, networks, primary IPs, and what is for sale."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from typing import Any

from . import catalog
from .api import Answer, Call, Handler, chosen, page
from .errors import ApiError, invalid, not_found, taken
from .labels import check_labels
from .project import timestamp

_KEY_TYPES = {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}


def reading(key: str, table: str, singular: str, **filters: str) -> tuple[Handler, Handler]:
    """List and get of a resource that the project keeps as JSON."""

    async def listing(call: Call) -> Answer:
        return page(call, key, chosen(call, list(getattr(call.project, table).values()), **filters), dict)

    async def get(call: Call) -> Answer:
        return {singular: _find(call, table, singular)}

    return listing, get


def _find(call: Call, table: str, singular: str) -> dict[str, Any]:
    found: dict[int, dict[str, Any]] = getattr(call.project, table)
    if call.id not in found:
        raise not_found(singular, call.id)
    return found[call.id]


async def create_ssh_key(call: Call) -> Answer:
    name, public = call.text("name", required=True), (call.text("public_key", required=True) or "").strip()
    labels = check_labels(call.body.get("labels"))
    words = public.split()
    try:
        blob = base64.b64decode(words[1], validate=True) if words[0] in _KEY_TYPES else b""
    except (IndexError, binascii.Error):
        blob = b""
    if not blob:
        raise invalid("public_key", "is not a valid SSH public key")
    fingerprint = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    fingerprint = ":".join(fingerprint[at : at + 2] for at in range(0, 32, 2))
    for key in call.project.ssh_keys.values():
        for field, value in (("name", name), ("fingerprint", fingerprint)):
            if key[field] == value:
                details = {"fields": [{"name": "public_key" if field == "fingerprint" else field}]}
                raise ApiError("uniqueness_error", f"SSH key with the same {field} already exists", details)
    number = call.world.next_id("hetzner-ssh-key", first=20_000_001)
    call.project.ssh_keys[number] = {
        "id": number,
        "name": name,
        "fingerprint": fingerprint,
        "public_key": public,
        "labels": labels,
        "created": timestamp(call.world.clock.time()),
    }
    return 201, {"ssh_key": call.project.ssh_keys[number]}


async def update_ssh_key(call: Call) -> Answer:
    return _update(call, "ssh_keys", "ssh_key")


def _update(call: Call, table: str, singular: str) -> Answer:
    found = _find(call, table, singular)
    labels = check_labels(call.body["labels"]) if call.body.get("labels") is not None else found["labels"]
    if (name := call.text("name")) is not None:
        others = (other for other in getattr(call.project, table).values() if other is not found)
        if any(other["name"] == name for other in others):
            raise taken(singular)
        found["name"] = name
    found["labels"] = labels
    return {singular: found}


async def delete_ssh_key(call: Call) -> Answer:
    del call.project.ssh_keys[_find(call, "ssh_keys", "ssh_key")["id"]]
    return 204, None


async def list_networks(call: Call) -> Answer:
    return page(
        call,
        "networks",
        chosen(call, list(call.project.networks.values())),
        lambda n: _network(call, dict(n)),
    )


async def get_network(call: Call) -> Answer:
    return {"network": _network(call, _find(call, "networks", "network"))}


def _network(call: Call, network: dict[str, Any]) -> dict[str, Any]:
    members = [server.id for server in call.project.servers.values() if network["id"] in server.networks]
    return {**network, "servers": members}


async def create_network(call: Call) -> Answer:
    name = call.text("name", required=True)
    if any(network["name"] == name for network in call.project.networks.values()):
        raise taken("network")
    labels = check_labels(call.body.get("labels"))
    whole = _range(call.text("ip_range", required=True))
    subnets = []
    for given in call.body.get("subnets") or []:
        if not isinstance(given, dict) or given.get("type") not in ("cloud", "server", "vswitch"):
            raise invalid("subnets", "must have a type of cloud, server, vswitch")
        part = _range(given.get("ip_range") or str(whole))
        if not part.subnet_of(whole):
            raise invalid("subnets", "must be part of the network's ip_range")
        subnets.append(
            {
                "type": given["type"],
                "network_zone": given.get("network_zone", "eu-central"),
                "ip_range": str(part),
                "gateway": str(part[1]),
                "vswitch_id": None,
            }
        )
    number = call.world.next_id("hetzner-network", first=10_000_001)
    call.project.networks[number] = {
        "id": number,
        "name": name,
        "ip_range": str(whole),
        "subnets": subnets,
        "routes": [],
        "load_balancers": [],
        "protection": {"delete": False},
        "labels": labels,
        "created": timestamp(call.world.clock.time()),
        "expose_routes_to_vswitch": False,
    }
    return 201, {"network": _network(call, call.project.networks[number])}


def _range(text: str | None) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text or "")
    except ValueError as error:
        raise invalid("ip_range", f"'{text}' is no network in CIDR notation") from error
    if not network.is_private or network.num_addresses < 4:
        raise invalid("ip_range", "must be a private network")
    return network


async def update_network(call: Call) -> Answer:
    _update(call, "networks", "network")
    return await get_network(call)


async def delete_network(call: Call) -> Answer:
    network = _find(call, "networks", "network")
    if _network(call, network)["servers"]:
        raise ApiError("resource_in_use", "network is still in use")
    del call.project.networks[network["id"]]
    return 204, None


def _types(call: Call) -> list[dict[str, Any]]:
    project = call.project
    return [catalog.server_type(kind, project.sold_out(kind)) for kind in catalog.TYPES.values()]


async def list_server_types(call: Call) -> Answer:
    return page(call, "server_types", chosen(call, _types(call), architecture="architecture"), dict)


async def get_server_type(call: Call) -> Answer:
    return {"server_type": _one(_types(call), call.id, "server type")}


async def list_locations(call: Call) -> Answer:
    return page(call, "locations", chosen(call, list(catalog.LOCATIONS.values())), dict)


async def get_location(call: Call) -> Answer:
    return {"location": _one(list(catalog.LOCATIONS.values()), call.id, "location")}


def _one(items: list[dict[str, Any]], number: int, what: str) -> dict[str, Any]:
    found = next((item for item in items if item["id"] == number), None)
    if not found:
        raise not_found(what, number)
    return found


async def pricing(call: Call) -> Answer:
    return {"pricing": catalog.pricing()}


async def datacenters(call: Call) -> Answer:
    raise ApiError(
        "deprecated_api_endpoint",
        "the datacenters endpoint has been removed, use locations",
        {"announcement": "https://docs.hetzner.cloud/changelog#2025-12-16-phasing-out-datacenters"},
    )
