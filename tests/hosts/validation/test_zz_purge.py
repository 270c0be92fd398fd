# SPDX-License-Identifier: GPL-3.0-or-later
"""To an earlier version and back, and away without a trace but what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

HOME = "/opt/gpumesh/acceptance"


def current(machine: Machine) -> str:
    return machine.ssh(f"readlink {HOME}/current").stdout.strip().removeprefix("versions/")


def facts(machine: Machine) -> dict[str, Any]:
    return dict(
        json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["validation"]
    )


def test_without_an_earlier_version_there_is_no_way_back(machine: Machine) -> None:
    machine.ssh(
        f"sudo find {HOME}/versions -mindepth 1 -maxdepth 1 ! -name {current(machine)} -exec rm -r {{}} +"
    )
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 2
    assert "There is no earlier version of gpu-acceptance on this machine" in played.said


def test_to_the_earlier_version_and_by_the_role_to_its_own(machine: Machine) -> None:
    own = current(machine)
    made = machine.ssh(
        f"sudo cp -a {HOME}/versions/{own} {HOME}/versions/earlier && sudo touch -d 2026-01-01 {HOME}/versions/earlier"
    )
    assert made.returncode == 0, made.stderr
    played = machine.play("--check", playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert "would be replaced by earlier" in played.said
    assert current(machine) == own
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert current(machine) == "earlier"
    assert machine.ssh("gpu-acceptance list").returncode == 0
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert "is the earlier version already" in played.said
    assert "changed=0" in played.said
    assert current(machine) == "earlier"
    played = machine.play("--tags", "validation_install")
    assert played.returncode == 0, played.said
    assert current(machine) == own


def test_a_run_that_measures_nothing_leaves_the_verdict_that_is_there(machine: Machine) -> None:
    before = facts(machine)
    assert before["verdict"]
    assert machine.play(validation_deferred=True).returncode == 0
    assert facts(machine) == before


def test_it_goes_without_a_trace_but_what_was_measured(machine: Machine) -> None:
    played = machine.play(validation_state="absent")
    assert played.returncode == 0, played.said
    left = machine.ssh(
        "sudo find / -xdev \\( -path /proc -o -path /sys -o -path /home -o -path /var/log -o -path /var/lib/docker \\) -prune -o "
        "\\( -iname '*acceptance*' -o -iname 'gpumesh-burn-in*' -o -iname 'first-acceptance' \\) -print"
    ).stdout.split()
    assert left == ["/var/lib/gpumesh/acceptance"]
    played = machine.play(validation_state="absent", validation_purge_runs=True)
    assert played.returncode == 0, played.said
    assert machine.ssh("ls /var/lib/gpumesh").stdout.split().count("acceptance") == 0
    played = machine.play(validation_state="absent", validation_purge_runs=True)
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said


def test_prepared_for_a_later_boot_it_leaves_word_that_nothing_was_measured(machine: Machine) -> None:
    played = machine.play(validation_deferred=True)
    assert played.returncode == 0, played.said
    assert (facts(machine)["verdict"], facts(machine)["coverage"]) == (None, "no check has run yet")
    again = machine.play(validation_deferred=True)
    assert "changed=0" in again.said
