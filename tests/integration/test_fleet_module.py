# SPDX-License-Identifier: GPL-3.0-or-later
"""The module fleet as its users run it: through Ansible, on the sandbox's clouds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.tests.fleets import ROOT, gcp, hetzner, run_module, write_fleet

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

SECRET = "sesame-4711-hidden"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.1) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path, sandbox: Sandbox) -> Path:
    sandbox.reset()
    machines = {
        "agate": hetzner(labels={"team": "a"}),
        "beryl": hetzner(location="nbg1", fallback_locations=["hel1"]),
        "garnet": gcp(),
        "topaz": gcp(type="n1-standard-8", gpu={"model": "t4"}, enabled=False),
    }
    write_fleet(tmp_path, sandbox, machines, budget={"hourly_usd": 5})
    return tmp_path


def ansible(folder: Path, tasks: list[dict[str, Any]], *options: str, **environment: str) -> str:
    """Run a play of these tasks; all it says."""
    play = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(play))
    interpreter = f"ansible_python_interpreter={sys.executable}"
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-e", interpreter]
    ran = subprocess.run(
        [*command, *options, str(folder / "play.yml")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            **environment,
        },
        check=False,
    )
    return f"{ran.stdout}{ran.stderr}"


def fleet_task(folder: Path, **options: Any) -> dict[str, Any]:
    return {"gpumesh.fleet.fleet": {"fleet_file": str(folder / "fleet.yml"), **options}}


def test_check_and_diff_print_the_plan(folder: Path, sandbox: Sandbox) -> None:
    said = ansible(folder, [fleet_task(folder, state="applied")], "--check", "--diff")
    assert "changed=1" in said and "failed=0" in said, said
    assert "Fleet minerals: 3 to create, 1 to keep." in said
    assert "+  create  agate" in said and "difference" in said and "SIMULATED" in said
    assert not sandbox.machines()


def test_plan_approve_apply_and_again(folder: Path, sandbox: Sandbox) -> None:
    tasks = [
        {**fleet_task(folder), "register": "plan"},
        fleet_task(folder, state="applied", approved_digest="{{ plan.digest }}"),
        {**fleet_task(folder, state="applied"), "register": "again"},
        {
            "ansible.builtin.assert": {
                "that": ["not again.changed", "again.machines.garnet.state == 'running'"]
            }
        },
    ]
    said = ansible(folder, tasks)
    assert "ok=4" in said and "changed=1" in said and "failed=0" in said, said
    assert sorted(machine["hostname"] for machine in sandbox.machines()) == ["agate", "beryl", "garnet"]
    assert len((folder / "known_hosts").read_text().splitlines()) == 3
    aliases = [line.split()[0] for line in (folder / "known_hosts").read_text().splitlines()]
    assert all(alias.startswith("gpumesh-minerals-") for alias in aliases)


def test_nothing_happens_without_consent(folder: Path, sandbox: Sandbox) -> None:
    said = ansible(folder, [fleet_task(folder, state="applied")])
    assert "applying would create agate, create beryl, create garnet" in said and "failed=1" in said
    assert "Traceback" not in said and not sandbox.machines()


def test_no_token_appears_however_much_is_said(folder: Path, sandbox: Sandbox) -> None:
    path = folder / "fleet.yml"
    path.write_text(
        path.read_text().replace(
            f"token: {sandbox.hetzner_token}", 'token: \'{{ lookup("env", "HCLOUD_TOKEN") }}\''
        )
    )
    credentials = {"hetzner": {"token": f"{SECRET}-option"}}
    tasks = [
        {**fleet_task(folder, state="applied", approve=True), "ignore_errors": True},
        {**fleet_task(folder, credentials=credentials), "ignore_errors": True},
    ]
    said = ansible(folder, tasks, "-vvvv", HCLOUD_TOKEN=SECRET)
    assert "its cloud could not be asked" in said, "the token is wrong, and that is said"
    assert SECRET not in said
    key = json.loads(sandbox.google_credentials.read_text())["private_key"].splitlines()[1]
    assert key not in said


def test_label_changes_need_no_consent_and_other_differences_are_shown(
    folder: Path, sandbox: Sandbox
) -> None:
    run_module(folder, state="applied", approve=True)
    path = folder / "fleet.yml"
    changed = path.read_text().replace("team: a", "team: b").replace("location: nbg1", "location: ash")
    path.write_text(changed.replace("e2-standard-2", "e2-standard-4"))
    result = run_module(folder, state="applied")
    assert {(c["machine"], c["action"]) for c in result["plan"]} == {
        ("agate", "change"), ("beryl", "drift"), ("garnet", "drift"), ("topaz", "keep")
    }, result.get("msg", result["table"])  # fmt: skip
    assert result["changed"] and result["machines"]["agate"]["labels"]["team"] == "b"
    assert not run_module(folder, state="applied")["changed"]


def test_stop_and_start(folder: Path, sandbox: Sandbox) -> None:
    run_module(folder, state="applied", approve=True)
    path = folder / "fleet.yml"
    before = path.read_text()
    path.write_text(before.replace("enabled: true", "enabled: false\n    disabled: stopped"))
    plan = run_module(folder)
    assert sorted(change["action"] for change in plan["plan"]) == ["keep", "stop", "stop", "stop"]
    assert any("only deleting ends the cost" in change["why"] for change in plan["plan"])
    stopped = run_module(folder, state="applied", approve=True)
    assert not stopped.get("failed"), stopped["msg"]
    assert {machine["state"] for machine in stopped["machines"].values()} == {"stopped", "missing"}
    path.write_text(before)
    started = run_module(folder, state="applied", approve=True)
    assert not started.get("failed"), started["msg"]
    assert [result["action"] for result in started["results"]] == ["start"] * 3
    assert not run_module(folder, state="applied")["changed"]


def test_host_keys_are_exchanged(folder: Path, sandbox: Sandbox) -> None:
    run_module(folder, state="applied", approve=True)
    planted = run_module(folder)["machines"]["agate"]
    assert planted["host_key_planted"] is True
    (old,) = planted["host_keys"]
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqGIzk1cB8bGPW9Jr2HZkTLvfrZJm5zTjvb5fGqzQ4F"
    assert run_module(folder, host_keys={"agate": key}, host_key_phase="announce")["changed"] is True
    known = (folder / "known_hosts").read_text()
    assert known.count(planted["host_key_alias"]) == 2 and old in known and key in known
    run_module(folder, host_keys={"agate": key}, host_key_phase="commit")
    now = run_module(folder)["machines"]["agate"]
    assert now["host_keys"] == [key] and now["host_key_planted"] is False
    assert (folder / "known_hosts").read_text().count(planted["host_key_alias"]) == 1
    assert not run_module(folder, state="applied")["changed"]
