# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute Engine for tests: its discovery document as a judge of every request, and a loopback server that speaks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import firstboot, spec
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import Clock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import (
    GcpMachine,
    GcpSettings,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Respond, Seen, Server
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PROJECT = "my-project"
FLEET = "minerals"
ZONE = "us-central1-c"
BASE = f"/compute/v1/projects/{PROJECT}"
BOOT = firstboot.FirstBoot("admin", ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 someone@example",))

# Recommended by the text of the aggregated methods, though missing in their lists of parameters.
_UNLISTED = frozenset({"returnPartialSuccess"})


@cache
def document() -> dict[str, Any]:
    """The Compute v1 discovery document of google-api-python-client."""
    text = (
        resources.files("googleapiclient").joinpath("discovery_cache/documents/compute.v1.json").read_text()
    )
    found: dict[str, Any] = json.loads(text)
    return found


def _converted(node: Any) -> Any:
    """A discovery schema as JSON Schema: int64 are strings, and an unknown key is an error."""
    if isinstance(node, list):
        return [_converted(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref']}"}
    schema: dict[str, Any] = {}
    if "type" in node and node["type"] != "any":
        schema["type"] = node["type"]
    if node.get("format") in ("int64", "uint64"):
        schema["pattern"] = r"^-?\d+$"
    for key in ("enum", "items", "additionalProperties"):
        if key in node:
            schema[key] = _converted(node[key])
    if "properties" in node:
        schema["properties"] = {name: _converted(inner) for name, inner in node["properties"].items()}
        schema.setdefault("additionalProperties", False)
    return schema


@cache
def _definitions() -> dict[str, Any]:
    return {name: _converted(schema) for name, schema in document()["schemas"].items()}


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _definitions()})


def check_body(name: str, body: Any) -> None:
    """Fail unless this is a valid object of that schema."""
    _validator(name).validate(body)


@cache
def _methods() -> tuple[tuple[str, re.Pattern[str], dict[str, Any]], ...]:
    return tuple(
        (
            method["httpMethod"],
            re.compile(
                "/compute/v1/"
                + re.sub(
                    r"\{(\w+)\}",
                    lambda found, method=method: f"(?:{_parameter(method, found[1])})",  # type: ignore[misc]
                    method["path"],
                )
            ),
            method,
        )
        for resource in document()["resources"].values()
        for method in resource["methods"].values()
    )


def _parameter(method: Mapping[str, Any], name: str) -> str:
    return str(method["parameters"][name].get("pattern", "[^/]+"))


def check_request(seen: Seen) -> None:
    """Fail unless the API describes this method, path, query and body."""
    fitting = [
        method for verb, path, method in _methods() if verb == seen.method and path.fullmatch(seen.path)
    ]
    assert fitting, f"the API has no {seen}"
    method = fitting[0]
    known = {*method["parameters"], *document()["parameters"], *_UNLISTED}
    assert {name for name, _ in seen.query} <= known, f"{seen}: {seen.query}"
    if "request" in method:
        check_body(method["request"]["$ref"], seen.body or {})


def error(status: int, reason: str, message: str = "Refused.", **more: Any) -> Answer:
    """An error as Compute Engine words it."""
    entry = {"message": message, "domain": "usageLimits", "reason": reason}
    return Answer(status, {"error": {"code": status, "message": message, "errors": [entry], **more}})


def operation(name: str = "operation-1", status: str = "RUNNING", **more: Any) -> Answer:
    """An operation."""
    return Answer(200, {"kind": "compute#operation", "name": name, "status": status, **more})


def raw_instance(name: str, **given: Any) -> dict[str, Any]:
    """An instance as Compute Engine shows it."""
    zone = given.pop("zone", ZONE)
    url = f"https://www.googleapis.com{BASE}/zones/{zone}"
    machine_type = given.pop("type", "e2-standard-8")
    return {
        "id": str(1000 + sum(name.encode())),
        "name": name,
        "status": "RUNNING",
        "zone": url,
        "machineType": f"{url}/machineTypes/{machine_type}",
        "labels": {"gpumesh-fleet": FLEET, "gpumesh-machine": name},
        "creationTimestamp": "2026-11-20T04:05:06.789-08:00",
        "networkInterfaces": [{"networkIP": "10.128.0.2", "accessConfigs": [{"natIP": "203.0.113.7"}]}],
        **given,
    }


def machine(name: str = "galena", **given: Any) -> GcpMachine:
    return GcpMachine(**{"name": name, "type": "e2-standard-8", "zone": ZONE, **given})


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def write_key(folder: Path, token_uri: str) -> Path:
    """A key file of a service account."""
    path = folder / "key.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "0123456789abcdef",
                "private_key": _private_key(),
                "client_email": "robot@my-project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": token_uri,
            }
        )
    )
    return path


class Cloud:
    """A loopback server with Google's token endpoint, which answers everything else as a test says."""

    def __init__(self, folder: Path, respond: Respond) -> None:
        self.tokens = 0
        self.token_answers: list[Answer] = []
        self._respond = respond
        self.server = Server(self._answer)
        self.clock = FakeClock()
        self.key_file = write_key(folder, f"{self.server.url}/oauth2/token")

    def _answer(self, seen: Seen) -> Answer:
        if seen.path == "/oauth2/token":
            if self.token_answers:
                return self.token_answers.pop(0)
            self.tokens += 1
            token = f"ya29.token-number-{self.tokens}"
            return Answer(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
        return self._respond(seen)

    @property
    def requests(self) -> list[Seen]:
        """What Compute Engine itself was asked."""
        return [seen for seen in self.server.seen if seen.path.startswith("/compute/")]

    @property
    def calls(self) -> list[str]:
        return [str(seen).replace(f"{BASE}/", "") for seen in self.requests]

    def fleet(self, *machines: GcpMachine, **given: Any) -> spec.FleetSpec:
        settings = GcpSettings(
            project=PROJECT, credentials_file=str(self.key_file), endpoint=f"{self.server.url}/compute/v1"
        )
        return spec.FleetSpec(
            fleet=FLEET,
            providers={"gcp": settings},
            machines={m.name: m for m in machines},
            base_dir="/",
            known_hosts="/nowhere",
            **given,
        )

    def connect(self, *machines: GcpMachine, clock: Clock | None = None, **given: Any) -> gcp.GcpProvider:
        return gcp.connect(self.fleet(*machines, **given), {}, clock or self.clock)


@contextmanager
def cloud(folder: Path, respond: Respond) -> Iterator[Cloud]:
    """A cloud that is up; on the way out every request it got is held against the discovery document."""
    double = Cloud(folder, respond)
    with double.server.running():
        yield double
    for seen in double.requests:
        check_request(seen)


def routes(table: Mapping[str, Answer | list[Answer]]) -> Callable[[Seen], Answer]:
    """Answers by ``METHOD path`` below the project; of a list the first one is used up, the last one stays."""
    left = {key: list(value) if isinstance(value, list) else [value] for key, value in table.items()}

    def respond(seen: Seen) -> Answer:
        answers = left.get(str(seen).replace(f"{BASE}/", ""))
        if answers is None:
            return error(404, "notFound", f"The resource '{seen.path}' was not found")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return respond
