# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes ``compute_v1.json`` and ``storage_v1.json``: ``python -m sandbox.gce.vendor``, with google-api-python-client installed.

The sandbox carries its own small cuts of the discovery documents of Compute v1 and Storage v1 (methods it serves, schemas
these need, no prose), so that it runs without that 15 MB package. The fidelity tests compare with the whole documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

METHODS = {
    "acceleratorTypes": ("aggregatedList", "get", "list"),
    "firewalls": ("delete", "get", "insert", "list", "patch"),
    "globalOperations": ("aggregatedList", "get", "list", "wait"),
    "images": ("delete", "deprecate", "get", "getFromFamily", "insert", "list", "patch", "setLabels"),
    "instances": (
        "aggregatedList", "delete", "get", "getGuestAttributes", "getSerialPortOutput", "insert", "list",
        "setDeletionProtection", "setLabels", "setMachineResources", "setMachineType", "setMetadata", "setScheduling",
        "setTags", "start", "stop",
    ),
    "machineTypes": ("aggregatedList", "get", "list"),
    "networks": ("get", "list"),
    "projects": ("get",),
    "regionOperations": ("get", "list", "wait"),
    "regions": ("get", "list"),
    "zoneOperations": ("get", "list", "wait"),
    "zones": ("get", "list"),
}  # fmt: skip
STORAGE_METHODS = {
    "buckets": ("get", "insert", "list"),
    "objects": ("delete", "get", "insert", "list"),
}
_METHOD_KEYS = ("httpMethod", "path", "request", "response")
_KEEP = ("$ref", "type", "format", "enum", "pattern", "location", "required", "minimum", "maximum")


def cut(
    document: dict[str, Any], served: Mapping[str, Sequence[str]] = METHODS, title: str = "Compute v1"
) -> dict[str, Any]:
    """The part of a discovery document that the sandbox serves.

    Args:
        served: names of methods by collection.
        title: of the API.
    """
    methods: dict[str, Any] = {}
    wanted: list[str] = []
    for collection, names in served.items():
        for name in names:
            whole = document["resources"][collection]["methods"][name]
            parameters = {key: _bare(value) for key, value in whole["parameters"].items()}
            methods[f"{collection}.{name}"] = {
                **{key: whole[key] for key in _METHOD_KEYS if key in whole},
                "parameters": parameters,
            }
            wanted += [whole[key]["$ref"] for key in ("request", "response") if key in whole]
    schemas: dict[str, Any] = {}
    while wanted:
        if (name := wanted.pop()) not in schemas:
            schemas[name] = _bare(document["schemas"][name])
            wanted += _references(schemas[name])
    return {
        "source": f"Cut from the {title} discovery document, revision {document['revision']}, of "
        f"google-api-python-client {metadata.version('google-api-python-client')} (Apache License 2.0); prose removed.",
        "parameters": {key: _bare(value) for key, value in document["parameters"].items()},
        "methods": methods,
        "schemas": dict(sorted(schemas.items())),
    }


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without prose."""
    bare = {key: schema[key] for key in _KEEP if key in schema}
    if schema.get("readOnly") or schema.get("description", "").lstrip().startswith("[Output Only]"):
        bare["readOnly"] = True
    for key in ("items", "additionalProperties"):
        if key in schema:
            bare[key] = _bare(schema[key])
    if "properties" in schema:
        bare["properties"] = {key: _bare(value) for key, value in schema["properties"].items()}
    return bare


def _references(schema: dict[str, Any]) -> list[str]:
    found = [schema["$ref"]] if "$ref" in schema else []
    for child in (
        schema.get("items"),
        schema.get("additionalProperties"),
        *schema.get("properties", {}).values(),
    ):
        if isinstance(child, dict):
            found += _references(child)
    return found


def whole(name: str) -> dict[str, Any]:
    """A discovery document as google-api-python-client carries it: ``compute.v1``, ``storage.v1``."""
    file = resources.files("googleapiclient.discovery_cache").joinpath(f"documents/{name}.json")
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return document


def main() -> None:
    """Write the files beside this one."""
    for name, served, title in (
        ("compute", METHODS, "Compute v1"),
        ("storage", STORAGE_METHODS, "Storage v1"),
    ):
        text = json.dumps(cut(whole(f"{name}.v1"), served, title), indent=1, sort_keys=True)
        Path(__file__).with_name(f"{name}_v1.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
