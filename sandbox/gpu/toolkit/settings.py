# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolkit's own configuration, /etc/nvidia-container-runtime/config.toml. SIMULATED."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import toml

PATH = Path("/etc/nvidia-container-runtime/config.toml")

DEFAULTS: toml.Tree = {
    "accept-nvidia-visible-devices-as-volume-mounts": False,
    "accept-nvidia-visible-devices-envvar-when-unprivileged": True,
    "disable-require": False,
    "supported-driver-capabilities": "compat32,compute,display,graphics,ngx,utility,video",
    "nvidia-container-cli": {"environment": [], "ldconfig": "@/sbin/ldconfig", "load-kmods": True},
    "nvidia-container-runtime": {
        "debug": "/dev/null",
        "log-level": "info",
        "mode": "auto",
        "runtimes": ["runc", "crun"],
        "modes": {
            "cdi": {
                "annotation-prefixes": ["cdi.k8s.io/"],
                "default-kind": "nvidia.com/gpu",
                "spec-dirs": ["/etc/cdi", "/var/run/cdi"],
            },
            "legacy": {"cuda-compat-mode": "ldconfig"},
        },
    },
    "nvidia-container-runtime-hook": {"path": "nvidia-container-runtime-hook", "skip-mode-detection": False},
    "nvidia-ctk": {"path": "nvidia-ctk"},
}


def merged(over: toml.Tree, under: toml.Tree) -> toml.Tree:
    """One tree over another."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        result[name] = merged(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def load(path: Path = PATH) -> toml.Tree:
    """The file over the defaults."""
    return merged(toml.load(Path(os.environ.get("NVIDIA_CTK_CONFIG_FILE_PATH", path))), DEFAULTS)


def put(tree: toml.Tree, setting: str) -> None:
    """Carry out one ``--set key=value``."""
    key, separator, text = setting.partition("=")
    path = tuple(key.split("."))
    known = toml.at(DEFAULTS, *path)
    value: Any = text
    if isinstance(known, bool) or not separator:
        value = text in ("", "true", "1")
    elif isinstance(known, list):
        value = text.split(":")
    toml.put(tree, path, value)
