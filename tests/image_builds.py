# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds of golden images that have been through their gate, of a few bytes each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import admission, work
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.store import Admitted, Store
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import Version

NAME = "gpu-box"
NOW = datetime(2026, 11, 27, 14, tzinfo=UTC)
QCOW2 = b"QFI\xfb\0\0\0\3"
EPOCH = 1764201600


def layer(name: str, recipe: str, key: str | None = None, parent: str | None = None) -> dict[str, Any]:
    """A layer as image_manifest takes it."""
    return {
        "layer": name,
        "role": None if parent is None else f"gpumesh.fleet.{name}",
        "recipe": recipe,
        "key": key or f"{recipe}-1",
        "parent": parent,
        "lists": {"https://deb.debian.org/debian trixie": "0" * 64},
    }


def identity(recipe: str = "a", key: str = "1", os: str = "debian-13", layout: str = "1") -> dict[str, Any]:
    """What a build was made of. The arguments are what may differ from one to the next."""
    return {
        "os": os,
        "layout": layout,
        "layers": [layer("os", "os"), layer("base", recipe, f"{recipe}-{key}", "os-1")],
    }


INVENTORY: dict[str, Any] = {
    "os": {
        "id": "debian",
        "version": "13",
        "codename": "trixie",
        "pretty": "Debian GNU/Linux 13 (trixie)",
    },
    "kernels": ["6.12.117+deb13-amd64"],
    "packages": [
        {
            "name": "bash",
            "version": "5.2.37-2",
            "architecture": "amd64",
            "source": "bash",
            "source_version": "5.2.37-2",
        }
    ],
    "python": [{"name": "jax", "version": "0.10.2", "environment": "/opt/gpumesh/frameworks/jax"}],
    "layers": {"base": {"from": "gpumesh.fleet.base", "checks": ["sshd"], "versions": {}}},
    "modules": {},
}
JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="0" failures="0" skipped="1" tests="2" time="0.5">
<testcase classname="test_boot" name="test_no_unit_failed" time="0.25" />
<testcase classname="test_boot" name="test_driver" time="0.0"><skipped message="no driver" /></testcase>
</testsuite></testsuites>
"""
FAILED = JUNIT.replace('time="0.25" />', 'time="0.25"><failure message="sshd.service">x</failure></testcase>')
EMPTY = '<testsuites><testsuite name="pytest" tests="0" time="0.0" /></testsuites>\n'
BOOTS = [
    {"firmware": firmware, "accelerator": "tcg", "seconds_to_ssh": 36.5, "console": f"console-{firmware}.log"}
    for firmware in ("bios", "uefi")
]


def build(store: Path, name: str = NAME, content: str = "1", junit: str = JUNIT, **inventory: Any) -> Path:
    """The work folder of a build of this process.

    Args:
        content: what is in its disk.
        inventory: what differs in its inventory.
    """
    folder = work.open_folder(store / ".work", name)
    (folder / "disk.qcow2").write_bytes(QCOW2 + content.encode())
    (folder / "root.tar").write_bytes(b"not for the store")
    (folder / "inventory.json").write_text(json.dumps(INVENTORY | inventory), encoding="utf-8")
    gate = folder / "gate"
    gate.mkdir()
    (gate / "junit.xml").write_text(junit, encoding="utf-8")
    (gate / "boots.json").write_text(json.dumps(BOOTS), encoding="utf-8")
    (gate / "key").write_text("a key of the gate", encoding="utf-8")
    return folder


def options(folder: Path, **identified: str) -> dict[str, Any]:
    """The options of image_manifest for it.

    Args:
        identified: what differs in what it was made of.
    """
    return {
        "folder": str(folder),
        "identity": identity(**identified),
        "disk": {"firmware": ["bios", "uefi"], "virtual_size_bytes": 3 << 30},
        "builder": {
            "ansible": "2.19.14",
            "collection": "0.1.0",
            "accelerator": "tcg",
            "tools": {"qemu-img": "10.0.3"},
        },
        "source": {"revision": "ae967d7", "dirty": False},
        "epoch": EPOCH,
    }


def wish(folder: Path, version: str | None = None, keep: int = 3, **identified: str) -> admission.Build:
    """A build of ``build`` as the engine takes it."""
    told = options(folder, **identified)
    told["disk"] |= {"filesystem": "ext4", "luks": False}
    return admission.Build(
        name=NAME,
        **{**told, "folder": folder},
        version=Version.parse(version) if version else None,
        keep=keep,
    )


def admit(store: Store, content: str = "1", **more: Any) -> Admitted:
    """Build an image and give it its version."""
    return admission.admit(store, wish(build(store.root, NAME, content), **more), NOW)


def there(store: Store, name: str = NAME) -> list[str]:
    """The versions in a store."""
    return [str(version) for version in store.versions(name)]


def three(root: Path) -> Store:
    """A store with versions 1.0.0, 1.1.0 and 1.2.0."""
    store = Store(root)
    for recipe in ("a", "b", "c"):
        admit(store, recipe, recipe=recipe)
    return store
