# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine, and what is told to the user where it or a machine fails."""

from __future__ import annotations

import subprocess


class BootError(Exception):
    """What is told to the user: what happened, to which machine, and what the console said last."""


def engine(name: str, *arguments: str, check: bool = True) -> str:
    """Ask the container engine."""
    try:
        ran = subprocess.run(
            [name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise BootError(f"There is no command '{name}' on the control machine; install it") from None
    except subprocess.TimeoutExpired:
        raise BootError(f"'{name} {arguments[0]}' did not answer within 120 s; is its daemon well?") from None
    if check and ran.returncode:
        raise BootError(f"'{name} {arguments[0]}' failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout.strip()
