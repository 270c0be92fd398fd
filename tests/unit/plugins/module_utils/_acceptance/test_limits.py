# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds: where they come from, how a profile replaces them, and what they say of a value."""

from __future__ import annotations

import math

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import limits
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.limits import Limits, grade, siblings
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

RATES = st.floats(min_value=1e-3, max_value=1e6)


def test_every_threshold_says_what_it_is_for_and_where_it_comes_from():
    assert len(limits.NAMES) == len(limits.TABLE)
    for limit in limits.TABLE:
        assert limit.about.startswith(("WARN", "FAIL", "UNKNOWN")), limit.name
        assert bool(limit.source) == (limit.value is not None), limit.name


@pytest.mark.parametrize("kind", ["matmul", "matmul_fp32", "matmul_fp8", "sibling", "memory_bandwidth"])
def test_a_failure_lies_below_a_warning(kind):
    assert Limits({}).get(f"{kind}_fail_share")[0] < Limits({}).get(f"{kind}_warn_share")[0]


def test_a_profile_replaces_a_threshold_and_is_named_as_its_source():
    assert Limits({"matmul_warn_share": 0.5}).get("matmul_warn_share") == (
        0.5,
        "limits.matmul_warn_share of the profile",
    )


def test_what_nobody_confirmed_is_called_a_proposal():
    assert Limits({}).get("sibling_fail_share") == (0.90, "our proposal, not confirmed on hardware")


@pytest.mark.parametrize(
    ("given", "value", "verdict", "expected", "source"),
    [
        ({"matmul_warn_share": 0.6}, 0.65, Verdict.PASS, 0.6, "limits.matmul_warn_share of the profile"),
        ({"matmul_warn_share": 0.6}, 0.59, Verdict.FAIL, 0.6, "limits.matmul_warn_share of the profile"),
        ({"matmul_warn_share": 0.95}, 0.8, Verdict.WARN, 0.95, "limits.matmul_warn_share of the profile"),
        ({"matmul_fail_share": 0.95}, 0.92, Verdict.FAIL, 0.95, "limits.matmul_fail_share of the profile"),
        ({"matmul_fail_share": 0.95}, 0.96, Verdict.PASS, 0.95, "limits.matmul_fail_share of the profile"),
        ({"matmul_warn_share": 0.6, "matmul_fail_share": 0.7}, 0.65, Verdict.FAIL, 0.7, "limits.matmul_fail_share of the profile"),
        ({"matmul_warn_share": 0.7, "matmul_fail_share": 0.6}, 0.65, Verdict.WARN, 0.7, "limits.matmul_warn_share of the profile"),
    ],
)  # fmt: skip
def test_what_is_called_good_is_never_a_failure(given, value, verdict, expected, source):
    assert Limits(given).share("matmul", value) == (verdict, expected, source)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.90, Verdict.PASS),
        (0.8999, Verdict.WARN),
        (0.75, Verdict.WARN),
        (0.7499, Verdict.FAIL),
        (0.0, Verdict.FAIL),
        (math.nan, Verdict.FAIL),
        (math.inf, Verdict.PASS),
    ],
)
def test_the_bounds_belong_to_the_better_verdict(value, verdict):
    assert grade(value, 0.90, 0.75) is verdict


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), RATES, RATES)
def test_more_is_never_judged_worse(one, other, bound, second):
    order = [Verdict.FAIL, Verdict.WARN, Verdict.PASS]
    fail, warn = sorted((bound, second))
    low, high = sorted((one, other))
    assert order.index(grade(low, warn, fail)) <= order.index(grade(high, warn, fail))


# Siblings.


def test_a_card_that_is_slower_than_the_others_stands_out():
    shares = siblings({0: 250.0, 1: 251.0, 2: 220.0, 3: 249.0}, dict.fromkeys(range(4), "rtx5090"))

    assert {gpu for gpu, share in shares.items() if share < 0.95} == {2}
    assert shares[2] == pytest.approx(220 / 249.5)


def test_of_two_the_faster_is_the_measure():
    assert siblings({0: 200.0, 1: 100.0}, {0: "a", 1: "a"}) == {0: 1.0, 1: 0.5}


def test_only_cards_of_the_same_model_are_siblings():
    assert siblings({0: 250.0, 1: 60.0, 2: 250.0}, {0: "rtx5090", 1: "t4", 2: "rtx5090"}) == {0: 1.0, 2: 1.0}


