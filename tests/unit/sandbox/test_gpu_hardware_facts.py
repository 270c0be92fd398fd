# SPDX-License-Identifier: GPL-3.0-or-later
"""What is broken in the simulated machine is found by our own facts and checks, which know nothing of simulations."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.filter.gpu_checks import gpu_checks
from ansible_collections.gpumesh.fleet.plugins.modules import gpu_info

from tests.module_runner import run_module
from tests.unit.sandbox.gpu_machine import Sandbox

REPOSITORY = Path(__file__).parents[3]
EXPECTED = {
    "4x-rtx5090": {"gpus": [{"model": "rtx5090", "count": 4}], "width": {"rtx5090": 16}},
    "a100": {"gpus": [{"model": "a100", "count": 1}]},
    "t4": {"gpus": [{"model": "t4", "count": 1}]},
}


class Looked:
    """A machine whose programs are found in the path."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.machine = Sandbox(folder / "machine", profile)
        self.profile = profile
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in ("dpkg-query", "dpkg", "apt-get", "dkms", "systemctl", "modinfo"):
            self._program(name, "exit 1")
        self._program(
            "nvidia-smi",
            f"cd {REPOSITORY} && GPUMESH_SIMULATED_PREFIX={self.machine.folder} exec {sys.executable} "
            '-m sandbox.gpu.machine.nvidia_smi "$@"',
        )

    def _program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def facts(self) -> dict[str, Any]:
        result = run_module(gpu_info.main, root=str(self.machine.root), system=str(self.machine.folder))
        assert not result.get("failed"), result
        return dict(result["gpu"])

    def failures(self) -> list[str]:
        """What the failed checks say."""
        return [
            check["says"] for check in gpu_checks(self.facts(), EXPECTED[self.profile]) if not check["ok"]
        ]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def make(profile: str, flavour: str = "open") -> Looked:
        made = Looked(tmp_path, profile)
        made.machine.drive("580.178.04", flavour)
        made.machine.smi("-pm", "1")
        return made

    return make


@pytest.mark.parametrize("profile", sorted(EXPECTED))
def test_a_whole_machine_is_seen_whole(look, profile: str) -> None:
    facts = look(profile).facts()
    count = EXPECTED[profile]["gpus"][0]["count"]
    assert facts["simulated"] is True
    assert facts["counts"] == {"pci": count, "driver": count}
    assert {(device["model"], device["state"]) for device in facts["devices"]} == {
        (EXPECTED[profile]["gpus"][0]["model"], "ok")
    }
    assert facts["driver"]["loaded"] == facts["driver"]["library"] == "580.178.04"
    assert facts["driver"]["flavour"] == "open"
    assert len(facts["topology"]) == len(facts["p2p"]) == count * (count - 1) // 2


@pytest.mark.parametrize(
    ("profile", "kind", "says"),
    [
        ("4x-rtx5090", "lost", "0000:61:00.0"),
        ("4x-rtx5090", "lost-values", "0000:61:00.0"),
        ("4x-rtx5090", "unseen", "0000:61:00.0"),
        ("4x-rtx5090", "unplugged", "3"),
        ("4x-rtx5090", "x8", "8"),
        ("4x-rtx5090", "throttled", "0000:61:00.0"),
        ("4x-rtx5090", "power-brake", "0000:61:00.0"),
        ("4x-rtx5090", "persistence-off", "ersistence"),
        ("4x-rtx5090", "memory", "30559"),
        ("4x-rtx5090", "mismatch", "580.65.06"),
        ("a100", "ecc", "0000:00:1e.0"),
        ("a100", "remap-failure", "0000:00:1e.0"),
        ("t4", "ecc", "0000:00:1e.0"),
    ],
)
def test_what_is_broken_is_found(look, profile: str, kind: str, says: str) -> None:
    looked = look(profile)
    before = set(looked.failures())
    looked.machine.control("break", kind)
    found = [text for text in looked.failures() if text not in before]
    assert found
    assert any(says in text for text in found), found
    assert all(text.startswith("SIMULATED") for text in found)
    looked.machine.control("mend")
    assert set(looked.failures()) == before
