# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the suite on simulated GPUs share: runs by hand, and a machine that is whole again after each test. SIMULATED."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts.conftest import Machine

PACE = "/etc/gpumesh-simulated-gpus/pace"


def root(machine: Machine, command: str) -> str:
    """What a command of root's says, which has to succeed."""
    done = machine.ssh(f"sudo sh -c '{command}'")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pace(machine: Machine, seconds: float) -> None:
    """How long what takes a while takes in the stand-ins. What is judged by the sensors is judged at their own pace alone."""
    root(machine, f"echo {seconds} >{PACE}")


def made(machine: Machine, *words: str) -> dict[str, Any]:
    """A run by hand, and its document with the status that the command ended with."""
    # The connection has a minute; the command may take longer.
    root(
        machine,
        "rm -f /run/made.*; systemd-run --quiet --collect --unit=made --property=StandardOutput=file:/run/made.json "
        "--property=StandardError=null "
        f'sh -c "gpu-acceptance run --json {" ".join(words)}; echo \\$? >/run/made.status"',
    )
    for _ in range(6):
        if (
            machine.ssh("timeout 50 sh -c 'until [ -e /run/made.status ]; do sleep 0.3; done'").returncode
            == 0
        ):
            break
    document: dict[str, Any] = json.loads(root(machine, "cat /run/made.json"))
    return {**document, "status": int(root(machine, "cat /run/made.status"))}


def of_verdict(document: dict[str, Any], verdict: str) -> dict[str, dict[str, Any]]:
    """The checks of a verdict, by name."""
    return {check["name"]: check for check in document["checks"] if check["verdict"] == verdict}


@pytest.fixture
def mended(machine: Machine) -> Iterator[None]:
    """What a test breaks is mended, and the machine has booted, at the stand-ins' own pace."""
    yield
    root(machine, f"gpumesh-simulated-gpus mend; gpumesh-simulated-gpus reboot; rm -f {PACE}")
