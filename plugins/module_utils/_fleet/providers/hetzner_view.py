# SPDX-License-Identifier: GPL-3.0-or-later
"""From Hetzner's words to ours: servers to instances, the price list to prices, sources to firewall rules. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from ..firstboot import HOST_KEY_LABEL, NEXT_HOST_KEY_LABEL, key_from_label
from ..images.reference import GoldenReference
from ..machines import FLEET_LABEL, MACHINE_LABEL, Instance, State
from ..prices import Price

Json = Mapping[str, Any]

STATES = {
    "initializing": State.CREATING,
    "starting": State.CREATING,
    "rebuilding": State.CREATING,
    "running": State.RUNNING,
    "stopping": State.STOPPING,
    "off": State.STOPPED,
    "deleting": State.DELETING,
}

MESH_PORT = "9993"


class Rate(NamedTuple):
    """Net amounts per hour, and per month at most."""

    hourly: Decimal
    monthly: Decimal


@dataclass(frozen=True, slots=True)
class Tariff:
    """What servers cost in a project.

    Attributes:
        servers: by server type and location.
        ipv4: of a public IPv4 address, by location; IPv6 costs nothing.
        currency: ISO 4217 code.
        source: where and when it was read, or why it is not known.
        snapshot: of an image, for each GB and month.
    """

    servers: Mapping[tuple[str, str], Rate]
    ipv4: Mapping[str, Rate]
    currency: str
    source: str
    snapshot: Decimal | None = None

    @classmethod
    def unknown(cls, why: str) -> Tariff:
        """No price list, and why there is none."""
        return cls({}, {}, "EUR", why)

    @classmethod
    def from_pricing(cls, pricing: Json, day: date) -> Tariff:
        """The project's price list, net of tax."""
        source = f"Hetzner API, live, {day.isoformat()}"

        def rate(entry: Json) -> Rate:
            return Rate(_plain(entry["price_hourly"]["net"]), _plain(entry["price_monthly"]["net"]))

        return cls(
            servers={
                (kind["name"], entry["location"]): rate(entry)
                for kind in pricing["server_types"]
                for entry in kind["prices"]
            },
            ipv4={
                entry["location"]: rate(entry)
                for kind in pricing["primary_ips"]
                if kind["type"] == "ipv4"
                for entry in kind["prices"]
            },
            currency=pricing["currency"],
            source=source,
            snapshot=_plain(pricing["image"]["price_per_gb_month"]["net"]) if "image" in pricing else None,
        )

    def price(self, server_type: str, location: str, *, ipv4: bool = True) -> Price:
        """What a server costs there with its address, running or not: Hetzner charges for what exists."""
        server = self.servers.get((server_type, location))
        address = self.ipv4.get(location) if ipv4 else Rate(Decimal(0), Decimal(0))
        if not self.servers:
            return Price.unknown(self.source)
        if server is None:
            return Price.unknown(f"{self.source}: no price for {server_type} in {location}")
        if address is None:
            return Price.unknown(f"{self.source}: no price for an IPv4 address in {location}")
        return Price(
            server.hourly + address.hourly,
            self.currency,
            self.source,
            monthly_cap=server.monthly + address.monthly,
        )


def _plain(amount: str) -> Decimal:
    """An amount without the zeros Hetzner fills it up with."""
    value = Decimal(amount)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def to_instance(server: Json, tariff: Tariff) -> Instance:
    """A server as the API gives it, in our words.

    Raises:
        KeyError, TypeError: it has not the shape of a server.
    """
    net = server["public_net"]
    ipv4 = (net.get("ipv4") or {}).get("ip")
    ipv6 = (net.get("ipv6") or {}).get("ip")
    private = server.get("private_net") or []
    image = server.get("image") or {}
    labels = dict(server["labels"])
    location, server_type = server["location"]["name"], server["server_type"]["name"]
    keys, planted = host_keys(labels)
    return Instance(
        provider="hetzner",
        id=str(server["id"]),
        name=server["name"],
        state=STATES.get(server["status"], State.UNKNOWN),
        cloud_state=server["status"],
        zone=location,
        type=server_type,
        image=image_name(image),
        created=server.get("created"),
        public_ip=ipv4,
        public_ipv6=first_host(ipv6) if ipv6 else None,
        private_ip=private[0]["ip"] if private else None,
        labels=labels,
        host_keys=keys,
        host_keys_planted=planted,
        price=tariff.price(server_type, location, ipv4=ipv4 is not None),
    )


def image_name(image: Json) -> str | None:
    """How a fleet file would name an image; None where the cloud does not say which it is."""
    golden = GoldenReference.of_labels(image.get("labels") or {}) if image.get("type") == "snapshot" else None
    if golden:
        return str(golden)
    return image.get("name") or (str(image["id"]) if "id" in image else None)


