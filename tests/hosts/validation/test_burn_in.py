# SPDX-License-Identifier: GPL-3.0-or-later
"""A burn-in on a real machine: by itself under systemd, through a crash and a restart, up to its end, and gone without a trace.

On the CPU, with a real PyTorch. What is tested is that it goes on; it says nothing about hardware.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from tests.hosts.conftest import Machine, eventually

pytestmark = pytest.mark.docker

RUNS = "/var/lib/gpumesh/acceptance/runs"
UNIT = "gpumesh-burn-in@{}.service"
# Long enough to be killed and stopped in its midst where the machine is slow: restarts and logins take seconds each.
LONG = 150
SHOWN = "2 min 30 s"


def root(machine: Machine, command: str) -> str:
    """What a command of root's says."""
    return machine.ssh(f"sudo sh -c '{command}'").stdout


def status(machine: Machine) -> dict[str, Any]:
    return dict(json.loads(root(machine, "gpu-acceptance burn-in --status --json") or "{}"))


def records(machine: Machine, run: str) -> list[dict[str, Any]]:
    """What was written so far; half a line is left out."""
    found = []
    for line in root(machine, f"cat {RUNS}/{run}/burn_in.jsonl").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def begun(machine: Machine, run: str) -> int:
    """How often all workers began to burn."""
    return sum(record["event"] == "burning" for record in records(machine, run))


@pytest.fixture(scope="module")
def run(machine: Machine) -> str:
    """One that was started and left alone."""
    played = machine.play(playbook="burn_in.yml", burn_in_for=f"{LONG}s", burn_in_follow=False)
    assert played.returncode == 0, played.said
    assert "It burns by itself from now on" in played.said
    return str(status(machine)["id"])


def test_it_burns_by_itself_and_would_after_a_restart(machine: Machine, run: str) -> None:
    unit = UNIT.format(run)
    assert root(machine, f"systemctl is-active {unit}").strip() == "active"
    assert root(machine, f"systemctl is-enabled {unit}").strip() == "enabled"
    assert eventually(lambda: begun(machine, run) == 1)
    assert eventually(lambda: status(machine)["burned_s"] >= 2)


def test_killed_in_the_middle_of_a_line_it_goes_on(machine: Machine, run: str) -> None:
    unit = UNIT.format(run)
    before = records(machine, run)
    root(
        machine, f'systemctl kill --signal=KILL {unit}; printf "{{\\"t\\": 17" >> {RUNS}/{run}/burn_in.jsonl'
    )
    assert eventually(lambda: begun(machine, run) == 2)
    assert records(machine, run)[: len(before)] == before


def test_stopped_as_by_a_shutdown_it_goes_on_with_the_next_start(machine: Machine, run: str) -> None:
    unit = UNIT.format(run)
    root(machine, f"systemctl stop {unit}")
    assert records(machine, run)[-1]["why"] == "terminated"
    assert not status(machine)["over"]
    # What a boot does, and no more: the unit is wanted by what a boot ends with.
    root(machine, "systemctl start multi-user.target")
    assert eventually(lambda: begun(machine, run) == 3)
    # Once more, or on a slow machine it would be over before the next test's play has looked at it.
    root(machine, f"systemctl stop {unit}")


def test_another_start_follows_it_through_a_restart_collects_it_and_shows_the_gaps(
    machine: Machine, run: str
) -> None:
    boot = threading.Timer(10, root, (machine, "systemctl start multi-user.target"))
    boot.start()
    played = machine.play(playbook="burn_in.yml", burn_in_for=f"{LONG}s")
    boot.join()
    assert played.returncode == 0, played.said
    # It looks once a second, so it may burn a little longer than asked.
    assert re.search(rf"machine UNKNOWN \d+ min \d\d s {SHOWN} 4 CPU:", played.said), played.said
    folder = machine.folder / "burn-in/machine" / run
    document = json.loads((folder / "run.json").read_text())
    assert document["state"] == "complete"
    assert document["label"] == "CPU"
    assert document["verdict"]["hardware"] is None
    verdicts = {check["name"]: check["verdict"] for check in document["checks"]}
    assert verdicts["hours_burned"] == verdicts["workers_alive"] == verdicts["numbers"] == "PASS"
    whys = [gap["why"] for gap in document["burn_in"]["gaps"]]
    assert [why.split(":")[0].split(",")[0] for why in whys] == [
        "the workers were starting",
        "the process of the burn-in ended without a word",
        "it was interrupted",
        "it was interrupted",
    ]
    assert document["burn_in"]["done_s"] >= LONG
    assert root(machine, f"systemctl is-enabled {UNIT.format(run)}").strip() == "disabled"
    assert status(machine)["over"]


def test_status_shows_what_came_of_it(machine: Machine, run: str) -> None:
    played = machine.play(playbook="burn_in.yml", burn_in_action="status")
    assert played.returncode == 0, played.said
    assert f"of {SHOWN} burned (100.0%)" in played.said
    assert "changed=0" in played.said


def test_check_mode_starts_nothing(machine: Machine, run: str) -> None:
    played = machine.play("--check", playbook="burn_in.yml", burn_in_for="1h")
    assert played.returncode == 0, played.said
    assert "It would burn all GPUs of machine for 1h" in played.said
    assert status(machine)["id"] == run


def test_one_can_be_ended_before_its_time_and_removed(machine: Machine, run: str) -> None:
    assert machine.play(playbook="burn_in.yml", burn_in_for="1h", burn_in_follow=False).returncode == 0
    assert eventually(lambda: status(machine).get("burned_s", 0) > 0)
    stopped = machine.play(playbook="burn_in.yml", burn_in_action="stop")
    assert stopped.returncode == 0, stopped.said
    assert "it was asked to end before its time" in stopped.said
    assert status(machine)["over"]
    removed = machine.play(playbook="burn_in.yml", burn_in_action="remove")
    assert removed.returncode == 0, removed.said
    assert root(machine, f"ls {RUNS} | grep burn-in") == ""
    assert root(machine, "systemctl list-unit-files gpumesh-burn-in@.service --no-legend") == ""
    assert "changed=0" in machine.play(playbook="burn_in.yml", burn_in_action="remove").said
    # The unit is part of the role: it is put back for the tests after this one.
    assert machine.play().returncode == 0
