# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.compare import compare, lines
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Label,
    Verdict,
)
from hypothesis import given

from tests.acceptance_runs import GPU, MACHINE, entry, run, runs


def measured(value, better="higher", unit="TFLOPS", **more):
    return run(entry(figures=[Figure("bf16", value, unit, 0, better=better)], **more))


def figure_row(before, after):
    rows = [row for row in compare(before, after).rows if row.figure]
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("better", "before", "after", "change", "regression", "improvement"),
    [
        ("higher", 200.0, 180.0, -10.0, True, False),
        ("higher", 200.0, 191.0, -4.5, False, False),
        ("higher", 200.0, 190.0, -5.0, False, False),
        ("higher", 200.0, 220.0, 10.0, False, True),
        ("lower", 50.0, 60.0, 20.0, True, False),
        ("lower", 50.0, 40.0, -20.0, False, True),
        ("", 50.0, 500.0, 900.0, False, False),
        ("lower", 0, 3, None, True, False),
        ("lower", 0, 0, None, False, False),
        ("higher", 0, 3, None, False, False),
        ("higher", 200.0, None, None, True, False),
        ("higher", None, 200.0, None, False, False),
        ("", "open", "closed", None, False, False),
        ("higher", True, False, None, False, False),
        ("lower", -50.0, -40.0, 20.0, True, False),
    ],
)
def test_a_figure_that_is_worse_is_a_regression(better, before, after, change, regression, improvement):
    row = figure_row(measured(before, better), measured(after, better))

    assert (row.change_percent, row.regression, row.improvement) == (change, regression, improvement)


def test_the_tolerance_is_the_callers():
    assert compare(measured(200.0), measured(180.0), 0.2).regressions == ()


@pytest.mark.parametrize(
    ("before", "after", "regression"),
    [
        ("PASS", "WARN", True),
        ("PASS", "SKIP", True),
        ("WARN", "UNKNOWN", True),
        ("UNKNOWN", "FAIL", True),
        ("FAIL", "PASS", False),
        ("SKIP", "PASS", False),
        ("PASS", "PASS", False),
    ],
)
def test_a_verdict_that_is_worse_is_a_regression(before, after, regression):
    [row] = compare(run(entry(verdict=Verdict(before))), run(entry(verdict=Verdict(after)))).rows

    assert (row.before, row.after, row.regression) == (before, after, regression)


def test_what_does_not_apply_any_more_is_no_regression():
    [row] = compare(run(entry()), run(entry(verdict=Verdict.SKIP, applies=False))).rows

    assert not row.regression


def test_a_check_that_was_not_made_loses_its_figures_in_one_row():
    found = compare(measured(200.0), run(entry(verdict=Verdict.SKIP, says="Docker does not answer")))
    [row] = found.rows

    assert (row.figure, row.regression, row.note) == ("", True, "Docker does not answer")


def test_checks_and_figures_of_one_run_alone():
    one = run(entry("a"), entry("b", figures=[Figure("x", 1.0)]))
    other = run(entry("b", figures=[Figure("y", 1.0)]), entry("c"))
    found = {(row.check, row.figure): row.note for row in compare(one, other).rows}

    assert found == {
        ("a", ""): "the second run has no such check",
        ("b", ""): "",
        ("b", "x"): "the second run has no such figure",
        ("b", "y"): "the first run has no such figure",
        ("c", ""): "the first run has no such check",
    }


def test_what_another_suite_does_not_have_is_told_and_no_regression():
    figures = [
        Figure("256 MiB", 20.0, "GB/s", better="higher"),
        Figure("1024 MiB", 21.0, "GB/s", better="higher"),
    ]
    full = run(entry("all_reduce", figures=figures), entry("p2p"), suite="full")
    quick = run(entry("all_reduce", figures=figures[:1]), suite="quick")
    found = compare(full, quick)
    told = "\n".join(lines(found))

    assert found.regressions == ()
    assert {(row.check, row.figure): row.note for row in found.rows if row.note} == {
        ("all_reduce", "1024 MiB"): "the second run has no such figure; it is of another suite",
        ("p2p", ""): "the second run has no such check; it is of another suite",
    }
    assert "p2p" in told and "1024 MiB" in told
    assert "no regression" in told


