# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files are that come with `gpu-acceptance`, and where its own go.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = Path("/etc/gpumesh/acceptance.json")
_SYSTEM_STATE = Path("/var/lib/gpumesh/acceptance")


def shipped(*parts: str) -> Path:
    """A file of role validation, as ``shipped("workloads", "matmul.py")``; the same in a clone and where it is installed."""
    return Path(__file__).parents[3].joinpath("roles", "validation", "files", *parts)


def state() -> Path:
    """Where runs are kept when nothing else is said: the system's place for root, the user's own for anybody else."""
    if os.geteuid() == 0:
        return _SYSTEM_STATE
    base = os.environ.get("XDG_STATE_HOME") or ""
    # The XDG specification says that a relative path is to be ignored.
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "gpumesh" / "acceptance"
