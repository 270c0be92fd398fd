# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding up over all GPUs. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import all_reduce
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests import acceptance_compute as told


def judged(run, *models, **more):
    return all_reduce.CHECK.run(told.bench("collectives", run, *models, **more))


def test_four_rtx_5090_as_others_measured_them_pass():
    result = judged(told.collectives())

    assert (result.verdict, result.says) == (Verdict.PASS, "4 GPUs add up correctly at 35 GB/s over SHM")
    assert result.data["curve"][-1] == {"bytes": 1 << 28, "busbw": 35.0}
    assert result.data["bands"] == {"pass": 20.0, "fail": 10.0}
    (found,) = [figure for figure in result.figures if figure.name == "256 MiB"]
    assert (found.expected, found.verdict) == (">= 20", Verdict.PASS)
    assert "our proposal" in found.source


@pytest.mark.parametrize(
    ("gb_s", "verdict"),
    [(20.0, Verdict.PASS), (19.9, Verdict.WARN), (10.0, Verdict.WARN), (9.9, Verdict.FAIL)],
)
def test_a_slow_all_reduce(gb_s, verdict):
    result = judged(told.collectives(gb_s=gb_s))

    assert result.verdict is verdict
    if verdict is not Verdict.PASS:
        assert result.says.startswith(f"4 GPUs add up correctly at {gb_s:g} GB/s over SHM, less than ")
        assert "memory" in result.advice


def test_small_sizes_are_shown_and_not_judged():
    figures = {figure.name: figure.verdict for figure in judged(told.collectives()).figures}
    assert (figures["1 MiB"], figures["64 MiB"]) == (None, None)


def test_the_band_follows_the_slowest_link():
    """One card on 8 lanes: 12 GB/s would be too slow for 16."""
    assert judged(told.collectives(gb_s=12.0)).verdict is Verdict.WARN
    assert judged(told.read(told.collectives(gb_s=12.0), 3, link_width=8)).verdict is Verdict.PASS


def test_a_generation_that_was_read_at_rest_is_no_excuse():
    run = told.collectives(gb_s=5.0)
    for gpu in range(4):
        run = told.read(run, gpu, link_gen=1)

    result = judged(run)

    assert (result.verdict, result.data["bands"]) == (Verdict.FAIL, {"pass": 20.0, "fail": 10.0})


def test_fewer_nvlink_cards_than_the_floor_is_for_fail_only_far_below_it():
    models = ("h100",) * 4
    assert judged(told.collectives(4, 250.0), *models).verdict is Verdict.WARN
    assert judged(told.collectives(4, 220.0), *models).verdict is Verdict.FAIL


def test_nvlink_cards_are_judged_by_what_clouds_ask_for():
    models = ("h100",) * 8
    assert judged(told.collectives(8, 470.0), *models).verdict is Verdict.PASS
    assert judged(told.collectives(8, 400.0), *models).verdict is Verdict.WARN
    result = judged(told.collectives(8, 100.0), *models)
    assert (result.verdict, "nvlink" in result.advice) == (Verdict.FAIL, True)


def test_a_wrong_sum_fails_however_fast_it_is():
    result = judged(told.changed(told.collectives(), "wrong", 2, value=5))

    assert result.verdict is Verdict.FAIL
    assert result.says == "the sum is wrong, GPU 2 has 5 wrong elements"


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (told.without(told.collectives(), "wrong", 3), "no sum was told of GPU 3"),
        (told.without(told.collectives(), "all_reduce"), "no rate was told"),
    ],
)
def test_what_was_not_told_is_not_green(run, says):
    result = judged(run)
    assert (result.verdict, result.says) == (Verdict.UNKNOWN, says)


def test_without_a_large_size_nothing_is_judged():
    run = told.collectives()
    small = replace(run, figures=[one for one in run.figures if one.get("bytes", 0) < 1 << 28])
    assert judged(small).verdict is Verdict.UNKNOWN


def test_without_a_link_and_without_nvlink_nothing_is_judged():
    run = replace(told.collectives(), samples=[])
    assert judged(run, link={"gen_max": None}).verdict is Verdict.UNKNOWN


def test_a_declared_band_is_used():
    profile = Profile(limits={"all_reduce_warn_gb_s": 50.0, "all_reduce_fail_gb_s": 40.0})
    assert judged(told.collectives(), profile=profile).verdict is Verdict.FAIL


def test_a_process_that_is_killed_is_told_with_its_gpu():
    result = judged(told.gave_up("the process of GPU 1 was ended by SIGKILL"))
    assert (result.verdict, "GPU 1" in result.says) == (Verdict.UNKNOWN, True)


def test_a_real_run_on_a_cpu_passes_without_a_judged_rate():
    result = judged(told.recording("collectives"), device="cpu")

    assert (result.verdict, result.says) == (
        Verdict.PASS,
        "2 processes add up correctly over gloo; rates of a CPU are not judged",
    )
    assert {(figure.verdict, figure.source) for figure in result.figures} == {(None, "not judged: CPU")}
    assert [figure.name for figure in result.figures] == ["64 KiB", "1 MiB", "16 MiB"]


def test_a_wrong_sum_on_a_cpu_fails():
    wrong = told.changed(told.recording("collectives"), "wrong", 0, value=1)
    assert judged(wrong, device="cpu").verdict is Verdict.FAIL
