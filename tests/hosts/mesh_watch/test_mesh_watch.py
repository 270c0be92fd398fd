# SPDX-License-Identifier: GPL-3.0-or-later
"""A sampler on a real machine: alone, through a crash and a restart, up to its end, and gone without a trace."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Machine, eventually

pytestmark = pytest.mark.docker

FOLDER = "/var/lib/gpumesh/mesh-watch"
UNIT = "gpumesh-mesh-watch@{}.service"


def root(machine: Machine, command: str) -> str:
    """What a command of root's says."""
    return machine.ssh(f"sudo sh -c '{command}'").stdout


def records(machine: Machine, name: str = "mesh") -> list[dict[str, Any]]:
    """What was written so far; half a line is left out."""
    found = []
    for line in root(machine, f"cat {FOLDER}/{name}.jsonl").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def ticks(machine: Machine, name: str = "mesh") -> list[dict[str, Any]]:
    return [record for record in records(machine, name) if "rtt" in record]


def active(machine: Machine, name: str = "mesh") -> bool:
    return root(machine, f"systemctl is-active {UNIT.format(name)}").strip() == "active"


def results(machine: Machine, name: str = "mesh") -> dict[str, Any]:
    return dict(json.loads((machine.folder / f"results-{name}" / "report.json").read_text()))


def test_it_samples_by_itself(machine: Machine) -> None:
    assert active(machine)
    assert eventually(lambda: len(ticks(machine)) >= 3)
    tick = ticks(machine)[-1]
    assert 0 < tick["rtt"]["here"] < 1000
    assert tick["rtt"]["nobody"] is None


def test_the_sampler_may_send_pings_and_nothing_else(machine: Machine) -> None:
    said = root(machine, f"grep -E CapEff /proc/$(systemctl show -P MainPID {UNIT.format('mesh')})/status")
    assert int(said.split()[1], 16) == 1 << 13  # CAP_NET_RAW
    assert root(machine, f"stat -c %a {FOLDER}/mesh.jsonl").strip() == "600"


def test_another_start_leaves_it_alone(machine: Machine) -> None:
    before = root(machine, f"systemctl show -P MainPID {UNIT.format('mesh')}; cat {FOLDER}/mesh.json")
    played = machine.play(watch_for="1d", watch_interval="10s")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    assert "neither 1d nor 10s changes it" in played.said
    assert root(machine, f"systemctl show -P MainPID {UNIT.format('mesh')}; cat {FOLDER}/mesh.json") == before


def test_it_goes_on_after_a_crash_in_the_middle_of_a_line(machine: Machine) -> None:
    before = len(records(machine))
    root(
        machine,
        f'systemctl kill -s KILL {UNIT.format("mesh")}; printf "{{\\"t\\": 17" >> {FOLDER}/mesh.jsonl',
    )
    assert eventually(lambda: sum(record.get("event") == "begin" for record in records(machine)) == 2)
    assert eventually(lambda: len(records(machine)) >= before + 3)


def test_what_it_found_so_far_can_be_collected(machine: Machine) -> None:
    played = machine.play(watch_action="collect")
    assert played.returncode == 0, played.said
    assert active(machine)
    found = results(machine)
    pairs = {pair["to"]: pair for pair in found["pairs"]}
    assert pairs["here"]["loss_percent"] == 0
    assert pairs["nobody"]["loss_percent"] == 100
    assert pairs["nobody"]["median_ms"] is None
    [sampler] = found["samplers"]
    assert sampler["unreadable_lines"] == 1
    assert len(sampler["gaps"]) >= 1
    assert found["simulated"] is False
    assert root(machine, f"ls -A {FOLDER}").split() == ["mesh.json", "mesh.jsonl"]
    assert (machine.folder / "results-mesh" / "dropouts.csv").read_text().startswith("incident,what,from,to,")


def test_status_shows_how_it_is_going(machine: Machine) -> None:
    played = machine.play(watch_action="status")
    assert "machine running 20" in played.said
    assert "changed=0" in played.said
    none = machine.play(watch_action="status", watch_name="none")
    assert "No machine that answers has a watch named none. There is mesh." in none.said


def test_check_mode_starts_nothing(machine: Machine) -> None:
    played = machine.play("--check", watch_name="other")
    assert played.returncode == 0, played.said
    assert "A run without check mode would start it." in played.said
    assert root(machine, f"ls {FOLDER}/other.json") == ""


def test_a_short_one_beside_it_is_waited_for_collected_and_removed(machine: Machine) -> None:
    played = machine.play(watch_name="quick", watch_for="25s", watch_interval="3s")
    assert played.returncode == 0, played.said
    assert "quick, done: " in played.said
    assert results(machine, "quick")["samplers"][0]["end"] == "finished"
    assert results(machine, "quick")["samplers"][0]["ticks"] >= 3
    assert root(machine, f"ls {FOLDER}").split() == ["mesh.json", "mesh.jsonl"]
    # The sampler itself stays, for the other one runs still.
    assert active(machine)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"watch_name": "x", "watch_interval": "1s"}, "the interval is 3s to 1d, not 1s"),
        ({"watch_name": "../x"}, "A watch has a name of a-z"),
        ({"watch_action": "collect", "watch_name": "x"}, "has a watch named x"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    machine: Machine, wish: dict[str, Any], says: str
) -> None:
    played = machine.play(**wish)
    assert played.returncode == 2
    assert says in played.said
    assert root(machine, f"ls {FOLDER}").split() == ["mesh.json", "mesh.jsonl"]


def test_it_can_be_stopped_and_its_samples_stay(machine: Machine) -> None:
    played = machine.play(watch_action="stop")
    assert played.returncode == 0, played.said
    assert not active(machine)
    assert root(machine, f"systemctl is-enabled {UNIT.format('mesh')}").strip() == "disabled"
    assert records(machine)[-1]["why"] == "stopped"
    assert "changed=0" in machine.play(watch_action="stop").said
    # A new one under its name would mix with it.
    assert "has ended on machine and its samples are there still" in machine.play().said


def test_removed_it_is_gone(machine: Machine) -> None:
    played = machine.play(watch_action="remove")
    assert played.returncode == 0, played.said
    assert root(machine, f"find {FOLDER} /usr/local/sbin -type f") == ""
    assert UNIT.format("") not in root(
        machine, "ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants"
    )
    assert "changed=0" in machine.play(watch_action="remove").said


def test_the_results_are_on_this_machine(machine: Machine) -> None:
    names = {path.name for path in Path(machine.folder, "results-mesh").iterdir()}
    assert names >= {"samples", "report.txt", "report.json", "dropouts.csv"}


def test_it_goes_on_after_a_restart_of_the_machine(machine: Machine) -> None:
    # The last test, because the machine may have another address then.
    assert machine.play(watch_name="long").returncode == 0
    assert eventually(lambda: len(ticks(machine, "long")) >= 2)
    container = f"gpumesh-molecule-{machine.scenario}"
    subprocess.run(["docker", "restart", "--time", "20", container], check=True, capture_output=True)

    def events() -> list[str]:
        said = subprocess.run(
            ["docker", "exec", container, "cat", f"{FOLDER}/long.jsonl"],
            check=False,
            capture_output=True,
            text=True,
        )
        found = [json.loads(line) for line in said.stdout.splitlines()]
        return [record.get("event", "tick") for record in found]

    assert eventually(lambda: events()[-2:] == ["tick", "tick"] and events().count("begin") == 2, 90)
    assert events()[events().index("end") - 1 :][:3] == ["tick", "end", "begin"]
