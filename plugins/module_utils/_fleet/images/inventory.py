# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory of an image says of its GPU stack. The layers note it in their facts; packages are what is installed.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PACKAGE_OF = {"pytorch": "torch"}
"""Frameworks whose package has another name."""


def simulated(inventory: Mapping[str, Any]) -> bool:
    """Whether any layer was proven with simulated hardware."""
    return any(bool(layer.get("simulated")) for layer in _layers(inventory).values())


def driver(inventory: Mapping[str, Any]) -> dict[str, Any] | None:
    """Version and flavour of the NVIDIA driver."""
    told = _layers(inventory).get("nvidia_driver", {}).get("driver") or {}
    if not told.get("version"):
        return None
    return {"version": told["version"], "flavour": told.get("flavour") or None}


def cuda(inventory: Mapping[str, Any]) -> dict[str, Any] | None:
    """Version of the toolkit, and the newest CUDA of the driver."""
    toolkit = next(_toolkits(inventory), None)
    versions = _layers(inventory).get("nvidia_driver", {}).get("versions") or {}
    of_driver = versions.get("cuda") or None
    return {"toolkit": toolkit, "driver": of_driver} if toolkit or of_driver else None


def frameworks(inventory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The frameworks of the layer ai_frameworks. Where nothing was computed yet, its gate has told no versions."""
    told = _layers(inventory).get("ai_frameworks", {})
    environments, versions = told.get("environments") or {}, told.get("versions") or {}
    return [
        {
            "name": name,
            "version": (versions.get(name) or {}).get(_PACKAGE_OF.get(name, name))
            or _installed(inventory, _PACKAGE_OF.get(name, name), f"/envs/{name}/{environments.get(name)}"),
            "environment": environments.get(name),
        }
        for name in sorted({*environments, *versions})
    ]


def packages_of(sbom: str) -> dict[str, int]:
    """How many packages a bill of materials lists, by kind."""
    urls = [str(each.get("purl", "")) for each in json.loads(sbom).get("components", [])]
    return {
        "debian_packages": sum(url.startswith("pkg:deb/") for url in urls),
        "python_packages": sum(url.startswith("pkg:pypi/") for url in urls),
    }


def _layers(inventory: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The facts of the layers that are there."""
    return {
        name: facts
        for name, facts in (inventory.get("layers") or {}).items()
        if isinstance(facts, dict) and facts.get("state") != "absent"
    }


def _installed(inventory: Mapping[str, Any], package: str, environment: str) -> str | None:
    """Version of a Python package in an environment."""
    for each in inventory.get("python") or []:
        if each.get("name", "").lower() == package and each.get("environment", "").endswith(environment):
            return str(each["version"])
    return None


def _toolkits(inventory: Mapping[str, Any]) -> Iterator[str]:
    """Versions of CUDA toolkits in the image, the newest first."""
    packages = {str(each.get("name")): str(each.get("version")) for each in inventory.get("packages") or []}
    matches = [re.fullmatch(r"cuda-toolkit-(\d+)-(\d+)", name) for name in packages]
    releases = sorted(((int(found[1]), int(found[2])) for found in matches if found), reverse=True)
    yield from (f"{major}.{minor}" for major, minor in releases)
    if "nvidia-cuda-toolkit" in packages:
        yield re.split(r"[-~+]", packages["nvidia-cuda-toolkit"].rpartition(":")[2])[0]
