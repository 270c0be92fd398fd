# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh as people see it: states, ages, latencies, and whoever does not belong there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import mesh_table

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
MESH = {"network": "db4344343b14b903", "controller": "agate", "domain": "zt", "addressing": "rfc4193", "name": "x.zt"}  # fmt: skip


def member(authorized: bool = True, online: bool | None = True, **fields: Any) -> dict[str, Any]:
    return {
        "node_id": "1" * 10, "authorized": authorized, "online": online, "addresses": [], "version": "1.14.2",
        "last_seen": "2026-11-27T11:59:30Z", "latency_ms": None, "physical_address": "198.51.100.7", "simulated": False, **fields,
    }  # fmt: skip


def host(
    its: dict[str, Any] | None, *, provider: str = "hetzner", enabled: bool = True, **fields: Any
) -> dict[str, Any]:
    return {
        "fleet_name": "minerals", "fleet_provider": provider, "fleet_machine": {"enabled": enabled}, "fleet_mesh": MESH, "fleet_mesh_ip": "fd00::1",
        "fleet_mesh_node_id": "1" * 10, "fleet_mesh_member": its, "fleet_simulated": False, **fields,
    }  # fmt: skip


def stranger(authorized: bool) -> dict[str, Any]:
    return {"fleet_name": "minerals", "fleet_mesh_ip": "fd00::9", "fleet_mesh_node_id": "9" * 10, "fleet_mesh_member": member(authorized)}  # fmt: skip


def measured(**answers: float | None) -> dict[str, Any]:
    peers = {
        peer: {"answers": 0, "says": ""}
        if rtt is None
        else {"answers": 3, "median": rtt, "min": rtt, "max": rtt}
        for peer, rtt in answers.items()
    }
    return {"stdout": json.dumps({"peers": peers})}


@pytest.mark.parametrize(
    ("its", "state"),
    [
        (host(member()), "online"),
        (host(member(online=False)), "offline"),
        (host(member(online=None)), "authorized"),
        (host(member(authorized=False)), "unauthorized"),
        (host(None), "not a member"),
        (host(member(), provider="external"), "external, online"),
        (host(member(authorized=False), provider="external"), "external, unauthorized"),
        (host(None, provider="external"), "external, not a member"),
        (host(member(online=False), enabled=False), "offline, disabled"),
    ],
)
def test_the_state_of_a_declared_machine(its: dict[str, Any], state: str) -> None:
    found = mesh_table.status({"agate": its, "other": host(member())}, ["agate", "other"], [], NOW)
    assert found["members"][0]["state"] == state


def test_a_disabled_machine_that_is_no_member_is_no_line() -> None:
    found = mesh_table.status(
        {"off": host(None, enabled=False), "on": host(member())}, ["off", "on"], [], NOW
    )
    assert [one["name"] for one in found["members"]] == ["on"]


def test_where_nobody_was_told_of_nobody_is_called_a_stranger() -> None:
    found = mesh_table.status({"agate": host(None)}, ["agate"], [], NOW)
    assert found["members"][0]["state"] == "unknown"
    told = host(None, fleet_mesh={**MESH, "members_known": True})
    assert mesh_table.status({"agate": told}, ["agate"], [], NOW)["members"][0]["state"] == "not a member"


def test_the_table() -> None:
    variables = {
        "agate": host(member(latency_ms=12.34), **{mesh_table.MEASURED: measured(beryl=14.06, laptop=None)}),
        "beryl": host(member(online=False, last_seen="2026-11-20T12:00:00Z", physical_address=None), **{mesh_table.MEASURED: {"unreachable": True, "msg": "x"}}),
        "laptop": host(member(version=None), provider="external"),
        "mesh_9": stranger(False),
        "mesh_8": stranger(True),
    }  # fmt: skip
    found = mesh_table.status(variables, ["agate", "beryl", "laptop"], ["mesh_9", "mesh_8"], NOW)
    assert mesh_table.lines(found) == [
        "Mesh db4344343b14b903 of minerals, controlled by agate, addresses rfc4193: 2 online, 1 offline, 1 ADMITTED and undeclared, 1 knocking.",
        "",
        "machine  node        address  state                 version  physical address  last seen  ms to controller",
        "agate    1111111111  fd00::1  online                1.14.2   198.51.100.7            30s              12.3",
        "beryl    1111111111  fd00::1  offline               1.14.2   -                        7d                 -",
        "laptop   1111111111  fd00::1  external, online      -        198.51.100.7            30s                 -",
        "mesh_8   9999999999  fd00::9  ADMITTED, undeclared  1.14.2   198.51.100.7            30s                 -",
        "mesh_9   9999999999  fd00::9  knocking              1.14.2   198.51.100.7            30s                 -",
        "",
        "Round trips in ms, measured now, the median of three, from the row to the column; - is no answer:",
        "       agate  beryl  laptop",
        "agate      .   14.1       -",
        "Nothing measured from beryl: does not answer to Ansible",
    ]
    assert json.loads(json.dumps(found, allow_nan=False))["members"][0]["last_seen_seconds"] == 30


