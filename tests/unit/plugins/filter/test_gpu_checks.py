# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter tells its user what it was given wrongly; what it judges is tested with the engine."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpumesh.fleet.plugins.filter.gpu_checks import FilterModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import facts

gpu_checks = FilterModule().filters()["gpu_checks"]
NOTHING = facts.facts(facts.Found())


def test_every_check_has_a_name_a_verdict_and_a_sentence() -> None:
    checks = gpu_checks(NOTHING, {"gpus": [{"model": "t4", "count": 1}]})
    assert {frozenset(check) for check in checks} == {frozenset({"name", "ok", "says"})}
    assert {check["name"]: check["ok"] for check in checks}["gpus_present"] is False
    # Nothing that a machine without anything shows is good, but that nouveau is not loaded.
    assert [check["name"] for check in checks if check["ok"]] == ["nouveau"]


def test_nothing_declared_is_nothing_declared() -> None:
    assert gpu_checks(NOTHING) == gpu_checks(NOTHING, {}) == gpu_checks(NOTHING, None)


@pytest.mark.parametrize(
    ("gpu", "expected", "says"),
    [
        ("facts", {}, "the facts `gpu`"),
        ({}, {}, "the facts `gpu`"),
        (NOTHING, [], "is a dict"),
        (NOTHING, {"gpuz": []}, "gpu_checks: no such key: gpuz"),
    ],
)
def test_what_cannot_be_judged_is_told(gpu: Any, expected: Any, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        gpu_checks(gpu, expected)
