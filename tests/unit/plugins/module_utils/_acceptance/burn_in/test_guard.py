# SPDX-License-Identifier: GPL-3.0-or-later
"""When a burn-in stops for the sake of the hardware."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import guard
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.records import Card
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample


@pytest.mark.parametrize(
    ("sample", "most", "kind"),
    [
        (Sample(1, 0, temperature_c=80, margin_c=10), None, None),
        (Sample(1, 0, temperature_c=88, margin_c=2), None, None),
        (Sample(1, 0, temperature_c=89, margin_c=1), None, guard.MARGIN),
        (Sample(1, 0, temperature_c=92, margin_c=-2), None, guard.MARGIN),
        (Sample(1, 0, margin_c=1), None, guard.MARGIN),
        (Sample(1, 0, temperature_c=80, margin_c=10), 80.0, None),
        (Sample(1, 0, temperature_c=81, margin_c=10), 80.0, guard.TEMPERATURE),
        (Sample(1, 0, temperature_c=81), 80.0, guard.TEMPERATURE),
        (Sample(1, 0), 80.0, None),
    ],
)
def test_it_stops_at_the_margin_and_at_the_temperature(
    sample: Sample, most: float | None, kind: str | None
) -> None:
    stop = guard.too_hot([Sample(1, 3, temperature_c=40, margin_c=50), sample], 2.0, most)
    assert (stop and stop.kind) == kind


def test_the_stop_says_which_gpu_and_carries_its_reading() -> None:
    stop = guard.too_hot([Sample(9.0, 2, temperature_c=91, margin_c=-1, power_w=575)], 2.0, None)
    assert stop is not None
    record = stop.as_record(10.0)
    assert record["says"] == (
        "GPU 2 was at 91 °C, 1 degrees above where it slows itself down; 2 degrees were to be kept"
    )
    assert record["reading"] == {"gpu": 2, "at": 9.0, "temperature_c": 91, "margin_c": -1, "power_w": 575}


def test_counters_that_a_card_does_not_have_are_left_out() -> None:
    device = {
        "index": 1,
        "link": {"replay_counter": 4},
        "ecc": {"volatile": {"correctable": None, "uncorrectable": 0}, "aggregate": None},
        "remapped_rows": {"failure": False},
        "throttle_us": {"hw_therm_slowdown": 0, "hw_power_brake": 3, "sw_power_cap": 900},
    }
    assert guard.counters([device, {"index": None}]) == {
        "1": {
            "replay_counter": 4,
            "ecc_volatile_uncorrectable": 0,
            "rows_failure": 0,
            "hw_therm_slowdown_us": 0,
            "hw_power_brake_us": 3,
        }
    }


def test_gpus_are_told_apart_by_their_uuid_in_the_order_of_their_numbers() -> None:
    devices = [
        {
            "index": 1,
            "uuid": "GPU-b",
            "pci_address": "0000:02:00.0",
            "model": None,
            "name": "Card",
            "state": "ok",
        },
        {"index": 0, "uuid": None, "pci_address": "0000:01:00.0", "model": "l4", "state": "ok"},
        {"index": 2, "uuid": "GPU-c", "pci_address": "0000:03:00.0", "model": "l4", "state": "lost"},
        {"index": None, "uuid": None, "pci_address": "0000:04:00.0", "state": "unseen"},
    ]
    found = guard.cards(devices)
    assert found == (Card("0000:01:00.0", "0000:01:00.0", "l4"), Card("GPU-b", "0000:02:00.0", "Card"))
    assert guard.gone(found, found[1:]) == {
        0: "GPU 0 (0000:01:00.0) burned before, and the driver does not answer for it any more"
    }
    assert guard.gone(found, found[::-1]) == {}
    assert sorted(guard.numbered(devices)) == [0, 1, 2]
