# SPDX-License-Identifier: GPL-3.0-or-later
"""One switched-off machine is one incident, however many lose it; a pair that parts is another thing."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import pairwise

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import watch_log, watch_report
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.watch_incidents import Kind
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.watch_log import (
    LOST,
    Gap,
    Log,
    Series,
)
from ansible_collections.gpumesh.fleet.tests import watch_samples

STEP = 30.0


def log(source: str, rows: Mapping[str, str], end: str | None = "finished") -> Log:
    """One sign a tick and peer: ``.`` answered, ``x`` lost, blank: the machine took no samples."""
    length = max(map(len, rows.values()))
    taken = [n for n in range(length) if any(row[n : n + 1].strip() for row in rows.values())]
    holes = [(before, after) for before, after in pairwise(taken) if after - before > 1]
    series = {
        peer: Series(
            array("d", (STEP * n for n in taken)),
            array("d", (10.0 if row[n] == "." else LOST for n in taken)),
            frozenset(taken.index(after) for _before, after in holes),
        )
        for peer, row in rows.items()
    }
    gaps = tuple(Gap(STEP * before, STEP * after) for before, after in holes)
    return Log(source, STEP, STEP * length, False, len(taken), STEP * taken[0], STEP * taken[-1], series, gaps, end=end)  # fmt: skip


def happened(*logs: Log, least: int = 3) -> list[tuple[Kind, tuple[str, ...], int, str]]:
    return [
        (one.kind, one.machines, one.pairs, one.says)
        for one in watch_report.report("test", logs, least).incidents
    ]


def test_a_machine_that_took_no_samples_itself_was_down() -> None:
    assert happened(
        log("a", {"b": "..........", "c": "..xxxxx..."}),
        log("b", {"a": "..........", "c": "..xxxxx..."}),
        log("c", {"a": "..     ...", "b": "..     ..."}),
    ) == [(Kind.DOWN, ("c",), 2, "c was down or asleep")]


def test_a_machine_that_never_came_back_was_down_from_its_last_sample_on() -> None:
    logs = [
        log("a", {"b": "..........", "c": "...xxxxxxx"}),
        log("b", {"a": "..........", "c": "...xxxxxxx"}),
    ]
    silent = {"a": "...", "b": "..."}
    assert happened(*logs, log("c", silent, end="terminated"))[0][0] is Kind.DOWN
    # One whose sampler was told to stop may have been up all the while.
    assert happened(*logs, log("c", silent, end="stopped"))[0][0] is Kind.CUT_OFF


def test_a_machine_restarted_at_the_end_of_a_long_drop_out_does_not_explain_it() -> None:
    assert happened(
        log("a", {"b": "xxxxxxxxxxxx.", "c": "............."}),
        log("b", {"a": "xxxxxxxxxx  .", "c": "..........  ."}),
        log("c", {"a": ".............", "b": ".............", }),
    ) == [(Kind.PAIR, ("a", "b"), 2, "a and b did not reach each other")]  # fmt: skip


def test_a_machine_that_reaches_nobody_and_is_reached_by_nobody_was_cut_off() -> None:
    assert happened(
        log("a", {"b": "..........", "c": "..xxxxx..."}),
        log("b", {"a": "..........", "c": "..xxxxx..."}),
        log("c", {"a": "..xxxxx...", "b": "..xxxxx..."}),
    ) == [(Kind.CUT_OFF, ("c",), 4, "c was cut off from all others")]


def test_who_lost_it_first_does_not_matter() -> None:
    assert happened(
        log("a", {"b": "..........", "c": ".xxxxxxx.."}), log("b", {"a": "..........", "c": "...xxxxx.."})
    ) == [(Kind.CUT_OFF, ("c",), 2, "nobody reached c")]


def test_one_direction_alone_is_said_so() -> None:
    quiet = log("b", {"a": "......", "c": "......"})
    assert happened(log("a", {"b": "......", "c": "xxxx.."}), log("b", {"a": "......", "c": "xxxx.."})) == [
        (Kind.CUT_OFF, ("c",), 2, "nobody reached c")
    ]
    assert happened(
        quiet, log("a", {"b": "xxxx..", "c": "xxxx.."}), log("c", {"a": "......", "b": "......"})
    ) == [(Kind.CUT_OFF, ("a",), 2, "a reached nobody")]


def test_a_pair_apart_is_one_incident_in_both_directions() -> None:
    calm = log("c", {"a": "..........", "b": ".........."})
    assert happened(
        log("a", {"b": "..xxxx....", "c": ".........."}),
        log("b", {"a": "...xxxx...", "c": ".........."}),
        calm,
    ) == [(Kind.PAIR, ("a", "b"), 2, "a and b did not reach each other")]
    assert happened(
        log("a", {"b": "..xxxx....", "c": ".........."}),
        log("b", {"a": "..........", "c": ".........."}),
        calm,
    ) == [(Kind.PAIR, ("a", "b"), 1, "a did not reach b")]


def test_of_two_machines_alone_nobody_knows_whose_fault_it_was() -> None:
    assert happened(log("a", {"b": ".xxxx."}), log("b", {"a": ".xxxx."}))[0][:2] == (Kind.PAIR, ("a", "b"))


def test_one_of_many_whose_last_sample_was_answered_by_chance_does_not_hide_it() -> None:
    peers = "abcde"
    logs = [
        log(name, {peer: "...xxxx..." if peer == "f" and name != "a" else "...xx....." if peer == "f" else "." * 10
                   for peer in (*peers, "f") if peer != name})
        for name in peers
    ]  # fmt: skip
    assert happened(*logs) == [(Kind.CUT_OFF, ("f",), 4, "nobody reached f")]


def test_a_sick_third_machine_does_not_hide_that_one_was_cut_off() -> None:
    # d takes no samples all the while, so it cannot say that it lost c, too.
    assert happened(
        log("a", {"b": "........", "c": "..xxxx..", "d": "xxxxxxxx"}),
        log("b", {"a": "........", "c": "..xxxx..", "d": "xxxxxxxx"}),
        log("d", {"a": ".      .", "b": ".      .", "c": ".      ."}),
    ) == [(Kind.DOWN, ("d",), 2, "d was down or asleep"), (Kind.CUT_OFF, ("c",), 2, "nobody reached c")]


def test_two_incidents_of_one_kind_stay_two() -> None:
    its = happened(log("a", {"b": ".xxx...xxx.", "c": "..........."}), log("c", {"a": "...........", "b": "..........."}))  # fmt: skip
    assert [says for *_rest, says in its] == ["a did not reach b"] * 2


@pytest.mark.parametrize("count", [2, 5])
def test_every_drop_out_belongs_to_exactly_one_incident(count: int) -> None:
    lines = watch_samples.logs(watch_samples.NAMES[:count], 1, interval=60, seed=count)
    found = watch_report.report("test", [watch_log.read(name, its) for name, its in lines.items()])
    assert found.dropouts > 0
    spread = [one for incident in found.incidents for one in incident.dropouts]
    assert sorted(spread, key=repr) == sorted(
        (one for pair in found.pairs for one in pair.dropouts), key=repr
    )
    for incident in found.incidents:
        assert incident.start == min(one.start for one in incident.dropouts)
        assert incident.end == max(one.end for one in incident.dropouts)
        assert all(set(incident.machines) & {one.source, one.target} for one in incident.dropouts)
