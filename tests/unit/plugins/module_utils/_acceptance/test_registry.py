# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check is registered once, says what it is, and is made in the order of its group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import checks, registry
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import FULL, SUITES, Group

GROUPS = list(Group)


def test_every_file_is_registered_once():
    files = {path.stem for path in Path(checks.__file__).parent.glob("*.py")} - {"__init__"}

    assert sorted(registry.NAMES) == sorted(files)


def test_groups_follow_one_another():
    order = [GROUPS.index(check.group) for check in registry.CHECKS]

    assert order == sorted(order)


@pytest.mark.parametrize("check", registry.CHECKS, ids=lambda check: check.name)
def test_a_check_says_what_it_is(check):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", check.name)
    assert check.suites
    assert set(check.suites) <= set(SUITES)
    assert check.seconds > 0
    for text in (check.title, check.about, check.expects, check.fails):
        assert text.strip() == text != ""
    assert not check.title.endswith(".")


def test_the_suite_full_has_every_check():
    assert registry.of_suite(FULL) == registry.CHECKS


def test_there_is_no_other_suite():
    with pytest.raises(ValueError, match="there is no suite slow; there are quick, full, demo"):
        registry.of_suite("slow")
