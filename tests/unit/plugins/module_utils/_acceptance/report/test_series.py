# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves: few points, no extreme lost, gaps left open."""

from __future__ import annotations

import random

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import series
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import smi_paths
from hypothesis import given
from hypothesis import strategies as st


def of(*pairs: tuple[float, float | None], reasons: tuple[str, ...] = ()) -> list[Sample]:
    return [Sample(at=at, gpu=0, temperature_c=value, reasons=reasons) for at, value in pairs]


def test_a_day_becomes_few_points_and_a_peak_of_one_reading_is_still_there() -> None:
    chance = random.Random(1)
    day = [(5.0 * step, 70 + chance.random()) for step in range(17280)]
    day[9001] = (day[9001][0], 99.0)
    day[12003] = (day[12003][0], 12.0)
    [stretch] = series.curve(of(*day), "temperature_c", 0, 86400)
    assert len(stretch) <= series.MOST_BUCKETS + 1
    assert max(bucket.high for bucket in stretch) == 99.0
    assert min(bucket.low for bucket in stretch) == 12.0
    assert [bucket.at for bucket in stretch] == sorted(bucket.at for bucket in stretch)


@given(st.lists(st.floats(min_value=-50, max_value=150), min_size=1, max_size=3000))
def test_no_extreme_is_ever_lost(values: list[float]) -> None:
    samples = of(*((2.0 * step, value) for step, value in enumerate(values)))
    stretches = series.curve(samples, "temperature_c", 0, 2.0 * len(values))
    buckets = [bucket for stretch in stretches for bucket in stretch]
    assert max(bucket.high for bucket in buckets) == max(values)
    assert min(bucket.low for bucket in buckets) == min(values)
    assert all(
        bucket.low <= bucket.middle + 1e-6 and bucket.middle - 1e-6 <= bucket.high for bucket in buckets
    )


def test_nothing_is_drawn_across_a_gap() -> None:
    samples = of(*((float(at), 60.0) for at in (*range(0, 100, 2), *range(900, 1000, 2))))
    first, second = series.curve(samples, "temperature_c", 0, 1000)
    assert first[-1].at < 100 and second[0].at >= 900


def test_a_missing_reading_is_no_point() -> None:
    [stretch] = series.curve(of((0, 50), (2, None), (4, 52)), "temperature_c", 0, 4)
    assert [bucket.middle for bucket in stretch] == [50, 52]


def test_time_held_back_goes_to_the_next_reading_and_not_across_a_gap() -> None:
    hot = of((0, 88), (2, 88), (100, 88), reasons=("sw_thermal",))
    cool = of((102, 60))
    assert series.held_back([*hot, *cool], series.THERMAL, 2.0) == [(0, 6), (100, 102)]
    assert series.held_back([*hot, *cool], series.HARDWARE, 2.0) == []


def test_what_is_too_short_to_be_seen_is_made_longer_and_neighbours_become_one() -> None:
    assert series.merged([(0, 1), (3, 4), (50, 60)], least=4) == [(-1.5, 5.5), (50, 60)]


def test_the_limit_of_a_card_is_what_it_gives_itself() -> None:
    samples = [Sample(at=at, gpu=0, temperature_c=60 + at, margin_c=30 - at) for at in range(5)]
    assert series.limit(samples) == 90
    assert series.limit(of((0, 60))) is None


@pytest.mark.parametrize(("ats", "interval"), [((), 0.0), ((1,), 0.0), ((0, 5, 10, 400, 405), 5.0)])
def test_the_interval_is_the_usual_one(ats: tuple[float, ...], interval: float) -> None:
    assert series.interval(of(*((at, 1.0) for at in ats))) == interval


def test_the_reasons_are_those_that_nvidia_smi_is_read_with() -> None:
    assert set(smi_paths.THROTTLE_REASONS) >= series.THERMAL | series.HARDWARE | series.POWER
