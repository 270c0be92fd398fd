# SPDX-License-Identifier: GPL-3.0-or-later
"""The suite on four simulated RTX 5090 (SIMULATED): green and labelled where all is well, and what is not looked at is not green."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import ROOT, Machine
from tests.hosts.validation_simulated.conftest import made, of_verdict, pace, root

pytestmark = pytest.mark.docker

PYTORCH = "/opt/gpumesh/frameworks/pytorch"


@pytest.fixture(scope="module")
def folder(machine: Machine) -> Path:
    """The run that the play has made, where it was brought."""
    return min((machine.folder / "acceptance/machine").iterdir())


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


def test_the_whole_machine_is_green_and_no_verdict_on_hardware(run: dict[str, Any]) -> None:
    assert run["verdict"]["checks"] == "PASS"
    assert run["verdict"]["hardware"] is None
    assert run["label"] == "SIMULATED"
    assert run["verdict"]["says"].startswith("SIMULATED: ")
    assert run["coverage"]["ran"] == run["coverage"]["apply"] >= 25
    assert {check["label"] for check in run["checks"]} == {"SIMULATED"}


def test_its_report_says_on_every_page_what_it_is(folder: Path, run: dict[str, Any]) -> None:
    page = (folder / "report.html").read_text()
    assert page.count("SIMULATED") >= 2
    assert "NVIDIA GeForce RTX 5090" in page
    suites = ElementTree.parse(folder / "junit.xml").getroot()  # noqa: S314  # our own
    assert len(list(suites.iter("testcase"))) == len(run["checks"])


def test_the_sensors_saw_the_work(folder: Path) -> None:
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert max(sample["power_w"] for sample in samples) > 500
    assert max(sample["utilization_percent"] for sample in samples) > 90
    assert max(sample["link_gen"] for sample in samples) == 5
    assert samples[0]["power_w"] < 60


def test_three_runs_of_the_role_made_one_of_the_suite(machine: Machine, run: dict[str, Any]) -> None:
    # What was run by hand has no mark of what it was of.
    there = root(machine, "cd /var/lib/gpumesh/acceptance/runs; ls -d */.holds-for").split()
    assert there == [f"{run['id']}/.holds-for"]


def test_what_is_declared_is_in_the_profile(machine: Machine) -> None:
    profile = json.loads(root(machine, "cat /etc/gpumesh/acceptance.json"))
    assert profile["gpus"] == {"rtx5090": 4}
    assert profile["expected"]["driver"] == {"branch": "595", "flavour": "open"}
    assert profile["bare_metal"] is True
    assert profile["kernel_log"] == "/var/lib/gpumesh-simulated-gpus/root/kern.log"


@pytest.mark.usefixtures("mended")
def test_half_of_the_checks_impossible_is_not_green(machine: Machine) -> None:
    root(machine, f"mv {PYTORCH} {PYTORCH}.away")
    try:
        document = made(machine)
        assert document["status"] == 4
        assert document["verdict"]["checks"] == "UNKNOWN"
        skipped = of_verdict(document, "SKIP")
        assert {"kernels", "matmul", "training", "all_reduce", "pytorch"} <= set(skipped)
        assert "PyTorch is not installed" in skipped["matmul"]["says"]
        assert skipped["matmul"]["advice"]
        coverage = document["coverage"]
        assert coverage["ran"] < coverage["apply"]
        assert coverage["says"] == f"{coverage['ran']} of {coverage['apply']} checks ran"
        root(machine, "gpumesh-simulated-gpus reboot")
        played = machine.play("--tags", "gate")
        assert played.returncode == 2
        assert "matmul was not made: PyTorch is not installed" in played.said
        assert "Nothing that was not looked at is green" in played.said
        assert "validation_waived: {" in played.said
        gaps = [name for name, check in skipped.items() if check["applies"]]
        played = machine.play(validation_waived=dict.fromkeys(gaps, "no PyTorch here, on purpose"))
        assert played.returncode == 0, played.said
        assert f"{len(gaps)} waived" in played.said
    finally:
        root(machine, f"mv {PYTORCH}.away {PYTORCH}")
        machine.play("--tags", "validation_configure")


@pytest.mark.usefixtures("mended")
def test_a_boot_makes_the_gate_measure_again_and_a_lost_card_fails_it(machine: Machine) -> None:
    root(machine, "gpumesh-simulated-gpus reboot")
    before = root(machine, "ls /var/lib/gpumesh/acceptance/runs").split()
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "PASS: SIMULATED" in played.said
    assert "changed=0" in played.said
    after = root(machine, "ls /var/lib/gpumesh/acceptance/runs").split()
    assert len(after) == len(before) + 1
    played = machine.play("--tags", "gate")
    assert "nothing has changed since" in played.said
    pace(machine, 0.3)
    root(machine, "gpumesh-simulated-gpus break lost")
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert "gpus_seen FAIL" in played.said
    assert "kernel_log FAIL" in played.said


@pytest.mark.usefixtures("mended")
def test_the_playbook_shows_one_table_and_fails_where_something_failed(machine: Machine) -> None:
    pace(machine, 0.3)
    root(machine, "gpumesh-simulated-gpus break x8 --device 1")
    folder = machine.folder / "validate"
    played = machine.play(
        playbook=str(ROOT / "playbooks/validate.yml"),
        validate="machine",
        validation_root="/var/lib/gpumesh-simulated-gpus/root",
        validation_gpus=[{"model": "rtx5090", "count": 4}],
        validation_expected={"driver": {"branch": "595", "flavour": "open"}, "width": {"rtx5090": 16}},
        validation_folder=str(folder),
        validation_progress_every="5s",
    )
    assert played.returncode == 2
    assert "machine verdict coverage failed or not proved report" in played.said
    assert "machine FAIL SIMULATED" in played.said
    assert "pcie_link" in played.said
    assert "checks made, now" in played.said
    (report,) = folder.glob("machine/*/report.html")
    assert str(report) in played.said


@pytest.mark.usefixtures("mended")
def test_the_first_boot_of_what_is_made_of_it_puts_the_verdict_into_the_login_message(
    machine: Machine,
) -> None:
    unit, mark = "gpumesh-first-acceptance.service", "/var/lib/gpumesh/first-acceptance"
    played = machine.play("--tags", "validation_configure", validation_first_boot=True)
    assert played.returncode == 0, played.said
    before = root(machine, "ls /var/lib/gpumesh/acceptance/runs").split()
    root(machine, f"systemctl start {unit}")
    assert root(machine, "ls /var/lib/gpumesh/acceptance/runs").split() == before
    root(machine, f"echo another >{mark}")
    root(machine, f"systemctl start --no-block {unit}")
    for _ in range(200):
        if root(machine, f"systemctl show --property=ActiveState --value {unit}").strip() == "inactive":
            break
        time.sleep(0.5)
    assert len(root(machine, "ls /var/lib/gpumesh/acceptance/runs").split()) == len(before) + 1
    seen = machine.ssh("exit", options=("-tt",)).stdout + root(
        machine, "cat /etc/motd.d/60-gpumesh-acceptance"
    )
    assert "GPU acceptance at the first boot: PASS: SIMULATED" in seen
    root(machine, f"systemctl start {unit}")
    assert len(root(machine, "ls /var/lib/gpumesh/acceptance/runs").split()) == len(before) + 1
    played = machine.play("--tags", "validation_configure")
    assert root(machine, f"ls /etc/systemd/system/{unit} || true") == ""
