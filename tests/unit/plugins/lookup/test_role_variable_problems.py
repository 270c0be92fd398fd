# SPDX-License-Identifier: GPL-3.0-or-later
"""A misspelt role variable is found wherever it is set, and a right one is left in peace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.lookup import role_variable_problems as lookup

ROLES: dict[str, dict[str, Any]] = {
    "base": {"base_firewall_rules": {"type": "list"}, "base_timezone": {"type": "str"}},
    "mesh": {"mesh_network": {"type": "str"}},
    "mesh_ssh": {"mesh_ssh_domain": {"type": "str"}},
}


@pytest.mark.parametrize(
    ("variable", "role"),
    [
        ("base_timezone", "base"),
        ("mesh_network", "mesh"),
        ("mesh_ssh_domain", "mesh_ssh"),
        ("baseline", None),
        ("__base_state", None),
        ("ansible_host", None),
    ],
)
def test_a_variable_belongs_to_the_role_with_the_longest_prefix(variable: str, role: str | None) -> None:
    assert lookup.owner(variable, ROLES) == role


def test_a_misspelt_variable_is_found_with_the_one_that_was_meant() -> None:
    assert lookup.misspelt(["base_firewal_rules", "base_timezone", "other"], ROLES) == [
        "base_firewal_rules: the role base has no such variable; did you mean base_firewall_rules?"
    ]


def test_a_variable_like_nothing_we_have_is_pointed_to_the_documentation() -> None:
    (problem,) = lookup.misspelt(["base_q"], ROLES)
    assert "ansible-doc --type role gpumesh.fleet.base" in problem
    assert "fleet_foreign_variables" in problem


def test_a_foreign_variable_is_left_in_peace() -> None:
    assert lookup.misspelt(["base_url", "base_url_path"], ROLES, foreign=["base_url*"]) == []


def test_a_value_of_the_wrong_type_or_choice_is_found() -> None:
    options = {
        "role_mode": {"type": "str", "choices": ["a", "b"], "description": "x"},
        "role_count": {"type": "int"},
    }
    found = lookup.impossible({"role_mode": "c", "role_count": "many"}, options)
    assert [problem.partition(":")[0] for problem in found] == ["role_count", "role_mode"]
    assert lookup.impossible({"role_mode": "a", "role_count": 3}, options) == []


def test_a_misspelt_key_inside_a_list_is_found() -> None:
    options = {
        "role_users": {
            "type": "list",
            "elements": "dict",
            "options": {"name": {"type": "str", "required": True, "description": "Its name."}},
        }
    }
    (problem,) = lookup.impossible({"role_users": [{"name": "ada", "sshkeys": []}]}, options)
    assert problem.startswith("role_users: ")
    assert "sshkeys" in problem


def test_the_specifications_of_the_collection_are_read() -> None:
    found = lookup.specifications(lookup.ROLES)
    assert "base_firewall_rules" in found["base"]
    assert "docker_source" in found["docker"]


def query(tmp_path: Path, root: Path, variables: dict[str, Any]) -> list[str]:
    """What the lookup says in a real play, where the variables come from group_vars."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(json.dumps(variables), encoding="utf-8")
    (tmp_path / "hosts").write_text("here ansible_connection=local\n", encoding="utf-8")
    result = tmp_path / "result.json"
    (tmp_path / "play.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "ansible.builtin.copy": {
                                "content": "{{ query('gpumesh.fleet.role_variable_problems') | to_json }}",
                                "dest": str(result),
                            },
                            "vars": {"ansible_python_interpreter": sys.executable},
                        }
                    ],
                }
            ]
        ),
        encoding="utf-8",
    )
    subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts", "play.yml"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(root / ".ansible" / "collections")},
    )
    problems: list[str] = json.loads(result.read_text(encoding="utf-8"))
    return problems


def test_a_play_sees_what_the_inventory_misspells(tmp_path: Path, root: Path) -> None:
    problems = query(
        tmp_path,
        root,
        {
            "base_firewal_rules": [],
            "docker_source": "vendr",
            "base_timezone": "{{ ansible_facts['date_time']['tz'] }}",
            "base_packages": ["{{ 'ht' ~ 'op' }}"],
            "base_mine": 1,
            "fleet_foreign_variables": ["base_mine"],
        },
    )
    assert [problem.partition(":")[0] for problem in problems] == ["base_firewal_rules", "docker_source"]


def test_a_play_with_right_variables_has_no_problem(tmp_path: Path, root: Path) -> None:
    assert (
        query(tmp_path, root, {"base_users": [{"name": "ada", "ssh_keys": []}], "docker_live_restore": False})
        == []
    )
