# SPDX-License-Identifier: GPL-3.0-or-later
"""Frameworks that compute at the same time are judged one by one, and by whether they met at all."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import coexistence
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests.acceptance_bench import Bench
from tests.acceptance_frameworks import PYTHONS, facts, figure, recording, run_of, steps


def told(overlap=9.8, **changed):
    both = [{**one, "framework": "pytorch"} for one in steps()]
    both += [{**one, "framework": "jax"} for one in steps(**changed)]
    return run_of([*both, figure("overlap", overlap, unit="s")])


def judged(run, names=("pytorch", "jax"), **more):
    here = {name: PYTHONS[name] for name in names}
    context = Bench(facts=facts(), interpreters=here, workloads={"together": run}, **more)
    return coexistence.CHECK.run(context), context


def test_a_real_run_on_a_cpu_passes():
    context = Bench(device="cpu", interpreters=PYTHONS, workloads={"together": recording("together")})
    result = coexistence.CHECK.run(context)

    assert result.verdict is Verdict.PASS
    assert result.says == "PyTorch, TensorFlow, JAX compute right on the CPU at the same time"
    assert "tensorflow: step difference" in [one.name for one in result.figures]


def test_each_is_run_by_its_own_python():
    result, context = judged(told())

    assert result.verdict is Verdict.PASS
    assert result.says == "PyTorch, JAX compute right on all 4 GPUs at the same time"
    assert context.asked == [
        (
            "together",
            "pytorch",
            ("--seconds", "10", "--with", "pytorch=/p/bin/python", "--with", "jax=/j/bin/python"),
        )
    ]


def test_one_that_computes_wrong_beside_another_fails():
    result, _context = judged(told(off_1={"value": None, "says": "out of memory"}))

    assert result.verdict is Verdict.FAIL
    assert result.says == "JAX fails when all compute together: out of memory"


def test_those_that_did_not_meet_prove_nothing():
    result, _context = judged(told(overlap=0.0))

    assert result.verdict is Verdict.UNKNOWN
    assert "at work together for 0.0 s only" in result.says


def test_a_missing_overlap_is_none():
    run = told()
    result, _context = judged(replace(run, figures=run.figures[:-1]))

    assert result.verdict is Verdict.UNKNOWN


def test_one_that_said_nothing_is_not_green():
    run = told()
    kept = [one for one in run.figures if one.get("framework") != "jax"]
    result, _context = judged(replace(run, figures=kept))

    assert result.verdict is Verdict.UNKNOWN
    assert "JAX did not say which GPUs it sees" in result.says


def test_a_break_fails():
    result, _context = judged(replace(told(), error="jax: it ended with status -9"))

    assert result.verdict is Verdict.FAIL
    assert "jax: it ended with status -9" in result.says


def test_a_single_framework_is_a_gap_where_another_could_be_installed():
    result, context = judged(told(), names=("pytorch",))

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)
    assert result.says == "PyTorch is the only framework here, and it takes two"
    assert context.asked == []


def test_none_at_all_is_a_gap():
    result, _context = judged(told(), names=())

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)


def test_without_a_gpu_it_is_not_tried():
    result = coexistence.CHECK.run(Bench(interpreters=PYTHONS))

    assert result.says == "the driver answers for no GPU"
