# SPDX-License-Identifier: GPL-3.0-or-later
"""What starting a watch does to each machine: nothing to one that runs, and never a mix of two watches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import watch_plan

NOW = 1_800_000_000.0
PEERS = {"agate": "fd00::1", "beryl": "fd00::2", "laptop": "10.1.2.3"}
WEEK = watch_plan.Wish("week", "7d", "30s", 256)


def said(**fields: Any) -> dict[str, Any]:
    """What a machine without a watch says of it."""
    return {
        "now": NOW, "ping": True, "systemd": True, "space": 10**11, "active": "inactive", "enabled": False, "config": None,
        "samples": None, "names": [], **fields,
    }  # fmt: skip


def states(**machines: Mapping[str, Any]) -> dict[str, watch_plan.State]:
    return {name: watch_plan.state(its, NOW) for name, its in machines.items()}


def plan(
    found: Mapping[str, watch_plan.State],
    wish: watch_plan.Wish = WEEK,
    peers: Mapping[str, str] = PEERS,
    now: float = NOW,
) -> watch_plan.Plan:
    return watch_plan.plan(wish, found, peers, now, simulated={"agate": False, "beryl": False})


def running(first: watch_plan.Plan, host: str, **fields: Any) -> dict[str, Any]:
    """What a machine says that was started by a plan."""
    return said(active="active", enabled=True, config=dict(first.configs[host]), names=["week"], **fields)


def test_a_first_start() -> None:
    first = plan(states(agate=said(), beryl=said()))
    assert first.problems == ()
    assert first.does == {"agate": "start", "beryl": "start"}
    assert (first.started, first.until) == (NOW, NOW + 604800)
    config = first.configs["agate"]
    assert config["peers"] == {"beryl": "fd00::2", "laptop": "10.1.2.3"}
    assert (config["watch"], config["host"], config["interval"], config["simulated"]) == (
        "week",
        "agate",
        30,
        False,
    )
    # Half as much again as 20160 lines of some 90 bytes.
    assert 2_000_000 < config["limit"] < 4_000_000
    assert first.lines[0] == "Mesh watch week: every 30s until 2027-01-22 08:00:00Z (7d from now)."


def test_a_second_start_leaves_it_alone_whatever_it_asks_for() -> None:
    first = plan(states(agate=said(), beryl=said()))
    found = states(agate=running(first, "agate"), beryl=running(first, "beryl"))
    for wish in (WEEK, watch_plan.Wish("week", "1d", "10s", 256)):
        again = plan(found, wish, now=NOW + 3600)
        assert again.problems == ()
        assert again.does == {"agate": "keep", "beryl": "keep"}
        assert again.configs == first.configs
        assert (again.started, again.until) == (first.started, first.until)
    assert "neither 1d nor 10s changes it" in again.lines[-1]


def test_a_machine_that_comes_later_takes_samples_to_the_same_end_and_the_others_take_it_up() -> None:
    first = plan(states(agate=said()), peers={"agate": "fd00::1", "beryl": "fd00::2"})
    found = states(
        agate=running(first, "agate", samples={"bytes": 500, "ticks": 5, "asked": 5, "lost": 0, "last": NOW}),
        topaz=said(),
    )
    later = plan(found, peers={"agate": "fd00::1", "beryl": "fd00::2", "topaz": "fd00::3"}, now=NOW + 86400)
    assert later.does == {"agate": "update", "topaz": "start"}
    assert later.configs["agate"]["peers"] == {"beryl": "fd00::2", "topaz": "fd00::3"}
    for name in ("started", "until", "interval"):
        assert later.configs["agate"][name] == later.configs["topaz"][name] == first.configs["agate"][name]
    assert later.configs["agate"]["limit"] >= first.configs["agate"]["limit"]
    assert later.configs["topaz"]["simulated"] is True  # nobody says that it is not


def test_a_sampler_that_does_not_run_any_more_is_started_again() -> None:
    first = plan(states(agate=said(), beryl=said()))
    found = states(agate={**running(first, "agate"), "active": "failed"}, beryl=running(first, "beryl"))
    again = plan(found, now=NOW + 60)
    assert again.does == {"agate": "resume", "beryl": "keep"}
    assert again.configs == first.configs
    assert any("starts again, after a failure" in line for line in again.lines)


@pytest.mark.parametrize("ending", ["time", "stopped", "config lost"])
def test_an_ended_watch_is_not_mixed_with_a_new_one(ending: str) -> None:
    first = plan(states(agate=said(), beryl=said()))
    samples = {"bytes": 500, "ticks": 5, "asked": 5, "lost": 0, "last": NOW}
    its = running(first, "agate", samples=samples)
    if ending == "stopped":
        its["config"]["stopped"] = True
    if ending == "config lost":
        its["config"] = None
    now = NOW + 604801 if ending == "time" else NOW + 60
    again = plan(states(agate=its, beryl=said()), now=now)
    assert again.does == {}
    assert "has ended on agate and its samples are there still" in again.problems[0]


def test_one_machine_does_not_measure_itself_but_others_of_its_address() -> None:
    first = plan(states(agate=said()), peers={"agate": "fd00::1", "twin": "fd00::1"})
    assert first.configs["agate"]["peers"] == {"twin": "fd00::1"}


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (watch_plan.Wish("Week!", "7d", "30s", 256), "'Week!' is no name"),
        (watch_plan.Wish("../x", "7d", "30s", 256), "is no name"),
        (watch_plan.Wish("week", "7x", "30s", 256), "'7x' is no span of time"),
        (watch_plan.Wish("week", "0s", "30s", 256), "a watch lasts 1s to 366d, not 0s"),
        (watch_plan.Wish("week", "400d", "30s", 256), "a watch lasts 1s to 366d, not 400d"),
        (watch_plan.Wish("week", "7d", "2s", 256), "the interval is 3s to 1d, not 2s"),
        (watch_plan.Wish("week", "366d", "3s", 256), "the samples could take"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wish: watch_plan.Wish, problem: str) -> None:
    assert problem in "\n".join(plan(states(agate=said()), wish).problems)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [({"ping": False}, "agate: the program ping is missing; install iputils-ping"), ({"space": 10**6}, "1.0 MB are free")],
)  # fmt: skip
def test_a_machine_that_cannot_is_told(fields: dict[str, Any], problem: str) -> None:
    assert problem in "\n".join(plan(states(agate=said(**fields))).problems)


def test_addresses_are_addresses_and_somebody_is_there_to_be_measured() -> None:
    assert "no IP address: '-f'" in plan(states(agate=said()), peers={"beryl": "-f"}).problems[0]
    assert "no other member to measure" in plan(states(agate=said()), peers={"agate": "fd00::1"}).problems[0]
    assert "nobody can take samples" in plan({}).problems[0]


@pytest.mark.parametrize(
    "config",
    [
        {"until": NOW + 1e10}, {"until": NOW - 1e9}, {"interval": 0.001}, {"interval": float("nan")}, {"peers": ["x"]}, {"limit": "much"},
        {"started": "x"},
    ],
)  # fmt: skip
def test_one_machine_cannot_keep_the_others_busy_for_ever(config: dict[str, Any]) -> None:
    first = plan(states(agate=said()))
    its = running(first, "agate")
    its["config"] |= config
    with pytest.raises((ValueError, TypeError)):
        watch_plan.state(its, NOW)


def test_how_it_is_going() -> None:
    first = plan(states(agate=said(), beryl=said(), topaz=said()))
    sampled = {"bytes": 1_500_000, "ticks": 2880, "asked": 5760, "lost": 3, "last": NOW + 86400 - 12 - 20}
    found = {
        "agate": watch_plan.state(
            running(first, "agate", samples=sampled, now=NOW + 86400 - 20), NOW + 86400
        ),
        "beryl": watch_plan.state(
            {**running(first, "beryl"), "active": "failed", "now": NOW + 86400}, NOW + 86400
        ),
        "new": watch_plan.state(said(now=NOW + 86400), NOW + 86400),
    }
    assert watch_plan.status("week", found, NOW + 86400) == [
        "Mesh watch week, as its samplers have it:",
        "",
        "machine  state          until                 ticks  samples    lost  last       file",
        "agate    running        2027-01-22 08:00:00Z   2880     5760  0.05 %  12s ago  1.5 MB",
        "beryl    failed         2027-01-22 08:00:00Z      0        0     0 %  -        0.0 MB",
        "new      takes no part  -                         -        -       -  -             -",
        "agate: its clock is 20s behind the control machine's.",
        "beryl: its sampler does not run; 'journalctl -u gpumesh-mesh-watch@week' says why.",
    ]
    assert watch_plan.progress(found, NOW + 86400) == "6d to go: 5760 samples, 0.05 % lost"
    assert watch_plan.progress(found, NOW + 1e6) == "done: 5760 samples, 0.05 % lost"
    assert watch_plan.folder("week", found) == "week-20270115T0800Z"


def test_simulated_machines_are_marked() -> None:
    made = watch_plan.plan(WEEK, states(agate=said()), PEERS, NOW, simulated={"agate": True})
    assert any(line.startswith("SIMULATED") for line in made.lines)
    assert any(
        "agate (SIMULATED)" in line
        for line in watch_plan.status("week", states(agate=running(made, "agate")), NOW)
    )


def test_a_watch_that_is_not_there_is_told_with_those_that_are() -> None:
    assert watch_plan.status("week", states(agate=said(names=["quick"])), NOW) == [
        "No machine that answers has a watch named week. There is quick."
    ]
    assert watch_plan.status("week", states(agate=said()), NOW) == [
        "No machine that answers has a watch named week."
    ]
