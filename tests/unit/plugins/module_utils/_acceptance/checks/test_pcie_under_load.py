# SPDX-License-Identifier: GPL-3.0-or-later
"""The link under load. Judged from scripted runs; SIMULATED."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import pcie_under_load
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests import acceptance_compute as told

METAL = Profile(bare_metal=True)
VIRTUAL = Profile(bare_metal=False)


def judged(run, *models, profile=METAL, **more):
    return pcie_under_load.CHECK.run(told.bench("transfers", run, *models, profile=profile, **more))


def test_full_links_pass():
    result = judged(told.link())

    assert result.verdict is Verdict.PASS
    assert result.says == "each link runs at generation 5 with 16 lanes or more under load"


def test_generation_1_at_rest_is_no_fault():
    """It saves power: what counts is what was read while the link was busy."""
    assert told.facts()["devices"][0]["link"]["gen_now"] == 1
    assert judged(told.link()).verdict is Verdict.PASS


@pytest.mark.parametrize(("profile", "verdict"), [(METAL, Verdict.FAIL), (VIRTUAL, Verdict.WARN)])
def test_a_low_generation_under_load(profile, verdict):
    result = judged(told.read(told.link(), 2, link_gen=3), profile=profile)

    assert result.verdict is verdict
    assert result.says == "the link of GPU 2 runs at generation 3 under load, card and slot have 5"
    assert "reseat" in result.advice


@pytest.mark.parametrize(
    ("said", "verdict"), [("none\n", Verdict.FAIL), ("kvm\n", Verdict.WARN), ("", Verdict.FAIL)]
)
def test_whether_it_is_a_virtual_machine_is_looked_up_where_nobody_declared_it(said, verdict):
    programs = {"systemd-detect-virt": Ran(0, said, "")}
    result = judged(told.read(told.link(), 2, link_gen=3), profile=Profile(), programs=programs)
    assert result.verdict is verdict


def test_a_narrow_link_is_a_warning_as_long_as_no_width_is_declared():
    result = judged(told.read(told.link(), 1, link_width=8))

    assert result.verdict is Verdict.WARN
    assert result.says == "the link of GPU 1 has 8 lanes under load, the card has 16"
    assert "declare the width" in result.advice


@pytest.mark.parametrize(
    ("width", "verdict"), [({"": 16}, Verdict.FAIL), ({"rtx5090": 16}, Verdict.FAIL), ({"": 8}, Verdict.PASS)]
)
def test_a_declared_width_is_what_counts(width, verdict):
    profile = Profile(bare_metal=True, expected={"width": width})
    assert judged(told.read(told.link(), 1, link_width=8), profile=profile).verdict is verdict


@pytest.mark.parametrize("reading", [{"link_gen": None}, {"link_width": None}])
def test_a_link_that_was_not_read_is_not_green(reading):
    result = judged(told.read(told.link(), 3, **reading))

    assert result.verdict is Verdict.UNKNOWN
    assert "of GPU 3's link was not read under load" in result.says


def test_readings_outside_the_load_do_not_count():
    result = judged(told.read(told.link(), 0, at=told.BEGAN - 60))
    assert result.verdict is Verdict.UNKNOWN


def test_a_maximum_that_nobody_knows_is_not_green():
    assert judged(told.link(), link={"gen_max": None}).verdict is Verdict.UNKNOWN
    assert judged(told.link(), link={"width_max": None}).verdict is Verdict.UNKNOWN


def test_a_declaration_that_cannot_be_read_is_not_green():
    result = judged(told.link(), profile=Profile(expected={"widht": 16}))
    assert (result.verdict, "widht" in result.says) == (Verdict.UNKNOWN, True)


def test_the_moment_of_the_highest_generation_counts():
    """The link needs a moment to speed up."""
    run = told.link()
    late = [sample if sample.at > told.BEGAN + 2 else sample.__class__(at=sample.at, gpu=sample.gpu, link_gen=1, link_width=16) for sample in run.samples]  # fmt: skip
    assert (
        judged(run.__class__(begin=run.begin, figures=run.figures, phases=run.phases, samples=late)).verdict
        is Verdict.PASS
    )


def test_it_needs_a_gpu_and_asks_with_the_addresses():
    assert Need.GPU in pcie_under_load.CHECK.needs
    bench = told.bench("transfers", told.link(2), "rtx5090", "rtx5090", profile=METAL)
    pcie_under_load.CHECK.run(bench)
    (_, _, arguments) = bench.asked[0]
    assert arguments[2:] == ("--part", "link", "--addresses", "0000:01:00.0,0000:21:00.0")
