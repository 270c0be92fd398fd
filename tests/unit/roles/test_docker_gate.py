# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Docker layer's gate reads out of 'docker info'."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GATE = Path(__file__).parents[3] / "roles" / "docker" / "files" / "gate.py"
# Cut from what Docker 26.1 prints.
INFO: dict[str, Any] = {
    "LoggingDriver": "json-file",
    "LiveRestoreEnabled": True,
    "Debug": False,
    "ExperimentalBuild": False,
    "DockerRootDir": "/var/lib/docker",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}, "io.containerd.runc.v2": {"path": "runc"}},
    "Labels": ["owner=somebody-else"],
    "RegistryConfig": {"Mirrors": ["https://mirror.example.com/"]},
}


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    """The program, not run."""
    found = importlib.util.spec_from_file_location("docker_gate", GATE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("option", "declared", "there"),
    [
        ("log-driver", "json-file", True),
        ("log-driver", "local", False),
        ("live-restore", False, False),
        ("debug", True, False),
        ("data-root", "/var/lib/docker/", True),
        ("data-root", "/data/docker", False),
        ("default-runtime", "nvidia", False),
        ("runtimes", {"nvidia": {"path": "nvidia-container-runtime"}}, False),
        ("runtimes", {"runc": {"path": "runc"}}, True),
        ("labels", ["owner=somebody-else"], True),
        ("labels", ["owner=me"], False),
        ("registry-mirrors", ["https://mirror.example.com"], True),
        ("registry-mirrors", ["https://other.example.com"], False),
    ],
)
def test_an_option_holds_if_the_daemon_says_so(
    gate: ModuleType, option: str, declared: Any, there: bool
) -> None:
    assert gate.holds(declared, gate.reported(INFO)[option]) is there


def test_lists_that_the_daemon_does_not_have_are_empty(gate: ModuleType) -> None:
    told = gate.reported({})
    assert (told["labels"], told["registry-mirrors"], told["runtimes"]) == ([], [], [])