def test_what_is_simulated_is_marked() -> None:
    for its in (host(member(), fleet_simulated=True), host(member(simulated=True))):
        found = mesh_table.status({"agate": its, "beryl": host(member())}, ["agate", "beryl"], [], NOW)
        assert found["simulated"] is True
        lines = mesh_table.lines(found)
        assert lines[1].startswith("SIMULATED")
        assert [line.split("  ")[0] for line in lines[4:]] == ["agate (SIMULATED)", "beryl"]


def test_without_a_mesh_it_says_so() -> None:
    found = mesh_table.status({"agate": {"fleet_name": "x", "fleet_provider": "hetzner"}}, ["agate"], [], NOW)
    assert mesh_table.lines(found) == ["The fleet file declares no mesh."]
    assert mesh_table.lines(mesh_table.status({}, [], [], NOW)) == ["The fleet file declares no mesh."]


def test_a_matrix_too_wide_becomes_a_line_a_machine() -> None:
    names = [f"m{number:02}" for number in range(mesh_table.WIDEST + 1)]
    answers = {
        name: None if name in names[1:9] else float(number) for number, name in enumerate(names) if number
    }
    variables = {name: host(member()) for name in names}
    variables["m00"] = host(member(), **{mesh_table.MEASURED: measured(**answers)})
    lines = mesh_table.lines(mesh_table.status(variables, names, [], NOW))
    assert lines[-2:] == [
        "from  to  answer  nearest  median  farthest  no answer from",
        "m00   24      16     9.00    17.0      24.0  m01, m02, m03, m04, m05 and 3 more",
    ]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"stdout": json.dumps({"problem": "ping is not installed here; install iputils-ping"})}, "ping is not installed"),
        ({"stdout": "", "rc": 1, "stderr": "sudo: a password is required\n"}, "sudo: a password is required"),
        ({"stdout": "[]"}, "gave no answer that could be read"),
        ({"stdout": json.dumps({"peers": {"beryl": {"answers": "x"}}})}, "gave no answer that could be read"),
        ({"stdout": "", "stderr": "\x1b[2Jgone"}, "[2Jgone"),
    ],
)  # fmt: skip
def test_what_measured_nothing_says_why(result: dict[str, Any], why: str) -> None:
    variables = {"agate": host(member(), **{mesh_table.MEASURED: result}), "beryl": host(member())}
    found = mesh_table.status(variables, ["agate", "beryl"], [], NOW)
    assert found["latency"] == {}
    assert found["unmeasured"]["agate"].startswith(why)


def test_a_machine_cannot_invent_peers() -> None:
    variables = {"agate": host(member(), **{mesh_table.MEASURED: measured(evil=1.0, beryl=2.0)}), "beryl": host(member())}  # fmt: skip
    assert list(mesh_table.status(variables, ["agate", "beryl"], [], NOW)["latency"]["agate"]) == ["beryl"]


def test_a_host_that_was_not_asked_is_not_reproached() -> None:
    variables = {"agate": host(member(), **{mesh_table.MEASURED: {"skipped": True}}), "beryl": host(member())}
    found = mesh_table.status(variables, ["agate", "beryl"], [], NOW)
    assert (found["latency"], found["unmeasured"]) == ({}, {})


def test_the_peers() -> None:
    variables = {
        "agate": host(member()),
        "asleep": host(member(online=False), fleet_mesh_ip="fd00::2"),
        "shut-out": host(member(authorized=False)),
        "absent": host(None),
        "nowhere": host(member(), fleet_mesh_ip=None),
        "laptop": host(member(), provider="external", fleet_mesh_ip="fd00::3"),
    }
    assert mesh_table.peers(variables, list(variables)) == {"agate": "fd00::1", "asleep": "fd00::2", "laptop": "fd00::3"}  # fmt: skip
    assert mesh_table.peers(variables, list(variables), external=False) == {"agate": "fd00::1", "asleep": "fd00::2"}  # fmt: skip
    # Where the control plane told nothing, all that have an address may be members.
    assert mesh_table.peers({"absent": host(None)}, ["absent"]) == {"absent": "fd00::1"}
    told = host(None, fleet_mesh={**MESH, "members_known": True})
    assert mesh_table.peers({"absent": told}, ["absent"]) == {}
