# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the programs that change a machine's packages and modules, and tells what they complain of.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMPLAINT = re.compile(r"^(dpkg: error|E: )", re.MULTILINE)
_COMPILER = re.compile(r"\S+:\d+(:\d+)?: (fatal )?error:|(.*: )?error: |Error! ")
APT = (
    "apt-get",
    "--quiet=2",
    "--yes",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=3",
    "--allow-change-held-packages",
    "--allow-downgrades",
)


class Failed(Exception):
    """What went wrong, and what to do about it, in one sentence."""


def run(
    *command: str, seconds: float | None = 3600, cwd: Path | None = None, errors: bool = True
) -> tuple[int, str]:
    """Run a program, and ask nobody anything.

    Args:
        seconds: how long it may take; None: as long as it likes.
        errors: whether what it says on its standard error is wanted as well.

    Returns:
        Its exit status and everything it said; 127 where there is no such program, 126 where it may not be
        executed, 124 where it did not end in time.
    """
    quiet = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "PATH": _PATH}
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            env={**os.environ, **quiet},
            cwd=cwd,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except PermissionError:
        return 126, f"{command[0]} cannot be executed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {seconds or 0:g} seconds"
    return done.returncode, done.stdout


def there(program: str) -> bool:
    """Whether there is such a program, where `run` looks for it."""
    return shutil.which(program, path=_PATH) is not None


def must(what: str, *command: str, cwd: Path | None = None) -> str:
    """What a program says that has to succeed; Failed, which begins with `what`, where it does not."""
    # However long it takes: apt that is killed in the middle leaves packages half-way.
    status, said = run(*command, seconds=None, cwd=cwd)
    if status != 0:
        raise Failed(f"{what}: {complaint(said)}")
    return said


def complaint(said: str) -> str:
    """What apt or dpkg complain of, or the end of what was said; what was done before it tells nothing."""
    found = _COMPLAINT.search(said)
    return "\n".join(said[found.start() :].splitlines()[:8]) if found else last_lines(said, 6)


def last_lines(said: str, count: int) -> str:
    """The end of what a program said, without empty lines."""
    return "\n".join([line.rstrip() for line in said.splitlines() if line.strip()][-count:])


def compiler_errors(log: str) -> str:
    """What a build log says is wrong: the compiler's errors, or the end of it where there are none."""
    lines = [line.strip()[-200:] for line in log.splitlines() if _COMPILER.match(line.strip())][:5]
    return "\n".join(lines) or "\n".join(line[:200] for line in last_lines(log, 10).splitlines())
