# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in was asked to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.plan import (
    Plan,
    PlanError,
    clock,
)

PLAN = Plan("20261127T100500Z-burn-in", 3600, 1764240000.0)


def test_it_is_read_as_it_was_written() -> None:
    plan = replace(PLAN, stop_temperature_c=85.0, device="cpu", profile="/etc/x.json")
    assert Plan.from_json({**plan.as_json(), "of a later version": 1}) == plan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": 0}, "more than 0"),
        ({"seconds": 1e9}, "at most 2160 hours"),
        ({"seconds": float("nan")}, "more than 0"),
        ({"interval_s": 0.5}, "1 to 30 seconds"),
        ({"interval_s": 31}, "1 to 30 seconds"),
        ({"memory": 1.0}, "0.05 to 0.95"),
        ({"stop_margin_c": -1}, "0 to 50"),
        ({"stop_temperature_c": 5}, "20 to 120"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        replace(PLAN, **change).checked()


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(PlanError, match="schema"):
        Plan.from_json({"schema": 2})
    with pytest.raises(PlanError, match="not whole"):
        Plan.from_json({"schema": 1})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (750, "12 min 30 s"), (86400, "24 h 0 min"), (-1, "0 s")],
)
def test_times_are_told_as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text
