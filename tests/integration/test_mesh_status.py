# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/status.yml and playbooks/mesh_watch.yml as a user runs them, on a sandbox of virtual machines.

The machines are virtual, so what runs "on" them runs here: it pings addresses that nobody has. That latency is measured and
samplers run is shown on real hosts: tests/hosts/mesh_watch, and the chain.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import mesh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.tests.fleets import hetzner, run_module, write_fleet

from sandbox.testing import Sandbox, serve
from sandbox.zerotier_account import NETWORK

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LAPTOP, ORE, INTRUDER, KNOCKER = "8046d53400", "1d7196c3a9", "eeeeeeeeee", "dddddddddd"
HERE = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.reset()
    return running


def fleet(folder: Path, sandbox: Sandbox) -> Path:
    machines = {
        "ore": hetzner(vars=HERE),
        "tin": hetzner(vars=HERE),
        "lead": hetzner(enabled=False),
        "laptop": {"provider": "external", "node_id": LAPTOP},
    }
    block = {"network": NETWORK, "controller": "central_v1", "endpoint": sandbox.zerotier, "token": sandbox.zerotier_token}  # fmt: skip
    path = write_fleet(folder, sandbox, machines, mesh=block)
    result = run_module(folder, state="applied", approve=True)
    assert not result.get("failed"), result.get("msg")
    return path


def appears(sandbox: Sandbox, node: str) -> None:
    """Let a node ask for its configuration."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=30)
    path = f"/zerotier/simulation/network/{NETWORK}/node/{node}"
    try:
        connection.request("POST", path, "{}", {"Authorization": f"token {sandbox.zerotier_token}"})
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def admit(sandbox: Sandbox, node: str, name: str) -> None:
    plane = mesh.open_plane("central_v1", NETWORK, sandbox.zerotier_token, sandbox.zerotier, SystemClock())
    plane.save_member(MemberWish(node, name=name, authorized=True))
    plane.close()


def play(inventory: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(ROOT / "playbooks" / playbook), *arguments],
        cwd=inventory.parent,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(inventory.parent),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def unchanged(said: str) -> bool:
    recap = said.partition("PLAY RECAP")[2]
    return "changed=0" in recap and "changed=1" not in recap and "failed=1" not in recap


def test_status_shows_who_is_there_and_changes_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    inventory = fleet(tmp_path, sandbox)
    for node, name in ((ORE, "ore"), (LAPTOP, "laptop"), (INTRUDER, "intruder")):
        admit(sandbox, node, name)
    for node in (ORE, INTRUDER, KNOCKER):
        appears(sandbox, node)
    written = tmp_path / "status.json"
    done = play(inventory, "status.yml", "-e", f"status_file={written}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert unchanged(done.stdout), done.stdout
    assert "ore      hetzner (SIMULATED)  running" in done.stdout
    assert "SIMULATED machines are in a sandbox, where all share one computer" in done.stdout

    found: dict[str, Any] = json.loads(written.read_text())
    members = {member["node_id"] or member["name"]: member for member in found["mesh"]["members"]}
    assert {name: member["state"] for name, member in members.items()} == {
        ORE: "online",
        "tin": "not a member",
        LAPTOP: "external, authorized",
        INTRUDER: "ADMITTED, undeclared",
        KNOCKER: "knocking",
    }
    assert members[ORE]["last_seen_seconds"] < 300
    assert members[ORE]["simulated"] is True
    assert found["mesh"]["network"] == NETWORK
    # It measured, or said why it could not; to nobody who is not declared.
    answers = found["mesh"]["latency"].get("ore")
    assert answers is not None or "ping" in found["mesh"]["unmeasured"]["ore"]
    assert answers is None or list(answers) == ["laptop"]
    assert [machine["name"] for machine in found["machines"]] == ["ore", "tin", "lead", "laptop"]
    assert sandbox.zerotier_token not in written.read_text() + done.stdout


def test_status_is_the_same_in_check_mode(tmp_path: Path, sandbox: Sandbox) -> None:
    inventory = fleet(tmp_path, sandbox)
    admit(sandbox, ORE, "ore")
    appears(sandbox, ORE)
    done = play(inventory, "status.yml", "--check", "-e", f"status_file={tmp_path / 'status.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "status.json").read_text())["mesh"]["members"][0]["state"] == "online"


def test_status_of_a_fleet_without_a_mesh(tmp_path: Path, sandbox: Sandbox) -> None:
    inventory = write_fleet(tmp_path, sandbox, {"ore": hetzner(enabled=False)})
    done = play(inventory, "status.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The fleet file declares no mesh." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "Say for how long: -e watch_for=7d"), (("-e", "watch_for=7d"), "nobody can take samples")],
)
def test_a_watch_that_cannot_begin_says_why(
    tmp_path: Path, sandbox: Sandbox, arguments: tuple[str, ...], says: str
) -> None:
    inventory = write_fleet(tmp_path, sandbox, {"ore": hetzner(enabled=False)})
    done = play(inventory, "mesh_watch.yml", *arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stdout.split())
