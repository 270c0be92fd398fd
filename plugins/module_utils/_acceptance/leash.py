# SPDX-License-Identifier: GPL-3.0-or-later
"""Becomes another program that is killed as soon as the one that started it is gone.

Run as a file of its own, ``python3 leash.py PID PROGRAM ...``: without it, a ``kill -9`` of `gpu-acceptance` would leave a workload
behind that keeps all GPUs busy.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Tie this process to its parent, and become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        # It was gone before the kernel was told.
        return 1
    try:
        os.execv(program[0], program)  # noqa: S606
    except OSError as problem:
        sys.stderr.write(f"{program[0]} cannot be run: {problem.strerror}\n")
    return 126


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
