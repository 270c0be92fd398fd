# SPDX-License-Identifier: GPL-3.0-or-later
"""The published JSON Schema: current, valid, and of one mind with the parser about what types can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import SpecError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec_schema import json_schema

ROOT = Path(__file__).parents[5]
PUBLISHED = ROOT / "docs" / "fleet.schema.json"
FLEETS = sorted((ROOT / "inventories").glob("*/fleet.yml"))


def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))


def test_the_published_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema(KINDS), "run tools/fleet-schema"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(PUBLISHED.read_text()))


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.parent.name)
def test_our_fleets_are_valid(path: Path) -> None:
    spec_file.load(str(path), KINDS, {})
    validator().validate(yaml.safe_load(path.read_text()))


def test_there_are_fleets() -> None:
    assert {path.parent.name for path in FLEETS} >= {"example", "sandbox"}


def broken(machine: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    fleet: dict[str, Any] = yaml.safe_load((ROOT / "inventories" / "example" / "fleet.yml").read_text())
    fleet |= top
    if machine is not None:
        fleet["machines"]["new"] = machine
    return {key: value for key, value in fleet.items() if value != "absent"}


@pytest.mark.parametrize(
    "fleet",
    [
        broken({"provider": "hetzner", "type": "cx23"}),
        broken({"provider": "hetzner", "type": "cx23", "zone": "fsn1"}),
        broken({"provider": "gcp", "type": "e2-standard-2", "location": "x"}),
        broken({"provider": "baremetal", "address": "a", "type": "x"}),
        broken({"provider": "external", "node_id": "8046"}),
        broken({"provider": "external", "node_id": 1234567890}),
        broken({"provider": "baremetal", "address": "a", "node_id": "8046D53400"}),
        broken({"provider": "clowdy"}),
        broken({"type": "cx23", "location": "fsn1"}),
        broken({"provider": "baremetal", "address": "a", "enabled": "yes"}),
        broken({"provider": "baremetal", "address": "a", "gpu": {"model": "t4", "count": 0}}),
        broken({"provider": "baremetal", "address": "a", "name": "a"}),
        broken(None, fleet="Minerals"),
        broken(None, fleet="absent"),
        broken(None, machines="absent"),
        broken(None, machines={"Bad_Name": {"provider": "baremetal", "address": "a"}}),
        broken(None, plugin="gpumesh.fleet"),
        broken(None, budget={"hourly": 3}),
        broken(None, providers={"hetzner": {"tokn": "x"}}),
        broken(None, providers={"clowdy": {}}),
        broken(None, mesh={"network": "x", "controller": "central_v1"}),
        *(
            broken(None, mesh={"network": "db4344343b14b903", "controller": "cinnabar", **wrong})
            for wrong in ({"addressing": "dhcp"}, {"connect": "never"}, {"strict": "yes"}, {"domain": "a.b"})
        ),
    ],
)
def test_a_broken_fleet_is_not_valid(fleet: dict[str, Any], tmp_path: Path) -> None:
    assert not validator().is_valid(fleet)
    path = tmp_path / "fleet.yml"
    path.write_text(yaml.safe_dump(fleet))
    with pytest.raises(SpecError):
        spec_file.load(str(path), KINDS, {})


def test_every_field_is_described() -> None:
    schema = json.loads(PUBLISHED.read_text())
    models = {"": schema, **{name: model for name, model in schema["$defs"].items() if "properties" in model}}
    bare = [
        f"{name}.{key}"
        for name, model in models.items()
        for key, field in model["properties"].items()
        if "description" not in field and "$ref" not in field
    ]
    assert bare == []
