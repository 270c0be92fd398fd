# SPDX-License-Identifier: GPL-3.0-or-later
"""The price book of Google's machines."""

from __future__ import annotations

from decimal import Decimal

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Total
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_prices, gcp_shapes
from hypothesis import given
from hypothesis import strategies as st

US, EU = "us-central1-c", "europe-west4-a"


@pytest.mark.parametrize(
    ("machine_type", "gpu", "us", "us_spot", "eu", "eu_spot"),
    [
        ("e2-standard-8", None, "0.26805", "0.11758", "0.29509", "0.12285"),
        ("n1-standard-4", None, "0.19000", "0.05223", "0.20917", "0.08367"),
        ("n1-standard-8", None, "0.38000", "0.10446", "0.41834", "0.16734"),
        ("n1-standard-4", "t4", "0.540", "0.227", "0.577", "0.259"),
        ("n1-standard-8", "t4", "0.730", "0.279", "0.786", "0.342"),
        ("g2-standard-8", None, "0.854", "0.341", "0.897", "0.387"),
        ("g2-standard-4", None, "0.707", "0.282", "0.742", "0.315"),
        ("a2-highgpu-1g", None, "3.673", "1.804", None, "1.487"),
    ],
)
def test_the_listed_totals_come_out_of_the_parts(
    machine_type: str, gpu: str | None, us: str, us_spot: str, eu: str | None, eu_spot: str
) -> None:
    for zone, spot, listed in ((US, False, us), (US, True, us_spot), (EU, False, eu), (EU, True, eu_spot)):
        price = gcp_prices.price(machine_type, zone, gpu_model=gpu, gpu_count=1 if gpu else 0, spot=spot)
        if listed is None:
            assert price.hourly is None
        else:
            assert price.hourly is not None
            assert abs(price.hourly - Decimal(listed)) <= Decimal("0.0005")
            assert price.currency == "USD"


def test_each_gpu_counts() -> None:
    one, four = (
        gcp_prices.price("n1-standard-8", US, gpu_model="t4", gpu_count=count).hourly for count in (1, 4)
    )
    assert one is not None and four is not None
    assert four - one == 3 * Decimal("0.35")


def test_the_source_says_where_it_is_from_and_what_is_left_out() -> None:
    source = gcp_prices.price("e2-standard-8", US).source
    assert "SkyPilot catalog" in source and "2026" in source and "on demand" in source
    assert "without boot disk, external IPv4 address" in source
    assert "spot" in gcp_prices.price("e2-standard-8", US, spot=True).source


@pytest.mark.parametrize(
    ("machine_type", "zone", "gpu", "spot", "why"),
    [
        ("e2-standard-8", "asia-east1-a", None, False, "no prices for asia-east1"),
        ("n1-highmem-8", US, None, False, "no price for n1-highmem-8"),
        ("c4-standard-8", US, None, False, "no price for c4-standard-8"),
        ("a2-highgpu-1g", EU, None, False, "half of its US price"),
        ("a2-ultragpu-1g", US, None, False, "below its own spot price"),
        ("a2-ultragpu-1g", US, None, True, "no price for a2-ultragpu-1g spot"),
        ("n1-standard-8", US, "k80", False, "no price for n1-standard-8"),
    ],
)
def test_what_the_book_does_not_know_is_unknown_and_says_why(
    machine_type: str, zone: str, gpu: str | None, spot: bool, why: str
) -> None:
    price = gcp_prices.price(machine_type, zone, gpu_model=gpu, gpu_count=1 if gpu else 0, spot=spot)
    assert price.hourly is None
    assert why in price.source


@given(
    st.sampled_from(gcp_shapes.machine_types()),
    st.sampled_from((US, EU)),
    st.sampled_from((None, *gcp_shapes.N1_LIMITS)),
)
def test_no_price_is_zero_and_spot_is_never_dearer(machine_type: str, zone: str, gpu: str | None) -> None:
    count = 1 if gpu else 0
    demand = gcp_prices.price(machine_type, zone, gpu_model=gpu, gpu_count=count)
    spot = gcp_prices.price(machine_type, zone, gpu_model=gpu, gpu_count=count, spot=True)
    assert demand.hourly is None or demand.hourly > 0
    assert spot.hourly is None or spot.hourly > 0
    assert demand.hourly is None or spot.hourly is None or spot.hourly < demand.hourly
    assert demand.source and spot.source


def test_a_stopped_machine_is_not_free() -> None:
    price = gcp_prices.stopped_price()
    assert price.hourly is None
    assert "disks" in price.source
    assert Total.of([price], {}).unknown == 1
