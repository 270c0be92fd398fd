# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build is said to lack on the control machine, before anything is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "look.py"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A control machine with all of it."""
    for name, text in (("engine", 'exit "${STATUS:-0}"'), ("mmdebstrap", "exit 0")):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho Usage >&2\necho 'no daemon runs' >&2\n{text}\n")
        path.chmod(0o755)
    for name in ("archive.gpg", "signing-key"):
        (tmp_path / name).touch()
    (tmp_path / "passphrase").write_text("correct horse")
    (tmp_path / "passphrase").chmod(0o600)
    return tmp_path


def seen(machine: Path, status: int = 0) -> Any:
    """What it says."""
    wanted = {
        "programs": ["engine", "mmdebstrap"],
        "engine": "engine",
        "files": {
            "golden_image_signing_key": str(machine / "signing-key"),
            "golden_image_allowed_signers": "",
        },
        "keyrings": {str(machine / "archive.gpg"): "debian-archive-keyring"},
        "passphrase": str(machine / "passphrase"),
    }
    return json.loads(
        subprocess.run(
            [sys.executable, str(PROGRAM), json.dumps(wanted)],
            capture_output=True,
            check=True,
            env={**os.environ, "PATH": f"{machine}:/usr/bin:/bin", "STATUS": str(status)},
        ).stdout
    )


COMPLETE = {"programs": [], "engine": "", "missing": [], "keyrings": {}, "passphrase": True}


def test_a_complete_machine_lacks_nothing(machine: Path) -> None:
    assert seen(machine) == COMPLETE


def test_all_that_is_missing_is_said_at_once(machine: Path) -> None:
    for name in ("engine", "signing-key", "archive.gpg", "passphrase"):
        (machine / name).unlink()
    assert seen(machine) == {
        "programs": ["engine"],
        # What is not there is said once.
        "engine": "",
        "missing": ["golden_image_signing_key"],
        "keyrings": {str(machine / "archive.gpg"): "debian-archive-keyring"},
        "passphrase": False,
    }


def test_an_engine_that_does_not_answer_says_why(machine: Path) -> None:
    assert seen(machine, status=1) == {**COMPLETE, "engine": "no daemon runs"}


def test_a_passphrase_that_others_may_read_is_none(machine: Path) -> None:
    (machine / "passphrase").chmod(0o640)
    assert seen(machine)["passphrase"] is False
