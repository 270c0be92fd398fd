# SPDX-License-Identifier: GPL-3.0-or-later
"""What the local Hetzner Cloud sells: locations, server types, images, prices.

Prices are those of a third party's list of 2026-09-08 (net, EUR, Germany and Finland); outside the EU, and for Arm, they
are the sandbox's own, of the right order. Nobody is billed by them, and nothing may quote them as Hetzner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

VAT_PERCENT = Decimal(19)
HOURS_A_MONTH = 624
"""A month's cap divided by the hourly price, at Hetzner."""

_LOCATIONS = (
    (1, "fsn1", "Falkenstein DC Park 1", "DE", "Falkenstein", 50.47612, 12.370071, "eu-central"),
    (2, "nbg1", "Nuremberg DC Park 1", "DE", "Nuremberg", 49.452102, 11.076665, "eu-central"),
    (3, "hel1", "Helsinki DC Park 1", "FI", "Helsinki", 60.169855, 24.938379, "eu-central"),
    (4, "ash", "Ashburn, VA", "US", "Ashburn, VA", 39.045821, -77.487073, "us-east"),
    (5, "hil", "Hillsboro, OR", "US", "Hillsboro, OR", 45.54222, -122.951924, "us-west"),
    (6, "sin", "Singapore", "SG", "Singapore", 1.283333, 103.833333, "ap-southeast"),
)
_LOCATION_KEYS = ("id", "name", "description", "country", "city", "latitude", "longitude", "network_zone")
LOCATIONS: dict[str, dict[str, Any]] = {
    row[1]: dict(zip(_LOCATION_KEYS, row, strict=True)) for row in _LOCATIONS
}
_EU = ("fsn1", "nbg1", "hel1")
_WORLD = tuple(LOCATIONS)
_FACTOR = {"fsn1": "1", "nbg1": "1", "hel1": "1", "ash": "1.1", "hil": "1.1", "sin": "1.4"}
_INCLUDED_TRAFFIC = {"ash": 1_099_511_627_776, "hil": 1_099_511_627_776, "sin": 549_755_813_888}
_EU_TRAFFIC = 21_990_232_555_520
_TRAFFIC_PRICE = {"sin": "7.4000"}


@dataclass(frozen=True, slots=True)
class Type:
    """A server type; ``monthly`` is net EUR in Germany."""

    id: int
    name: str
    cores: int
    memory: float
    disk: int
    monthly: str
    cpu_type: str = "shared"
    architecture: str = "x86"
    category: str = "Shared vCPU"
    locations: tuple[str, ...] = _WORLD


TYPES: dict[str, Type] = {
    row.name: row
    for row in (
        Type(114, "cx23", 2, 4, 40, "5.49", category="Cost-Optimized", locations=_EU),
        Type(115, "cx33", 4, 8, 80, "8.49", category="Cost-Optimized", locations=_EU),
        Type(116, "cx43", 8, 16, 160, "15.99", category="Cost-Optimized", locations=_EU),
        Type(117, "cx53", 16, 32, 320, "29.49", category="Cost-Optimized", locations=_EU),
        Type(45, "cax11", 2, 4, 40, "5.99", architecture="arm", category="Cost-Optimized", locations=_EU),
        Type(93, "cax21", 4, 8, 80, "10.49", architecture="arm", category="Cost-Optimized", locations=_EU),
        Type(109, "cpx22", 2, 4, 80, "19.49", category="Regular Performance"),
        Type(110, "cpx32", 4, 8, 160, "35.49", category="Regular Performance"),
        Type(111, "cpx42", 8, 16, 320, "69.49", category="Regular Performance"),
        Type(112, "cpx52", 12, 24, 480, "100.49", category="Regular Performance"),
        Type(113, "cpx62", 16, 32, 640, "129.99", category="Regular Performance"),
        Type(96, "ccx13", 2, 8, 80, "42.99", "dedicated", category="General Purpose"),
        Type(97, "ccx23", 4, 16, 160, "85.99", "dedicated", category="General Purpose"),
        Type(98, "ccx33", 8, 32, 240, "138.49", "dedicated", category="General Purpose"),
        Type(99, "ccx43", 16, 64, 360, "275.99", "dedicated", category="General Purpose"),
    )
}
TYPES_BY_ID = {row.id: row for row in TYPES.values()}


def datacenter(location: str) -> dict[str, Any]:
    """What the API said before July 2026 about where in a location a server is."""
    place = LOCATIONS[location]
    available = [kind.id for kind in TYPES.values() if location in kind.locations]
    return {
        "id": place["id"] + 10,
        "name": f"{location}-dc1",
        "description": f"{place['city']} virtual DC 1",
        "location": place,
        "server_types": {
            "supported": available,
            "available": available,
            "available_for_migration": available,
        },
    }


