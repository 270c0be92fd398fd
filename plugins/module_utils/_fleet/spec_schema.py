# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON Schema of the fleet file, from the models of every provider; for editors to complete and check it.

It says what a model's types say. What its validators say (a GPU that does not fit a machine type) only the parser knows.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from .gpu import catalog
from .spec import FleetFile

if TYPE_CHECKING:
    from .providers.base import Kind

_REF = "#/$defs/{model}"
_NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"


def json_schema(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The schema of a fleet file. That of one file of a ``machines_dir`` is its ``$defs/machine``."""
    definitions: dict[str, Any] = {}
    top = _model(FleetFile, definitions)
    settings, choices = {}, []
    for name, kind in kinds.items():
        if kind.settings_model:
            definitions[f"{name}_settings"] = _model(kind.settings_model, definitions)
            # A block may be left empty, where it needs nothing.
            kinds_of_block = (
                ["object"] if definitions[f"{name}_settings"].get("required") else ["object", "null"]
            )
            definitions[f"{name}_settings"]["type"] = kinds_of_block
            settings[name] = {"$ref": _REF.format(model=f"{name}_settings")}
        definitions[f"{name}_machine"] = _machine(name, kind.machine_model, definitions)
        condition = {"properties": {"provider": {"const": name}}, "required": ["provider"]}
        choices.append({"if": condition, "then": {"$ref": _REF.format(model=f"{name}_machine")}})
    definitions["machine"] = {
        "description": "A machine. Its provider says which fields it has.",
        "type": "object",
        "required": ["provider"],
        "properties": {"provider": {"enum": list(kinds), "description": "Who makes it."}},
        "allOf": choices,
    }
    properties = top["properties"]
    properties["providers"] |= {
        "properties": settings,
        "additionalProperties": False,
        "type": ["object", "null"],
    }
    properties["machines"] |= {
        "propertyNames": {"pattern": _NAME},
        "additionalProperties": {"$ref": _REF.format(model="machine")},
        "type": ["object", "null"],
    }
    gpu = definitions["Gpu"]["properties"]["model"]
    gpu["anyOf"] = [{"enum": list(catalog.names())}, {"type": "string"}]
    del gpu["type"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A fleet file of gpumesh.fleet",
        **{key: value for key, value in top.items() if key != "title"},
        "anyOf": [{"required": ["machines"]}, {"required": ["machines_dir"]}],
        "$defs": dict(sorted(definitions.items())),
    }


def _model(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """A model's schema; the models it uses go into the definitions."""
    schema = model.model_json_schema(ref_template=_REF)
    definitions.update(schema.pop("$defs", {}))
    return _without_titles(schema)


def _machine(name: str, model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _model(model, definitions)
    schema["properties"].pop("name")
    schema["properties"]["provider"] = {"const": name, "description": "Who makes it."}
    schema["required"] = [
        "provider",
        *(key for key in schema.get("required", ()) if key not in ("name", "provider")),
    ]
    return schema


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the titles the library makes up from the names of fields, which editors would show."""
    for value in schema.get("properties", {}).values():
        value.pop("title", None)
    return schema
