# SPDX-License-Identifier: GPL-3.0-or-later
"""What charts take from the findings of checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import Run
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import chart_data
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict, skipped

from tests import report_results, report_runs


def changed(name: str, **data: Any) -> Run:
    """A good run, in which a check has other data."""
    found = report_results.good()
    found[name] = replace(found[name], data=data)
    return report_runs.run(found)


def test_matrix_rates_have_their_peak_and_their_bound() -> None:
    groups = chart_data.matmul(report_runs.run(report_results.bad()))
    assert [group.name for group in groups] == ["bf16", "tf32", "fp32"]
    slow = groups[0].bars[2]
    assert (slow.gpu, slow.value, slow.verdict) == (2, 167.2, Verdict.WARN)
    assert slow.least == pytest.approx(0.9 * 87 * 2.44, rel=1e-3)
    assert slow.peak == pytest.approx(87 * 2.44)


@pytest.mark.parametrize(
    "shares", [None, 3, [None], [{"gpu": "x"}], [{"gpu": 0, "precision": "bf16", "peak": 0}]]
)
def test_without_a_usable_peak_there_is_none(shares: Any) -> None:
    groups = chart_data.matmul(changed("matmul", shares=shares))
    assert all(bar.peak is None for group in groups for bar in group.bars)


def test_transfers_are_told_apart_by_way_and_company() -> None:
    up, down = chart_data.transfers(report_runs.run(report_results.bad()))
    assert (up.name, down.name) == ("host to device", "device to host")
    assert up.alone[2].verdict is Verdict.FAIL and up.alone[2].least == 47.3
    assert up.together[2].verdict is None
    assert up.gpus == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "curve", [None, [], [{"bytes": 8, "busbw": 1}], [{"bytes": 0, "busbw": 1}, {"busbw": 3}], "x"]
)
def test_an_all_reduce_without_a_curve_has_none(curve: Any) -> None:
    assert chart_data.all_reduce(changed("all_reduce", curve=curve)) is None


def test_training_is_measured_against_what_the_gpus_do_one_by_one() -> None:
    last = chart_data.scaling(report_runs.run(report_results.good()))[-1]
    assert (last.workers, last.ideal, last.target) == (4, 4 * 1304.0, 0.8)
    assert last.judged


@pytest.mark.parametrize(
    "scaling", [None, [3], [{"workers": 0, "alone": 1, "together": 1}], [{"workers": 4}]]
)
def test_what_is_no_step_of_a_scaling_is_left_out(scaling: Any) -> None:
    assert chart_data.scaling(changed("training", scaling=scaling)) == []


@pytest.mark.parametrize(
    ("told", "reachable"),
    [
        ([0.7, 0.9], (0.7, 0.9)),
        (None, None),
        ([0.9, 0.7], None),
        (["a", 1], None),
        ([0.5], None),
        ([0, 1], None),
    ],
)
def test_what_can_be_reached_is_a_range_or_nothing(told: Any, reachable: Any) -> None:
    good = dict(report_results.good()["training"].data)
    [step] = chart_data.scaling(changed("training", **(good | {"loss": {"reachable": told}})))
    assert step.reachable == reachable


@pytest.mark.parametrize("copy", [None, [], [[1]], [[None, 1], [2]], [[None, "a"], ["b", None]], {"a": 1}])
def test_what_is_no_matrix_is_not_drawn(copy: Any) -> None:
    assert chart_data.p2p(changed("p2p", copy=copy)) is None


def test_a_matrix_without_access_is_drawn_without() -> None:
    found = chart_data.p2p(changed("p2p", copy=[[None, 1], [2.5, None]], access=[[1]]))
    assert found == chart_data.Matrix(((None, 1.0), (2.5, None)), ((None, None), (None, None)))


def test_a_check_that_was_not_made_has_no_chart() -> None:
    run = report_runs.run(report_results.bare())
    assert chart_data.matmul(run) == []
    assert chart_data.transfers(run) == []
    assert chart_data.all_reduce(run) is None
    assert chart_data.scaling(run) == []
    assert chart_data.entry(report_runs.run({"jax": skipped("no")}), "jax") is None


@pytest.mark.parametrize(
    ("text", "bound"),
    [(">= 226.8", 226.8), (">= 90%", 90.0), ("at least 3 GB/s", 3.0), ("open", None), ("<= 3", None)],
)
def test_a_bound_is_read_from_its_words(text: str, bound: float | None) -> None:
    assert chart_data.least(text) == bound
