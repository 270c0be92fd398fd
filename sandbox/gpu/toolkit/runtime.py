# SPDX-License-Identifier: GPL-3.0-or-later
"""``nvidia-container-runtime``: change the bundle of a container that asks for GPUs, then be runc. SIMULATED."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from . import cdi, settings

ASK = "NVIDIA_VISIBLE_DEVICES="
AUTOMATIC = "runtime.nvidia.com/gpu"


def bundle_of(arguments: list[str]) -> Path | None:
    """The folder of the bundle where a container is created; None for every other command."""
    if "create" not in arguments:
        return None
    for place, argument in enumerate(arguments):
        if argument in ("--bundle", "-b", "-bundle"):
            return Path(arguments[place + 1])
        if argument.startswith(("--bundle=", "-bundle=", "-b=")):
            return Path(argument.split("=", 1)[1])
    return Path.cwd()


def wanted(config: dict[str, Any]) -> list[str]:
    """The devices that the container's environment asks for."""
    for entry in reversed(config.get("process", {}).get("env", [])):
        if entry.startswith(ASK):
            names = [name.strip() for name in entry.removeprefix(ASK).split(",")]
            return [name for name in names if name not in ("", "void", "none")]
    return []


def change(config: dict[str, Any], mode: str, dirs: tuple[str, ...], default_kind: str) -> None:
    """Add what was asked for, with its files, in the way of the mode."""
    names = wanted(config)
    if not names:
        return
    qualified = all("=" in name for name in names)
    if mode == "auto":
        mode = "cdi" if qualified else "jit-cdi"
    if mode == "cdi":
        devices, _errors = cdi.registry(dirs)
        full = [name if "=" in name else f"{default_kind}={name}" for name in names]
    elif mode == "jit-cdi":
        spec = cdi.generate("runtime.nvidia.com")
        devices = {f"{AUTOMATIC}={device['name']}": (spec, device) for device in spec["devices"]}
        full = [name if "=" in name else f"{AUTOMATIC}={name}" for name in names]
    else:
        raise cdi.CdiError(f"this stand-in has no mode {mode!r}")
    missing = [name for name in full if name not in devices]
    if missing:
        raise cdi.CdiError(f"unresolvable CDI devices {', '.join(missing)}")
    for name in full:
        spec, device = devices[name]
        cdi.apply(config, spec["containerEdits"])
        cdi.apply(config, device["containerEdits"])


def option(arguments: list[str], name: str) -> str:
    """The value of one of runc's options, empty where it is not given."""
    for place, argument in enumerate(arguments):
        if argument == f"--{name}" and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return ""


def fail(arguments: list[str], reason: str) -> int:
    """Say it where containerd looks for it, and to whoever runs us by hand."""
    log = option(arguments, "log")
    if log:
        line = {"level": "error", "msg": f"SIMULATED: {reason}", "time": "1970-01-01T00:00:00Z"}
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    sys.stderr.write(f"SIMULATED nvidia-container-runtime: {reason}\n")
    return 1


def main() -> int:
    """Change the bundle where one is created, and go on as the low-level runtime."""
    arguments = sys.argv[1:]
    tree = settings.load()["nvidia-container-runtime"]
    folder = bundle_of(arguments)
    if folder is not None:
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        modes = tree["modes"]["cdi"]
        try:
            change(config, tree["mode"], tuple(modes["spec-dirs"]), modes["default-kind"])
        except cdi.CdiError as problem:
            # Docker shows the last line of the runtime's standard error.
            sys.stderr.write(
                f"SIMULATED nvidia-container-runtime: could not apply required modification: {problem}\n"
            )
            return 1
        file.write_text(json.dumps(config), encoding="utf-8")
    for name in tree["runtimes"]:
        program = shutil.which(name)
        if program:
            os.execv(program, [program, *arguments])  # noqa: S606
    sys.stderr.write(
        "SIMULATED nvidia-container-runtime: error locating runtime: no low-level runtime found\n"
    )
    return 1
