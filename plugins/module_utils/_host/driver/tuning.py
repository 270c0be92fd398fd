# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the tuning's own unit apply the declared settings, and reads them back by its own program.

By the unit, so that what is proved is what happens at every boot. The program lies on the machine (role nvidia_driver,
files/tuning.py), as it runs there without Ansible.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from . import paths
from .programs import run

_SECONDS = 600


@dataclass(frozen=True)
class Report:
    """What the program tells of the GPUs and CPUs.

    Attributes:
        ok: whether all is as declared, or only waits for a reboot.
        pending: what waits for a reboot, in sentences.
        problems: what is not as declared, in sentences.
        simulated: whether the GPUs are.
    """

    ok: bool
    pending: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    simulated: bool = False


def compare(program: Path) -> Report:
    """The GPUs and CPUs beside the declaration."""
    status, said = run(str(program), "--check", "--json", seconds=_SECONDS, errors=False)
    try:
        found = json.loads(said)
        return Report(status == 0, found["pending"], found["problems"], found["simulated"])
    except (ValueError, KeyError, TypeError):
        # Where it is missing or was killed, it said nothing.
        return Report(
            False,
            problems=[
                f"The tuning was not proved: {program} does not answer; run the role nvidia_driver again."
            ],
        )


def apply() -> None:
    """Run the unit anew."""
    run("systemctl", "restart", paths.TUNING)


def unit_failure() -> list[str]:
    """What the unit said where its last run failed, line by line; nothing where it went well or never ran."""
    shown = run("systemctl", "show", "--property=Result", "--property=InvocationID", paths.TUNING)[1]
    if "Result=success" in shown:
        return []
    found = re.search(r"^InvocationID=(\S+)$", shown, re.MULTILINE)
    if not found:
        return [f"{paths.TUNING} did not run; see 'systemctl status {paths.TUNING}'"]
    _status, said = run(
        "journalctl", "--output=cat", "--no-pager", f"_SYSTEMD_INVOCATION_ID={found[1]}", errors=False
    )
    return said.splitlines() or [
        f"{paths.TUNING} failed and said nothing; see 'journalctl -u {paths.TUNING}'"
    ]
