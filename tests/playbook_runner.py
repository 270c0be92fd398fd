# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_playbook(
    home: Path, inventory: str, playbook: str, *arguments: str, seconds: float = 300, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of this repository with nothing of the developer's environment and no terminal."""
    return subprocess.run(
        ["ansible-playbook", "-i", inventory, str(ROOT / playbook), *arguments],
        cwd=ROOT,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            **environ,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
