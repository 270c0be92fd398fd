# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the CDI specification says something else than the driver does, as one JSON object. Reads only.

usage: python3 - < stale.py
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

SPEC = Path("/var/run/cdi/nvidia.yaml")
UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def driver() -> tuple[set[str], str]:
    """The GPUs and MIG devices that the driver lists, and its version; nothing where it does not answer."""
    found: set[str] = set()
    version = ""
    for arguments in (["-L"], ["--query-gpu=driver_version", "--format=csv,noheader"]):
        try:
            done = subprocess.run(
                ["nvidia-smi", *arguments], check=False, capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return set(), ""
        if done.returncode != 0:
            return set(), ""
        found |= set(UUID.findall(done.stdout))
        version = done.stdout.split()[0] if done.stdout.split() else ""
    return found, version


def why(text: str, uuids: set[str], version: str) -> str:
    """What is out of date in a specification; empty where nothing is."""
    named = set(UUID.findall(text))
    if named != uuids:
        return f"it names {len(named)} devices, and the driver has {len(uuids)}, not the same"
    made_for = set(re.findall(r"/lib(?:nvidia-ml|cuda)\.so\.(\d+\.\d+[\d.]*)", text))
    if version and made_for and made_for != {version}:
        return f"it was made for driver {', '.join(sorted(made_for))}, and {version} is there"
    return ""


def main() -> None:
    """Print the verdict."""
    uuids, version = driver()
    if not uuids:
        print(json.dumps({"stale": False, "why": "the driver does not answer"}))
        return
    text = SPEC.read_text(encoding="utf-8", errors="replace") if SPEC.exists() else ""
    reason = why(text, uuids, version) if text else "there is none"
    print(json.dumps({"stale": bool(reason), "why": reason}))


if __name__ == "__main__":
    main()