@given(st.dictionaries(st.integers(0, 15), RATES, max_size=16))
def test_one_of_them_always_reaches_the_measure(values):
    shares = siblings(values, dict.fromkeys(values, "rtx5090"))
    assert set(shares) == (set(values) if len(values) > 1 else set())
    assert not shares or max(shares.values()) >= 1


@given(st.dictionaries(st.integers(0, 15), RATES, min_size=2, max_size=16), st.floats(0.5, 2))
def test_shares_do_not_depend_on_the_unit(values, factor):
    models = dict.fromkeys(values, "rtx5090")
    scaled = siblings({gpu: value * factor for gpu, value in values.items()}, models)
    assert scaled == pytest.approx(siblings(values, models))


# Links.


@pytest.mark.parametrize(
    ("generation", "width", "gb_s"),
    [(3, 16, 15.75), (4, 16, 31.5), (5, 16, 63.0), (5, 8, 31.5), (1, 16, 4.0), (None, 16, None), (5, None, None), (9, 16, None), (5, 0, None)],
)  # fmt: skip
def test_what_a_link_carries(generation, width, gb_s):
    assert limits.link_gb_s(generation, width) == gb_s


# All-reduce.


@pytest.mark.parametrize(
    ("model", "form", "gpus", "link", "warn", "fail", "source"),
    [
        ("rtx5090", "PCIe", 4, 63.0, 20.0, 10.0, "20 and 10 GB/s for 4 RTX 5090"),
        ("rtx5090", "PCIe", 4, 31.5, 10.0, 5.0, "scaled to a link of 31.5 GB/s"),
        ("rtx4090", "PCIe", 2, 31.5, 10.0, 5.0, "our proposal"),
        (
            "h100",
            "SXM",
            8,
            63.0,
            460.0,
            345.0,
            "Azure asks for 460 GB/s of 8 at messages of up to 16 GB; FAIL below 75 %",
        ),
        (
            "h100",
            "SXM",
            4,
            63.0,
            460.0,
            230.0,
            "taken for 4: our proposal, not confirmed on hardware; FAIL below 50 %",
        ),
        ("a100-80gb", "SXM", 8, 31.5, 228.0, 171.0, "Azure"),
        ("h100", "PCIe", 8, 63.0, 20.0, 10.0, "20 and 10 GB/s"),
        ("", "", 4, 63.0, 20.0, 10.0, "20 and 10 GB/s"),
    ],
)
def test_the_band_of_an_all_reduce(model, form, gpus, link, warn, fail, source):
    band = Limits({}).all_reduce_band(model, form, gpus, link)

    assert (band.warn, band.fail) == (pytest.approx(warn), pytest.approx(fail))
    assert source in band.source


def test_without_a_link_nothing_is_known_of_cards_without_nvlink():
    assert Limits({}).all_reduce_band("rtx5090", "PCIe", 4, None) is None


@pytest.mark.parametrize(
    ("given", "link", "warn", "fail"),
    [
        ({"all_reduce_warn_gb_s": 30}, 63.0, 30, 10),
        ({"all_reduce_warn_gb_s": 5}, 63.0, 5, 5),
        ({"all_reduce_fail_gb_s": 25}, 63.0, 25, 25),
        ({"all_reduce_fail_gb_s": 15}, 63.0, 20, 15),
        ({"all_reduce_warn_gb_s": 30, "all_reduce_fail_gb_s": 12}, None, 30, 12),
        ({"all_reduce_warn_gb_s": 30}, None, 30, 30),
        ({"all_reduce_fail_gb_s": 12}, None, 12, 12),
    ],
)
def test_a_profile_sets_the_band(given, link, warn, fail):
    band = Limits(given).all_reduce_band("rtx5090", "PCIe", 4, link)

    assert (band.warn, band.fail, band.source) == (warn, fail, "limits.all_reduce_* of the profile")


@given(st.sampled_from([0.25, 4.0, 7.875, 15.75, 31.5, 63.0]), st.integers(2, 16))
def test_a_failure_is_always_below_a_warning(link, gpus):
    for model, form in (("rtx5090", "PCIe"), ("h200", "SXM"), ("v100", "SXM")):
        band = Limits({}).all_reduce_band(model, form, gpus, link)
        assert 0 < band.fail < band.warn