def first_host(network: str) -> str:
    """The address a server takes of the IPv6 network it is given: the one that ends in 1."""
    net = ipaddress.IPv6Network(network, strict=False)
    return str(net[1] if net.prefixlen < 128 else net[0])


def host_keys(labels: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    """The host keys that labels vouch for, and whether the one in use now was planted by us."""
    current = key_from_label(labels.get(HOST_KEY_LABEL, ""))
    following = key_from_label(labels.get(NEXT_HOST_KEY_LABEL, ""))
    keys = tuple(dict.fromkeys(found[0] for found in (current, following) if found))
    return keys, bool(current and current[1])


@dataclass(frozen=True, slots=True)
class Firewall:
    """A firewall as it should be."""

    name: str
    selector: str
    rules: tuple[dict[str, Any], ...]

    @property
    def words(self) -> dict[str, str]:
        """It in words, to be compared with :func:`words` of one that exists."""
        return words(self.rules, [self.selector])


def firewalls(
    fleet: str,
    default: Sequence[str],
    own: Mapping[str, Sequence[str]],
    ports: Iterable[int],
    *,
    meshed: bool = False,
) -> list[Firewall]:
    """One firewall for the fleet, and one more for each set of SSH sources that some machines have of their own.

    Rules of several firewalls add up, so no machine may be under two of them.

    Args:
        default: networks that may reach SSH on every machine not in ``own``.
        own: by machine, the networks that may reach its SSH port instead.
        ports: of SSH.
        meshed: the fleet has a mesh, whose port is open to all.
    """
    plain = networks(default)
    groups: dict[tuple[str, ...], list[str]] = {}
    for machine, sources in own.items():
        if networks(sources) != plain:
            groups.setdefault(networks(sources), []).append(machine)
    ours = f"{FLEET_LABEL}=={fleet}"
    others = sorted(machine for machines in groups.values() for machine in machines)
    rest = f"{ours},{MACHINE_LABEL} notin ({','.join(others)})" if others else ours
    wanted = [Firewall(f"gpumesh-{fleet}", rest, _rules(plain, ports, meshed))]
    for sources, machines in sorted(groups.items()):
        digest = hashlib.sha256(",".join(sources).encode()).hexdigest()[:8]
        selector = f"{ours},{MACHINE_LABEL} in ({','.join(sorted(machines))})"
        wanted.append(Firewall(f"gpumesh-{fleet}-{digest}", selector, _rules(sources, ports, meshed)))
    return wanted


def networks(sources: Iterable[str]) -> tuple[str, ...]:
    """The same networks in one spelling and order."""
    return tuple(sorted({str(ipaddress.ip_network(source, strict=False)) for source in sources}))


_ANYWHERE = ("0.0.0.0/0", "::/0")


def _rules(sources: Sequence[str], ports: Iterable[int], meshed: bool) -> tuple[dict[str, Any], ...]:
    ssh = [_rule("tcp", str(port), sources, "SSH") for port in sorted(set(ports))] if sources else []
    mesh = [_rule("udp", MESH_PORT, _ANYWHERE, "ZeroTier")] if meshed else []
    return (*ssh, *mesh, _rule("icmp", None, _ANYWHERE, "ping"))


def _rule(protocol: str, port: str | None, sources: Sequence[str], description: str) -> dict[str, Any]:
    rule = {"direction": "in", "protocol": protocol, "source_ips": list(sources), "description": description}
    return rule if port is None else {**rule, "port": port}


def same_rules(one: Iterable[Json], other: Iterable[Json]) -> bool:
    """Whether two lists of firewall rules let the same through."""
    return _traffic(one) == _traffic(other)


def words(rules: Iterable[Json], held_by: Sequence[str]) -> dict[str, str]:
    """A firewall in words: what it lets through from where, and which servers it holds for."""
    return {**_traffic(rules), "for servers with": " or ".join(sorted(held_by)) or "nothing"}


def _traffic(rules: Iterable[Json]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for rule in rules:
        into = rule["direction"] == "in"
        port = rule.get("port") or ""
        what = "SSH" if (rule["protocol"], port) == ("tcp", "22") else f"{rule['protocol']} {port}".rstrip()
        there = rule.get("source_ips" if into else "destination_ips") or ()
        found.setdefault(f"{what} from" if into else f"outgoing {what} to", set()).update(networks(there))
    return {
        what: "anywhere" if there == set(_ANYWHERE) else ", ".join(sorted(there)) or "nowhere"
        for what, there in sorted(found.items())
    }


def selectors(firewall: Json) -> list[str]:
    """The label selectors a firewall is applied to."""
    return [
        target["label_selector"]["selector"]
        for target in firewall.get("applied_to") or []
        if target.get("type") == "label_selector"
    ]
