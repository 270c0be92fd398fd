# SPDX-License-Identifier: GPL-3.0-or-later
"""What data-parallel training loses, and what it could reach."""

from __future__ import annotations

import math

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import scaling
from hypothesis import given
from hypothesis import strategies as st

RATES = st.floats(1, 1e5)


def split(single, concurrent, together, *, gradients=102_228_128, bus=30.0):
    return scaling.split(
        dict(enumerate(single)),
        dict(enumerate(concurrent)),
        together,
        batch=32,
        gradient_bytes=gradients,
        bus_gb_s=bus,
    )


def test_the_example_of_the_cost_model():
    """1.7 thousand million parameters in bf16, four GPUs, 35 GB/s."""
    assert scaling.gradient_seconds(3.4e9, 4, 35) == pytest.approx(0.146, abs=5e-4)


def test_over_a_gigabit_line_it_takes_most_of_a_minute():
    assert scaling.gradient_seconds(3.4e9, 4, 0.125) > 40


def test_a_single_gpu_has_nobody_to_tell():
    assert scaling.gradient_seconds(3.4e9, 1, 35) == 0


def test_without_bandwidth_it_never_ends():
    assert scaling.gradient_seconds(1, 2, 0) == math.inf


def test_what_is_lost_is_told_apart():
    parts = split([1000] * 4, [900] * 4, 2880)

    assert parts.efficiency == pytest.approx(0.72)
    assert parts.balance == 1
    assert parts.contention == pytest.approx(0.90)
    assert parts.communication == pytest.approx(0.80)


def test_a_slow_card_is_neither_contention_nor_communication():
    parts = split([1000, 1000, 1000, 800], [1000, 1000, 1000, 800], 3200)

    assert parts.balance == pytest.approx(3200 / 3800)
    assert (parts.contention, parts.communication) == (1, 1)


def test_the_prediction_lies_between_no_overlap_and_complete_overlap():
    """27.1 ms of computation, 5.1 ms of communication."""
    parts = split([1200] * 4, [1180] * 4, 4300)

    assert parts.least == pytest.approx(128 / (32 / 1180 + parts.gradient_s))
    assert parts.gradient_s == pytest.approx(5.11e-3, rel=1e-3)
    assert parts.most == pytest.approx(4720)
    assert parts.least_efficiency == pytest.approx(0.827, abs=1e-3)


def test_a_link_that_is_slower_than_the_computation_sets_the_pace():
    """The rented machine with four RTX 4090 that was slower than a single one."""
    parts = split([15.4] * 4, [15.4] * 4, 14.0, gradients=3.4e9, bus=0.62)

    assert parts.most < 4 * 15.4
    assert parts.most == pytest.approx(4 * 32 / parts.gradient_s)


@pytest.mark.parametrize(
    ("single", "concurrent", "together"),
    [
        ([1000], [1000], 1000),
        ([1000, 0], [1000, 1000], 1900),
        ([1000, 1000], [1000], 1900),
        ([1000, 1000], [1000, 1000], 0),
        ([1000, 1000], [1000, math.nan], 1900),
        ([1000, math.inf], [1000, 1000], 1900),
    ],
)
def test_what_is_no_rate_is_not_split(single, concurrent, together):
    assert split(single, concurrent, together) is None


def test_without_gradients_or_bandwidth_nothing_is_predicted():
    assert split([1000] * 2, [1000] * 2, 1900, gradients=0) is None
    assert split([1000] * 2, [1000] * 2, 1900, bus=0) is None


@given(st.lists(st.tuples(RATES, RATES), min_size=2, max_size=16), RATES, st.floats(0.1, 1000))
def test_the_parts_make_the_whole(rates, together, bus):
    parts = split([one for one, _ in rates], [one for _, one in rates], together, bus=bus)

    assert parts.balance * parts.contention * parts.communication == pytest.approx(parts.efficiency)
    assert 0 < parts.least <= parts.most
    assert 0 < parts.balance <= 1 + 1e-9


@given(st.integers(2, 64), RATES, RATES)
def test_more_bandwidth_is_never_predicted_to_be_slower(gpus, one, other):
    slow, fast = sorted((one, other))
    assert scaling.gradient_seconds(1e9, gpus, fast) <= scaling.gradient_seconds(1e9, gpus, slow)
