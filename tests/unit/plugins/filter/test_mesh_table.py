# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters over the fleet and its mesh, as a template uses them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

SEEN = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
MEMBER = {"authorized": True, "online": True, "last_seen": SEEN}
HOSTVARS = {
    "agate": {
        "fleet_name": "minerals", "fleet_provider": "hetzner", "fleet_state": "running", "fleet_hourly_usd": 0.01, "ansible_host": "192.0.2.1",
        "fleet_mesh_ip": "fd00::1", "fleet_mesh_member": MEMBER, "fleet_mesh": {"network": "db4344343b14b903", "controller": "central_v1", "addressing": "6plane"},
    },
    "stibnite": {"fleet_provider": "external", "fleet_mesh_ip": "fd00::2", "fleet_mesh_member": MEMBER},
    "mesh_9": {"fleet_mesh_node_id": "9" * 10, "fleet_mesh_member": {"authorized": False}},
}  # fmt: skip


def run(name: str, *arguments: Any, **options: Any) -> Any:
    return filter_loader.get(f"gpumesh.fleet.{name}").j2_function(*arguments, **options)


def test_status_and_table() -> None:
    status = run("mesh_status", HOSTVARS, ["agate", "stibnite"], ["mesh_9"])
    assert [one["state"] for one in status["members"]] == ["online", "external, online", "knocking"]
    # By the clock of the control machine.
    assert 290 < status["members"][0]["last_seen_seconds"] < 400
    lines = run("mesh_table", status)
    assert lines[0] == (
        "Mesh db4344343b14b903 of minerals, controlled by central_v1, addresses 6plane: 2 online, 1 knocking."
    )
    assert len(run("mesh_status", HOSTVARS, ["agate"])["members"]) == 1


def test_peers() -> None:
    assert run("mesh_peers", HOSTVARS, ["agate", "stibnite"]) == {"agate": "fd00::1", "stibnite": "fd00::2"}
    assert run("mesh_peers", HOSTVARS, ["agate", "stibnite"], external=False) == {"agate": "fd00::1"}


def test_machines_as_data() -> None:
    assert run("fleet_status", HOSTVARS, ["agate"]) == [
        {
            "name": "agate", "address": "192.0.2.1", "provider": "hetzner", "state": "running", "hourly_usd": 0.01, "simulated": None,
            "stale": None, "public_ip": None, "gpu_model": None, "gpu_count": None, "monthly_usd": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("mesh_status", ("x", []), "give it hostvars"),
        ("mesh_status", (HOSTVARS, "agate"), "in a list"),
        ("mesh_status", (HOSTVARS, ["agate"], ["nobody"]), "no host is named nobody"),
        ("mesh_peers", (HOSTVARS, ["nobody"]), "no host is named nobody"),
        ("fleet_status", (HOSTVARS, "agate"), "in a list"),
        ("mesh_table", (["x"],), "mesh_status made"),
        ("mesh_table", ({},), "mesh_status made"),
    ],
)
def test_misuse_is_told(name: str, arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(AnsibleError, match=says):
        run(name, *arguments)
