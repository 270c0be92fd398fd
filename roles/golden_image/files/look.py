# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at what a build needs on the control machine, and print what is not there as JSON.

usage: python3 - '{"programs": ["docker", ...], "engine": "docker", "files": {"golden_image_signing_key": "..."},
                   "keyrings": {"/usr/share/keyrings/...": "debian-archive-keyring"}, "passphrase": ""}'
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path


def engine(client: str) -> str:
    """Why the engine does not answer; empty where it does."""
    if shutil.which(client) is None:
        return ""
    try:
        asked = subprocess.run(
            [client, "info", "--format", "{{.ID}}"], check=False, capture_output=True, text=True, timeout=30
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
                "programs": [program for program in wanted["programs"] if shutil.which(program) is None],
                "engine": engine(wanted["engine"]),
                "missing": [
                    name
                    for name, path in wanted["files"].items()
                    if path and not Path(path).expanduser().is_file()
                ],
                "keyrings": {
                    path: package for path, package in wanted["keyrings"].items() if not Path(path).is_file()
                },
                "passphrase": bool(wanted["passphrase"]) and private(wanted["passphrase"]),
            }
        )
    )


if __name__ == "__main__":
    main()
