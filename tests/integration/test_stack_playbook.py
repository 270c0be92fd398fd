# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/stack.yml as a user runs it: no machine, no fleet, no credentials."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.playbook_runner import run_playbook

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def play(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_playbook(home, "localhost,", "playbooks/stack.yml", *arguments)


def test_a_stack_is_printed_with_its_reasons(tmp_path: Path) -> None:
    done = play(tmp_path, "-e", "gpus=rtx5090x4", "-e", "distribution=ubuntu-24.04", "-e", "today=2026-11-27")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "GPU stack for 4x GeForce RTX 5090 on Ubuntu 24.04." in lines
    assert "  *  Branch 580 is the long-term branch, supported until 2028-06." in lines
    assert "changed=0" in done.stdout


def test_the_stack_first_asked_for_fails_with_one_sentence(tmp_path: Path) -> None:
    wishes = ("driver=550.127.05", "cuda=12.4", "pytorch=2.1+cu124", "power_limit_w=450", "today=2026-11-27")
    done = play(tmp_path, "-e", "gpus=rtx5090x4", *(part for wish in wishes for part in ("-e", wish)))
    assert done.returncode != 0
    assert "Point by point" in done.stdout
    assert (
        "There is no such stack: 5 rules are broken, and the nearest stack that works"
        in done.stdout + done.stderr
    )
    assert "power limit: 450 W is within the range" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Say which GPUs, such as -e gpus=rtx5090x4"),
        (("-e", "gpus=rtx5090,v100"), "1 rule is broken, and no stack near it works."),
        (("-e", "gpus=t4", "-e", "branch=newest"), "wishes: branch: 'newest' is no version of it"),
    ],
)
def test_what_has_no_answer(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = play(tmp_path, *arguments)
    assert done.returncode != 0
    assert says in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
