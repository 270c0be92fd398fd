# SPDX-License-Identifier: GPL-3.0-or-later
"""The Xids: how grave each is for us, and where others judge otherwise."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import xid
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

FAIL = {
    46, 48, 54, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, *range(144, 152), 155, 156, 158, 167, 168, 169, 171, 172,
}  # fmt: skip
WARN = {13, 31, 43, 45, 63, 69, 92, 94, 121}


def test_they_are_as_grave_as_was_decided() -> None:
    assert {number for number, one in xid.CATALOGUE.items() if one.verdict is Verdict.FAIL} == FAIL
    assert {number for number in WARN if xid.find(number).verdict is Verdict.WARN} == WARN


def test_every_one_says_what_it_is_and_what_to_do() -> None:
    assert len({one.number for one in xid._ALL}) == len(xid._ALL)
    for number, one in xid.CATALOGUE.items():
        assert one.number == number
        for text in (one.what, one.advice):
            assert not text.endswith(".")
            assert text[:1] == text[:1].lower() or text.startswith(("PCI", "CUDA"))
        assert one.what
        assert bool(one.advice) is (one.verdict is not Verdict.PASS)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (63, "NVIDIA's catalogue: ignore, AWS: monitor, Azure: fail"),
        (92, "NVIDIA's catalogue: ignore, AWS: monitor, Azure: fail"),
        (69, "NVIDIA's catalogue: restart the program, AWS: monitor, Azure: fail"),
        (79, ""),
        (13, ""),
        (999, ""),
    ],
)
def test_where_others_judge_otherwise_is_told(number: int, said: str) -> None:
    assert xid.find(number).disagreement == said


def test_an_unknown_one_is_no_pass() -> None:
    one = xid.find(4711)
    assert (one.known, one.verdict) == (False, Verdict.WARN)
    assert "4711" in one.advice


def test_the_power_cable_of_the_class_is_named_where_it_is_the_reason() -> None:
    for number in (54, 79):
        assert "cable" in xid.find(number).advice
    assert "12V-2x6" in xid.find(79).advice
