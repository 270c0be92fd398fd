# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of an image proves nothing when it looked at nothing, and tells in sentences what it found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

GATE = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "gate"

pytest.importorskip("testinfra", reason="pytest-testinfra is not installed")


def results(junit: Path) -> subprocess.CompletedProcess[str]:
    """What is collected from a file of results."""
    return subprocess.run(
        [sys.executable, str(GATE / "results.py"), str(junit)], capture_output=True, text=True, check=False
    )


def prove(build: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The gate's tests, on a build."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"--rootdir={GATE}", f"--confcutdir={GATE}",
         "--config-file=/dev/null", f"--junitxml={build}/junit.xml", f"--build={build}", *more, str(GATE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def build(folder: Path, boots: Any, inventory: Any) -> Path:
    """A folder of a build."""
    (folder / "gate").mkdir()
    (folder / "gate/boots.json").write_text(json.dumps(boots), encoding="utf-8")
    (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
    return folder


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A build whose two machines are gone by now, and which had the same keys and id."""
    boots = [
        {
            "firmware": firmware,
            "address": "127.0.0.1",
            "port": 1,
            "user": "admin",
            "key": str(tmp_path / "key"),
            "known_hosts": str(tmp_path / "known"),
            "machine_id": "0123",
            "host_keys": ["ssh-ed25519 AAAA"],
            "planted": "",
        }
        for firmware in ("bios", "uefi")
    ]
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA x\n", encoding="ascii")
    inventory = {"kernels": ["6.12"], "packages": [], "layers": {}, "modules": {}}
    return build(tmp_path, boots, inventory)


def test_a_build_that_booted_nothing_is_not_proved(tmp_path: Path) -> None:
    ran = prove(build(tmp_path, [], {}))
    assert ran.returncode not in (0, 5)
    assert "nothing was booted, so nothing can be proved" in ran.stdout + ran.stderr
    assert not (tmp_path / "junit.xml").exists() or results(tmp_path / "junit.xml").returncode == 1


def test_a_build_without_its_list_is_not_proved(tmp_path: Path) -> None:
    ran = prove(tmp_path)
    assert ran.returncode not in (0, 5)
    assert "cannot be read" in ran.stdout + ran.stderr


def test_machines_that_cannot_be_reached_or_are_the_same_fail_in_sentences(dead: Path) -> None:
    ran = prove(dead)
    assert ran.returncode == 1
    found = json.loads(results(dead / "junit.xml").stdout)
    assert found["passed"] + found["failed"] + found["skipped"] == len(found["cases"])
    assert found["failed"] == len(found["failures"]) > 20
    said = "\n".join(found["failures"])
    assert "test_no_unit_failed[bios]: The machine booted by BIOS could not be reached: " in said
    assert "test_machines_differ: The machines booted by bios and uefi have the same machine id 0123" in said
    assert "Traceback" not in said
    assert "assert " not in said


def test_results_that_prove_nothing_are_refused(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites><testsuite/></testsuites>", encoding="utf-8")
    ran = results(junit)
    assert ran.returncode == 1
    assert "not one test was made" in ran.stderr


def test_results_that_are_all_left_out_are_refused(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(
        '<testsuites><testsuite><testcase name="a" time="0"><skipped/></testcase></testsuite></testsuites>',
        encoding="utf-8",
    )
    assert results(junit).returncode == 1


def test_results_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites><testsuite>", encoding="utf-8")
    ran = results(junit)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1


@pytest.fixture
def tests_of_image() -> ModuleType:
    """The gate's tests as a module."""
    spec = importlib.util.spec_from_file_location("gate_test_image", GATE / "test_image.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEFERRED = {"from": "gpumesh.fleet.validation", "suite": "full", "verdict": None, "hardware": None}
JUDGED = {
    "from": "gpumesh.fleet.validation",
    "suite": "quick",
    "verdict": "PASS",
    "run": "20261127T100000Z-quick",
}


@pytest.mark.parametrize(
    ("listed", "found", "same"),
    [
        (DEFERRED, DEFERRED, True),
        # What the first boot has measured.
        (DEFERRED, JUDGED, True),
        (DEFERRED, {**JUDGED, "from": "somebody"}, False),
        (DEFERRED, {**DEFERRED, "suite": "quick"}, False),
        (DEFERRED, None, False),
        (JUDGED, {**JUDGED, "verdict": "FAIL"}, False),
        (None, JUDGED, False),
    ],
)
def test_what_the_first_boot_measures_is_no_difference_from_the_list(
    tests_of_image: ModuleType, listed: dict[str, Any] | None, found: dict[str, Any] | None, same: bool
) -> None:
    def layers(facts: dict[str, Any] | None, version: int = 1) -> dict[str, Any]:
        return {"docker": {"version": version}, **({"validation": facts} if facts else {})}

    def proved(machine: dict[str, Any]) -> bool:
        try:
            tests_of_image.test_layers_are_those_of_the_list(gate, {"layers": machine})
        except AssertionError:
            return False
        return True

    gate = SimpleNamespace(inventory={"layers": layers(listed)})
    assert proved(layers(found)) is same
    # Of the other layers nothing is let pass.
    assert not proved(layers(found, version=2))
