# SPDX-License-Identifier: GPL-3.0-or-later
"""The suite on a real machine without a GPU, with a real PyTorch: end to end, in three formats, and no verdict on hardware."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

MEASURED = ("kernels", "matmul", "host_device_bandwidth", "all_reduce", "training", "pytorch")


@pytest.fixture(scope="module")
def folder(machine: Machine) -> Path:
    """The run that the play has made, where it was brought."""
    (found,) = (machine.folder / "acceptance/machine").iterdir()
    return found


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


def checks(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in run["checks"]}


def test_three_runs_of_the_role_made_one_of_the_suite(machine: Machine, folder: Path) -> None:
    # What was run by hand has no mark of what it was of.
    there = machine.ssh("cd /var/lib/gpumesh/acceptance/runs; ls -d */.holds-for").stdout.split()
    assert there == [f"{folder.name}/.holds-for"]


def test_the_run_is_no_verdict_on_hardware(run: dict[str, Any]) -> None:
    assert run["state"] == "complete"
    assert run["device"] == "cpu"
    assert run["label"] == "CPU"
    assert run["verdict"]["hardware"] is None
    assert run["verdict"]["checks"] == "UNKNOWN"
    assert run["verdict"]["says"].startswith("CPU: ")
    assert "no verdict on hardware" in run["verdict"]["says"]


def test_what_can_be_measured_was_measured_and_is_right(run: dict[str, Any]) -> None:
    for name in MEASURED:
        check = checks(run)[name]
        assert check["verdict"] == "PASS", f"{name}: {check['says']}"
        assert check["label"] == "CPU"
        assert check["figures"], name


def test_training_was_made_with_two_processes(run: dict[str, Any]) -> None:
    figures = {figure["name"] for figure in checks(run)["training"]["figures"]}
    assert len(figures) >= 3
    assert run["versions"]["torch"].startswith("2.")


def test_what_needs_a_gpu_was_skipped_with_the_reason_and_counts_as_a_gap(run: dict[str, Any]) -> None:
    gpu = checks(run)["gpus_seen"]
    assert gpu["verdict"] == "SKIP"
    assert gpu["applies"] is True
    assert gpu["says"]
    coverage = run["coverage"]
    assert coverage["ran"] < coverage["apply"]
    assert coverage["says"].startswith(f"{coverage['ran']} of {coverage['apply']} checks ran")


def test_the_report_comes_in_three_formats(folder: Path, run: dict[str, Any]) -> None:
    suites = ElementTree.parse(folder / "junit.xml").getroot()  # noqa: S314  # our own
    cases = [case.get("name") for case in suites.iter("testcase")]
    assert len(cases) == len(run["checks"])
    page = (folder / "report.html").read_text()
    assert "CPU" in page
    assert run["id"] in page


def test_the_command_works_by_hand_and_its_status_is_its_verdict(machine: Machine) -> None:
    assert machine.ssh("gpu-acceptance list --suite quick").returncode == 0
    made = machine.ssh("gpu-acceptance run --device cpu --only kernels")
    assert made.returncode == 4, made.stdout + made.stderr
    assert "PASS" in made.stdout
    assert "no verdict on hardware" in made.stdout
    # Not root's, whose runs are the machine's.
    assert machine.ssh("ls ~/.local/state/gpumesh/acceptance/runs").stdout.strip()


def test_nothing_but_the_standard_library_and_what_is_imported_was_brought(machine: Machine) -> None:
    home = "/opt/gpumesh/acceptance/current"
    files = machine.ssh(f"cd {home} && find . -type f").stdout.split()
    assert "./plugins/module_utils/_acceptance/cli.py" in files
    assert [path for path in files if "providers" in path or "/mesh/" in path or path.endswith(".pyc")] == []
    assert machine.ssh(f"find {home}/ ! -user root -o -perm /o+w ! -type l").stdout == ""


def test_the_gate_takes_the_run_that_holds_and_changes_nothing(machine: Machine) -> None:
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    assert "nothing has changed since" in played.said


def test_the_layer_leaves_its_facts(machine: Machine, run: dict[str, Any]) -> None:
    facts = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["validation"]
    assert facts["run"] == run["id"]
    assert facts["label"] == "CPU"
    assert facts["hardware"] is None


def test_what_is_declared_wrongly_is_refused_and_leaves_the_profile_as_it_was(machine: Machine) -> None:
    before = machine.ssh("cat /etc/gpumesh/acceptance.json").stdout
    played = machine.play("--tags", "validation_configure", validation_targets={"scaling_eficiency": 0.9})
    assert played.returncode == 2
    assert "targets.scaling_eficiency" in played.said
    assert "scaling_efficiency perhaps" in played.said
    assert machine.ssh("cat /etc/gpumesh/acceptance.json").stdout == before
    played = machine.play(validation_waived={"container_gpus": " "})
    assert played.returncode == 2
    assert "container_gpus has no reason" in played.said


def test_without_a_gpu_and_without_the_cpu_there_is_one_line(machine: Machine) -> None:
    played = machine.play(validation_device="cuda")
    assert played.returncode == 0, played.said
    assert (
        "This machine has no NVIDIA GPU and none is declared, so there is nothing to validate." in played.said
    )
    assert "changed=0" in played.said
