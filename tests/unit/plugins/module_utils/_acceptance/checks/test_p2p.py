# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches whose memory. Judged from scripted runs; SIMULATED."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import p2p
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests import acceptance_compute as told


def judged(run, *models):
    return p2p.CHECK.run(told.bench("peers", run, *models))


def of_pair(run, name, start, to, value):
    figures = [
        {**one, "value": value} if (one["name"], one.get("from"), one.get("to")) == (name, start, to) else one
        for one in run.figures
    ]
    return replace(run, figures=figures)


def test_geforce_without_peer_access_is_as_it_should_be():
    result = judged(told.peers())

    assert result.verdict is Verdict.PASS
    assert result.says == (
        "no GPU reaches another's memory; copies go through the host at 22 GB/s or more, and arrive unharmed"
    )
    assert result.data["access"][0] == [None, False, False, False]
    assert result.data["copy"][2] == [22.0, 22.0, None, 22.0]


def test_geforce_with_peer_access_has_a_modified_driver():
    result = judged(told.peers(access=True))

    assert result.verdict is Verdict.WARN
    assert "a modified driver is in use" in result.advice


def test_nvlink_without_peer_access_fails():
    result = judged(of_pair(told.peers(2, access=True), "access", 0, 1, False), "h100", "h100")

    assert result.verdict is Verdict.FAIL
    assert result.says == "cards that NVLink joins do not reach each other, GPU 0 to GPU 1: no access"
    assert "fabric manager" in result.advice


def test_nvlink_with_peer_access_passes():
    result = judged(told.peers(2, access=True), "h100", "h100")
    assert (result.verdict, result.says.split(";")[0]) == (
        Verdict.PASS,
        "2 of 2 pairs reach each other's memory",
    )


@pytest.mark.parametrize("access", [True, False])
@pytest.mark.parametrize("models", [("a10", "a10"), ("stranger", "stranger"), ("rtx5090", "h100")])
def test_where_the_topology_decides_both_are_well(models, access):
    result = judged(told.peers(2, access=access), *models)

    assert result.verdict is Verdict.PASS
    assert {figure.verdict for figure in result.figures} == {None}


def test_data_that_does_not_arrive_unharmed_fails():
    result = judged(of_pair(told.peers(), "wrong", 3, 1, 12))

    assert result.verdict is Verdict.FAIL
    assert result.says == "data does not arrive unharmed, GPU 3 to GPU 1: 12 wrong words"
    assert "IOMMU" in result.advice


@pytest.mark.parametrize("name", ["access", "copy", "wrong"])
def test_a_pair_that_nothing_was_told_of_is_not_green(name):
    result = judged(of_pair(told.peers(), name, 1, 2, None))
    assert (result.verdict, result.says) == (Verdict.UNKNOWN, "not everything was told of GPU 1 to GPU 2")


def test_an_empty_run_is_not_green():
    assert judged(replace(told.peers(), figures=[])).verdict is Verdict.UNKNOWN


def test_a_pair_that_crashes_is_named():
    result = judged(
        told.gave_up("GPU 0 to GPU 3: CUDA error: peer access is not supported between these two devices")
    )
    assert (result.verdict, "GPU 0 to GPU 3" in result.says) == (Verdict.FAIL, True)


def test_it_needs_two_gpus():
    assert {Need.GPU, Need.SEVERAL} <= set(p2p.CHECK.needs)
