# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that was not looked at is ever green, and nothing but hardware has a verdict on hardware."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.judgement import (
    EXIT_STATUS,
    coverage,
    judge,
    overall,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import label_of, label_of_all
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Label, Verdict
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance_runs import entries, entry

PASS, WARN, FAIL, SKIP, UNKNOWN = (
    Verdict.PASS,
    Verdict.WARN,
    Verdict.FAIL,
    Verdict.SKIP,
    Verdict.UNKNOWN,
)
GAP = {"verdict": SKIP}
WAIVED = {"verdict": SKIP, "waived": "the card is on loan"}
NOT_HERE = {"verdict": SKIP, "applies": False}


def made(*checks):
    return [
        entry(f"check_{number}", **(one if isinstance(one, dict) else {"verdict": one}))
        for number, one in enumerate(checks)
    ]


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ((PASS, PASS), PASS),
        ((PASS, WARN), WARN),
        ((PASS, UNKNOWN, WARN), UNKNOWN),
        ((PASS, FAIL, UNKNOWN, GAP), FAIL),
        ((PASS, GAP), UNKNOWN),
        ((WARN, GAP), UNKNOWN),
        ((PASS, WAIVED), PASS),
        ((PASS, NOT_HERE), PASS),
        ((WAIVED,), UNKNOWN),
        ((NOT_HERE, NOT_HERE), UNKNOWN),
        ((), UNKNOWN),
    ],
)
def test_one_verdict_for_all_checks(checks, expected):
    assert overall(made(*checks)) is expected


def test_coverage_counts_what_applies():
    found = coverage(made(PASS, FAIL, GAP, WAIVED, NOT_HERE))

    assert (found.checks, found.apply, found.ran, found.waived) == (5, 4, 2, 1)
    assert found.says == "2 of 4 checks ran, 1 waived"


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ((PASS, PASS), "all 2 checks that ran passed"),
        ((PASS,), "the check passed"),
        ((PASS, PASS, WAIVED), "all 2 checks that ran passed, 1 waived"),
        ((FAIL, PASS), "1 check failed (check_0)"),
        ((FAIL, FAIL, WARN), "2 checks failed (check_0, check_1); 1 check warned (check_2)"),
        ((UNKNOWN, PASS), "1 check could not be judged (check_0)"),
        ((PASS, GAP), "1 check of 2 was not made (check_1)"),
        ((PASS, GAP, GAP), "2 checks of 3 were not made (check_1, check_2)"),
        ((GAP, NOT_HERE), "none of 2 checks ran"),
        ((PASS, WARN), "1 check warned (check_1)"),
    ],
)
def test_the_sentence_says_why(checks, says):
    judged = judge(made(*checks), Label.HARDWARE)

    assert judged.says == says
    assert judged.hardware is judged.checks


def test_many_names_are_cut():
    assert judge(made(*[FAIL] * 9), Label.HARDWARE).says == (
        "9 checks failed (check_0, check_1, check_2, check_3, check_4, check_5 and 3 more)"
    )


@pytest.mark.parametrize(
    ("label", "end"),
    [
        (Label.CPU, "the run was on the CPU, which is no verdict on hardware"),
        (Label.SIMULATED, "the GPUs are simulated, which is no verdict on hardware"),
    ],
)
def test_a_run_that_was_not_on_hardware_says_so(label, end):
    judged = judge(made(PASS), label)

    assert (judged.checks, judged.hardware) == (PASS, None)
    assert judged.says == f"{label}: the check passed; {end}"


def test_exit_statuses_tell_the_verdicts_apart():
    assert {verdict: EXIT_STATUS[verdict] for verdict in (PASS, FAIL, WARN, UNKNOWN)} == {
        PASS: 0,
        FAIL: 1,
        WARN: 3,
        UNKNOWN: 4,
    }


@given(st.lists(entries()))
def test_nothing_unchecked_is_ever_green(several):
    verdict = overall(several)
    found = coverage(several)
    for one in several:
        if one.result.verdict is FAIL:
            assert verdict is FAIL
    if verdict in (PASS, WARN):
        assert found.ran > 0
        assert found.ran + found.waived == found.apply
        assert all(
            one.result.verdict in (PASS, WARN) or one.waived or not one.result.applies for one in several
        )
    if verdict is PASS:
        assert not any(one.result.verdict is WARN for one in several)
    assert verdict is not SKIP


@given(st.lists(entries()), st.sampled_from([Label.CPU, Label.SIMULATED]))
def test_nothing_but_hardware_has_a_verdict_on_hardware(several, label):
    judged = judge(several, label)

    assert judged.hardware is None
    assert judged.says.startswith(f"{label}: ")
    assert "no verdict on hardware" in judged.says


@given(st.lists(entries()), st.lists(entries()))
def test_one_more_check_never_makes_a_run_greener_than_a_failure(some, more):
    if overall(some) is FAIL:
        assert overall([*some, *more]) is FAIL


@given(st.lists(entries(), min_size=1))
def test_a_gap_more_takes_the_green_away(several):
    assert overall([*several, entry("gap", SKIP)]) in (FAIL, UNKNOWN)


@given(st.lists(entries()))
def test_the_numbers_add_up(several):
    found = coverage(several)

    assert 0 <= found.ran + found.waived <= found.apply <= found.checks == len(several)
    assert found.says.startswith(f"{found.ran} of {found.apply} checks ran")


def test_a_simulated_machine_is_simulated_on_the_cpu_too():
    assert label_of(device="cuda", simulated=False) is Label.HARDWARE
    assert label_of(device="cpu", simulated=False) is Label.CPU
    assert label_of(device="cpu", simulated=True) is Label.SIMULATED
    assert label_of(device="cuda", simulated=True) is Label.SIMULATED


@given(st.lists(st.sampled_from(Label), min_size=1))
def test_a_run_is_on_hardware_only_where_all_of_it_was(labels):
    assert (label_of_all(labels) is Label.HARDWARE) == (set(labels) == {Label.HARDWARE})
