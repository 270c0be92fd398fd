# SPDX-License-Identifier: GPL-3.0-or-later
"""What samplers wrote, read back: crashes, gaps, clocks that were set, and machines that lie."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import watch_log
from hypothesis import given
from hypothesis import strategies as st

NOON = 1_800_000_000.0


def begin(wall: float = NOON, uptime: float = 1000.0, boot: str = "b1", **fields: Any) -> str:
    return json.dumps(
        {"event": "begin", "t": wall, "m": uptime, "boot": boot, "interval": 30, "until": NOON + 86400, "simulated": False, **fields}
    )  # fmt: skip


def tick(wall: float, uptime: float, **rtt: float | None) -> str:
    return json.dumps({"t": wall, "m": uptime, "rtt": rtt})


def steady(count: int, *, start: int = 0, **rtt: float | None) -> list[str]:
    """Ticks as they should be, thirty seconds apart."""
    return [tick(NOON + 30 * n, 1000 + 30 * n, **rtt) for n in range(start, start + count)]


def rtts(log: watch_log.Log, peer: str) -> list[float | None]:
    return [None if math.isnan(rtt) else rtt for rtt in log.series[peer].rtts]


def test_a_plain_log() -> None:
    lines = [begin(), *steady(2, beryl=1.5), *steady(1, start=2, beryl=None), json.dumps({"event": "end", "why": "finished", "t": 0, "m": 0})]  # fmt: skip
    log = watch_log.read("agate", lines)
    assert (log.source, log.interval, log.until, log.ticks) == ("agate", 30, NOON + 86400, 3)
    assert (log.first, log.last) == (NOON, NOON + 60)
    assert rtts(log, "beryl") == [1.5, 1.5, None]
    assert list(log.series["beryl"].times) == [NOON, NOON + 30, NOON + 60]
    assert (log.gaps, log.jumps, log.broken, log.end, log.simulated) == ((), (), 0, "finished", False)
    assert not log.fell_silent


def test_an_empty_file_is_no_fault() -> None:
    log = watch_log.read("agate", ["", "\n"])
    assert (log.ticks, log.first, log.last, log.broken, dict(log.series)) == (0, None, None, 0, {})


def test_a_last_line_that_a_crash_cut_in_half_is_counted_and_skipped() -> None:
    lines = [begin(), *steady(2, beryl=1.0)]
    whole = watch_log.read("agate", lines)
    cut = watch_log.read("agate", [*lines, tick(NOON + 60, 1060, beryl=1.0)[:17]])
    assert cut.broken == 1
    assert cut.series == whole.series


def test_a_restart_of_the_sampler_within_an_interval_is_no_gap() -> None:
    lines = [begin(), *steady(2, beryl=1.0), begin(NOON + 50, 1050), tick(NOON + 50, 1050, beryl=1.0)]
    assert watch_log.read("agate", lines).gaps == ()


def test_missing_ticks_are_a_gap_whether_the_machine_was_restarted_or_not() -> None:
    same = [begin(), *steady(2, beryl=1.0), begin(NOON + 630, 1630), tick(NOON + 630, 1630, beryl=2.0)]
    other = [begin(), *steady(2, beryl=1.0), begin(NOON + 630, 12, "b2"), tick(NOON + 630, 12, beryl=2.0)]
    for lines in (same, other):
        log = watch_log.read("agate", lines)
        assert [(gap.start, gap.end, gap.seconds) for gap in log.gaps] == [(NOON + 30, NOON + 630, 600)]
        assert log.series["beryl"].breaks == {2}
        assert log.jumps == ()


def test_seconds_since_one_start_are_not_compared_with_those_since_another() -> None:
    # It had hardly been started when it was restarted, and took long to be ready then.
    lines = [
        begin(NOON, 10.0),
        tick(NOON, 10.0, beryl=1.0),
        begin(NOON + 600, 70.0, "b2"),
        tick(NOON + 600, 70.0, beryl=1.0),
    ]
    log = watch_log.read("agate", lines)
    assert [gap.seconds for gap in log.gaps] == [600]
    assert log.jumps == ()


def test_a_clock_that_is_set_makes_no_gap_and_is_told() -> None:
    # It was an hour slow, and was set right between the second and the third tick.
    lines = [begin(), tick(NOON - 3600, 1000, beryl=1.0), tick(NOON - 3570, 1030, beryl=None), tick(NOON + 60, 1060, beryl=None), tick(NOON + 90, 1090, beryl=1.0)]  # fmt: skip
    log = watch_log.read("agate", lines)
    assert log.gaps == ()
    assert [(jump.time, jump.seconds) for jump in log.jumps] == [(NOON + 60, 3600)]
    # By the clock that is right, all of it.
    assert list(log.series["beryl"].times) == [NOON, NOON + 30, NOON + 60, NOON + 90]


def test_a_clock_that_is_set_back_does_not_turn_time_round() -> None:
    lines = [begin(), *steady(3, beryl=1.0), tick(NOON - 7200, 1090, beryl=1.0)]
    log = watch_log.read("agate", lines)
    assert [jump.seconds for jump in log.jumps] == [-7290]
    times = list(log.series["beryl"].times)
    assert times == sorted(times)
    assert times[-1] - times[0] == 90


def test_across_a_restart_with_a_clock_that_went_back_an_interval_has_passed_at_least() -> None:
    lines = [begin(), *steady(2, beryl=1.0), begin(NOON - 500, 10, "b2"), tick(NOON - 500, 10, beryl=1.0)]
    log = watch_log.read("agate", lines)
    assert [b - a for a, b in pairwise(log.series["beryl"].times)] == [30, 30]  # fmt: skip
    assert [jump.seconds for jump in log.jumps] == [-560]


def test_a_peer_that_comes_later_or_goes_for_a_while_has_its_own_breaks() -> None:
    lines = [begin(), *steady(2, beryl=1.0), *steady(2, start=2, topaz=3.0), *steady(1, start=4, beryl=1.0, topaz=3.0)]  # fmt: skip
    log = watch_log.read("agate", lines)
    assert log.series["beryl"].breaks == {2}
    assert log.series["topaz"].breaks == set()
    assert log.gaps == ()


def test_what_ends_a_log() -> None:
    def end(why: str) -> watch_log.Log:
        return watch_log.read("agate", [begin(), *steady(1, beryl=1.0), json.dumps({"event": "end", "why": why})])  # fmt: skip

    assert [end(why).fell_silent for why in ("finished", "stopped", "full", "terminated")] == [False, False, False, True]  # fmt: skip
    # A machine that was shut down and is back has not ended.
    again = [
        begin(),
        *steady(1, beryl=1.0),
        json.dumps({"event": "end", "why": "terminated"}),
        begin(boot="b2"),
    ]
    assert watch_log.read("agate", again).end is None


def test_what_was_simulated_once_stays_so_and_what_does_not_say_is() -> None:
    real = begin()
    silent = json.dumps({key: value for key, value in json.loads(begin()).items() if key != "simulated"})
    assert not watch_log.read("agate", [real]).simulated
    assert watch_log.read("agate", [silent]).simulated
    assert watch_log.read("agate", [begin(simulated=True), real]).simulated


@pytest.mark.parametrize(
    "line",
    [
        "null", "[]", "7", '"x"', "{}", "{", '{"event": "end"}', '{"event": "begin"}',
        tick(NOON, 1000, **{"=cmd()": 1.0}), tick(NOON, 1000, **{"a\x1b[31m": 1.0}), tick(NOON, 1000, beryl=-1.0),
        '{"t": 1e999, "m": 1, "rtt": {"beryl": 1}}', '{"t": NaN, "m": 1, "rtt": {"beryl": 1}}',
        '{"t": 1, "m": 1, "rtt": {"beryl": Infinity}}', '{"t": 1, "m": 1, "rtt": {"beryl": "1"}}',
        '{"t": 1, "m": 1, "rtt": {"beryl": true}}', '{"t": 1, "m": 1, "rtt": [1]}',
        begin(interval=0), begin(interval="x"), begin(boot="../x"), "[" * 100_000,
    ],
)  # fmt: skip
def test_a_machine_that_writes_nonsense_bends_nothing(line: str) -> None:
    good = [begin(), *steady(2, beryl=1.0)]
    log = watch_log.read("agate", [*good, line])
    assert log == watch_log.Log(**{**{name: getattr(watch_log.read("agate", good), name) for name in watch_log.Log.__slots__}, "broken": 1})  # fmt: skip


def test_a_tick_before_any_begin_is_broken() -> None:
    assert watch_log.read("agate", steady(3, beryl=1.0)).broken == 3


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[str], Sequence[float]]:
    """Lines with steps of any length, restarts of the machine, and a clock that is set; and the true times of ticks."""
    lines, times = [begin(NOON, 1000.0)], []
    true, clock, boot, uptime = 0.0, 0.0, 0, 1000.0
    for number in range(draw(st.integers(1, 40))):
        step = float(draw(st.sampled_from([30, 30, 30, 31, 60, 400, 7200]))) if number else 0.0
        true, uptime = true + step, uptime + step
        clock += draw(st.sampled_from([0.0] * 9 + [5.0, -700.0, 3600.0]))
        if draw(st.integers(0, 9)) == 0:
            boot += 1
            uptime = 5.0
            clock = 0.0  # its clock is right after a restart, or nobody could tell
            lines.append(begin(NOON + true, uptime, f"b{boot}"))
        lines.append(tick(NOON + true + clock, uptime, beryl=1.0))
        times.append(true)
    return lines, times


@given(histories())
def test_time_never_goes_back_and_gaps_are_where_ticks_are_far_apart(
    history: tuple[list[str], Sequence[float]],
) -> None:
    log = watch_log.read("agate", history[0])
    times = log.series["beryl"].times
    assert log.broken == 0
    assert log.ticks == len(times) == len(history[1])
    assert all(before <= after for before, after in pairwise(times))
    far = {number for number in range(1, len(times)) if times[number] - times[number - 1] > 45.001}
    assert log.series["beryl"].breaks >= far
    assert len(log.gaps) == len(log.series["beryl"].breaks)


@given(st.lists(st.sampled_from([30, 31, 60, 400, 7200]), min_size=1, max_size=30), st.data())
def test_within_one_run_of_the_machine_no_setting_of_the_clock_changes_a_span(
    steps: list[int], data: st.DataObject
) -> None:
    def lines(clocks: Mapping[int, float]) -> list[str]:
        made, clock, true = [begin()], 0.0, 0.0
        for number, step in enumerate(steps):
            true += step
            clock += clocks.get(number, 0.0)
            made.append(tick(NOON + true + clock, 1000 + true, beryl=1.0))
        return made

    moved = data.draw(st.dictionaries(st.integers(0, len(steps) - 1), st.sampled_from([-9000.0, -20.0, 20.0, 9000.0])))  # fmt: skip
    right, wrong = (watch_log.read("agate", lines(clocks)) for clocks in ({}, moved))

    def spans(log: watch_log.Log) -> list[float]:
        times = log.series["beryl"].times
        return [round(after - before, 3) for before, after in pairwise(times)]

    assert spans(right) == spans(wrong)
    assert right.series["beryl"].breaks == wrong.series["beryl"].breaks
    assert len(wrong.jumps) == len([number for number in moved if number > 0])


@given(st.lists(st.text(max_size=60) | st.sampled_from([begin(), *steady(3, beryl=1.0)]), max_size=30))
def test_no_line_makes_it_fail_and_every_line_is_accounted_for(lines: list[str]) -> None:
    log = watch_log.read("agate", lines)
    begins = sum(line == begin() for line in lines)
    assert log.ticks + log.broken + begins == sum(bool(line.strip()) for line in lines)
