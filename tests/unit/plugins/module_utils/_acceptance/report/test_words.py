# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as a page writes them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import words

THIN = words.THIN


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (0, "0"),
        (4, "4"),
        (32607, f"32{THIN}607"),
        (575.0, "575"),
        (254.13, "254.1"),
        (9.2345, "9.23"),
        (0.0019, "0.002"),
        (0.00000012, "1.2e-07"),
        (-8.25, "-8.25"),
        (2309.7, "2310"),
        (1.5e20, "1.5e+20"),
        (float("nan"), "no number"),
    ],
)
def test_a_number_is_as_short_as_is_exact_enough(given: float, shown: str) -> None:
    assert words.figure(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, "no reading"), (True, "yes"), (False, "no"), ("open", "open"), (3, f"3{THIN}W")],
)
def test_a_value_that_is_no_number_is_a_word(given: Any, shown: str) -> None:
    assert words.value(given, "W" if given == 3 and given is not True else "") == shown


def test_numbers_beside_each_other_have_the_same_digits() -> None:
    assert words.alike([236.0, 235.1]) == ["236.0", "235.1"]
    assert words.alike([16, 8]) == ["16", "8"]
    assert words.alike([]) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (0, f"0{THIN}s"),
        (0.24, f"0.2{THIN}s"),
        (5.0, f"5{THIN}s"),
        (61, f"1{THIN}min 1{THIN}s"),
        (2100, f"35{THIN}min"),
        (84300, f"23{THIN}h 25{THIN}min"),
        (86400, f"1{THIN}d"),
        (3605, f"1{THIN}h"),
    ],
)
def test_a_length_of_time_has_its_two_greatest_units(given: float, shown: str) -> None:
    assert words.long(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("x16 on all 4 GPUs", "x16 on all 4 GPUs."),
        ("no Xid", "No Xid."),
        ("nvidia-smi is gone", "nvidia-smi is gone."),
        ("nvidia_uvm is missing", "nvidia_uvm is missing."),
        ("Done!", "Done!"),
        ("  ", ""),
    ],
)
def test_a_sentence_begins_large_unless_it_begins_with_a_name(given: str, shown: str) -> None:
    assert words.sentence(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (">= 80 %", f"≥{THIN}80{THIN}%"),
        (">= 226.8 (90% of 252)", f"≥{THIN}226.8 (90% of 252)"),
        ("open", "open"),
    ],
)
def test_a_bound_has_the_signs_of_print(given: str, shown: str) -> None:
    assert words.bound(given) == shown


def test_what_is_to_be_typed_stands_between_backticks() -> None:
    assert words.marked("run `nvidia-smi -q` now") == [
        ("run ", False),
        ("nvidia-smi -q", True),
        (" now", False),
    ]
    assert words.marked("a stray ` of no meaning") == [("a stray ` of no meaning", False)]


@pytest.mark.parametrize("given", [None, 1e30, float("inf")])
def test_a_moment_that_is_none_is_a_dash(given: float | None) -> None:
    assert words.when(given) == words.NOTHING
