# SPDX-License-Identifier: GPL-3.0-or-later
"""The API's description of itself: which methods there are, and what may be in a path, a query and a body.

Everything a client sends is held against the discovery document before a handler sees it. In one thing this is stricter
than the service, which also takes a JSON number for an int64: here it must be the string the description asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from .errors import Json, invalid, unknown_name

UNLISTED_QUERY = frozenset({"returnPartialSuccess"})
"""Asked for by the text of the aggregated lists' methods, though missing in their lists of parameters."""

_FORMATS = {
    "int64": (re.compile(r"-?\d{1,19}\Z"), "TYPE_INT64"),
    "uint64": (re.compile(r"\d{1,20}\Z"), "TYPE_UINT64"),
    "byte": (re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z"), "TYPE_BYTES"),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the API.

    Attributes:
        id: ``instances.insert``.
        path: below the prefix, with parameters in braces: ``projects/{project}/zones/{zone}/instances``.
        request, response: names of schemas; empty for none.
        parameters: of path and query, by name, as the discovery document has them.
    """

    id: str
    verb: str
    path: str
    request: str
    response: str
    parameters: Mapping[str, Json]

    @property
    def aggregated(self) -> bool:
        """It lists all zones or regions at once."""
        return self.id.endswith(".aggregatedList")

    def check_query(self, query: Mapping[str, str]) -> None:
        """Refuse query parameters the method does not have, and values that cannot be.

        Raises:
            ApiError: the first problem found.
        """
        known = {name: schema for name, schema in self.parameters.items() if schema["location"] == "query"}
        known |= description().parameters
        for name, value in query.items():
            if name in known:
                _check_text(known[name], name, value)
            elif not (name in UNLISTED_QUERY and self.verb == "GET"):
                raise unknown_name(name, query=True)

    def check_path(self, path: Mapping[str, str]) -> None:
        """Refuse path parameters that cannot be a name."""
        for name, value in path.items():
            pattern = self.parameters[name].get("pattern")
            if pattern and not re.fullmatch(pattern, value):
                raise invalid(name, value, f"Must be a match of regex '{pattern}'")


@dataclass(frozen=True, slots=True)
class Description:
    """The whole document."""

    methods: Mapping[str, Method]
    schemas: Mapping[str, Json]
    parameters: Mapping[str, Json]

    def check_body(self, schema: str, body: object) -> None:
        """Refuse a body that has unknown fields or values of the wrong type.

        Raises:
            ApiError: the first problem found.
        """
        self._check({"$ref": schema}, body, "")

    def _check(self, schema: Json, value: object, where: str) -> None:
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"]]
        if value is None:
            return
        kind = schema.get("type", "any")
        wanted = _TYPES.get(kind)
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean")):
            shown = json.dumps(value) if not isinstance(value, dict | list) else type(value).__name__
            raise invalid(f"resource.{where}" if where else "resource", shown, f"Must be of type {kind}.")
        if isinstance(value, str):
            _check_text(schema, f"resource.{where}", value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._check(schema["items"], item, f"{where}[{index}]")
        elif isinstance(value, dict):
            properties = schema.get("properties", {})
            for key, item in value.items():
                child = properties.get(key, schema.get("additionalProperties"))
                if child is None:
                    raise unknown_name(key, where)
                self._check(child, item, f"{where}.{key}" if where else key)

    def can_filter(self, schema: str, path: list[str]) -> bool:
        """Whether a list of such resources can be filtered by that field; by metadata no list can."""
        if path[0] == "metadata":
            return False
        here: Json = {"$ref": schema}
        for name in path:
            while "$ref" in here or here.get("type") == "array":
                here = self.schemas[here["$ref"]] if "$ref" in here else here["items"]
            found = here.get("properties", {}).get(name, here.get("additionalProperties"))
            if found is None:
                return False
            here = found
        return True

    def writable(self, schema: str, body: Json) -> Json:
        """The body without what only the service sets, which it ignores."""
        properties = self.schemas[schema]["properties"]
        return {
            key: value
            for key, value in body.items()
            if not properties[key].get("readOnly") and value is not None
        }


def _check_text(schema: Json, name: str, value: str) -> None:
    """Hold a string, of a body or a query, against enum, format and pattern."""
    if schema.get("enum") and value not in schema["enum"]:
        choices = ", ".join(schema["enum"])
        raise invalid(name, value, f"Must be one of: {choices}.")
    if schema.get("type") == "integer" and not re.fullmatch(r"\d{1,10}", value):
        raise invalid(name, value, "Must be a number.")
    if schema.get("type") == "boolean" and value not in ("true", "false"):
        raise invalid(name, value, "Must be true or false.")
    for bound, fits in (("minimum", int.__ge__), ("maximum", int.__le__)):
        if bound in schema and not fits(int(value), int(schema[bound])):
            raise invalid(
                name, value, f"Must be between {schema.get('minimum', 0)} and {schema.get('maximum', '')}."
            )
    if schema.get("format") in _FORMATS:
        pattern, kind = _FORMATS[schema["format"]]
        if not pattern.match(value):
            raise invalid(name, value, f"Must be of {kind}.")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise invalid(name, value, f"Must be a match of regex '{schema['pattern']}'")


@cache
def description() -> Description:
    """The cut of Compute Engine's discovery document that lies beside this file; see :mod:`sandbox.gce.vendor`."""
    return load("compute_v1.json")


def load(file: str) -> Description:
    """One of the cuts that lie beside this file."""
    document: dict[str, Any] = json.loads(resources.files(__package__).joinpath(file).read_text("utf-8"))
    methods = {
        name: Method(
            name,
            method["httpMethod"],
            method["path"],
            method.get("request", {}).get("$ref", ""),
            method.get("response", {}).get("$ref", ""),
            method["parameters"],
        )
        for name, method in document["methods"].items()
    }
    return Description(methods, document["schemas"], document["parameters"])
