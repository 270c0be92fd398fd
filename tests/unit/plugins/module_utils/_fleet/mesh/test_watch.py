# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a series of samples: percentiles, drop-outs, buckets, and the laws they keep."""

from __future__ import annotations

import math
import re
import statistics
from array import array
from itertools import pairwise

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import watch
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.watch_log import LOST, Series
from hypothesis import given
from hypothesis import strategies as st

STEP = 30.0


def series(pattern: str, start: float = 0.0) -> Series:
    """``.`` answered, ``x`` lost, ``|`` a gap of five steps."""
    times, rtts, breaks = array("d"), array("d"), set()
    now = start
    for sign in pattern:
        if sign == "|":
            now += 5 * STEP
            breaks.add(len(times))
            continue
        times.append(now)
        rtts.append(10.0 if sign == "." else LOST)
        now += STEP
    return Series(times, rtts, frozenset(breaks))


def found(pattern: str, least: int = 3) -> list[tuple[float, float, int, bool]]:
    """Start and end in steps, how many lost, and whether it was ended by an answer."""
    return [
        (one.start / STEP, one.end / STEP, one.lost, one.over)
        for one in watch.dropouts("agate", "beryl", series(pattern), least)
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", []),
        ("....", []),
        (".xx..xx.", []),
        (".xxx.", [(1, 4, 3, True)]),
        ("xxx.", [(0, 3, 3, True)]),
        (".xxxx", [(1, 4, 4, False)]),
        ("xxx", [(0, 2, 3, False)]),
        (".xxx.xxxxx..", [(1, 4, 3, True), (5, 10, 5, True)]),
        # Nobody knows whether it was one: it ends where the samples end, and begins anew.
        ("xxx|xxx.", [(0, 2, 3, False), (8, 11, 3, True)]),
        ("xx|xx.", []),
        (".xxx|.", [(1, 3, 3, False)]),
    ],
)
def test_a_drop_out_is_so_many_lost_in_a_row(
    pattern: str, expected: list[tuple[float, float, int, bool]]
) -> None:
    assert found(pattern) == expected


def test_less_than_one_lost_sample_is_no_drop_out() -> None:
    with pytest.raises(ValueError, match="at least one"):
        watch.dropouts("agate", "beryl", series("x"), 0)


patterns = st.text("..x|", max_size=60)


@given(patterns)
def test_with_one_lost_sample_enough_every_lost_one_is_in_exactly_one_drop_out(pattern: str) -> None:
    assert sum(lost for _start, _end, lost, _over in found(pattern, 1)) == pattern.count("x")


@given(patterns, st.integers(1, 6))
def test_no_drop_out_is_shorter_than_asked_nor_overlaps_another(pattern: str, least: int) -> None:
    its = found(pattern, least)
    assert all(lost >= least and end >= start for start, end, lost, _over in its)
    assert all(before[1] <= after[0] and before[0] < after[0] for before, after in pairwise(its))


@given(patterns, st.integers(1, 6))
def test_asking_for_longer_ones_only_takes_the_short_ones_away(pattern: str, least: int) -> None:
    assert found(pattern, least + 1) == [one for one in found(pattern, least) if one[2] > least]


@given(patterns, st.integers(1, 6), st.floats(0, 2e9))
def test_when_it_happened_changes_nothing_but_the_times(pattern: str, least: int, start: float) -> None:
    moved = watch.dropouts("a", "b", series(pattern, start), least)
    assert [(round((one.end - one.start) / STEP), one.lost, one.over) for one in moved] == [
        (end - begin, lost, over) for begin, end, lost, over in found(pattern, least)
    ]


@given(patterns, patterns, st.integers(1, 6))
def test_an_answer_between_two_times_leaves_both_as_they_were(before: str, after: str, least: int) -> None:
    both = [(lost, end - start) for start, end, lost, _over in found(f"{before}.{after}", least)]
    apart = [*found(f"{before}.", least), *found(f".{after}", least)]
    assert both == [(lost, end - start) for start, end, lost, _over in apart]


