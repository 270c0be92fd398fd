# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast and how correctly matrices are multiplied. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import matmul
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

from tests import acceptance_compute as told


def judged(run, *models, **more):
    return matmul.CHECK.run(told.bench("matmul", run, *models, **more))


def slowed(factor, gpu=None, run=None):
    run = run or told.matmul()
    for name in told.RATES:
        run = told.scaled(run, name, factor, gpu)
    return run


def the(result, name, gpu=0):
    (found,) = [figure for figure in result.figures if (figure.name, figure.gpu) == (name, gpu)]
    return found


def test_cards_as_fast_as_they_should_be_pass():
    result = judged(told.matmul())

    assert result.verdict is Verdict.PASS
    assert result.says == "right and fast: 238 TFLOPS in fp16 at best, 94% of the peak"
    found = the(result, "bf16")
    assert (found.value, found.unit, found.verdict, found.better) == (238.0, "TFLOPS", Verdict.PASS, "higher")
    assert found.expected == ">= 227.2 (90% of 252.4)"
    assert found.source.startswith("87.0 TFLOPS for each GHz of its SM clock, 2.90 GHz meanwhile")
    assert "our proposal" in found.source
    assert the(result, "bf16, share of the peak").value == 94.3


def test_a_power_limit_lowers_clock_and_rate_and_is_no_fault():
    assert judged(told.matmul(sm_mhz=2900 * 0.7)).verdict is Verdict.PASS
    assert judged(slowed(0.7, run=told.matmul(sm_mhz=2900 * 0.7))).verdict is Verdict.PASS


def test_a_card_that_boosts_is_not_measured_by_its_nominal_clock():
    """254 TFLOPS are 121 % of the nominal peak, and no more than 94 % of the true one."""
    assert the(judged(told.matmul()), "bf16, share of the peak").value < 100


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, Verdict.PASS), (0.90, Verdict.WARN), (0.70, Verdict.FAIL)],
)
def test_all_cards_below_the_peak(factor, verdict):
    result = judged(slowed(factor))

    assert result.verdict is verdict
    if verdict is not Verdict.PASS:
        assert "of its peak in bf16" in result.says or "of its peak in tf32" in result.says
        assert "throttle_reasons" in result.advice


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.97, Verdict.PASS), (0.94, Verdict.WARN), (0.85, Verdict.FAIL)]
)
def test_a_slow_sibling(factor, verdict):
    limits = dict.fromkeys(("matmul_warn_share", "matmul_fp32_warn_share", "matmul_fp8_warn_share"), 0.5)
    result = judged(slowed(factor, 2), profile=Profile(limits=limits))

    assert result.verdict is verdict
    assert the(result, "bf16, share of the siblings", 2).verdict is verdict
    assert the(result, "bf16, share of the siblings", 1).verdict is Verdict.PASS
    if verdict is not Verdict.PASS:
        assert f"GPU 2 reaches {factor:.0%} of what its siblings do" in result.says


def test_a_wrong_product_fails_however_fast_it_is():
    result = judged(told.changed(told.matmul(), "bf16", 1, error=0.2))

    assert result.verdict is Verdict.FAIL
    assert result.says == "GPU 1 computes a wrong bf16 product (off by 0.2 of the largest value)"


def test_a_product_that_is_no_number_fails():
    result = judged(told.changed(told.matmul(), "fp16", 1, error=None))
    assert result.says == "GPU 1 computes a wrong fp16 product (no numbers)"


def test_a_product_that_changes_when_it_is_made_again_fails():
    result = judged(told.changed(told.matmul(), "tf32", 0, changed=17))
    assert result.verdict is Verdict.FAIL
    assert result.says == "GPU 0 gives 17 other elements when it computes the same tf32 product again"


def test_without_the_clock_a_slow_card_is_at_most_a_warning():
    result = judged(slowed(0.3, run=told.matmul(sm_mhz=None)))

    assert result.verdict is Verdict.WARN
    assert "its power limit holds down" in result.advice
    assert the(result, "bf16").source.startswith("nominal peak of the catalog")


