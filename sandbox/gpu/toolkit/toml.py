# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML, written: as much as the configuration files of containerd and of the toolkit need. SIMULATED."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

Tree = dict[str, Any]


def load(path: Path) -> Tree:
    """A file; empty where it is missing."""
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value)


def dump(tree: Tree, path: tuple[str, ...] = ()) -> str:
    """The text of a tree: plain values first, then the tables in it."""
    plain = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(_key(part) for part in path)}]"] if path and (plain or not tree) else []
    lines += [f"{_key(name)} = {_value(value)}" for name, value in plain.items()]
    text = "\n".join(lines) + ("\n\n" if lines else "")
    for name, value in tree.items():
        if isinstance(value, dict):
            text += dump(value, (*path, name))
    return text


def at(tree: Tree, *path: str) -> Any:
    """What lies at a path, None where there is nothing."""
    here: Any = tree
    for part in path:
        if not isinstance(here, dict) or part not in here:
            return None
        here = here[part]
    return here


def put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    """Set what lies at a path."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
