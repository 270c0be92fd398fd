# SPDX-License-Identifier: GPL-3.0-or-later
"""What a framework did on each GPU and on all of them is judged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import (
    jax,
    pytorch,
    tensorflow,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests.acceptance_bench import Bench
from tests.acceptance_frameworks import PYTHONS, facts, recording, run_of, steps


def judged(*, profile=Profile(), **changed):  # noqa: B008
    return of(run_of(steps(**changed)), profile)


def of(told, profile=Profile()):  # noqa: B008
    context = Bench(facts=facts(), profile=profile, interpreters=PYTHONS, workloads={"torch_step": told})
    return pytorch.CHECK.run(context)


@pytest.mark.parametrize(
    ("check", "workload", "says"),
    [
        (
            pytorch,
            "torch_step",
            "PyTorch 2.13.0+cpu computes right in 2 parts of the CPU and in all of them together",
        ),
        (tensorflow, "tensorflow_step", "TensorFlow 2.21.0 computes right in 2 parts of the CPU"),
        (jax, "jax_step", "JAX 0.10.2 computes right in 2 parts of the CPU"),
    ],
)
def test_real_runs_on_a_cpu_pass(check, workload, says):
    context = Bench(device="cpu", interpreters=PYTHONS, workloads={workload: recording(workload)})
    result = check.CHECK.run(context)

    assert result.verdict is Verdict.PASS
    assert result.says.startswith(says)
    assert [(figure.name, figure.gpu, figure.verdict) for figure in result.figures] == [
        ("devices", None, Verdict.PASS),
        ("wrong elements", None, Verdict.PASS),
        ("step difference", None, Verdict.PASS),
    ]


def test_a_sound_machine_passes_with_a_figure_for_each_gpu():
    result = judged()

    assert result.verdict is Verdict.PASS
    assert result.says == (
        "PyTorch 2.13.0+cu130 sees all 4 GPUs, computes right on each and on all of them together"
    )
    assert [figure.gpu for figure in result.figures if figure.name == "wrong elements"] == [0, 1, 2, 3]


def test_a_gpu_without_kernels_in_the_build_is_found_although_it_is_seen():
    result = judged(wrong_2={"value": None, "says": "CUDA error: no kernel image is available"})

    assert result.verdict is Verdict.FAIL
    assert "cannot compute on GPU 2: CUDA error: no kernel image is available" in result.says
    assert result.advice.startswith("install torch==")
    assert result.figures[3].verdict is Verdict.FAIL


def test_where_a_gpu_cannot_compute_alone_the_missing_step_is_not_told_as_well():
    alone = [
        one
        for one in steps(wrong_0={"value": None, "says": "no"})
        if one["name"] not in ("step difference", "steps")
    ]

    assert of(run_of(alone)).says == "PyTorch 2.13.0+cu130 cannot compute on GPU 0: no"


@pytest.mark.parametrize(
    ("changed", "verdict", "says"),
    [
        ({"wrong_1": {"value": 17, "of": 2304}}, Verdict.FAIL, "computes 17 of 2304 elements wrong on GPU 1"),
        ({"off_3": {"value": 0.02}}, Verdict.FAIL, "learns wrong weights when all compute together: 0.02 off on GPU 3"),
        ({"off_0": {"value": math.nan}}, Verdict.FAIL, "nan off on GPU 0"),
        ({"off_0": {"value": None, "says": "NCCL error"}}, Verdict.FAIL, "fails when all compute together: NCCL error"),
        ({"devices": {"value": 3}}, Verdict.FAIL, "sees 3 of the 4 GPUs that the driver has"),
        ({"devices": {"value": 0, "says": "no backend"}}, Verdict.FAIL, "sees 0 of the 4 GPUs that the driver has: no backend"),
        ({"devices": {"value": None}}, Verdict.UNKNOWN, "did not say which GPUs it sees"),
        ({"wrong_1": {"gpu": 0}}, Verdict.UNKNOWN, "did not say whether GPU 1 computed alone"),
        ({"off_2": {"gpu": 0}}, Verdict.UNKNOWN, "did not say whether GPU 2 took part in the step"),
        ({"steps": {"value": 0}}, Verdict.UNKNOWN, "made no step together"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(changed, verdict, says):
    result = judged(**changed)

    assert result.verdict is verdict
    assert says in result.says
    assert result.advice


def test_a_build_for_the_cpu_is_told_which_to_take():
    result = of(run_of([{"name": "devices", "value": 0, "unit": "", "gpu": None}]))

    assert result.verdict is Verdict.FAIL
    assert "if it is a build without CUDA, install torch==" in result.advice


def test_the_gravest_comes_first():
    result = judged(devices={"value": None}, wrong_1={"value": 1})

    assert result.verdict is Verdict.FAIL
    assert result.says.startswith("PyTorch 2.13.0+cu130 computes 1 of")


def test_a_workload_that_breaks_fails():
    result = of(replace(run_of([]), error="torch_step was killed by SIGSEGV", crashed=True))

    assert result.verdict is Verdict.FAIL
    assert "torch_step was killed by SIGSEGV" in result.says


def test_the_limit_can_be_set():
    assert (
        judged(off_3={"value": 0.02}, profile=Profile(limits={"step_difference": 0.1})).verdict
        is Verdict.PASS
    )


def test_a_single_gpu_is_told_as_one():
    context = Bench(facts=facts(count=1), interpreters=PYTHONS, workloads={"torch_step": run_of(steps(1))})

    assert pytorch.CHECK.run(context).says == "PyTorch 2.13.0+cu130 sees the GPU and computes right on it"


def test_a_framework_that_is_not_there_is_not_run():
    context = Bench(facts=facts())

    assert pytorch.CHECK.run(context).verdict is Verdict.SKIP
    assert context.asked == []