def amount(net: Decimal) -> dict[str, str]:
    """A price as the API gives it: net and gross, decimal strings."""
    gross = net * (100 + VAT_PERCENT) / 100
    return {"net": f"{net:.10f}", "gross": f"{gross:.16f}"}


def prices(kind: Type) -> list[dict[str, Any]]:
    """What a type costs in each of its locations."""
    rows = []
    for location in kind.locations:
        monthly = (Decimal(kind.monthly) * Decimal(_FACTOR[location])).quantize(
            Decimal("0.01"), ROUND_HALF_UP
        )
        hourly = (monthly / HOURS_A_MONTH).quantize(Decimal("0.0001"), ROUND_HALF_UP)
        rows.append(
            {
                "location": location,
                "price_hourly": amount(hourly),
                "price_monthly": amount(monthly),
                "included_traffic": _INCLUDED_TRAFFIC.get(location, _EU_TRAFFIC),
                "price_per_tb_traffic": amount(Decimal(_TRAFFIC_PRICE.get(location, "1.0000"))),
            }
        )
    return rows


def server_type(kind: Type, unavailable: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A type as the API shows it; ``unavailable`` are the locations that are sold out."""
    return {
        "id": kind.id,
        "name": kind.name,
        "description": kind.name.upper(),
        "cores": kind.cores,
        "memory": kind.memory,
        "disk": kind.disk,
        "cpu_type": kind.cpu_type,
        "architecture": kind.architecture,
        "storage_type": "local",
        "category": kind.category,
        "deprecated": False,
        "deprecation": None,
        "locations": [
            {
                "id": LOCATIONS[name]["id"],
                "name": name,
                "deprecation": None,
                "available": name not in unavailable,
                "recommended": name not in unavailable,
            }
            for name in kind.locations
        ],
        "prices": _PRICES[kind.name],
    }


_PRICES = {kind.name: prices(kind) for kind in TYPES.values()}


def _image(
    number: int, name: str, flavor: str, version: str, title: str, created: str, architecture: str
) -> dict[str, Any]:
    return {
        "id": number,
        "type": "system",
        "status": "available",
        "name": name,
        "description": title,
        "image_size": None,
        "disk_size": 5,
        "created": created,
        "created_from": None,
        "bound_to": None,
        "os_flavor": flavor,
        "os_version": version,
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecated": None,
        "deleted": None,
        "labels": {},
        "architecture": architecture,
    }


IMAGES: dict[int, dict[str, Any]] = {
    row["id"]: row
    for row in (
        _image(114690387, "debian-12", "debian", "12", "Debian 12", "2023-06-13T06:00:02Z", "x86"),
        _image(114690389, "debian-12", "debian", "12", "Debian 12", "2023-06-13T06:00:03Z", "arm"),
        _image(310557660, "debian-13", "debian", "13", "Debian 13", "2025-08-12T06:00:02Z", "x86"),
        _image(310557661, "debian-13", "debian", "13", "Debian 13", "2025-08-12T06:00:03Z", "arm"),
        _image(161547269, "ubuntu-24.04", "ubuntu", "24.04", "Ubuntu 24.04", "2024-04-25T13:26:27Z", "x86"),
        _image(161547270, "ubuntu-24.04", "ubuntu", "24.04", "Ubuntu 24.04", "2024-04-25T13:26:51Z", "arm"),
    )
}


def pricing() -> dict[str, Any]:
    """The body of ``GET /pricing``."""

    def everywhere(monthly: str) -> list[dict[str, Any]]:
        return [
            {
                "location": name,
                "price_hourly": amount((Decimal(monthly) / HOURS_A_MONTH).quantize(Decimal("0.0001"))),
                "price_monthly": amount(Decimal(monthly)),
            }
            for name in LOCATIONS
        ]

    gigabyte = {"price_per_gb_month": amount(Decimal("0.0119"))}
    return {
        "currency": "EUR",
        "vat_rate": f"{VAT_PERCENT:.6f}",
        "server_types": [
            {"id": row.id, "name": row.name, "prices": _PRICES[row.name]} for row in TYPES.values()
        ],
        "primary_ips": [
            {"type": "ipv4", "prices": everywhere("0.50")},
            {"type": "ipv6", "prices": everywhere("0.00")},
        ],
        "floating_ip": {"price_monthly": amount(Decimal("3.00"))},
        "floating_ips": [],
        "image": gigabyte,
        "volume": {"price_per_gb_month": amount(Decimal("0.0484"))},
        "server_backup": {"percentage": "20.000000"},
        "load_balancer_types": [],
        "traffic": {"price_per_tb": amount(Decimal("1.0000"))},
    }
