# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at what a build needs on the control machine, and print what is not there as JSON. bootstrap.py looks by it, too.

usage: python3 look.py '{"programs": ["docker", ...], "engine": "docker", "files": {"golden_image_signing_key": "..."},
                         "keyrings": {"/usr/share/keyrings/...": "debian-archive-keyring"}, "passphrase": ""}'
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def programs(names: Iterable[str]) -> list[str]:
    """Those that are not in the PATH."""
    return [name for name in names if shutil.which(name) is None]


def keyrings(packages: dict[str, str]) -> dict[str, str]:
    """Those that are not there, each with the package that has it."""
    return {path: package for path, package in packages.items() if not Path(path).is_file()}


def engine(client: str) -> str:
    """Why the engine does not answer; empty where it does, and where there is none."""
    if programs([client]):
        return ""
    try:
        asked = subprocess.run(
            [client, "version", "--format", "{{.Server.Version}}"],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        return "no answer in 30 s"
    said = asked.stderr.strip().splitlines()
    return "" if asked.returncode == 0 else (said[-1] if said else f"exit status {asked.returncode}")


def private(path: str) -> bool:
    """Whether it is a file with something in it that nobody but its owner can read."""
    try:
        seen = os.stat(Path(path).expanduser())
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and not seen.st_mode & 0o077 and seen.st_size > 0


def main() -> None:
    """Print it."""
    wanted = json.loads(sys.argv[1])
    print(
        json.dumps(
            {
                "programs": programs(wanted["programs"]),
                "engine": engine(wanted["engine"]),
                "missing": [
                    name
                    for name, path in wanted["files"].items()
                    if path and not Path(path).expanduser().is_file()
                ],
                "keyrings": keyrings(wanted["keyrings"]),
                "passphrase": bool(wanted["passphrase"]) and private(wanted["passphrase"]),
            }
        )
    )


if __name__ == "__main__":
    main()
