# SPDX-License-Identifier: GPL-3.0-or-later
"""For workloads that start processes of their own or keep files: nothing outlives the one that made it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process as soon as the one that started it is gone.

    Args:
        parent: the process that started this one. Where it is gone already, nobody would tell us any more.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def clean_up_when_ended() -> None:
    """Let a SIGTERM, by which a run is interrupted, end this process in an orderly way: with its temporary files removed."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
