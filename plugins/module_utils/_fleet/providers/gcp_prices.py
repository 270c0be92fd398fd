# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Google machine costs per hour: a small, dated price book. What is not in it is unknown, never zero.

Google has no price list that names machine types; its billing catalogue must be read by the English descriptions of
its items. So this book holds the list prices of the machines people here use, in two regions, as read from a public
catalogue of those items. A price is composed as Google bills it: vCPUs and memory of the host, plus each GPU.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from ..prices import Price
from . import gcp_shapes

SOURCE = "SkyPilot catalog v8 for GCP, commit 006059e of 2026"
"""Where the figures come from."""

_LEFT_OUT = "without boot disk, external IPv4 address, traffic and discounts"
_CENT = Decimal("0.00001")


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars per hour of one unit, on demand and as spot; None: not known."""

    demand: Decimal | None
    spot: Decimal | None

    def of(self, *, spot: bool) -> Decimal | None:
        """The one that applies."""
        return self.spot if spot else self.demand


def _rate(demand: str | None, spot: str | None, units: int = 1) -> Rate:
    """A rate from what a machine of so many units costs."""
    return Rate(Decimal(demand) / units if demand else None, Decimal(spot) / units if spot else None)


_PER_VCPU: Mapping[str, Mapping[str, Rate]] = MappingProxyType(
    {
        "us-central1": {
            "n1-standard": _rate("0.38000", "0.10446", 8),
            "e2-standard": _rate("0.26805", "0.11758", 8),
            "g2-standard": _rate("0.147", "0.059", 4),
        },
        "europe-west4": {
            "n1-standard": _rate("0.41834", "0.16734", 8),
            "e2-standard": _rate("0.29509", "0.12285", 8),
            "g2-standard": _rate("0.155", "0.072", 4),
        },
    }
)
"""Host price per vCPU of series whose memory grows with their vCPUs, so that one size tells the price of all. For g2
it is the difference of g2-standard-8 and g2-standard-4, which have the same GPU."""

_PER_GPU: Mapping[str, Mapping[str, Rate]] = MappingProxyType(
    {
        "us-central1": {
            "t4": _rate("0.35", "0.175"),
            "p4": _rate("0.60", "0.2236"),
            "p100": _rate("1.46", "0.7034"),
            "v100": _rate("2.48", "1.0885"),
            "l4": _rate("0.56004", "0.223"),
        },
        "europe-west4": {
            "t4": _rate("0.3675", "0.175"),
            "p4": _rate("0.63", "0.132"),
            "p100": _rate("1.533", "0.2341"),
            "v100": _rate("2.604", "1.0443"),
            "l4": _rate("0.587", "0.243"),
        },
    }
)

_PER_A2_HIGHGPU: Mapping[str, Rate] = MappingProxyType(
    {
        "us-central1": _rate("3.67339", "1.804"),
        "europe-west4": _rate(None, "1.487"),
    }
)
"""One A100 with its twelfth of a host; the types of this series are multiples of the smallest."""

_SUSPECT: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (
            "europe-west4",
            "a2-highgpu",
        ): "the catalogue lists the A100 there at half of its US price, which cannot be a list price",
        ("us-central1", "a2-ultragpu"): "the catalogue lists the A100-80GB there below its own spot price",
    }
)
"""On-demand figures that the source has and this book leaves out, and why."""


def price(
    machine_type: str, zone: str, *, gpu_model: str | None = None, gpu_count: int = 0, spot: bool = False
) -> Price:
    """What a running machine costs per hour in US dollars, or unknown with the reason.

    Args:
        machine_type: Google's name of it.
        zone: where it runs; prices are those of its region.
        gpu_model, gpu_count: GPUs attached to it; those built into the type are counted without being named.
        spot: as spot capacity.
    """
    region = gcp_shapes.region_of(zone)
    kind = "spot" if spot else "on demand"
    if region not in _PER_VCPU:
        return Price.unknown(
            f"no prices for {region}; the price book ({SOURCE}) has {' and '.join(_PER_VCPU)}"
        )
    has = gcp_shapes.shape(machine_type)
    if has is None:
        return Price.unknown(f"no price for {machine_type} in the price book ({SOURCE})")
    if has.series == "a2-highgpu":
        whole = _PER_A2_HIGHGPU[region].of(spot=spot)
        amount = None if whole is None else whole * has.gpu_count
    else:
        host = _PER_VCPU[region].get(has.series)
        per_vcpu = host.of(spot=spot) if host else None
        amount = None if per_vcpu is None else per_vcpu * has.vcpus
        model, count = (has.gpu_model, has.gpu_count) if has.gpu_model else (gpu_model, gpu_count)
        if model is not None and amount is not None:
            gpu = _PER_GPU[region].get(model)
            per_gpu = gpu.of(spot=spot) if gpu else None
            amount = None if per_gpu is None else amount + per_gpu * count
    if amount is None:
        suspect = None if spot else _SUSPECT.get((region, has.series))
        return Price.unknown(
            f"{machine_type} {kind} in {region} is left out of the price book: {suspect}"
            if suspect
            else f"no price for {machine_type} {kind} in {region} in the price book ({SOURCE})"
        )
    return Price(
        hourly=amount.quantize(_CENT), currency="USD", source=f"{SOURCE}, {region}, {kind}, {_LEFT_OUT}"
    )


def stopped_price() -> Price:
    """What a stopped machine costs: its disks, whose prices the book does not have."""
    return Price.unknown(
        "a stopped machine costs no more than its disks and reserved addresses, whose prices the price book does not have"
    )
