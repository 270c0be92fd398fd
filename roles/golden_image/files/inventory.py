# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is in an image: its system, kernels, packages, Python distributions, layers and the modules built for it.

It runs in a container of the image, whose kernel is the control machine's, so nothing here asks the running one. The time of a
layer's facts is left out: a layer that is reused and one that is rebuilt are the same.

usage: python3 inventory.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FIELDS = (
    "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"
)
SYSTEM = "system"
# Where Python looks, and where our roles and the users' own put environments.
TOPS = ("usr/lib/python3/dist-packages", "usr/local", "opt", "srv", "home", "root")


def system(root: Path) -> dict[str, str]:
    """Its os-release, in the words of the manifest."""
    values = {}
    for line in (root / "etc/os-release").read_text(encoding="utf-8").splitlines():
        name, found, value = line.partition("=")
        if found:
            values[name] = value.strip("\"'")
    return {
        "id": values.get("ID", ""),
        "version": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "pretty": values.get("PRETTY_NAME", ""),
    }


def packages(root: Path) -> list[dict[str, str]]:
    """What dpkg says is installed; by name."""
    said = subprocess.run(
        ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", f"--showformat={FIELDS}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout
    found = []
    for line in said.splitlines():
        status, name, version, architecture, source, source_version = line.split("\t")
        if status == "installed":
            found.append(
                {
                    "name": name,
                    "version": version,
                    "architecture": architecture,
                    "source": source,
                    "source_version": source_version,
                }
            )
    return sorted(found, key=lambda package: (package["name"], package["architecture"]))


def kernels(root: Path) -> list[str]:
    """The releases that can be booted, the newest last."""
    return sorted(
        (path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")),
        # Numbers by their value; splitting puts them in every second place.
        key=lambda release: [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", release)],
    )


def python(root: Path) -> list[dict[str, str]]:
    """Every Python distribution of every environment, by what it says of itself."""
    found = set()
    for top in TOPS:
        for folder, folders, files in os.walk(root / top):
            folders.sort()
            if os.path.basename(folder) not in ("site-packages", "dist-packages"):
                continue
            for name in [*folders, *files]:
                about = metadata(Path(folder, name))
                if about:
                    found.add((environment(root, Path(folder)), *about))
            # A distribution has no environment inside it.
            folders.clear()
    return [
        {"name": name, "version": version, "environment": where} for where, name, version in sorted(found)
    ]


def environment(root: Path, folder: Path) -> str:
    """The name of an environment: its path, and a word for that of the distribution."""
    path = folder.relative_to(root)
    if path.parts[:2] == ("usr", "lib"):
        return SYSTEM
    # .../lib/python3.13/site-packages; Debian's own is .../lib/python3/dist-packages.
    return f"/{path.parents[2]}" if len(path.parents) > 2 else f"/{path}"


def metadata(path: Path) -> tuple[str, str] | None:
    """Name and version in the head of a METADATA or PKG-INFO."""
    if path.name.endswith(".dist-info"):
        path = path / "METADATA"
    elif path.name.endswith(".egg-info"):
        path = path / "PKG-INFO" if path.is_dir() else path
    else:
        return None
    name = version = ""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _colon, value = line.partition(":")
                if key == "Name":
                    name = value.strip()
                elif key == "Version":
                    version = value.strip()
                # The head ends at an empty line.
                if (name and version) or not line.strip():
                    break
    except OSError:
        return None
    return (name, version) if name and version else None


def layers(root: Path) -> dict[str, Any]:
    """The layers' facts, but for when they were written."""
    path = root / "etc/ansible/facts.d/gpumesh.fact"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8")).get("layers", {})
    return {
        name: {key: value for key, value in entry.items() if key != "when"} for name, entry in found.items()
    }


def modules(root: Path) -> dict[str, list[str]]:
    """For each kernel, the modules that are not the distribution's: those of DKMS and of packages with ready-made ones."""
    found = {}
    for release in kernels(root):
        top = root / "lib/modules" / release
        found[release] = sorted(
            path.name.partition(".ko")[0]
            for folder in ("updates", "extra", "kernel/nvidia-*")
            for place in top.glob(folder)
            for path in place.rglob("*.ko*")
        )
    return found


def main() -> None:
    """Say it."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "/")
    found = {
        "os": system(root),
        "kernels": kernels(root),
        "packages": packages(root),
        "python": python(root),
        "layers": layers(root),
        "modules": modules(root),
    }
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