def test_a_model_without_a_known_peak_and_without_siblings_is_not_green():
    result = judged(told.matmul(1), "stranger")

    assert result.verdict is Verdict.UNKNOWN
    assert "neither a peak nor a sibling to judge GPU 0 by" in result.says


def test_a_model_without_a_known_peak_is_judged_by_its_siblings():
    assert judged(told.matmul(2), "stranger", "stranger").verdict is Verdict.PASS
    assert judged(slowed(0.5, 1, told.matmul(2)), "stranger", "stranger").verdict is Verdict.FAIL


def test_a_precision_that_the_card_does_not_have_is_left_out():
    run = told.matmul()
    for gpu in range(4):
        run = told.changed(run, "fp8", gpu, value=None, why="the card has no fp8")
    result = judged(run)

    assert (result.verdict, "fp8" in result.says) == (Verdict.PASS, False)
    assert (the(result, "fp8", 2).value, the(result, "fp8", 2).source) == (None, "the card has no fp8")
    assert the(result, "fp8", 2).verdict is Verdict.SKIP


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.PASS), (0.85, Verdict.WARN)])
def test_a_precision_that_pytorch_cannot_is_named(factor, verdict):
    why = "PyTorch 2.6.0 cannot: CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"
    run = slowed(factor)
    for gpu in (1, 3):
        run = told.changed(run, "fp8", gpu, value=None, why=why)

    result = judged(run)

    assert result.verdict is verdict
    assert f"fp8 was not measured on GPU 1, GPU 3: {why}" in result.says
    assert the(result, "fp8", 3).source == why
    assert the(result, "fp8", 0).verdict is not Verdict.SKIP


# Clocks that are held down.


def at_600_mhz(*gpus, reasons=()):
    run = told.matmul()
    for gpu in gpus:
        for name in told.RATES:
            run = told.scaled(run, name, 600 / 2900, gpu)
        run = told.read(run, gpu, sm_mhz=600.0, reasons=reasons)
    return run


def test_cards_that_are_locked_to_a_low_clock_are_no_pass():
    result = judged(at_600_mhz(0, 1, 2, 3))

    assert result.verdict is Verdict.WARN
    assert result.says.startswith(
        "GPU 0 ran at 600 of 3090 MHz, and its power limit was not the reason; GPU 1 ran"
    )
    assert "`nvidia-smi -q -d CLOCK,PERFORMANCE`" in result.advice
    assert "`nvidia-smi -rgc`" in result.advice


def test_a_low_clock_by_the_power_limit_is_no_matter_of_this_check():
    assert judged(at_600_mhz(0, 1, 2, 3, reasons=("sw_power_cap",))).verdict is Verdict.PASS


def at_rest(run, *reasons, last_only=True):
    """The last reading of each phase, or every one, is of a card that rests already."""
    return replace(
        run,
        samples=[
            replace(one, sm_mhz=210.0, reasons=("idle", *reasons))
            if number % 3 == 2 or not last_only
            else one
            for number, one in enumerate(run.samples)
        ],
    )


def test_a_reading_of_a_card_that_rests_does_not_make_a_slow_card_pass():
    slow = slowed(0.69)
    assert judged(slow).verdict is Verdict.FAIL

    result = judged(at_rest(slow))

    assert result.verdict is Verdict.FAIL
    assert "GPU 0 reaches 65% of its peak in tf32" in result.says
    assert the(result, "bf16, share of the peak").value == 65.1
    assert the(result, "bf16").expected == ">= 227.2 (90% of 252.4)"
    assert judged(at_rest(told.matmul())).verdict is Verdict.PASS


def test_where_all_readings_are_of_a_card_that_rests_its_clock_is_not_known():
    good = judged(at_rest(told.matmul(), last_only=False))
    slow = judged(at_rest(slowed(0.3), last_only=False))

    assert (good.verdict, slow.verdict) == (Verdict.PASS, Verdict.WARN)
    for result in (good, slow):
        assert the(result, "bf16").source.startswith("nominal peak of the catalog")
        assert "210 of 3090 MHz" not in result.says


def test_a_power_limit_that_a_card_tells_of_at_rest_does_not_excuse_its_clock_under_load():
    result = judged(at_rest(at_600_mhz(0, 1, 2, 3), "sw_power_cap"))

    assert result.verdict is Verdict.WARN
    assert "GPU 0 ran at 600 of 3090 MHz, and its power limit was not the reason" in result.says


