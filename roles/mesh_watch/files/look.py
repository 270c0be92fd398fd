# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is of a watch on this machine, as one JSON object. Reads only, as root.

usage: python3 - NAME < look.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path("/var/lib/gpumesh/mesh-watch")


def config(path: Path) -> dict[str, Any] | None:
    """A watch's configuration, None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def samples(path: Path) -> dict[str, Any] | None:
    """How much was measured so far; None where nothing was."""
    if not path.exists():
        return None
    ticks = asked = lost = 0
    last = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                rtts = list(record["rtt"].values())
            except (ValueError, KeyError, TypeError, AttributeError):
                # A begin, an end, or a line that a crash cut in half.
                continue
            ticks += 1
            asked += len(rtts)
            lost += rtts.count(None)
            last = record.get("t")
    return {"bytes": path.stat().st_size, "ticks": ticks, "asked": asked, "lost": lost, "last": last}


def unit(name: str) -> dict[str, str]:
    """What systemd says of the watch's service."""
    command = [
        "systemctl",
        "show",
        "--property=ActiveState,UnitFileState",
        f"gpumesh-mesh-watch@{name}.service",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def space() -> int:
    """Free bytes where the samples go."""
    folder = next(path for path in (FOLDER, *FOLDER.parents) if path.exists())
    return shutil.disk_usage(folder).free


def main() -> None:
    """Print what is."""
    name = sys.argv[1]
    state = unit(name)
    print(
        json.dumps(
            {
                "now": time.time(),
                "ping": shutil.which("ping", path="/usr/sbin:/usr/bin:/sbin:/bin") is not None,
                "systemd": os.path.isdir("/run/systemd/system"),
                "space": space(),
                "active": state.get("ActiveState", "inactive"),
                "enabled": state.get("UnitFileState", "") == "enabled",
                "config": config(FOLDER / f"{name}.json"),
                "samples": samples(FOLDER / f"{name}.jsonl"),
                "names": sorted(path.stem for path in FOLDER.glob("*.json")),
            }
        )
    )


if __name__ == "__main__":
    main()
