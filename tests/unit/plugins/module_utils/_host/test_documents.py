# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON documents with more than one author: nobody's keys are lost."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import documents
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@pytest.mark.parametrize(
    ("present", "last", "declared", "merged"),
    [
        ({"theirs": 1}, {}, {"ours": 2}, {"theirs": 1, "ours": 2}),
        ({"ours": 1}, {}, {"ours": 2}, {"ours": 2}),
        ({"ours": 2, "theirs": 1}, {"ours": 2}, {}, {"theirs": 1}),
        ({"ours": 3}, {"ours": 2}, {}, {"ours": 3}),
        (
            {"log-opts": {"max-size": "10m", "labels": "x"}},
            {"log-opts": {"max-size": "10m", "max-file": "3"}},
            {"log-opts": {"max-file": "5"}},
            {"log-opts": {"labels": "x", "max-file": "5"}},
        ),
        ({"log-opts": {"max-size": "10m"}}, {"log-opts": {"max-size": "10m"}}, {}, {}),
        (
            {"runtimes": {"nvidia": {"path": "x"}}},
            {},
            {"runtimes": {"kata": {}}},
            {"runtimes": {"nvidia": {"path": "x"}, "kata": {}}},
        ),
        ({"dns": ["a"]}, {}, {"dns": ["b"]}, {"dns": ["b"]}),
    ],
)
def test_a_three_way_merge(present: Any, last: Any, declared: Any, merged: Any) -> None:
    assert documents.three_way(present, last, declared) == merged


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_a_second_merge_changes_nothing(present: Any, last: Any, declared: Any) -> None:
    once = documents.three_way(present, last, declared)
    assert documents.three_way(once, declared, declared) == once


@given(DOCUMENTS, DOCUMENTS)
def test_keys_that_were_never_ours_stay(present: Any, declared: Any) -> None:
    merged = documents.three_way(present, {}, declared)
    assert {key: merged[key] for key in present if key not in declared} == {
        key: value for key, value in present.items() if key not in declared
    }


def test_the_time_of_a_layer_moves_only_with_its_facts() -> None:
    first = documents.with_layer(
        {"other": 1}, "base", {"versions": {"ufw": "1"}}, "us", "2026-01-01T00:00:00Z"
    )
    assert first["other"] == 1
    assert (
        documents.with_layer(first, "base", {"versions": {"ufw": "1"}}, "us", "2026-02-02T00:00:00Z") == first
    )
    moved = documents.with_layer(first, "base", {"versions": {"ufw": "2"}}, "us", "2026-02-02T00:00:00Z")
    assert moved["layers"]["base"]["when"] == "2026-02-02T00:00:00Z"


def test_one_layer_leaves_the_others_alone() -> None:
    first = documents.with_layer({}, "base", {"a": 1}, "us", "2026-01-01T00:00:00Z")
    both = documents.with_layer(first, "docker", {"b": 1}, "us", "2026-01-02T00:00:00Z")
    assert both["layers"]["base"] == first["layers"]["base"]
