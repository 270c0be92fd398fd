# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a machine is."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    MACHINE_LABEL,
    Instance,
    State,
    owned,
)


def named_ore(labels: dict[str, str]) -> Instance:
    return Instance("iron", "1", "ore", State.RUNNING, "RUNNING", "here", "small", labels=labels)


def test_the_machine_that_was_looked_for() -> None:
    ore = named_ore({FLEET_LABEL: "minerals", MACHINE_LABEL: "ore"})
    assert owned(ore, "minerals", "ore") is ore


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({}, "carries no label of a fleet"),
        ({MACHINE_LABEL: "ore"}, "carries no label of a fleet"),
        ({FLEET_LABEL: "others", MACHINE_LABEL: "ore"}, "belongs to the fleet others as ore"),
        ({FLEET_LABEL: "minerals", MACHINE_LABEL: "tin"}, "belongs to the fleet minerals as tin"),
    ],
)
def test_something_else_of_its_name_is_told_and_left_alone(labels: dict[str, str], says: str) -> None:
    with pytest.raises(errors.Conflict, match=f"iron has a machine named ore in here already, which {says}"):
        owned(named_ore(labels), "minerals", "ore")
