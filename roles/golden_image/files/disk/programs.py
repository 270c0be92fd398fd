# SPDX-License-Identifier: GPL-3.0-or-later
"""How other programs are run, and what is told to the user where something goes wrong."""

from __future__ import annotations

import os
import subprocess


class DiskError(Exception):
    """What is told to the user, in one sentence."""


def run(what: str, *command: str, stdin: str = "", **environment: str) -> str:
    """Run a program, and answer what it printed."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, input=stdin, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise DiskError(f"Cannot {what}: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def last_words(said: str) -> str:
    """The last lines of what a program said, as one."""
    return (
        "; ".join([line.strip() for line in said.splitlines() if line.strip()][-3:])
        or "the program said nothing"
    )