@given(patterns)
def test_it_is_open_only_where_samples_end(pattern: str) -> None:
    runs = [run for run in re.split(r"[.]", pattern) if "x" in run]
    its = found(pattern, 1)
    ended_by_an_answer = len(re.findall(r"x(?=[.])", pattern))
    assert sum(over for *_rest, over in its) == ended_by_an_answer
    assert len(its) == sum(len([part for part in run.split("|") if part]) for run in runs)


values = st.lists(st.floats(0, 1e6), min_size=1, max_size=200).map(sorted)
shares = st.floats(0, 1)


@given(values, shares, shares)
def test_a_percentile_lies_between_the_least_and_the_most_and_grows(
    ordered: list[float], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert ordered[0] <= watch.percentile(ordered, low) <= watch.percentile(ordered, high) <= ordered[-1]
    assert watch.percentile(ordered, 0) == ordered[0]
    assert watch.percentile(ordered, 1) == ordered[-1]


@given(values)
def test_half_way_is_the_median(ordered: list[float]) -> None:
    assert watch.percentile(ordered, 0.5) == pytest.approx(statistics.median(ordered))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200).map(sorted))
def test_it_agrees_with_the_standard_library(ordered: list[float]) -> None:
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    assert [watch.percentile(ordered, n / 100) for n in range(1, 100)] == pytest.approx(cuts)


def test_the_figures_of_a_pair() -> None:
    rtts = array("d", [*map(float, range(1, 101)), LOST, LOST, LOST, LOST, 7.0])
    its = watch.pair(
        "agate", "beryl", Series(array("d", (STEP * n for n in range(105))), rtts, frozenset({50}))
    )
    assert (its.samples, its.lost, round(its.loss, 3), its.gaps) == (105, 4, 3.81, 1)
    assert (its.least, its.most) == (1.0, 100.0)
    assert its.median == 50.0
    assert its.p95 == pytest.approx(95.0)
    assert its.p99 == pytest.approx(99.0)
    assert [(one.lost, one.seconds) for one in its.dropouts] == [(4, 120.0)]
    assert its.longest == its.dropouts[0]


def test_of_a_pair_that_never_answered_nothing_is_made_up() -> None:
    its = watch.pair("agate", "beryl", series("xxxx"))
    assert (its.least, its.median, its.p95, its.p99, its.most, its.loss) == (
        None,
        None,
        None,
        None,
        None,
        100.0,
    )
    nothing = watch.pair("agate", "beryl", series(""))
    assert (nothing.samples, nothing.loss, nothing.longest) == (0, 0.0, None)


def test_of_several_longest_ones_the_first_counts() -> None:
    its = watch.pair("agate", "beryl", series(".xxx.xxx.xxxx.xxxx."))
    assert its.longest is not None
    assert its.longest.start == 9 * STEP


def test_buckets() -> None:
    there = series("..xx|..")
    assert watch.buckets([there, series("....", 5.0)], 0.0, 2 * STEP) == [
        watch.Bucket(0.0, 4, 0, 10.0, 10.0, 10.0),
        watch.Bucket(2 * STEP, 4, 2, 10.0, 10.0, 10.0),
        watch.Bucket(8 * STEP, 1, 0, 10.0, 10.0, 10.0),
        watch.Bucket(10 * STEP, 1, 0, 10.0, 10.0, 10.0),
    ]
    assert watch.buckets([series("xx")], 0.0, 60.0) == [watch.Bucket(0.0, 2, 2, None, None, None)]
    assert watch.buckets([], 0.0, 60.0) == []


@given(st.lists(patterns.map(series), max_size=3), st.floats(1, 1e4))
def test_no_sample_is_lost_in_buckets_nor_counted_twice(parts: list[Series], width: float) -> None:
    its = watch.buckets(parts, 0.0, width)
    assert sum(one.samples for one in its) == sum(len(one.rtts) for one in parts)
    assert sum(one.lost for one in its) == sum(sum(map(math.isnan, one.rtts)) for one in parts)
    assert all((one.median is None) == (one.lost == one.samples) for one in its)
    assert all(before.start < after.start for before, after in pairwise(its))
