# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is on a machine that role validation has to know before it begins.

usage: python3 - < probe.py     prints JSON
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

HOME = Path("/opt/gpumesh/acceptance")
FACTS = Path("/etc/ansible/facts.d/gpumesh.fact")


def main() -> None:
    """Look."""
    current = HOME / "current"
    print(
        json.dumps(
            {
                "python": list(sys.version_info[:3]),
                "current": os.readlink(current).rpartition("/")[2] if current.is_symlink() else "",
                "versions": versions(),
                "driver": layer("nvidia_driver").get("driver") or {},
                "judged": bool(layer("validation").get("verdict")),
                "installed": Path("/usr/local/bin/gpu-acceptance").exists() and current.exists(),
                "machine_id": Path("/etc/machine-id").read_text(encoding="ascii"),
            }
        )
    )


def versions() -> list[str]:
    """Those that are installed, the newest first."""
    folders = [path for path in HOME.glob("versions/*") if path.is_dir() and not path.name.startswith(".")]
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)]


def layer(name: str) -> dict[str, Any]:
    """What another layer has left of itself."""
    try:
        found = json.loads(FACTS.read_text(encoding="utf-8"))["layers"][name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main()
