# SPDX-License-Identifier: GPL-3.0-or-later
"""The CDI specification: made from the simulated machine, written, read, and applied to an OCI bundle. SIMULATED.

It is written as JSON, which is YAML, under a comment, so that it needs no library; engines read either.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import machine

DEFAULT_DIRS = ("/etc/cdi", "/var/run/cdi")
MOUNT_OPTIONS = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
HEADER = "# SIMULATED: handed out by the stand-in of the NVIDIA Container Toolkit\n"

Spec = dict[str, Any]


class CdiError(Exception):
    """What nvidia-ctk says when it cannot do it."""


def generate(vendor: str = "nvidia.com", kind: str = "gpu", *, with_all: bool = True) -> Spec:
    """The specification of every GPU that the driver lists."""
    try:
        gpus = machine.gpus()
        version = machine.driver_version()
        files = machine.driver_files()
    except machine.NoDriverError as problem:
        raise CdiError(
            f"failed to generate CDI spec: failed to create device CDI specs: {problem}"
        ) from problem
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": gpu.node}]}}
        for gpu in gpus
        for name in (str(gpu.index), gpu.uuid)
    ]
    if with_all and gpus:
        nodes = [{"path": gpu.node} for gpu in gpus]
        devices.append({"name": "all", "containerEdits": {"deviceNodes": nodes}})
    return {
        "cdiVersion": "0.5.0",
        "kind": f"{vendor}/{kind}",
        "devices": devices,
        "containerEdits": {
            "env": [
                "NVIDIA_VISIBLE_DEVICES=void",
                f"NVIDIA_CTK_LIBCUDA_DIR={machine.LIBRARIES}",
                f"NVIDIA_DRIVER_SIMULATED={version}",
            ],
            "deviceNodes": [{"path": machine.CONTROL}],
            "mounts": [
                {"hostPath": os.path.realpath(path), "containerPath": path, "options": MOUNT_OPTIONS}
                for path in files
            ],
        },
    }


def render(spec: Spec, form: str) -> str:
    """The text of a specification as ``json`` or ``yaml``."""
    text = json.dumps(spec, indent=4) + "\n"
    return text if form == "json" else HEADER + text


def save(spec: Spec, path: Path) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(render(spec, "json" if path.suffix == ".json" else "yaml"), encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def load(path: Path) -> Spec:
    """A specification of our own making; of others, those that are JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    document = json.loads("\n".join(line for line in lines if not line.startswith("#")))
    if not isinstance(document, dict):
        raise ValueError("no specification")
    return document


def registry(dirs: tuple[str, ...]) -> tuple[dict[str, tuple[Spec, dict[str, Any]]], dict[str, str]]:
    """Every device by its full name, a later folder before an earlier one, and the files that cannot be read."""
    devices: dict[str, tuple[Spec, dict[str, Any]]] = {}
    errors: dict[str, str] = {}
    for folder in dirs:
        for path in sorted([*Path(folder).glob("*.yaml"), *Path(folder).glob("*.json")]):
            try:
                spec = load(path)
            except (OSError, ValueError) as problem:
                errors[str(path)] = str(problem)
                continue
            for device in spec.get("devices", []):
                devices[f"{spec['kind']}={device['name']}"] = (spec, device)
    return devices, errors


def apply(bundle: dict[str, Any], edits: dict[str, Any]) -> None:
    """Change an OCI configuration as the edits of a specification say."""
    process = bundle.setdefault("process", {})
    environment: list[str] = process.setdefault("env", [])
    for entry in edits.get("env", []):
        name = entry.split("=", 1)[0] + "="
        environment[:] = [other for other in environment if not other.startswith(name)]
        environment.append(entry)
    linux = bundle.setdefault("linux", {})
    for node in edits.get("deviceNodes", []):
        _device(linux, node)
    mounts: list[dict[str, Any]] = bundle.setdefault("mounts", [])
    for mount in edits.get("mounts", []):
        entry = {
            "source": mount["hostPath"],
            "destination": mount["containerPath"],
            "type": "bind",
            "options": mount["options"],
        }
        mounts[:] = [other for other in mounts if other["destination"] != entry["destination"]]
        mounts.append(entry)


def _device(linux: dict[str, Any], node: dict[str, Any]) -> None:
    """The node and the permission to open it: both in the bundle, so that runc knows them and keeps them."""
    path = node["path"]
    host = node.get("hostPath", path)
    try:
        found = os.stat(host)
    except FileNotFoundError as problem:
        raise CdiError(f"failed to stat CDI host device {host!r}: no such file or directory") from problem
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    devices = linux.setdefault("devices", [])
    devices[:] = [other for other in devices if other["path"] != path]
    devices.append(
        {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0}
    )
    rules = linux.setdefault("resources", {}).setdefault("devices", [])
    rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rw"})
