# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves out stays in it."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.selection import (
    SelectionError,
    select,
)

from tests.acceptance_runs import check

CHECKS = (
    check("memory", suites=("quick", "full", "demo")),
    check("matmul", suites=("quick", "full")),
    check("p2p", suites=("full",)),
)


def chosen(suite, **more):
    return [(one.check.name, one.left_out) for one in select(CHECKS, suite, **more)]


def test_a_suite():
    assert chosen("quick") == [("memory", ""), ("matmul", "")]
    assert chosen("demo") == [("memory", "")]


def test_what_is_skipped_is_a_gap():
    assert chosen("quick", skip=["memory"]) == [("memory", "left out with --skip"), ("matmul", "")]


def test_what_is_not_asked_for_is_a_gap_too():
    assert chosen("quick", only=["matmul"]) == [("memory", "left out with --only"), ("matmul", "")]


def test_a_check_of_another_suite_can_be_asked_for():
    assert chosen("demo", only=["p2p"]) == [("memory", "left out with --only"), ("p2p", "")]


@pytest.mark.parametrize("names", [{"only": ["matmull"]}, {"skip": ["matmull"]}])
def test_a_name_that_no_check_has(names):
    with pytest.raises(SelectionError, match="there is no check matmull; matmul perhaps"):
        select(CHECKS, "quick", **names)
