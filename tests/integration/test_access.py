# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach the machines, as declared state, on the sandbox's clouds: from the first machine to an empty cloud."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcloud
import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import provision
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS, gcp_api
from ansible_collections.gpumesh.fleet.tests.fleets import ROOT, gcp, hetzner, run_module, write_fleet

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

MACHINES = {"agate": hetzner(), "beryl": hetzner(location="nbg1"), "garnet": gcp()}
ANYWHERE = ["0.0.0.0/0", "::/0"]
OFFICE = "198.51.100.0/24"


@pytest.fixture(scope="module")
def the_sandbox() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(the_sandbox: Sandbox) -> Iterator[Sandbox]:
    the_sandbox.reset()
    yield the_sandbox
    the_sandbox.clear_faults()


@pytest.fixture
def folder(tmp_path: Path, sandbox: Sandbox) -> Path:
    declare(tmp_path, sandbox)
    return tmp_path


def declare(folder: Path, sandbox: Sandbox, machines: dict[str, Any] | None = None, **defaults: Any) -> None:
    write_fleet(
        folder,
        sandbox,
        MACHINES if machines is None else machines,
        defaults={"ssh_keys": ["key.pub"], **defaults},
    )


def run(folder: Path, *, carry_out: bool = True, **options: Any) -> provision.Report:
    request = provision.Request(
        str(folder / "fleet.yml"), carry_out=carry_out, approve=True, wait_timeout=30, **options
    )
    report = provision.run(request, KINDS, {}, SystemClock())
    assert not report.errors, [str(error) for error in report.errors]
    return report


def client(sandbox: Sandbox) -> hcloud.Client:
    return hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner, timeout=10)


def hetzner_ssh(sandbox: Sandbox) -> dict[str, list[str]]:
    """By firewall, from where SSH may be reached."""
    return {
        firewall.name: [source for rule in firewall.rules if rule.port == "22" for source in rule.source_ips]
        for firewall in client(sandbox).firewalls.get_all()
    }


def google_rules(sandbox: Sandbox) -> dict[str, list[str]]:
    """By firewall rule of the project, its sources."""
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(sandbox.google_credentials)}
    credentials = gcp_api.find_credentials(None, environ, SystemClock())
    credentials.renew()
    answer = requests.get(
        f"{sandbox.compute}/projects/gpumesh-sandbox/global/firewalls",
        headers={"Authorization": f"Bearer {credentials.google.token}"},
        timeout=10,
    )
    return {rule["name"]: rule["sourceRanges"] for rule in answer.json().get("items", ())}


@pytest.fixture
def defaults(sandbox: Sandbox) -> dict[str, list[str]]:
    """What a project of Google's has before anybody does anything."""
    found = google_rules(sandbox)
    assert "default-allow-ssh" in found
    return found


def nothing_is_left(sandbox: Sandbox, defaults: dict[str, list[str]]) -> None:
    assert sandbox.machines() == []
    library = client(sandbox)
    assert library.servers.get_all() == library.firewalls.get_all() == library.ssh_keys.get_all() == []
    assert google_rules(sandbox) == defaults


def test_a_change_of_sources_reaches_both_clouds_as_it_was_shown(folder: Path, sandbox: Sandbox) -> None:
    run(folder)
    assert hetzner_ssh(sandbox) == {"gpumesh-minerals": ANYWHERE}
    assert google_rules(sandbox)["gpumesh-minerals-ssh"] == ["0.0.0.0/0"]
    assert not run(folder).changed

    declare(folder, sandbox, ssh_sources=[OFFICE])
    shown = run(folder, carry_out=False)
    assert hetzner_ssh(sandbox) == {"gpumesh-minerals": ANYWHERE}, "planning changes nothing"
    rows = [line.split(maxsplit=4)[-1] for line in shown.table if line[3:].split()[1:2] == ["access"]]
    assert rows == [
        "firewall rule gpumesh-minerals-ssh: SSH from 0.0.0.0/0 -> 198.51.100.0/24",
        "firewall rule gpumesh-minerals-ssh-deny: SSH closed to 0.0.0.0/0",
        "firewall gpumesh-minerals: SSH from anywhere -> 198.51.100.0/24",
    ], shown.table
    assert shown.changed and not shown.plan.needs_approval
    done = run(folder)
    assert done.changed and done.table == shown.table and done.plan.digest == shown.plan.digest
    assert hetzner_ssh(sandbox) == {"gpumesh-minerals": [OFFICE]}
    rules = google_rules(sandbox)
    assert (rules["gpumesh-minerals-ssh"], rules["gpumesh-minerals-ssh-deny"]) == ([OFFICE], ["0.0.0.0/0"])
    assert not run(folder).changed

    declare(folder, sandbox)
    assert run(folder).changed
    assert hetzner_ssh(sandbox) == {"gpumesh-minerals": ANYWHERE}
    assert "gpumesh-minerals-ssh-deny" not in google_rules(sandbox)
    assert not run(folder).changed


def test_a_port_and_sources_of_single_machines_reach_machines_that_run(
    folder: Path, sandbox: Sandbox
) -> None:
    run(folder)
    own = {
        name: {**machine, "ssh_sources": [OFFICE]} if name != "beryl" else machine
        for name, machine in MACHINES.items()
    }
    declare(folder, sandbox, own, ssh_port=2222)
    shown = run(folder, carry_out=False)
    assert any("tcp 2222 from none -> anywhere" in line for line in shown.table), shown.table
    assert run(folder).table == shown.table
    assert sorted(map(tuple, hetzner_ssh(sandbox).values())) == [tuple(ANYWHERE), (OFFICE,)]
    assert not run(folder).changed
    declare(folder, sandbox)
    assert run(folder).changed
    assert hetzner_ssh(sandbox) == {"gpumesh-minerals": ANYWHERE}
    assert not run(folder).changed


