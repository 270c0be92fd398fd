# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter fleet_table, as a template uses it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

HOSTVARS = {"agate": {"fleet_provider": "hetzner", "fleet_state": "running", "fleet_hourly_usd": 0.01}}


def fleet_table(*args: Any, **options: Any) -> list[str]:
    lines: list[str] = filter_loader.get("gpumesh.fleet.fleet_table").j2_function(*args, **options)
    return lines


def test_it_makes_lines() -> None:
    assert fleet_table(HOSTVARS, ["agate"])[1] == "agate    hetzner   running  -          0.0100"
    simulated = {"agate": {**HOSTVARS["agate"], "fleet_simulated": True}}
    assert "SIMULATED" in "".join(fleet_table(simulated, ["agate"]))


def test_an_empty_fleet_is_no_fault() -> None:
    assert fleet_table({}, [])[-1].startswith("Together 0.0000 USD")


@pytest.mark.parametrize(
    ("variables", "hosts", "says"),
    [("x", [], "give it hostvars"), ({}, "agate", "in a list"), ({}, ["agate"], "no host is named agate")],
)
def test_misuse_is_told(variables: Any, hosts: Any, says: str) -> None:
    with pytest.raises(AnsibleError, match=says):
        fleet_table(variables, hosts)
