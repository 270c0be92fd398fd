# SPDX-License-Identifier: GPL-3.0-or-later
"""How busy the GPUs were while they trained. SIMULATED."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import training, utilization
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile, Targets
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Verdict,
    does_not_apply,
    failed,
    passed,
    skipped,
)

from tests import acceptance_compute as told
from tests.acceptance_bench import Bench


def after(run, **more):
    """What it says after a training."""
    trained = training.CHECK.run(told.bench("training", run))
    return utilization.CHECK.run(Bench(facts=told.facts(), results={"training": trained}, **more))


def test_busy_gpus_pass():
    result = after(told.training())

    assert (result.verdict, result.says) == (
        Verdict.PASS,
        "each GPU was busy 97 % of the time or more while all trained",
    )
    found = result.figures[0]
    assert (found.gpu, found.value, found.expected) == (0, 97.0, ">= 90")


def test_a_gpu_that_waits_misses_the_target_and_is_named():
    result = after(told.read(told.training(), 2, utilization_percent=55.0))

    assert result.verdict is Verdict.WARN
    assert result.says == "busy less than the owner's 90% of the time: GPU 2 55 %"


def test_the_target_is_the_owners():
    profile = Profile(targets=Targets(utilization=0.5))
    assert (
        after(told.read(told.training(), 2, utilization_percent=55.0), profile=profile).verdict
        is Verdict.PASS
    )


def test_too_few_readings_are_not_green():
    result = after(told.read(told.training(), 1, utilization_percent=None))
    assert (result.verdict, "GPU 1" in result.says) == (Verdict.UNKNOWN, True)


def test_readings_of_another_phase_do_not_count():
    """It is busy alone as well: what is judged is the training together."""
    run = told.training()
    together = [phase for phase in run.phases if phase["name"] == "ddp"]
    begin, end = together[0]["begin"], together[0]["end"]
    other = [
        sample
        if begin <= sample.at <= end
        else sample.__class__(at=sample.at, gpu=sample.gpu, utilization_percent=0.0)
        for sample in run.samples
    ]
    assert (
        after(run.__class__(begin=run.begin, figures=run.figures, phases=run.phases, samples=other)).verdict
        is Verdict.PASS
    )


@pytest.mark.parametrize(
    ("results", "says", "applies"),
    [
        ({}, "which was not made", True),
        ({"training": skipped("no torchvision")}, "did not get to its end", True),
        ({"training": failed("it crashed", "look")}, "did not get to its end", True),
        ({"training": does_not_apply("there is nothing to train")}, "there is nothing to train", False),
    ],
)
def test_without_a_training_it_is_skipped_with_the_reason(results, says, applies):
    result = utilization.CHECK.run(Bench(facts=told.facts(), results=results))

    assert (result.verdict, result.applies) == (Verdict.SKIP, applies)
    assert says in result.says


def test_a_training_without_readings_is_not_green():
    result = utilization.CHECK.run(
        Bench(facts=told.facts(), results={"training": passed("x", utilization=[])})
    )
    assert result.verdict is Verdict.UNKNOWN


def test_it_needs_a_gpu():
    assert Need.GPU in utilization.CHECK.needs