def test_what_somebody_opened_by_hand_is_closed_again(folder: Path, sandbox: Sandbox) -> None:
    run(folder)
    library = client(sandbox)
    (firewall,) = library.firewalls.get_all()
    opened = hcloud.firewalls.FirewallRule(
        direction="in", protocol="tcp", port="3306", source_ips=["0.0.0.0/0"]
    )
    library.firewalls.set_rules(firewall, [*firewall.rules, opened])
    report = run(folder)
    assert any("tcp 3306 from 0.0.0.0/0 -> none" in line for line in report.table), report.table
    assert not run(folder).changed


def test_a_run_that_changes_nothing_costs_one_request_more_in_each_cloud(
    folder: Path, sandbox: Sandbox
) -> None:
    def asked(what: str) -> dict[str, int]:
        return {cloud: sandbox.requests(service=cloud, path=what) for cloud in ("hetzner", "gce")}

    run(folder)
    before, access = asked(""), asked("(firewalls|ssh_keys)")
    assert not run(folder).changed
    assert {cloud: asked("")[cloud] - before[cloud] for cloud in before} == {"hetzner": 3, "gce": 2}
    after = asked("(firewalls|ssh_keys)")
    assert {cloud: after[cloud] - access[cloud] for cloud in access} == {"hetzner": 1, "gce": 1}
    run(folder, retire=["all"])
    access = asked("(firewalls|ssh_keys)")
    assert not run(folder, retire=["all"]).changed
    after = asked("(firewalls|ssh_keys)")
    assert {cloud: after[cloud] - access[cloud] for cloud in access} == {"hetzner": 1, "gce": 1}


def test_retiring_all_leaves_an_empty_cloud(
    folder: Path, sandbox: Sandbox, defaults: dict[str, list[str]]
) -> None:
    """As ``make demo-down`` does it: the playbook, with the inventory of the fleet."""
    run(folder)
    library = client(sandbox)
    assert library.firewalls.get_all() and library.ssh_keys.get_all()
    assert google_rules(sandbox) != defaults
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "fleet.yml")]
    options = ["-e", "retire=all", "-e", "fleet_auto_approve=true", str(ROOT / "playbooks" / "retire.yml")]
    for _ in range(2):
        ran = subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"
        nothing_is_left(sandbox, defaults)
    assert "changed=0" in ran.stdout, "the second time there is nothing to do"


def test_a_cloud_in_which_nothing_is_wanted_any_more_is_cleared(
    folder: Path, sandbox: Sandbox, defaults: dict[str, list[str]]
) -> None:
    run(folder)
    declare(folder, sandbox, {**MACHINES, "garnet": gcp(enabled=False)})
    run(folder)
    assert google_rules(sandbox) == defaults and hetzner_ssh(sandbox)
    declare(folder, sandbox, {})
    report = run(folder, prune=True)
    assert {entry["what"].split()[0] for entry in report.to_json()["access"]} == {"firewall", "SSH"}
    nothing_is_left(sandbox, defaults)


def test_what_belongs_to_others_stays(folder: Path, sandbox: Sandbox, defaults: dict[str, list[str]]) -> None:
    library = client(sandbox)
    key = (folder / "key.pub").read_text()
    library.ssh_keys.create(name="theirs", public_key=key)
    library.firewalls.create(name="theirs", labels={"gpumesh-fleet": "other"})
    run(folder)
    run(folder, retire=["all"])
    assert [firewall.name for firewall in library.firewalls.get_all()] == ["theirs"]
    assert [found.name for found in library.ssh_keys.get_all()] == ["theirs"]
    assert google_rules(sandbox) == defaults


def test_a_firewall_of_our_name_that_is_not_ours_stops_one_cloud_only(folder: Path, sandbox: Sandbox) -> None:
    client(sandbox).firewalls.create(name="gpumesh-minerals")
    result = run_module(folder, state="applied", approve=True)
    assert result["failed"] and "not of the fleet minerals" in result["msg"]
    assert [machine["hostname"] for machine in sandbox.machines()] == ["garnet"]
    failed = [entry for entry in result["access"] if entry["status"] == "failed"]
    assert [entry["what"] for entry in failed] == ["firewall gpumesh-minerals"]
    assert "not of the fleet minerals" in failed[0]["failure"]["message"]


@pytest.mark.parametrize("kind", ["reset_after", "unavailable", "duplicate", "failed_operation", "list_lag"])
def test_whatever_becomes_of_a_request_the_next_run_ends_with_an_empty_cloud(
    folder: Path, sandbox: Sandbox, defaults: dict[str, list[str]], kind: str
) -> None:
    run(folder)
    path = "" if kind in ("failed_operation", "list_lag") else "(firewalls|ssh_keys)"
    sandbox.fault(kind=kind, path=path, nth=1, every=2, times=4, seconds=1)
    request = provision.Request(
        str(folder / "fleet.yml"), carry_out=True, approve=True, wait_timeout=30, retire=["all"]
    )
    provision.run(request, KINDS, {}, SystemClock())
    sandbox.clear_faults()
    run(folder, retire=["all"])
    nothing_is_left(sandbox, defaults)
