# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of acceptance runs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpumesh.fleet.plugins.filter.acceptance_table import acceptance_table


def result(**more: Any) -> dict[str, Any]:
    return {
        "verdict": "PASS",
        "label": "",
        "coverage": "31 of 31 checks ran",
        "says": "all 31 checks that ran passed",
        "bad": [],
        "report": "/x/report.html",
        **more,
    }


def bad(name: str, verdict: str = "FAIL") -> dict[str, str]:
    return {"name": name, "verdict": verdict, "says": f"{name} is low", "advice": "look at it"}


def test_a_line_for_each_machine_in_the_given_order() -> None:
    lines = acceptance_table({"a": {"__validation_result": result()}, "b": {}}, ["b", "a"])
    assert [line.split()[0] for line in lines] == ["machine", "b", "a"]
    assert "none" in lines[1]
    assert lines[2].split()[1] == "PASS"
    assert lines[2].endswith("/x/report.html")


def test_a_run_that_is_none_on_hardware_is_labelled() -> None:
    lines = acceptance_table({"a": {"__validation_result": result(label="SIMULATED")}}, ["a"])
    assert "PASS SIMULATED" in lines[1]


def test_what_failed_says_what_to_do() -> None:
    found = result(verdict="FAIL", bad=[bad("matmul"), bad("p2p", "SKIP")])
    lines = acceptance_table({"a": {"__validation_result": found}}, ["a"])
    assert "matmul, p2p" in lines[1]
    assert "  matmul FAIL: matmul is low. Look at it." in lines
    assert "  p2p was not made: p2p is low. Look at it." in lines


def test_many_names_are_counted() -> None:
    found = result(bad=[bad(name) for name in "abcdefg"])
    assert "a, b, c, d and 3 more" in acceptance_table({"x": {"__validation_result": found}}, ["x"])[1]


@pytest.mark.parametrize(("variables", "hosts"), [([], ["a"]), ({"a": {}}, "a"), ({"a": {}}, ["b"])])
def test_what_it_is_not_made_for_is_refused(variables: Any, hosts: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="acceptance_table"):
        acceptance_table(variables, hosts)
