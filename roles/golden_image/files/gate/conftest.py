# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines that were booted from an image, seen from outside over SSH, and what they are to be held against."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Gate:
    """One build: the folder, its boots, and what is said to be in the image."""

    folder: Path
    boots: dict[str, dict[str, Any]]
    inventory: dict[str, Any]

    def ssh(self, firmware: str, *options: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """A login that is made anew, believing only the known host key."""
        boot = self.boots[firmware]
        return subprocess.run(
            ["ssh", "-F", "/dev/null", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
             "-o", f"UserKnownHostsFile={boot['known_hosts']}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60",
             *options, "-p", str(boot["port"]), f"{user or boot['user']}@{boot['address']}", "true"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=180,
        )  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the build is."""
    parser.addoption(
        "--build", required=True, help="folder of the build, with inventory.json and gate/boots.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to go on where there is nothing to look at."""
    _gate(config)


def _gate(config: pytest.Config) -> Gate:
    folder = Path(config.getoption("--build"))
    try:
        boots = json.loads((folder / "gate/boots.json").read_text(encoding="utf-8"))
        inventory = json.loads((folder / "inventory.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise pytest.UsageError(f"What is to be proved of the image cannot be read: {problem}") from problem
    if not boots:
        raise pytest.UsageError(
            f"{folder}/gate/boots.json names no machine: nothing was booted, so nothing can be proved"
        )
    return Gate(folder, {boot["firmware"]: boot for boot in boots}, inventory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a machine is made on each."""
    if "firmware" in metafunc.fixturenames:
        metafunc.parametrize("firmware", list(_gate(metafunc.config).boots), scope="session")


@pytest.fixture(scope="session")
def gate(pytestconfig: pytest.Config) -> Gate:
    """The build."""
    return _gate(pytestconfig)


@pytest.fixture(scope="session")
def connections(gate: Gate) -> Iterator[dict[str, Any]]:
    """testinfra's view of each machine; one SSH connection each, kept open. A socket's path has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="gate-"))
    config = folder / "config"
    config.write_text(
        "".join(
            f"Host {firmware}\n HostName {boot['address']}\n Port {boot['port']}\n User {boot['user']}\n"
            f" IdentityFile {boot['key']}\n IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n"
            f" StrictHostKeyChecking yes\n UserKnownHostsFile {boot['known_hosts']}\n GlobalKnownHostsFile /dev/null\n"
            f" ControlMaster auto\n ControlPersist 300\n ControlPath {folder}/%n\n ConnectTimeout 60\n LogLevel ERROR\n"
            for firmware, boot in gate.boots.items()
        ),
        encoding="utf-8",
    )
    yield {
        firmware: testinfra.get_host(f"ssh://{firmware}", ssh_config=str(config)) for firmware in gate.boots
    }
    for firmware in gate.boots:
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", firmware], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def seen(gate: Gate, connections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the probe saw on each machine; all are asked at once."""
    program = (HERE / "probe.py").read_text(encoding="utf-8")
    first = next(iter(gate.boots))

    def ask(firmware: str) -> dict[str, Any]:
        wanted = {
            "modules": sorted({name for names in gate.inventory["modules"].values() for name in names}),
            "container": firmware == first and "docker" in gate.inventory["layers"],
        }
        command = f"sudo -n python3 -c {shlex.quote(program)} {shlex.quote(json.dumps(wanted))}"
        who = f"The machine booted by {firmware.upper()} could not be"
        try:
            ran = connections[firmware].run(command)
        # What testinfra makes of a connection that fails.
        except RuntimeError:
            said = gate.ssh(firmware, "-o", "IdentitiesOnly=yes", "-i", gate.boots[firmware]["key"]).stderr
            return {"problem": f"{who} reached: {said.strip()[-500:]}"}
        if ran.rc:
            return {"problem": f"{who} looked at: {ran.stderr.strip()[-500:]}"}
        return dict(json.loads(ran.stdout))

    with ThreadPoolExecutor(len(gate.boots)) as pool:
        found = dict(zip(gate.boots, pool.map(ask, gate.boots), strict=True))
    (gate.folder / "gate/seen.json").write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    return found


@pytest.fixture
def machine(seen: dict[str, dict[str, Any]], firmware: str) -> dict[str, Any]:
    """What was seen on one of them."""
    found = seen[firmware]
    if "problem" in found:
        pytest.fail(found["problem"], pytrace=False)
    return found
