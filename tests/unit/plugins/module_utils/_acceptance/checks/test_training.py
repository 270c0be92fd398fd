# SPDX-License-Identifier: GPL-3.0-or-later
"""Data-parallel training: a missed target is told from a defect. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import training
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile, Targets
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

from tests import acceptance_compute as told


def judged(run, *models, **more):
    return training.CHECK.run(told.bench("training", run, *models, **more))


def the(result, name):
    (found,) = [figure for figure in result.figures if figure.name == name]
    return found


def test_good_scaling_passes_and_is_split():
    result = judged(told.training())

    assert result.verdict is Verdict.PASS
    assert result.says == (
        "4 GPUs train 4300 samples/s, 90% of what each reaches alone (balance 100%, contention 98%, communication 91%); "
        "the owner's target is 80%"
    )
    assert [the(result, name).value for name in ("balance", "contention", "communication")] == [
        100.0,
        98.3,
        91.1,
    ]
    assert the(result, "model").value == "ResNet-50, 224 pixels, batch 32 each, tf32"
    assert result.data["scaling"] == [
        {
            "workers": 4,
            "alone": 1200.0,
            "apart": 4720.0,
            "together": 4300.0,
            "predicted": pytest.approx(3971, abs=1),
        }
    ]


def test_a_missed_target_is_a_warning_and_says_what_is_reachable():
    """A slow link explains it: 20 ms a step are lost, and the run is as fast as the cost model says."""
    slow = told.changed(told.training(ddp=2900.0), "gradient all_reduce", value=7.5)
    result = judged(slow)

    assert result.verdict is Verdict.WARN
    assert "the owner's target is 80%; these cards can reach 56% to 98% by the cost model" in result.says
    assert "a missed target and no defect" in result.says
    assert "nothing is broken" in result.advice
    assert the(result, "efficiency").verdict is Verdict.WARN
    assert the(result, "rate against the cost model").verdict is Verdict.PASS


def test_what_the_cost_model_cannot_explain_is_a_defect():
    result = judged(told.training(ddp=2900.0))

    assert result.verdict is Verdict.FAIL
    assert result.says.endswith(
        "by the cost model it should be 3971 samples/s or more: a defect, no missed target"
    )
    assert "all_reduce" in result.advice


def test_a_lower_target_is_the_owners_choice():
    slow = told.changed(told.training(ddp=2900.0), "gradient all_reduce", value=7.5)
    result = judged(slow, profile=Profile(targets=Targets(scaling_efficiency=0.55)))
    assert (result.verdict, "the owner's target is 55%" in result.says) == (Verdict.PASS, True)


def test_contention_is_told_from_communication():
    result = judged(told.training(concurrent=950.0, ddp=3700.0))

    assert result.verdict is Verdict.WARN
    assert "the GPUs disturb each other, 79% is left" in result.says
    assert "power supply" in result.advice
    assert "nothing is broken" not in result.advice


def test_a_slow_sibling_is_named():
    run = told.scaled(told.scaled(told.training(ddp=3700.0), "single", 0.85, 2), "concurrent", 0.85, 2)
    result = judged(run)

    assert result.verdict is Verdict.WARN
    assert "slower than its siblings: GPU 2 (85%)" in result.says
    assert the(result, "balance").value == 88.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "finite", "value": False}, "the training ended in weights or losses that are no numbers"),
        (
            {"name": "loss last", "value": 7.3},
            "nothing was learnt: the loss went from 7.2 to 7.3 on data that can be learnt",
        ),
        (
            {"name": "weights equal", "value": False, "checksums": ["aa", "aa", "bb", "aa"]},
            "the GPUs do not end with equal weights (not those of the others: GPU 2)",
        ),
        (
            {"name": "weights equal", "value": False, "checksums": []},
            "the GPUs do not end with equal weights",
        ),
    ],
)
def test_wrong_results_fail_however_fast_they_are(change, says):
    result = judged(told.changed(told.training(), **change))
    assert (result.verdict, result.says) == (Verdict.FAIL, says)


@pytest.mark.parametrize(
    "name",
    [
        "single",
        "concurrent",
        "ddp",
        "gradients",
        "loss first",
        "loss last",
        "finite",
        "weights equal",
        "gradient all_reduce",
        "model",
    ],
)
def test_a_missing_figure_is_not_green(name):
    assert judged(told.without(told.training(), name)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("name", ["single", "concurrent"])
def test_a_missing_gpu_is_not_green(name):
    assert judged(told.without(told.training(), name, 3)).verdict is Verdict.UNKNOWN


def test_a_loss_that_is_no_number_is_not_green():
    assert judged(told.changed(told.training(), "loss last", value=None)).verdict is Verdict.UNKNOWN


def test_a_single_gpu_trains_and_has_nothing_to_scale_to():
    result = judged(told.training(1), "rtx5090")

    assert result.verdict is Verdict.PASS
    assert result.says == "GPU 0 trains 1200 samples/s, and learns; there is no second one to scale to"
    assert "scaling" not in result.data


def test_how_busy_each_gpu_was_is_kept_for_the_check_utilization():
    found = judged(told.read(told.training(), 1, utilization_percent=60.0)).data["utilization"]

    assert found[0] == {"gpu": 0, "percent": 97.0, "readings": 3}
    assert found[1]["percent"] == 60.0


def test_a_process_that_crashes_is_told_with_its_gpu():
    result = judged(told.gave_up("the process of GPU 3 was ended by SIGSEGV"))
    assert (result.verdict, "GPU 3" in result.says) == (Verdict.FAIL, True)


def test_a_real_run_on_a_cpu_passes_without_a_judged_rate():
    result = judged(told.recording("training"), device="cpu")

    assert result.verdict is Verdict.PASS
    assert result.says == (
        "2 processes train one ResNet-18 (32 pixels, batch 8), learn, and end with equal weights; rates of a CPU are not judged"
    )
    judged_ones = {figure.name for figure in result.figures if figure.verdict is not None}
    assert judged_ones == {"loss at the end", "finite", "weights equal"}
    assert {figure.gpu for figure in result.figures} == {None}
    assert result.data["utilization"] == []


def test_unequal_weights_on_a_cpu_fail():
    wrong = told.changed(told.recording("training"), "weights equal", value=False)
    assert judged(wrong, device="cpu").verdict is Verdict.FAIL


def test_an_empty_run_is_not_green():
    assert judged(replace(told.training(), figures=[])).verdict is Verdict.UNKNOWN


@given(st.floats(100, 4700), st.floats(1, 200), st.floats(0.1, 1))
def test_a_missed_target_alone_never_fails_and_a_hit_one_never_warns_of_it(together, bus, target):
    run = told.changed(told.training(ddp=together), "gradient all_reduce", value=bus)
    result = judged(run, profile=Profile(targets=Targets(scaling_efficiency=target)))
    against = the(result, "rate against the cost model").value

    if result.verdict is Verdict.FAIL:
        assert against <= 90
    else:
        assert against >= 90 or math.isclose(against, 90)
        assert (result.verdict is Verdict.WARN) == (together / 4800 < target)