def test_a_check_that_is_gone_from_the_same_suite_is_a_regression():
    found = compare(run(entry("a"), entry("b")), run(entry("b")))

    assert [(row.check, row.note) for row in found.regressions] == [("a", "the second run has no such check")]


def test_a_check_that_is_worse_in_another_suite_is_a_regression():
    [row] = compare(run(entry(), suite="full"), run(entry(verdict=Verdict.FAIL), suite="demo")).regressions

    assert (row.before, row.after) == ("PASS", "FAIL")


def test_another_unit_is_not_compared():
    row = figure_row(measured(200.0), measured(0.2, unit="PFLOPS"))

    assert (row.change_percent, row.regression) == (None, False)
    assert row.note == "another unit: TFLOPS, then PFLOPS"


def test_figures_of_one_name_are_paired_by_their_place():
    one = run(entry(figures=[Figure("step", 1.0), Figure("step", 2.0)]))
    other = run(entry(figures=[Figure("step", 1.0), Figure("step", 3.0)]))

    assert [(row.before, row.after) for row in compare(one, other).rows[1:]] == [(1.0, 1.0), (2.0, 3.0)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"label": Label.SIMULATED},
            "the first run was on hardware, the second on simulated GPUs: their figures say nothing of each other",
        ),
        ({"machine": {**MACHINE, "driver": "595.10"}}, "another driver: 580.178.04, then 595.10"),
        ({"machine": {**MACHINE, "name": "other"}}, "another machine: demo-box, then other"),
        ({"machine": {**MACHINE, "gpus": [GPU]}}, "other GPUs: 2 x rtx5090, then 1 x rtx5090"),
        (
            {"machine": {**MACHINE, "gpus": [GPU, {**GPU, "uuid": "GPU-9"}]}},
            "other cards of the same model: 1 of 2 were not there before",
        ),
        ({"versions": {"python": "3.11.2"}}, "another version of python: 3.13.5, then 3.11.2"),
        ({"suite": "full"}, "another suite: quick, then full; its workloads may be of another size"),
        ({"state": State.INTERRUPTED}, "the second run is not complete (interrupted)"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else None,
)
def test_what_is_not_the_same_is_said_first(change, says):
    found = compare(run(entry()), replace(run(entry()), **change))

    assert says in found.differences
    shown = lines(found)
    assert shown.index(f"  {says}") < shown.index("no regression (nothing is worse by more than 5.0%)")


def test_a_table_shows_what_changed():
    before = run(entry(figures=[Figure("bf16", 254.1, "TFLOPS", 1, better="higher")]), entry("memory"))
    after = run(
        entry(
            verdict=Verdict.FAIL, says="slow", figures=[Figure("bf16", 200.0, "TFLOPS", 1, better="higher")]
        ),
        entry("memory"),
    )
    shown = "\n".join(lines(compare(before, after)))

    assert "REGRESSION  matmul  verdict" in shown
    assert "254.1 TFLOPS  200 TFLOPS  -21.3 %" in shown
    assert "memory" not in shown
    assert "1 row without a change is not shown" in shown
    assert shown.endswith("2 regressions (worse by more than 5.0%)")
    assert "memory" in "\n".join(lines(compare(before, after), everything=True))


@given(runs())
def test_a_run_is_no_worse_than_itself(one):
    found = compare(one, one)

    assert found.regressions == ()
    assert not any(row.improvement for row in found.rows)
    json.dumps(found.as_data(), allow_nan=False)


@given(runs(), runs())
def test_any_two_can_be_compared(one, other):
    found = compare(one, other)

    json.dumps(found.as_data(), allow_nan=False)
    assert lines(found)
    assert {row.check for row in found.rows} == {entry.name for entry in (*one.entries, *other.entries)}
