# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as a user runs them, on a sandbox of virtual machines: what they touch, and what they refuse."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from ansible_collections.gpumesh.fleet.tests.fleets import gcp, hetzner, run_module, write_fleet

from sandbox.testing import Sandbox, serve
from tests.playbook_runner import run_playbook

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
YES = ("-e", "fleet_auto_approve=true")


@pytest.fixture(scope="module")
def the_sandbox() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(the_sandbox: Sandbox) -> Iterator[Sandbox]:
    the_sandbox.reset()
    yield the_sandbox
    the_sandbox.clear_faults()


def play(folder: Path, playbook: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the fleet of a folder."""
    return run_playbook(folder, str(folder / "fleet.yml"), playbook, *arguments, **environ)


def existing(sandbox: Sandbox) -> list[str]:
    return sorted(str(machine["hostname"]) for machine in sandbox.machines())


def created(folder: Path, sandbox: Sandbox, machines: dict[str, Any]) -> None:
    write_fleet(folder, sandbox, machines)
    result = run_module(folder, state="applied", approve=True)
    assert not result.get("failed"), result.get("msg")


def test_retire_deletes_what_is_named_and_touches_nothing_else(tmp_path: Path, sandbox: Sandbox) -> None:
    created(tmp_path, sandbox, {"ore": hetzner(), "tin": gcp(), "zinc": hetzner()})
    # One that would be created and one that would be deleted, if the whole fleet were meant.
    write_fleet(
        tmp_path, sandbox, {"ore": hetzner(), "tin": gcp(), "lead": hetzner(), "zinc": hetzner(enabled=False)}
    )
    done = play(tmp_path, "playbooks/retire.yml", *YES, "-e", "retire=ore")
    assert done.returncode == 0, done.stdout
    assert existing(sandbox) == ["tin", "zinc"]


def test_retire_of_all_leaves_an_empty_cloud(tmp_path: Path, sandbox: Sandbox) -> None:
    created(tmp_path, sandbox, {"ore": hetzner(), "tin": gcp()})
    done = play(tmp_path, "playbooks/retire.yml", *YES, "-e", "retire=all")
    assert done.returncode == 0, done.stdout
    assert existing(sandbox) == []


def test_nothing_is_bought_without_a_yes(tmp_path: Path, sandbox: Sandbox) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner()})
    done = play(tmp_path, "playbooks/provision.yml")
    assert done.returncode != 0
    assert "create  ore" in done.stdout
    assert "ApprovalRequired" in done.stdout
    assert existing(sandbox) == []


def test_check_mode_shows_the_plan_and_buys_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner()})
    done = play(tmp_path, "playbooks/provision.yml", "--check", "--diff", *YES)
    assert done.returncode == 0, done.stdout
    assert "create  ore" in done.stdout
    assert existing(sandbox) == []


def test_check_mode_tells_a_problem_in_words(tmp_path: Path, sandbox: Sandbox) -> None:
    file = write_fleet(tmp_path, sandbox, {"ore": hetzner()})
    file.write_text(
        file.read_text().replace(sandbox.hetzner_token, "'{{ lookup(''env'', ''HCLOUD_TOKEN'') }}'")
    )
    done = play(tmp_path, "playbooks/provision.yml", "--check", "--diff")
    assert "there is no token for Hetzner Cloud" in done.stdout
    assert "has no attribute" not in done.stdout


def test_a_misspelt_variable_stops_the_run_before_anything_is_bought(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner(vars={"base_timezon": "Europe/Berlin"}), "tin": gcp()})
    done = play(tmp_path, "site.yml", *YES)
    assert done.returncode != 0
    assert "base_timezone" in done.stdout
    assert existing(sandbox) == []


def test_a_gate_that_met_nobody_is_not_green(tmp_path: Path, sandbox: Sandbox) -> None:
    file = write_fleet(tmp_path, sandbox, {"ore": hetzner()})
    file.write_text(
        file.read_text().replace(sandbox.hetzner_token, "'{{ lookup(''env'', ''HCLOUD_TOKEN'') }}'")
    )
    done = play(tmp_path, "site.yml", "--tags", "gate")
    assert done.returncode != 0
    assert "ore: enabled, and not there" in done.stdout


def test_a_limit_without_localhost_says_who_creates_machines(tmp_path: Path, sandbox: Sandbox) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner(), "tin": gcp()})
    done = play(tmp_path, "site.yml", "--limit", "ore", *YES)
    assert done.returncode != 0
    assert "--limit 'localhost,ore'" in done.stdout.replace("\n", " ")


def test_a_fleet_file_with_a_mistake_is_told_and_nothing_runs(tmp_path: Path, sandbox: Sandbox) -> None:
    file = write_fleet(tmp_path, sandbox, {"ore": hetzner()})
    content = yaml.safe_load(file.read_text())
    content["machines"]["ore"]["locaton"] = content["machines"]["ore"].pop("location")
    file.write_text(yaml.safe_dump(content))
    done = play(tmp_path, "site.yml", *YES)
    assert done.returncode != 0
    assert "did you mean 'location'?" in done.stderr
    # Where Ansible is set to go on with an empty inventory, the playbook does not.
    done = play(tmp_path, "site.yml", *YES, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="false")
    assert done.returncode != 0
    assert "No fleet file was read" in done.stdout
    assert existing(sandbox) == []


def meshed(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "network": "db4344343b14b903",
        "controller": "central_v1",
        "endpoint": sandbox.zerotier,
        "token": sandbox.zerotier_token,
    }


def members(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """What Central has, by the name each member was given."""
    answer = requests.get(
        f"{sandbox.zerotier}/network/db4344343b14b903/member",
        headers={"Authorization": f"token {sandbox.zerotier_token}"},
        timeout=30,
    )
    return {member["name"]: member for member in answer.json()}


ZEROTIER_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"


def test_a_machine_is_admitted_to_the_mesh_before_it_exists(tmp_path: Path, sandbox: Sandbox) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner(mesh_birth=True), "tin": hetzner()}, mesh=meshed(sandbox))
    (tmp_path / "zerotier.asc").write_text(ZEROTIER_KEY)
    # Nobody answers SSH at a virtual machine, which is how far this goes.
    options = ("-e", f"mesh_birth_key_file={tmp_path}/zerotier.asc", "-e", "first_contact_timeout=1")
    done = play(tmp_path, "playbooks/provision.yml", *YES, *options, "-vvv")
    assert existing(sandbox) == ["ore", "tin"], done.stdout
    found = members(sandbox)
    assert list(found) == ["ore"] and found["ore"]["config"]["authorized"] is True
    folder = tmp_path / "known_hosts.births" / "ore"
    secret = (folder / "identity.secret").read_text()
    assert found["ore"]["nodeId"] == secret[:10] and folder.stat().st_mode & 0o077 == 0
    assert secret.strip().rpartition(":")[2] not in done.stdout + done.stderr
    # It goes with the machine.
    assert play(tmp_path, "playbooks/retire.yml", *YES, "-e", "retire=ore").returncode == 0
    assert existing(sandbox) == ["tin"] and members(sandbox) == {}


def test_a_birth_into_the_mesh_without_a_key_for_its_packages_buys_nothing(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    write_fleet(tmp_path, sandbox, {"ore": hetzner(mesh_birth=True)}, mesh=meshed(sandbox))
    done = play(tmp_path, "playbooks/provision.yml", *YES)
    assert done.returncode != 0 and "mesh_birth_key_file" in done.stdout
    assert existing(sandbox) == [] and members(sandbox) == {}
