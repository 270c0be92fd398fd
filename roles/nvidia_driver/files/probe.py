# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - '{"source": "", "keyring": "", "packages": [...], "wanted": "580", "on_disk": {...}, ...}' < probe.py
"""

from __future__ import annotations

import glob
import grp
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

# Versions of the driver, after an epoch that some distributions have: 580.178.04-1 and 2:595.91.07-1.
DRIVER = re.compile(r"(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)(?![\d.])")
FAMILY = re.compile(
    r"(lib)?nvidia-(?!container)|libcuda1$|firmware-nvidia-|cuda-drivers|xserver-xorg-video-nvidia|linux-modules-nvidia-"
)


def output(*command: str) -> str:
    """What a command says; empty where it is missing."""
    if shutil.which(command[0]) is None:
        return ""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=environment
    ).stdout


def table() -> dict[str, tuple[str, str]]:
    """Version and status of everything that dpkg knows on this machine."""
    lines = output("dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${db:Status-Status}\\n").splitlines()
    return {name: (version, status) for name, version, status in (line.split("\t") for line in lines)}


def fits(version: str, wanted: str) -> bool:
    """Whether a package's version is of the wanted branch (580) or driver (580.178.04); others know no driver version."""
    found = DRIVER.match(version)
    return found is None or found[1] == wanted or found[1].startswith(f"{wanted}.")


def offers() -> list[dict[str, str]]:
    """The archives that apt is told of, without asking them."""
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)|$(SOURCESENTRY)"
    lines = output("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()
    keys = ("uri", "suite", "component", "signed_by", "entry")
    return [dict(zip(keys, line.split("|"), strict=False)) for line in sorted(set(lines))]


def main() -> None:
    """Print what is."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    packages = table()
    installed = {name: version for name, (version, status) in packages.items() if status == "installed"}
    wanted = asked["wanted"]
    uninstaller = "/usr/bin/nvidia-uninstall"
    print(
        json.dumps(
            {
                "keys": output("gpg", "--batch", "--show-keys", "--with-colons", asked["keyring"])
                if os.path.exists(asked["keyring"])
                else "",
                "repository": os.path.exists(asked["source"]),
                "package_lists": bool(glob.glob("/var/lib/apt/lists/*Release")),
                "python_apt": importlib.util.find_spec("apt") is not None,
                "groups": {group.gr_name: group.gr_gid for group in grp.getgrall()},
                "offers": offers(),
                "missing": [
                    name
                    for name in asked["packages"]
                    if name not in installed or not (name in asked["loose"] or fits(installed[name], wanted))
                ],
                # What another branch or source has left, and what came in from elsewhere beside it.
                "stale": [
                    name
                    for name, version in installed.items()
                    if name not in asked["packages"]
                    and name not in asked["loose"]
                    and (
                        (FAMILY.match(name) and not fits(version, wanted))
                        or (name.startswith("linux-modules-nvidia-") and asked["build"] == "dkms")
                        or name.startswith("nvidia-driver-pinning-")
                    )
                ],
                "unbuilt": [
                    kernel
                    for kernel, module in asked["on_disk"].items()
                    if not module or not fits(str(module["version"]), wanted)
                ],
                "broken": sorted(
                    name
                    for name, (_version, status) in packages.items()
                    if status not in ("installed", "config-files", "not-installed")
                ),
                "runfile": os.path.exists(uninstaller) and not output("dpkg-query", "-S", uninstaller),
            }
        )
    )


if __name__ == "__main__":
    main()
