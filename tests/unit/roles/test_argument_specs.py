# SPDX-License-Identifier: GPL-3.0-or-later
"""Defaults and argument specifications of every role agree, by key and by value.

A specification neither sets a default nor converts a value, so what it says and what holds can drift apart unseen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"
PLAYBOOKS = ROLES.parent / "playbooks"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
# Documentation takes no template for the default of a boolean, so one that a template decides is raw. So is one that takes a
# value for all or a dictionary of values.
PYTHON = {
    "raw": object,
    "str": str,
    "path": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
}


def load(path: Path) -> dict[str, Any]:
    """A YAML file; an empty mapping where there is none."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of the role's main entry point."""
    found: dict[str, dict[str, Any]] = load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"][
        "main"
    ].get("options", {})
    return found


def defaults(role: str) -> dict[str, Any]:
    """The role's defaults."""
    return load(ROLES / role / "defaults" / "main.yml")


def walk(specified: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """All options, those inside others too."""
    found = []
    for name, option in specified.items():
        found.append((name, option))
        found += [(f"{name}.{inner}", value) for inner, value in walk(option.get("options", {}))]
    return found


@pytest.mark.parametrize("role", NAMES)
def test_every_default_is_specified_and_every_optional_variable_has_a_default(role: str) -> None:
    specified = options(role)
    assert set(defaults(role)) == {name for name, option in specified.items() if not option.get("required")}


@pytest.mark.parametrize("role", NAMES)
def test_the_specified_default_is_the_default(role: str) -> None:
    specified = {
        name: option.get("default") for name, option in options(role).items() if not option.get("required")
    }
    assert specified == defaults(role)


@pytest.mark.parametrize("role", NAMES)
def test_a_default_has_the_specified_type_and_choice(role: str) -> None:
    for name, default in defaults(role).items():
        option = options(role)[name]
        if isinstance(default, str) and "{{" in default:
            continue
        assert isinstance(default, PYTHON[option.get("type", "str")]), name
        assert option.get("type") in ("bool", "raw") or not isinstance(default, bool), name
        chosen = default if isinstance(default, list) else [default]
        assert "choices" not in option or set(chosen) <= set(option["choices"]), name


@pytest.mark.parametrize("role", NAMES)
def test_every_option_is_described_and_typed(role: str) -> None:
    for name, option in walk(options(role)):
        assert option.get("description"), name
        assert option.get("type") in PYTHON, name
        assert option["type"] != "list" or option.get("elements"), name


@pytest.mark.parametrize("role", NAMES)
def test_variables_begin_with_the_name_of_the_role(role: str) -> None:
    assert [name for name in defaults(role) if not name.startswith(f"{role}_")] == []
    internals = [key for path in (ROLES / role / "vars").glob("*.yml") for key in load(path)]
    assert [name for name in internals if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", NAMES)
def test_every_default_is_used(role: str) -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("tasks", "handlers", "templates", "vars")
        for path in (ROLES / role / folder).rglob("*")
        if path.is_file()
    )
    # Of a role that is of no use but in playbooks, they may use more than the role does.
    text += "\n".join(path.read_text(encoding="utf-8") for path in PLAYBOOKS.rglob("*.yml"))
    assert [name for name in defaults(role) if name not in text] == []
