# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only.

usage: python3 - PACKAGE... < probe.py
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

# An exporter that has this file is one that the role has set up.
OURS = {
    "prometheus-node-exporter.service": "/etc/systemd/system/prometheus-node-exporter.service.d/gpumesh.conf",
    "gpumesh-gpu-metrics.service": "/etc/systemd/system/gpumesh-gpu-metrics.service",
    "nvidia-dcgm-exporter.service": "/etc/systemd/system/nvidia-dcgm-exporter.service.d/gpumesh.conf",
}


def offered(names: list[str]) -> list[str]:
    """Those packages that apt could install, or that are there."""
    done = subprocess.run(
        ["apt-cache", "policy", *names],
        check=False,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    found, name = [], ""
    for line in done.stdout.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            found.append(name)
    return found


def known(unit: str) -> bool:
    """Whether systemd has it. Of an exporter whose package never came there are the settings, and nothing to stop."""
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(
            ["systemctl", "show", "--property=LoadState", unit], check=False, capture_output=True, text=True
        )
        return done.stdout.startswith("LoadState=") and "not-found" not in done.stdout
    return False


managed = [unit for unit, file in OURS.items() if Path(file).exists()]
print(
    json.dumps(
        {
            "offered": offered(sys.argv[1:]),
            "python_apt": importlib.util.find_spec("apt") is not None,
            "package_lists": bool(glob.glob("/var/lib/apt/lists/*_Packages*")),
            "managed": managed,
            "known": [unit for unit in managed if known(unit)],
            "firewall": shutil.which("ufw", path="/usr/sbin:/usr/bin:/sbin:/bin") is not None,
        }
    )
)
