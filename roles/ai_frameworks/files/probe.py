# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - '{"root": ..., "python": ..., "launchers": [...], "files": [...], "mark": ..., "history": ..., "packages": [...]}' < probe.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

MARKER = "gpumesh.json"


def output(*command: str) -> str:
    """What a command says; empty where it is missing or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def read(path: Path) -> str:
    """A file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def python_version(python: str) -> str:
    """The version of an interpreter; empty where it does not run."""
    found = re.match(
        r"\d+\.\d+\.\d+", output(python, "-I", "-c", "import platform; print(platform.python_version())")
    )
    return found[0] if found else ""


def free_gib(root: Path) -> float:
    """Room on the file system that the root is on, or will be."""
    there = next(one for one in (root, *root.parents) if one.exists())
    return round(shutil.disk_usage(there).free / 2**30, 1)


def environments(root: Path) -> dict[str, dict[str, Any]]:
    """The whole environments of each framework, the one in use, and whether something else is in the place of its link."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted((root / "envs").glob("*")):
        whole = sorted(one.parent.name for one in folder.glob(f"*/{MARKER}"))
        found[folder.name] = {"whole": whole, "current": "", "foreign": False}
    for link in sorted(root.glob("*")):
        if link.is_symlink():
            entry = found.setdefault(link.name, {"whole": [], "current": "", "foreign": False})
            entry["current"] = Path(os.readlink(link)).name
    for name, entry in found.items():
        entry["foreign"] = (root / name).exists() and not (root / name).is_symlink()
    return found


def libcuda() -> str:
    """The folder of the driver's CUDA library, as the loader finds it."""
    found = re.search(
        r"libcuda\.so\.1 \([^)]*x86-64[^)]*\) => (\S+)/libcuda\.so\.1", output("ldconfig", "-p")
    )
    return found[1] if found else ""


def installed(names: list[str]) -> list[str]:
    """Those packages that are installed."""
    lines = output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names).splitlines()
    return sorted({words[0] for words in map(str.split, lines) if words[1:] == ["installed"]})


def main() -> None:
    """Look, and print."""
    asked = json.loads(sys.argv[1])
    root = Path(asked["root"])
    texts = {
        path: read(Path(path)) for path in [*asked["launchers"], *asked["files"]] if os.path.lexists(path)
    }
    print(
        json.dumps(
            {
                "machine": os.uname().machine,
                "python": python_version(asked["python"]),
                "free_gib": free_gib(root),
                "environments": environments(root),
                "libcuda": libcuda(),
                "foreign": sorted(path for path, text in texts.items() if asked["mark"] not in text),
                "ours": sorted(path for path, text in texts.items() if asked["mark"] in text),
                "history": json.loads(read(Path(asked["history"])) or "[]"),
                "installed": installed(asked["packages"]),
                "python_apt": importlib.util.find_spec("apt") is not None,
                "package_lists": any(Path("/var/lib/apt/lists").glob("*_Packages*")),
            }
        )
    )


if __name__ == "__main__":
    main()
