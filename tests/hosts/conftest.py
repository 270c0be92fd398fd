# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of real hosts share: the machine from outside, and plays on it with other variables.

Run by molecule (`molecule test -s base`), which makes the machine and says where it is.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without molecule there is no machine."""
    if "MOLECULE_EPHEMERAL_DIRECTORY" not in os.environ:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs a machine: run it by 'molecule test'"))


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return condition()


def _environment() -> dict[str, str]:
    """Without molecule's wish for colours on a terminal, which would stand in the middle of sentences."""
    return {name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"}


@dataclass(frozen=True)
class Played:
    """What came of a play."""

    returncode: int
    said: str

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str]) -> Played:
        """Everything it printed on one line, without the quoting of YAML."""
        return cls(done.returncode, " ".join((done.stdout + done.stderr).split()).replace("''", "'"))


@dataclass(frozen=True)
class Machine:
    """The machine under test, seen from outside."""

    address: str
    folder: Path
    scenario: str

    def ssh(
        self, command: str = "true", *, user: str = "admin", port: int = 22, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """A new connection of its own, with its host key checked."""
        return subprocess.run(
            [
                "ssh", "-F", "none", "-p", str(port), "-i", str(self.folder / "key"), "-o", "IdentitiesOnly=yes",
                "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "HostKeyAlias=machine",
                "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ControlPath=none",
                *options, f"{user}@{self.address}", command,
            ],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def reaches(self, port: int, seconds: float = 2) -> bool:
        """Whether a TCP connection from here succeeds."""
        try:
            with socket.create_connection((self.address, port), timeout=seconds):
                return True
        except OSError:
            return False

    def play(self, *arguments: str, playbook: str = "converge.yml", **variables: Any) -> Played:
        """The scenario's play again, with other variables."""
        inventory = self.folder / "inventory"
        done = subprocess.run(
            [
                "ansible-playbook", "-i", str(inventory), "-e", json.dumps(variables), *arguments,
                str(ROOT / "molecule" / self.scenario / playbook),
            ],
            check=False, capture_output=True, text=True, timeout=600,
            env={**_environment(), "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        return Played.of(done)


@pytest.fixture(scope="module")
def machine() -> Machine:
    """The machine that molecule has made."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    scenario = os.environ["MOLECULE_SCENARIO_NAME"]
    inspected = subprocess.run(
        ["docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", f"gpumesh-molecule-{scenario}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Machine(inspected.stdout.strip(), folder, scenario)


@pytest.fixture
def neighbour(machine: Machine) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Another machine on the same network, to be banned in our place: runs a shell command there."""
    name = f"gpumesh-molecule-{machine.scenario}-neighbour"
    image = f"gpumesh/host:{os.environ.get('GPUMESH_PLATFORM', 'debian-13')}"
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
    subprocess.run(
        ["docker", "run", "--detach", "--name", name, image, "sleep", "600"], check=True, capture_output=True
    )

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", name, "sh", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    yield run
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
