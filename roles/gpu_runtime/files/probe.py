# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - '{"source": ..., "keyring": ..., "history": ..., "packages": [...]}' < probe.py
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

# What NVIDIA shipped before the toolkit; the runtime's package of that name is a part of it.
FORMER = ("nvidia-docker", "nvidia-docker2", "nvidia-container-runtime")
DAEMON = Path("/etc/docker/daemon.json")
CONFIG = Path("/etc/nvidia-container-runtime/config.toml")


def output(*command: str) -> str:
    """What a command says; empty where it is missing or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def version(*command: str) -> str:
    """The version that a program says it is; empty where it is missing."""
    found = re.search(r"\bv?(\d+\.\d+[\w.]*)", output(*command))
    return found[1] if found else ""


def installed(names: list[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    form = "${Package} ${db:Status-Status} ${Version}\n"
    lines = output("dpkg-query", "-W", "-f", form, *names).splitlines()
    found = [line.split() for line in lines]
    return {words[0]: words[2] for words in found if len(words) == 3 and words[1] == "installed"}


def offered(names: list[str]) -> dict[str, list[str]]:
    """The versions that apt could install."""
    there: dict[str, list[str]] = {name: [] for name in names}
    for line in output("apt-cache", "madison", *names).splitlines():
        name, number = (part.strip() for part in line.split("|")[:2])
        if number not in there.setdefault(name, []):
            there[name].append(number)
    return there


def document(path: Path) -> tuple[Any, str]:
    """A JSON file, and what is wrong with it."""
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    try:
        return (json.loads(text) if text else {}), ""
    except ValueError as problem:
        return {}, f"it is no JSON ({problem})"


def mode() -> str:
    """How the runtime gives containers their devices; empty where the file does not say."""
    try:
        tree = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(tree.get("nvidia-container-runtime", {}).get("mode", ""))


def daemon() -> dict[str, Any]:
    """What the running Docker daemon says of itself; empty where none answers."""
    said = output("docker", "info", "--format", "{{json .}}").splitlines()
    try:
        found = json.loads(said[0]) if said else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def keys(keyring: str) -> str:
    """The keys in a file, as gpg lists them for programs."""
    if not os.path.exists(keyring):
        return ""
    return output("gpg", "--batch", "--show-keys", "--with-colons", keyring)


def main() -> None:
    """Print what is."""
    asked = json.loads(sys.argv[1])
    memory = Path(asked["history"]).parent
    declared, problem = document(DAEMON)
    if not problem and not isinstance(declared, dict):
        problem = "it holds no JSON object"
    history, _problem = document(Path(asked["history"]))
    info = daemon()
    print(
        json.dumps(
            {
                "packages": installed(asked["packages"]),
                "held": output("apt-mark", "showhold").split(),
                "offered": offered(asked["packages"]),
                "conflicts": sorted(installed(list(FORMER))),
                "repository": os.path.exists(asked["source"]),
                "keys_there": keys(asked["keyring"]),
                "package_lists": bool(glob.glob("/var/lib/apt/lists/*Release")),
                "python_apt": importlib.util.find_spec("apt") is not None,
                "docker": version("dockerd", "--version"),
                "docker_runtimes": sorted(info.get("Runtimes") or {}),
                "docker_default_runtime": info.get("DefaultRuntime") or "",
                "docker_cdi_dirs": info.get("CDISpecDirs") or [],
                "live_restore": bool(info.get("LiveRestoreEnabled")),
                "running": int(info.get("ContainersRunning") or 0),
                "daemon_json": problem,
                "containerd": version("containerd", "--version"),
                "podman": version("podman", "--version"),
                "mode": mode(),
                "daemon_memory": (memory / "docker-daemon.json").exists(),
                "containerd_memory": (memory / "containerd.json").exists(),
                "history": history if isinstance(history, list) else [],
            }
        )
    )


if __name__ == "__main__":
    main()
