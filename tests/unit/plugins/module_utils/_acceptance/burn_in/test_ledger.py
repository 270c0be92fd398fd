# SPDX-License-Identifier: GPL-3.0-or-later
"""Burned time: never counted twice, never invented, and whatever is not burned is a gap with a reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import ledger
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.ledger import Ledger
from hypothesis import given
from hypothesis import strategies as st


def read(*records: dict[str, Any]) -> Ledger:
    found = Ledger()
    for record in records:
        found.add(record)
    return found


def begin(t: float, boot: str = "one") -> dict[str, Any]:
    return {"event": "begin", "t": t, "boot": boot}


def burning(t: float) -> dict[str, Any]:
    return {"event": "burning", "t": t}


def tick(since: float, t: float) -> dict[str, Any]:
    return {"event": "tick", "from": since, "t": t}


def end(t: float) -> dict[str, Any]:
    return {"event": "end", "t": t, "why": "terminated"}


def stop(t: float, kind: str = ledger.FINISHED) -> dict[str, Any]:
    return {"event": "stop", "t": t, "kind": kind, "says": "its time is over"}


def gaps(found: Ledger) -> list[tuple[float, float, str]]:
    return [(gap.begin, gap.end, gap.why) for gap in found.gaps]


def test_one_spell() -> None:
    found = read(begin(100), burning(110), tick(110, 115), tick(115, 120), stop(120))
    assert found.burned_s == 10
    assert gaps(found) == [(100, 110, ledger.STARTING)]
    assert found.left_s(60) == 0, "it has ended for good"


@pytest.mark.parametrize(
    ("before", "boot", "why"),
    [
        ([end(123)], "one", ledger.INTERRUPTED),
        ([], "one", ledger.KILLED),
        ([], "two", ledger.RESTARTED),
        ([end(123)], "two", ledger.RESTARTED),
    ],
)
def test_the_time_between_two_spells_is_a_gap_that_says_why(
    before: list[dict[str, Any]], boot: str, why: str
) -> None:
    found = read(
        begin(100), burning(110), tick(110, 120), *before, begin(500, boot), burning(510), tick(510, 515)
    )
    assert found.burned_s == 15
    assert gaps(found) == [(100, 110, ledger.STARTING), (120, 510, why)]
    assert found.left_s(60) == 45
    assert found.spells == 2


def test_a_tick_that_says_it_burned_before_it_began_counts_only_what_was_not_counted() -> None:
    found = read(begin(100), burning(100), tick(100, 110), tick(90, 112))
    assert found.burned_s == 12


def test_time_that_nobody_saw_is_a_gap() -> None:
    found = read(begin(0), burning(0), tick(0, 5), tick(95, 100))
    assert found.burned_s == 10
    assert gaps(found) == [(5, 95, ledger.SILENT)]


def test_ticks_before_all_workers_burn_do_not_count() -> None:
    found = read(begin(0), tick(0, 5), burning(6), tick(6, 8))
    assert found.burned_s == 2


def test_what_comes_after_the_end_does_not_count() -> None:
    found = read(begin(0), burning(0), tick(0, 5), stop(5), tick(5, 50), end(50))
    assert found.burned_s == 5
    assert found.end == 5
    assert found.gaps == ()


def test_a_clock_that_was_set_back_makes_no_time() -> None:
    found = read(begin(1000), burning(1000), tick(1000, 1010), begin(20, "two"), burning(25), tick(25, 30))
    assert found.burned_s == 10
    assert found.wall_s == 10


def test_records_that_are_no_records_are_left_out() -> None:
    found = read(
        begin(0), burning(0), {"event": "tick"}, {"event": "tick", "t": "x"}, {"t": True}, tick(0, 3)
    )
    assert found.burned_s == 3


_times = st.floats(min_value=0, max_value=1e6, allow_nan=False)
_records = st.lists(
    st.one_of(
        st.builds(begin, _times, st.sampled_from(["one", "two"])),
        st.builds(burning, _times),
        st.builds(tick, _times, _times),
        st.builds(end, _times),
    ),
    max_size=40,
)


@given(_records)
def test_burned_and_gaps_are_the_whole_time_and_never_overlap(records: list[dict[str, Any]]) -> None:
    found = read(*records)
    total = found.burned_s + sum(gap.seconds for gap in found.gaps)
    assert math.isclose(total, found.wall_s, abs_tol=1e-6)
    assert all(gap.seconds > 0 and gap.why for gap in found.gaps)
    assert all(one.end <= other.begin for one, other in zip(found.gaps, found.gaps[1:], strict=False))


@given(_records, st.integers(0, 40))
def test_reading_a_record_twice_burns_nothing_more(records: list[dict[str, Any]], which: int) -> None:
    once = read(*records)
    if records:
        record = records[which % len(records)]
        if record["event"] == "tick":
            place = records.index(record)
            twice = read(*records[: place + 1], record, *records[place + 1 :])
            assert math.isclose(once.burned_s, twice.burned_s, abs_tol=1e-6)


@given(_records, _times)
def test_what_is_left_and_what_was_burned_are_what_was_asked(
    records: list[dict[str, Any]], asked: float
) -> None:
    found = read(*records)
    left = found.left_s(asked)
    assert left >= 0
    assert math.isclose(left, max(0.0, asked - found.burned_s), abs_tol=1e-6)


@given(
    st.lists(
        st.tuples(st.floats(0.1, 50), st.floats(0.1, 500), st.sampled_from("ab")), min_size=1, max_size=8
    )
)
def test_spells_that_are_killed_after_any_time_add_up(spells: list[tuple[float, float, str]]) -> None:
    """As a burn-in goes: begin, burn for a while, be killed, be away for a while, begin again."""
    at, asked, records = 0.0, 0.0, []
    for burned, away, boot in spells:
        records += [begin(at, boot), burning(at + 1), tick(at + 1, at + 1 + burned)]
        at += 1 + burned + away
        asked += burned
    found = read(*records)
    assert math.isclose(found.burned_s, asked, rel_tol=1e-6)
    assert len(found.gaps) == len(spells)
