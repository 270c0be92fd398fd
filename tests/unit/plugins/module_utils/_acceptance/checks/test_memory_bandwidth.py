# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the GPUs' memory is. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import memory_bandwidth
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests import acceptance_compute as told


def judged(run, *models, **more):
    return memory_bandwidth.CHECK.run(told.bench("memory", run, *models, **more))


def test_good_memory_passes():
    result = judged(told.bandwidth())

    assert result.verdict is Verdict.PASS
    assert result.says == "each GPU moves 1600 GB/s or more in its own memory, and the data is right"
    assert result.figures[0].expected == ">= 1434 (80% of 1792)"


@pytest.mark.parametrize(
    ("gb_s", "verdict"),
    [(1434, Verdict.PASS), (1400, Verdict.WARN), (1076, Verdict.WARN), (1000, Verdict.FAIL)],
)
def test_slow_memory(gb_s, verdict):
    result = judged(told.bandwidth(gb_s=float(gb_s)))
    assert result.verdict is verdict


def test_a_slow_sibling_is_named():
    result = judged(told.scaled(told.bandwidth(), "triad", 0.92, 1))

    assert result.verdict is Verdict.WARN
    assert "GPU 1 reaches 92% of what its siblings do in triad" in result.says


@pytest.mark.parametrize(
    ("gb_s", "card", "verdict"),
    [
        (1800.0, "h100-pcie", Verdict.PASS),
        (1100.0, "h100-pcie", Verdict.FAIL),
        (1800.0, "h100", Verdict.FAIL),
    ],
)
def test_a_card_is_measured_by_its_own_bandwidth_and_not_by_its_models(gb_s, card, verdict):
    """H100 PCIe: 2000 GB/s, the SXM 3350."""
    assert judged(told.bandwidth(1, gb_s), card).verdict is verdict


def test_wrong_data_fails():
    result = judged(told.changed(told.bandwidth(), "copy", 2, wrong=3))

    assert result.verdict is Verdict.FAIL
    assert result.says == "GPU 2 holds 3 wrong elements after copy"


def test_without_anything_to_judge_by_it_is_not_green():
    result = judged(told.bandwidth(1), "stranger")
    assert (result.verdict, "GPU 0" in result.says) == (Verdict.UNKNOWN, True)


@pytest.mark.parametrize("name", ["copy", "triad"])
def test_a_missing_figure_is_not_green(name):
    result = judged(told.without(told.bandwidth(), name, 3))
    assert (result.verdict, result.says) == (Verdict.UNKNOWN, "no bandwidth was told of GPU 3")


def test_an_empty_run_is_not_green():
    assert judged(replace(told.bandwidth(), figures=[])).verdict is Verdict.UNKNOWN


def test_a_crash_is_a_failure():
    assert judged(told.crashed("memory was killed by SIGSEGV")).verdict is Verdict.FAIL


def test_a_real_run_on_a_cpu_passes_without_a_judged_rate():
    result = judged(told.recording("memory-bandwidth"), device="cpu")

    assert result.verdict is Verdict.PASS
    assert {(figure.verdict, figure.source) for figure in result.figures} == {(None, "not judged: CPU")}


def test_it_asks_for_its_part():
    bench = told.bench("memory", told.bandwidth(), suite="full")
    memory_bandwidth.CHECK.run(bench)
    assert bench.asked == [("memory", "pytorch", ("--size", "full", "--part", "bandwidth"))]
