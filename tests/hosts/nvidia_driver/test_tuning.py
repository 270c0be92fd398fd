# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of four simulated RTX 5090: applied, read back, kept, refused where the card does not take them.

Run by 'molecule test -s nvidia_driver', whose play declares 450 W. Leaves the machine as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.hosts.conftest import Machine, eventually

PROGRAM = "/usr/local/sbin/gpumesh-gpu-tuning"
CONFIG = "/etc/gpumesh/gpu-tuning.json"
UNIT = "gpumesh-gpu-tuning.service"


def query(machine: Machine, field: str) -> list[str]:
    """What the driver tells of every GPU."""
    return machine.ssh(f"nvidia-smi --query-gpu={field} --format=csv,noheader,nounits").stdout.split("\n")[
        :-1
    ]


def limits(machine: Machine) -> list[float]:
    """The power limit of every GPU."""
    return [float(value) for value in query(machine, "power.limit")]


@pytest.fixture(scope="module", autouse=True)
def as_declared(machine: Machine) -> Iterator[None]:
    """The play's own declaration, before and after."""
    yield
    assert machine.play().returncode == 0


def test_the_declared_power_limit_is_set_on_every_gpu(machine: Machine) -> None:
    assert limits(machine) == [450.0] * 4
    shown = machine.ssh(
        f"systemctl show {UNIT} --property=ActiveState --property=UnitFileState --property=Result"
    )
    assert {"ActiveState=active", "UnitFileState=enabled", "Result=success"} <= set(shown.stdout.split())
    assert machine.ssh(f"stat -c '%U %a' {PROGRAM} {CONFIG}").stdout.split() == ["root", "755", "root", "644"]


def test_what_is_said_of_simulated_gpus_says_so(machine: Machine) -> None:
    assert machine.ssh(f"sudo {PROGRAM} --check").stdout == "SIMULATED: all is as declared\n"
    assert json.loads(machine.ssh(f"sudo {PROGRAM} --check --json").stdout)["simulated"] is True


@pytest.mark.parametrize("event", ["systemctl restart nvidia-persistenced", "gpumesh-simulated-gpus reboot"])
def test_what_the_driver_forgets_is_set_again(machine: Machine, event: str) -> None:
    assert machine.ssh(f"sudo {event}").returncode == 0
    assert eventually(lambda: limits(machine) == [450.0] * 4, 30), limits(machine)
    assert machine.ssh(f"sudo {PROGRAM} --check").returncode == 0


def test_a_setting_changed_by_hand_is_told_by_the_gate_and_set_again(machine: Machine) -> None:
    assert machine.ssh("sudo nvidia-smi -i 2 -pl 500").returncode == 0
    checked = machine.ssh(f"sudo {PROGRAM} --check")
    assert checked.returncode == 1
    assert (
        "(rtx5090): power limit is 500 W and should be 450 W: run gpumesh-gpu-tuning to set it again"
        in checked.stderr
    )
    assert len(checked.stderr.splitlines()) == 1
    gate = machine.play("--tags", "gate")
    assert gate.returncode != 0
    assert "500 W" in gate.said
    tuned = machine.ssh(f"sudo {PROGRAM}")
    assert tuned.returncode == 0
    assert tuned.stdout.startswith("SIMULATED: changed: ")
    assert limits(machine) == [450.0] * 4


def test_a_limit_that_the_card_does_not_take_is_refused_before_anything_is_touched(machine: Machine) -> None:
    before = machine.ssh(f"stat -c %Y.%i {CONFIG}").stdout
    played = machine.play(nvidia_driver_power_limit_w=350)
    assert played.returncode != 0
    assert "350 W" in played.said
    assert "400" in played.said
    assert machine.ssh(f"stat -c %Y.%i {CONFIG}").stdout == before
    assert limits(machine) == [450.0] * 4


def test_every_problem_of_a_declaration_is_told_at_once(machine: Machine) -> None:
    played = machine.play(
        nvidia_driver_compute_mode="shared", nvidia_driver_locked_clocks="2200", nvidia_driver_mig="3g"
    )
    assert played.returncode != 0
    for said in (
        "nvidia_driver_compute_mode: 'shared' is no compute mode",
        "nvidia_driver_locked_clocks: '2200' is no pair of clocks",
        "nvidia_driver_mig: '3g' is neither on nor off nor a list of profiles",
    ):
        assert said in played.said


def test_all_settings_together_and_then_none(machine: Machine) -> None:
    played = machine.play(
        nvidia_driver_power_limit_w={"rtx5090": 500, "t4": 65},
        nvidia_driver_compute_mode="exclusive_process",
        nvidia_driver_locked_clocks="300,2200",
        nvidia_driver_cpu_governor="performance",
    )
    assert played.returncode == 0, played.said
    assert limits(machine) == [500.0] * 4
    assert set(query(machine, "compute_mode")) == {"Exclusive_Process"}
    governors = machine.ssh(
        "cat /var/lib/gpumesh-simulated-gpus/root/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    )
    assert set(governors.stdout.split()) == {"performance"}
    assert machine.play(nvidia_driver_power_limit_w=0).returncode == 0
    assert machine.ssh(f"ls {CONFIG} {PROGRAM} /etc/systemd/system/{UNIT}").stdout == ""
    assert machine.ssh(f"systemctl is-active {UNIT}").stdout.strip() == "inactive"
    assert machine.ssh("find /etc/systemd/system -name 'gpumesh-gpu*'").stdout == ""
