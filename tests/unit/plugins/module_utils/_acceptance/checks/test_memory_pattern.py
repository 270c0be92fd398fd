# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether memory keeps what is written. Judged from scripted runs (SIMULATED) and a recorded one (CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import memory_pattern
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests import acceptance_compute as told

PLACE = {
    "pattern": "walking bit 0",
    "offset": "0x40000010",
    "address": "0x7f0040000010",
    "wrote": "0x00000010",
    "read": "0x00000000",
    "bits": 1,
}


def judged(run, **more):
    return memory_pattern.CHECK.run(told.bench("memory", run, **more))


def test_memory_that_keeps_everything_passes():
    result = judged(told.pattern())

    assert (result.verdict, result.says) == (Verdict.PASS, "no wrong word in 108 GiB")


def test_a_single_wrong_word_fails_with_gpu_and_address():
    result = judged(told.changed(told.pattern(), "mismatches", 2, value=1, places=[PLACE]))

    assert result.verdict is Verdict.FAIL
    assert result.says == (
        "GPU 2 has 1 wrong words, the first at 0x40000010 of what was tested (address 0x7f0040000010): wrote 0x00000010, "
        "read 0x00000000, 1 bit, pattern walking bit 0"
    )
    assert result.data["places"] == [{"gpu": 2, **PLACE}]
    assert "have the card replaced" in result.advice


def test_wrong_words_without_places_fail_as_well():
    result = judged(told.changed(told.pattern(), "mismatches", 0, value=4, places=[]))
    assert (result.verdict, result.says) == (Verdict.FAIL, "GPU 0 has 4 wrong words")


def test_memory_that_could_hardly_be_tested_is_a_warning():
    result = judged(told.changed(told.pattern(), "tested", 1, share=0.25))

    assert result.verdict is Verdict.WARN
    assert result.says == "no wrong word, and only 25% of the memory of GPU 1 could be tested"


@pytest.mark.parametrize(("name", "value"), [("mismatches", None), ("mismatches", True)])
def test_what_is_no_count_is_not_green(name, value):
    result = judged(told.changed(told.pattern(), name, 1, value=value))
    assert (result.verdict, result.says) == (Verdict.UNKNOWN, "nothing was told of GPU 1")


@pytest.mark.parametrize("name", ["tested", "mismatches"])
def test_a_missing_figure_is_not_green(name):
    assert judged(told.without(told.pattern(), name, 3)).verdict is Verdict.UNKNOWN


def test_an_empty_run_is_not_green():
    assert judged(replace(told.pattern(), figures=[])).verdict is Verdict.UNKNOWN


def test_a_real_run_on_a_cpu_is_judged():
    result = judged(told.recording("memory-pattern"), device="cpu")

    assert (result.verdict, result.says) == (Verdict.PASS, "no wrong word in 0.125 GiB")
    assert {figure.gpu for figure in result.figures} == {None}
    assert {figure.verdict for figure in result.figures if figure.name.startswith("wrong")} == {Verdict.PASS}


def test_wrong_memory_of_a_cpu_machine_fails():
    wrong = told.changed(told.recording("memory-pattern"), "mismatches", 1, value=2)
    assert judged(wrong, device="cpu").says == "process 1 has 2 wrong words"
