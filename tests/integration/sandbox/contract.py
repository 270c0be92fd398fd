# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds HTTP exchanges against an OpenAPI 3.0 description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jsonschema import Draft4Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4
from requests import PreparedRequest, Response


def patched_hetzner(description: dict[str, Any]) -> dict[str, Any]:
    """The stored description, brought up to what the service has changed since (facts of November 2026)."""
    for schema in _schemas(description["components"]["schemas"]):
        if "datacenter" in schema["properties"] and "required" in schema:
            # Removed on 2026-07-01.
            schema["required"] = [name for name in schema["required"] if name != "datacenter"]
    # The hcloud library sends ids as numbers here, and the service takes them.
    keys = description["components"]["schemas"]["create_server_request"]["properties"]["ssh_keys"]
    keys["items"] = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    return description


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    """Every object schema in a description."""
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _schemas(entry)


class Contract:
    """What an API promises.

    Args:
        prefix: the path it is mounted at.
    """

    def __init__(self, description: dict[str, Any], prefix: str) -> None:
        self.description: dict[str, Any] = _plain(description)
        self.prefix = prefix
        self.seen: set[tuple[str, str]] = set()

    @cached_property
    def _registry(self) -> Registry[Any]:
        resource = DRAFT4.create_resource(self.description)
        return Registry().with_resource("urn:api", resource)

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], str]]:
        # Those without a variable first: /servers/actions is not the server of id "actions".
        ordered = sorted(self.description["paths"], key=lambda path: (path.count("{"), path))
        return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in ordered]

    def problems(self, request: PreparedRequest, response: Response) -> list[str]:
        """Everything in an exchange that the description does not allow."""
        url = urlsplit(str(request.url))
        path = url.path.removeprefix(self.prefix)
        template = next((template for pattern, template in self._paths if pattern.fullmatch(path)), None)
        method = str(request.method).lower()
        operation = self.description["paths"].get(template, {}).get(method)
        if operation is None:
            return [f"{method} {path} is not in the description"]
        self.seen.add((method, str(template)))
        where = f"{method.upper()} {template}"
        found = [
            f"{where}: unknown query parameter {name}"
            for name, _ in parse_qsl(url.query)
            if name
            not in {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "query"}
        ]
        if response.ok and request.body:
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            found += self._check(body, json.loads(request.body), f"{where} request")
        answers = operation["responses"]
        status = str(response.status_code)
        answer = answers.get(status) or answers.get(f"{status[0]}xx")
        if answer is None:
            return [*found, f"{where}: status {status} is not in the description"]
        if "content" in answer:
            schema = answer["content"]["application/json"]["schema"]
            found += self._check(schema, response.json(), f"{where} {status}")
        elif response.content:
            found.append(f"{where}: {status} has a body")
        return found

    def _check(self, schema: dict[str, Any], value: object, where: str) -> Iterator[str]:
        validator = Draft4Validator(
            schema, registry=self._registry, format_checker=Draft4Validator.FORMAT_CHECKER
        )
        for error in validator.iter_errors(value):
            yield f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def _plain(schema: Any) -> Any:
    """A description as JSON Schema draft 4: absolute references, and null where OpenAPI 3.0 says ``nullable``."""
    if isinstance(schema, list):
        return [_plain(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: f"urn:api{value}" if key == "$ref" else _plain(value) for key, value in schema.items()}
    if result.pop("nullable", False) is True:
        return {"anyOf": [result, {"type": "null"}]}
    return result
