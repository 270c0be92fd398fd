# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers between host and GPUs. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import host_device_bandwidth
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Verdict,
    failed,
    unknown,
)

from tests import acceptance_compute as told

METAL = Profile(bare_metal=True)
VIRTUAL = Profile(bare_metal=False)


def judged(run, *models, profile=METAL, **more):
    return host_device_bandwidth.CHECK.run(told.bench("transfers", run, *models, profile=profile, **more))


def test_full_links_pass():
    result = judged(told.transfers())

    assert result.verdict is Verdict.PASS
    assert result.says == "each GPU transfers 55 GB/s or more each way, and what comes back is right"
    found = result.figures[0]
    assert (found.name, found.expected) == ("host to device", ">= 47.2 (75% of 63)")
    assert found.source.startswith("PCIe 5.0 x16, the width read meanwhile; our proposal")


@pytest.mark.parametrize(
    ("gb_s", "profile", "verdict"),
    [
        (47.3, METAL, Verdict.PASS),
        (47.2, METAL, Verdict.FAIL),
        (47.2, VIRTUAL, Verdict.WARN),
        (10.0, VIRTUAL, Verdict.WARN),
    ],
)
def test_a_slow_link(gb_s, profile, verdict):
    result = judged(told.transfers(gb_s=gb_s), profile=profile)

    assert result.verdict is verdict
    if verdict is not Verdict.PASS:
        assert result.says.startswith("host to device, GPU 0 reaches")
        assert "pcie_under_load" in result.advice


def test_a_link_of_8_lanes_is_judged_by_8_lanes():
    """That it has no more is what pcie_under_load says."""
    run = told.transfers(gb_s=27.0)
    for gpu in range(4):
        run = told.read(run, gpu, link_width=8)

    result = judged(run)

    assert result.verdict is Verdict.PASS
    assert result.figures[0].source.startswith("PCIe 5.0 x8")


@pytest.mark.parametrize("generation", [1, None])
def test_a_generation_that_was_read_at_rest_is_no_excuse(generation):
    """Between two readings a link may be busy and be told at rest."""
    run = told.transfers(gb_s=10.0)
    for gpu in range(4):
        run = told.read(run, gpu, link_gen=generation)

    result = judged(run)

    assert result.verdict is Verdict.FAIL
    assert result.figures[0].expected == ">= 47.2 (75% of 63)"


def test_a_link_that_pcie_under_load_found_slow_is_judged_by_what_it_carries():
    """That it has no more is what that check says."""
    found = [Figure("link generation under load", 4, "", gpu, verdict=Verdict.FAIL) for gpu in range(4)]
    run = told.transfers(gb_s=27.0)
    for gpu in range(4):
        run = told.read(run, gpu, link_gen=1)

    result = judged(run, results={"pcie_under_load": failed("", "", *found)})

    assert (result.verdict, result.figures[0].expected) == (Verdict.PASS, ">= 23.6 (75% of 31.5)")


def test_what_pcie_under_load_could_not_read_does_not_lower_what_is_expected():
    found = [Figure("link generation under load", None, "", gpu) for gpu in range(4)]
    result = judged(told.transfers(gb_s=10.0), results={"pcie_under_load": unknown("", "", *found)})
    assert result.verdict is Verdict.FAIL


def test_where_nobody_knows_the_highest_generation_the_one_that_was_read_counts():
    result = judged(told.transfers(), link={"gen_max": None})
    assert (result.verdict, result.figures[0].expected) == (Verdict.PASS, ">= 47.2 (75% of 63)")


def test_one_slow_direction_of_one_gpu_is_named():
    result = judged(told.scaled(told.transfers(), "device to host", 0.5, 2))

    assert result.verdict is Verdict.FAIL
    assert "device to host, GPU 2 reaches 27.5 GB/s, 44% of its link" in result.says


def test_a_host_that_cannot_feed_all_at_once_is_a_warning():
    result = judged(told.scaled(told.transfers(), "host to device together", 0.5))

    assert result.verdict is Verdict.WARN
    assert "host to device, GPU 0 falls from 55 to 27.5 GB/s when all transfer" in result.says
    assert "memory channels" in result.advice


def test_wrong_bytes_fail():
    result = judged(told.changed(told.transfers(), "wrong", 1, value=8))

    assert result.verdict is Verdict.FAIL
    assert result.says == "GPU 1 gave back 8 wrong bytes"


def test_without_readings_in_time_the_link_is_that_of_the_facts():
    result = judged(replace(told.transfers(), samples=[]))

    assert result.verdict is Verdict.PASS
    assert "PCIe 5.0 x16, the width read at rest" in result.figures[0].source


def test_a_link_that_nobody_knows_is_not_green():
    result = judged(replace(told.transfers(), samples=[]), link={"gen_max": None})
    assert (result.verdict, "GPU 0, GPU 1, GPU 2, GPU 3" in result.says) == (Verdict.UNKNOWN, True)


@pytest.mark.parametrize("name", [*told.WAYS, "wrong"])
def test_a_missing_figure_is_not_green(name):
    result = judged(told.without(told.transfers(), name, 3))
    assert (result.verdict, result.says) == (Verdict.UNKNOWN, "not everything was told of GPU 3")


def test_an_empty_run_is_not_green():
    assert judged(replace(told.transfers(), figures=[])).verdict is Verdict.UNKNOWN


def test_a_single_gpu_has_nobody_to_share_with():
    run = told.scaled(told.transfers(1), "host to device together", 0.1)
    assert judged(run, "rtx5090").verdict is Verdict.PASS


def test_a_crash_is_told_with_its_gpu():
    result = judged(told.gave_up("GPU 2: CUDA error: unspecified launch failure"))
    assert (result.verdict, "GPU 2" in result.says) == (Verdict.FAIL, True)


def test_a_real_run_on_a_cpu_passes_without_a_judged_rate():
    result = judged(told.recording("transfers-rates"), device="cpu")

    assert result.verdict is Verdict.PASS
    assert "no link on a CPU" in result.says
    assert {(figure.verdict, figure.source) for figure in result.figures} == {(None, "not judged: CPU")}


def test_wrong_bytes_of_a_cpu_fail():
    wrong = told.changed(told.recording("transfers-rates"), "wrong", 1, value=1)
    assert judged(wrong, device="cpu").says == "process 1 gave back 1 wrong bytes"
