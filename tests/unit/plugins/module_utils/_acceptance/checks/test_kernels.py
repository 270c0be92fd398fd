# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether each GPU computes, and correctly. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import kernels
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests import acceptance_compute as told
from tests.acceptance_bench import Bench

NO_IMAGE = "CUDA error: no kernel image is available for execution on the device"


def judged(run, *models, **more):
    return kernels.CHECK.run(told.bench("kernels", run, *models, **more))


def test_right_answers_pass():
    result = judged(told.kernels())

    assert (result.verdict, result.says) == (Verdict.PASS, "4 GPUs compute right answers")
    assert len(result.figures) == 4 * 5
    assert {figure.verdict for figure in result.figures} == {Verdict.PASS}


def test_a_single_gpu_passes_alone():
    assert judged(told.kernels(1), "rtx5090").says == "1 GPU computes right answers"


def test_a_gpu_that_is_there_but_has_no_kernels_is_told_as_that():
    asleep = told.without(told.kernels(), "matmul", 2)
    for name in ("convolution", "reduction", "integers"):
        asleep = told.without(asleep, name, 2)
    asleep = told.changed(asleep, "launch", 2, value=False, says=NO_IMAGE)
    asleep = told.changed(asleep, "architectures", value="sm_80 sm_90")

    result = judged(asleep)

    assert result.verdict is Verdict.FAIL
    assert result.says == (
        f"GPU 2: {NO_IMAGE}: PyTorch 2.13.0+cu130 finds the GPU and has no kernels for it (built for sm_80 sm_90; "
        "compute capability 12.0)"
    )
    assert "install a PyTorch that was built for this card" in result.advice


def test_a_kernel_that_returns_nonsense_is_no_matter_of_the_wheel():
    result = judged(
        told.changed(told.kernels(), "launch", 1, value=False, says="a kernel returned wrong numbers")
    )

    assert result.verdict is Verdict.FAIL
    assert result.says == "GPU 1: a kernel returned wrong numbers"
    assert "install" not in result.advice


@pytest.mark.parametrize("name", ["matmul", "convolution", "reduction", "integers"])
@pytest.mark.parametrize(
    ("error", "how"), [(0.3, "off by 0.3"), (None, "its result is no number"), (math.nan, "no number")]
)
def test_a_wrong_answer_names_the_gpu(name, error, how):
    result = judged(told.changed(told.kernels(), name, 3, value=error))

    assert result.verdict is Verdict.FAIL
    assert result.says.startswith(f"GPU 3 computes a wrong {name} (")
    assert how in result.says
    assert [figure.gpu for figure in result.figures if figure.verdict is Verdict.FAIL] == [3]
    assert "must be replaced" in result.advice


@pytest.mark.parametrize("name", ["launch", "matmul", "integers"])
def test_a_gpu_that_nothing_was_told_of_is_not_green(name):
    result = judged(told.without(told.kernels(), name, 1))

    assert result.verdict is Verdict.UNKNOWN
    assert "GPU 1" in result.says


def test_an_empty_run_is_not_green():
    assert judged(replace(told.kernels(), figures=[])).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("run", "verdict", "says", "advice"),
    [
        (told.crashed("the process of GPU 2 was ended by SIGSEGV"), Verdict.FAIL, "GPU 2", "replaced"),
        (told.crashed("kernels was killed by SIGKILL"), Verdict.UNKNOWN, "could not", "journalctl -k | grep -i 'out of memory'"),
        (told.gave_up("the process of GPU 1 was ended by SIGKILL"), Verdict.UNKNOWN, "GPU 1", "more memory"),
        (told.gave_up("kernels did not end within 180 seconds and was killed by SIGKILL"), Verdict.FAIL, "hung", "Xid"),
        (told.gave_up("GPU 1: CUDA error: an illegal memory access was encountered"), Verdict.FAIL, "GPU 1", "alone"),
        (told.gave_up("GPU 3: PyTorch 2.13.0 (built for 13.0) sees 3 GPUs"), Verdict.FAIL, "sees 3 GPUs", "log"),
        (told.gave_up(f"GPU 0: {NO_IMAGE}"), Verdict.FAIL, "has no kernels for it", "install a PyTorch"),
        (told.gave_up("kernels did not end within 180 seconds"), Verdict.FAIL, "hung", "Xid"),
        (told.gave_up("GPU 0: CUDA out of memory. Tried to allocate 2.00 GiB"), Verdict.UNKNOWN, "out of memory", "nvidia-smi"),
        (told.gave_up("GPU 0: AttributeError: module 'torch' has no attribute 'x'"), Verdict.UNKNOWN, "could not", "report"),
        (told.gave_up("GPU 0: expected scalar type Float but found Half"), Verdict.UNKNOWN, "could not", "report"),
    ],
)  # fmt: skip
def test_what_a_broken_run_means(run, verdict, says, advice):
    result = judged(run)

    assert result.verdict is verdict
    assert says in result.says
    assert advice in result.advice


def test_without_a_gpu_it_is_skipped():
    with pytest.raises(CannotLook, match="no driver answers for a GPU"):
        kernels.CHECK.run(Bench(workloads={"kernels": told.kernels()}))


def test_a_gpu_that_is_cut_into_parts_is_not_measured():
    bench = told.bench("kernels", told.kernels())
    for index, device in enumerate(bench.facts["devices"]):
        device["mig"] = {"current": index == 2, "pending": None, "devices": []}

    with pytest.raises(CannotLook) as told_why:
        kernels.CHECK.run(bench)

    assert told_why.value.why == "GPU 2 is cut into parts (MIG), and a part is not measured here"
    assert told_why.value.advice.startswith("make the card whole: `nvidia-smi -i 2 -mig 0`, or waive")
    assert bench.asked == []


def test_several_gpus_that_are_cut_into_parts_are_all_named():
    bench = told.bench("kernels", told.kernels())
    for device in bench.facts["devices"]:
        device["mig"] = {"current": device["index"] != 1}
    with pytest.raises(CannotLook, match="GPU 0, GPU 2, GPU 3 are cut into parts"):
        kernels.CHECK.run(bench)


def test_parts_of_a_gpu_do_not_matter_to_a_run_on_the_cpu():
    bench = told.bench("kernels", told.recording("kernels"), device="cpu")
    for device in bench.facts["devices"]:
        device["mig"] = {"current": True}
    assert kernels.CHECK.run(bench).verdict is Verdict.PASS


def test_a_real_run_on_a_cpu_passes_and_names_processes():
    result = judged(told.recording("kernels"), device="cpu")

    assert (result.verdict, result.says) == (Verdict.PASS, "2 processes compute right answers")
    assert {figure.gpu for figure in result.figures} == {None}
    assert any(figure.name == "matmul, relative error, process 1" for figure in result.figures)


def test_a_cpu_that_computes_wrong_fails():
    wrong = told.changed(told.recording("kernels"), "matmul", 1, value=0.5)
    assert judged(wrong, device="cpu").says.startswith("process 1 computes a wrong matmul")


@pytest.mark.parametrize(
    ("suite", "device", "size"),
    [
        ("quick", "cuda", "small"),
        ("full", "cuda", "full"),
        ("demo", "cuda", "small"),
        ("full", "cpu", "small"),
    ],
)
def test_how_large_it_is(suite, device, size):
    bench = told.bench("kernels", told.kernels(), suite=suite, device=device)
    kernels.CHECK.run(bench)
    assert bench.asked == [("kernels", "pytorch", ("--size", size))]
