# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds HTTP exchanges against the whole Compute v1 discovery document, as google-api-python-client carries it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from requests import PreparedRequest, Response

PREFIX = "/compute/v1/"
# Asked for by the methods' text, but missing in this document's parameters.
UNLISTED = {"returnPartialSuccess"}
_FORMATS = {"int64": r"^-?\d{1,19}$", "uint64": r"^\d{1,20}$", "byte": r"^[A-Za-z0-9+/_-]*={0,2}$"}


def load() -> dict[str, Any]:
    """The document."""
    file = resources.files("googleapiclient.discovery_cache").joinpath("documents/compute.v1.json")
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return document


class GoogleContract:
    """What the API promises."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[str] = set()

    @cached_property
    def _methods(self) -> list[tuple[str, re.Pattern[str], str, dict[str, Any]]]:
        found = []
        for collection, resource in self.document["resources"].items():
            for name, method in resource.get("methods", {}).items():
                # Fixed paths before those with variables: images/family/x is not the image of name "family".
                pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", method["path"]))
                found.append((method["httpMethod"], pattern, f"{collection}.{name}", method))
        return sorted(found, key=lambda entry: entry[3]["path"].count("{"))

    @cached_property
    def _registry(self) -> Registry[Any]:
        schemas = {name: _plain(schema) for name, schema in self.document["schemas"].items()}
        registry: Registry[Any] = Registry()
        return registry.with_resource("urn:google", DRAFT202012.create_resource({"$defs": schemas}))

    def problems(self, request: PreparedRequest, response: Response) -> list[str]:
        """Everything in an exchange that the document does not allow."""
        url = urlsplit(str(request.url))
        path = url.path.removeprefix(PREFIX)
        found = next(
            (
                (name, method)
                for verb, pattern, name, method in self._methods
                if verb == request.method and pattern.fullmatch(path)
            ),
            None,
        )
        if found is None:
            return [f"{request.method} {path} is not in the document"]
        name, method = found
        self.seen.add(name)
        if not response.ok:
            return [f"{name}: {problem}" for problem in _error_problems(response)]
        known = {*method["parameters"], *self.document["parameters"], *UNLISTED}
        problems = [
            f"{name}: unknown query parameter {key}" for key, _ in parse_qsl(url.query) if key not in known
        ]
        if "request" in method:
            problems += self.check(
                method["request"]["$ref"], json.loads(request.body or "{}"), f"{name} request"
            )
        return problems + list(self.check(method["response"]["$ref"], response.json(), f"{name} response"))

    def check(self, schema: str, value: object, where: str) -> Iterator[str]:
        """What in a value the schema does not allow."""
        validator = Draft202012Validator({"$ref": f"urn:google#/$defs/{schema}"}, registry=self._registry)
        for error in validator.iter_errors(value):
            yield f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def _error_problems(response: Response) -> Iterator[str]:
    """What is wrong with an error body, whose form the document does not describe."""
    error = response.json().get("error", {})
    if error.get("code") != response.status_code:
        yield f"error.code is {error.get('code')}, not {response.status_code}"
    if not error.get("message") or not error.get("errors"):
        yield "the error has no message or no errors"
    for entry in error.get("errors", ()):
        if not {"message", "domain", "reason"} <= set(entry):
            yield f"an error has only {sorted(entry)}"


def _plain(schema: Any) -> Any:
    """A schema of the document as JSON Schema: int64 as text, and nothing beyond what is listed."""
    if "$ref" in schema:
        return {"$ref": f"urn:google#/$defs/{schema['$ref']}"}
    result: dict[str, Any] = {} if schema.get("type") == "any" else {"type": schema["type"]}
    if schema.get("format") in _FORMATS:
        result["pattern"] = _FORMATS[schema["format"]]
    if "enum" in schema:
        result["enum"] = schema["enum"]
    if "items" in schema:
        result["items"] = _plain(schema["items"])
    if "properties" in schema:
        result["properties"] = {name: _plain(child) for name, child in schema["properties"].items()}
    if schema.get("type") == "object":
        extra = schema.get("additionalProperties")
        result["additionalProperties"] = _plain(extra) if extra else False
    return result
