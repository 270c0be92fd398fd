# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the programs that know of GPUs, and waits for none of them longer than told.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_SYSTEM = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


@dataclass(frozen=True)
class Ran:
    """What came of a program.

    Attributes:
        status: its exit status; 127 where there is no such program, 124 where it did not end in time.
    """

    status: int
    out: str
    err: str

    @property
    def says(self) -> str:
        """The first line that tells what is wrong."""
        lines = [line.strip() for line in f"{self.err}\n{self.out}".splitlines() if line.strip()]
        return lines[0][:300] if lines else f"it ended with status {self.status} and said nothing"


def search_path() -> str:
    """The PATH with the folders of administrators' programs and of what was put there by hand, which not every PATH has."""
    given = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    return ":".join([*given, *(folder for folder in _SYSTEM if folder not in given)])


def run(command: Sequence[str], seconds: float) -> Ran:
    """Run a program.

    nvidia-smi can hang in the kernel where a card has died, and then not even a signal ends it: it is left behind.
    """
    path = search_path()
    program = shutil.which(command[0], path=path)
    if program is None:
        return Ran(127, "", f"{command[0]} is not installed")
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "", "PATH": path}
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as problem:
        return Ran(126, "", f"{program} cannot be run: {problem.strerror}")
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return Ran(124, "", f"{command[0]} did not answer within {seconds:g} seconds")
    return Ran(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and what it started; give up on what cannot be killed."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        pass
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
