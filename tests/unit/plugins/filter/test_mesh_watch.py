# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the role mesh_watch, on what its hosts say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

WISH = {"name": "week", "lasts": "7d", "interval": "30s", "peers": {"agate": "fd00::1", "beryl": "fd00::2"}, "most_megabytes": 256}  # fmt: skip


def run(name: str, /, *arguments: Any, **options: Any) -> Any:
    return filter_loader.get(f"gpumesh.fleet.{name}").j2_function(*arguments, **options)


def looked(**fields: Any) -> dict[str, Any]:
    said = {"now": time.time(), "ping": True, "space": 10**11, "active": "inactive", "config": None, "samples": None, "names": [], **fields}  # fmt: skip
    return {"__mesh_watch_look": {"stdout": json.dumps(said)}}


def test_a_plan_is_plain_data() -> None:
    variables = {"agate": looked(), "beryl": {**looked(), "fleet_simulated": False, "fleet_mesh_member": {"simulated": True}}}  # fmt: skip
    plan = run("mesh_watch_plan", variables, ["agate", "beryl"], **WISH)
    assert plan == json.loads(json.dumps(plan))
    assert (plan["problems"], plan["does"], plan["seconds"]) == (
        [],
        {"agate": "start", "beryl": "start"},
        604800,
    )
    assert [plan["configs"][host]["simulated"] for host in ("agate", "beryl")] == [False, True]


def test_hosts_that_did_not_answer_take_no_part() -> None:
    variables = {"agate": looked(), "beryl": {"__mesh_watch_look": {"unreachable": True, "msg": "x"}}, "topaz": {}}  # fmt: skip
    assert list(run("mesh_watch_plan", variables, ["agate", "beryl", "topaz", "nobody"], **WISH)["does"]) == ["agate"]  # fmt: skip


def test_the_state_tells_who_has_what() -> None:
    config = run("mesh_watch_plan", {"agate": looked()}, ["agate"], **WISH)["configs"]["agate"]
    samples = {"bytes": 10, "ticks": 1, "asked": 1, "lost": 0, "last": time.time()}
    variables = {
        "agate": looked(config=config, active="active", samples=samples, names=["week"]),
        "beryl": looked(config={**config, "stopped": True}, names=["week", "quick"]),
        "topaz": looked(),
    }
    state = run("mesh_watch_state", variables, list(variables), name="week")
    assert {key: state[key] for key in ("here", "sampled", "going", "active", "others")} == {
        "here": ["agate", "beryl"],
        "sampled": ["agate"],
        "going": ["agate"],
        "active": ["agate"],
        "others": ["beryl"],
    }
    assert 604700 < state["left"] <= 604800
    assert state["folder"].startswith("week-20")
    assert "to go: 1 samples" in state["progress"]
    assert len(state["lines"]) == 6


def test_a_host_that_says_nonsense_is_named() -> None:
    with pytest.raises(AnsibleError, match="agate does not say of its watch what it should"):
        run("mesh_watch_state", {"agate": looked(config={"until": "x"})}, ["agate"], name="week")
    with pytest.raises(AnsibleError, match="agate does not say"):
        run("mesh_watch_state", {"agate": {"__mesh_watch_look": {"stdout": "x"}}}, ["agate"], name="week")


def test_misuse_is_told() -> None:
    with pytest.raises(AnsibleError, match="give it hostvars"):
        run("mesh_watch_state", "x", ["agate"], name="week")
    with pytest.raises(AnsibleError, match="a list of hosts"):
        run("mesh_watch_plan", {}, "agate", **WISH)
    with pytest.raises(AnsibleError, match="'soon' is no span of time"):
        run("seconds", "soon")


def test_seconds() -> None:
    assert run("seconds", "10m") == 600
    assert run("seconds", 45) == 45
