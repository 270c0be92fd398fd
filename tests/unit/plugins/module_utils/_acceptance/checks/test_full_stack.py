# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that learns, is served and answers as before passes; everything else does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import full_stack
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests.acceptance_bench import Bench
from tests.acceptance_frameworks import PYTHONS, facts, recording


def judged(run, device="cuda"):
    context = Bench(facts=facts(), device=device, interpreters=PYTHONS, workloads={"serve": run})
    return full_stack.CHECK.run(context)


def changed(**values):
    run = recording("serve")
    by_name = {name.replace("_", " "): value for name, value in values.items()}
    return replace(
        run, figures=[{**one, "value": by_name.get(one["name"], one["value"])} for one in run.figures]
    )


def test_a_real_run_on_a_cpu_passes():
    result = judged(recording("serve"), "cpu")

    assert result.verdict is Verdict.PASS
    assert result.says.startswith("a model trained on the CPU was saved")
    assert {figure.gpu for figure in result.figures} == {None}


def test_on_a_gpu_it_is_told_which():
    assert judged(recording("serve")).says.startswith("a model trained on GPU 0 was saved")


@pytest.mark.parametrize(
    ("values", "verdict", "says"),
    [
        ({"loss_after": 0.68}, Verdict.FAIL, "the model does not learn"),
        ({"loss_after": math.nan}, Verdict.FAIL, "the model does not learn"),
        ({"accuracy": 0.5}, Verdict.FAIL, "50% of its answers are right"),
        ({"answers_that_differ": 3}, Verdict.FAIL, "answers 3 of 64 requests otherwise"),
        ({"answers": 0}, Verdict.UNKNOWN, "the server was asked nothing"),
        ({"accuracy": None}, Verdict.UNKNOWN, "did not say accuracy"),
    ],
)
def test_what_is_wrong_is_told(values, verdict, says):
    result = judged(changed(**values))

    assert result.verdict is verdict
    assert says in result.says
    assert result.advice


def test_a_break_fails():
    assert judged(replace(recording("serve"), error="Connection refused")).verdict is Verdict.FAIL


def test_without_pytorch_it_is_a_gap():
    result = full_stack.CHECK.run(Bench(facts=facts()))

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)
