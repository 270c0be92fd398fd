# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``nvidia-ctk runtime configure`` writes for Docker, containerd and CRI-O. SIMULATED, after pkg/config/engine."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import toml

CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}


@dataclass(frozen=True)
class Wish:
    """The options of the command."""

    config: Path
    drop_in: Path | None
    name: str
    path: str
    default: bool
    cdi: bool


def docker(wish: Wish) -> str:
    """daemon.json with the runtime added."""
    document: dict[str, Any] = {}
    if wish.config.exists():
        document = json.loads(wish.config.read_text(encoding="utf-8"))
    document.setdefault("runtimes", {})[wish.name] = {"args": [], "path": wish.path}
    if wish.default:
        document["default-runtime"] = wish.name
    if wish.cdi:
        # As in 1.20.0: other features that were there are lost (EnableCDI expects a type that JSON never gives it).
        document["features"] = {"cdi": True}
    return json.dumps(document, indent=4, sort_keys=True)


def containerd(wish: Wish) -> tuple[str, str]:
    """The drop-in, and the main file with an import of its folder."""
    main = toml.load(wish.config)
    version = int(main.get("version", 1)) if main else 2
    if version not in CRI:
        raise ValueError(f"this stand-in knows versions 2 and 3 of containerd's configuration, not {version}")
    plugin = ("plugins", CRI[version])
    # containerd up to 2.0 takes a plugin's settings from one file only, so the drop-in repeats those of the main file.
    drop_in: toml.Tree = {}
    own = toml.at(main, *plugin)
    if own is not None:
        toml.put(drop_in, plugin, copy.deepcopy(own))
    drop_in["version"] = version
    runtimes = toml.at(main, *plugin, "containerd", "runtimes") or {}
    options = copy.deepcopy(runtimes.get("runc") or runtimes.get("crun"))
    if options is None:
        options = {
            "runtime_type": "io.containerd.runc.v2",
            "runtime_root": "",
            "runtime_engine": "",
            "privileged_without_host_devices": False,
        }
    options.setdefault("runtime_type", "io.containerd.runc.v2")
    options.setdefault("options", {})["BinaryName"] = wish.path
    toml.put(drop_in, (*plugin, "containerd", "runtimes", wish.name), options)
    if wish.default:
        toml.put(drop_in, (*plugin, "containerd", "default_runtime_name"), wish.name)
    if wish.cdi:
        toml.put(drop_in, (*plugin, "enable_cdi"), True)
    folder = wish.drop_in.parent if wish.drop_in else Path("/etc/containerd/conf.d")
    needed = f"{folder}/*.toml"
    imports = list(main.get("imports", []))
    if needed not in imports:
        main = {**({} if main else {"version": version}), **main, "imports": [*imports, needed]}
    return toml.dump(drop_in), toml.dump(main)


def crio(wish: Wish) -> str:
    """The drop-in of CRI-O."""
    tree: toml.Tree = {}
    if wish.default:
        toml.put(tree, ("crio", "runtime", "default_runtime"), wish.name)
    runtime = {"runtime_path": wish.path, "runtime_type": "oci"}
    toml.put(tree, ("crio", "runtime", "runtimes", wish.name), runtime)
    return toml.dump(tree)