def test_one_that_is_locked_is_named_beside_its_siblings():
    result = judged(at_600_mhz(2))

    assert result.verdict is Verdict.FAIL
    assert "GPU 2 reaches 21% of what its siblings do" in result.says
    assert "nvidia-smi -rgc" in result.advice


def test_a_card_that_does_not_tell_its_highest_clock_is_not_judged_by_it():
    bench = told.bench("matmul", at_600_mhz(0, 1, 2, 3))
    for device in bench.facts["devices"]:
        del device["max_clocks"]
    assert matmul.CHECK.run(bench).verdict is Verdict.PASS


def test_a_low_clock_does_not_hide_that_there_is_nothing_to_judge_by():
    run = told.read(told.matmul(1), 0, sm_mhz=600.0)

    result = judged(run, "stranger")

    assert result.verdict is Verdict.UNKNOWN
    assert "GPU 0 ran at 600 of 3090 MHz" in result.says


def test_a_card_is_measured_by_its_own_peak_and_not_by_its_models():
    """H100 PCIe: 756 TFLOPS, the SXM 989."""
    run = told.matmul(1, sm_mhz=None)
    for name, rate in {"bf16": 600.0, "fp16": 600.0, "tf32": 300.0}.items():
        run = told.changed(run, name, value=rate)

    assert the(judged(run, "h100-pcie"), "bf16").expected == ">= 680.4 (90% of 756)"
    assert the(judged(run, "h100"), "bf16").expected == ">= 890.1 (90% of 989)"


def test_a_gpu_that_nothing_was_told_of_is_not_green():
    run = told.matmul()
    for name in told.RATES:
        run = told.without(run, name, 3)

    result = judged(run)

    assert result.verdict is Verdict.UNKNOWN
    assert result.says == "no rate was told of GPU 3"


def test_the_crash_of_one_process_is_told_with_its_gpu():
    result = judged(told.crashed("the process of GPU 2 was ended by SIGBUS"))
    assert (result.verdict, "GPU 2" in result.says) == (Verdict.FAIL, True)


def test_a_threshold_of_the_profile_is_used_and_named():
    result = judged(told.matmul(), profile=Profile(limits={"matmul_warn_share": 0.97}))

    assert result.verdict is Verdict.WARN
    assert "limits.matmul_warn_share of the profile" in the(result, "bf16").source


def test_the_report_gets_the_peak_of_each_gpu():
    shares = judged(told.matmul()).data["shares"]

    assert len(shares) == 4 * 5
    assert {"gpu", "precision", "tflops", "peak", "share", "sm_mhz", "clock_true"} == set(shares[0])


def test_a_real_run_on_a_cpu_passes_without_a_judged_rate():
    result = judged(told.recording("matmul"), device="cpu")

    assert result.verdict is Verdict.PASS
    assert "rates of a CPU are not judged" in result.says
    measured = [figure for figure in result.figures if figure.value is not None]
    assert {(figure.verdict, figure.source) for figure in measured} == {(None, "not judged: CPU")}
    assert {
        (figure.name, figure.verdict, figure.source) for figure in result.figures if figure.value is None
    } == {
        (f"{name}, process {index}", Verdict.SKIP, "not measured on a CPU")
        for name in ("tf32", "fp16", "fp8")
        for index in range(2)
    }


def test_a_wrong_product_of_a_cpu_fails():
    wrong = told.changed(told.recording("matmul"), "fp32", 1, error=1.0)
    assert judged(wrong, device="cpu").verdict is Verdict.FAIL


ORDER = [Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN, Verdict.PASS]


@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_machine_whose_cards_are_all_faster_is_never_judged_worse(one, other):
    slow, fast = sorted((one, other))
    verdicts = [ORDER.index(judged(slowed(factor)).verdict) for factor in (slow, fast)]
    assert verdicts[0] <= verdicts[1]


def test_without_a_figure_it_is_never_green():
    assert judged(replace(told.matmul(), figures=[])).verdict is Verdict.UNKNOWN
