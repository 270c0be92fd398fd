# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of label selectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.hetzner.errors import ApiError
from sandbox.hetzner.labels import check_labels, matches, parse_selector

KEYS = st.sampled_from(["a", "env", "gpumesh-fleet", "in", "notin", "example.com/role", "x_1.y"])
VALUES = st.sampled_from(["", "a", "in", "prod", "planted.A-_9.k", "1"])
LABELS = st.dictionaries(KEYS, VALUES)
SPACES = st.sampled_from(["", " ", "  "])


@st.composite
def terms(draw: st.DrawFn) -> tuple[str, str, str, tuple[str, ...]]:
    """A requirement as text, and what it means: operator, key, values."""
    key, gap = draw(KEYS), draw(SPACES)
    operator = draw(st.sampled_from(["==", "=", "!=", "in", "notin", "", "!"]))
    if operator in ("", "!"):
        return f"{operator}{gap if operator else ''}{key}", operator, key, ()
    if operator in ("in", "notin"):
        values = draw(st.lists(VALUES, min_size=1, max_size=3))
        return (
            f"{key} {operator}{gap}({gap}{(gap + ',' + gap).join(values)}{gap})",
            operator,
            key,
            tuple(values),
        )
    value = draw(VALUES)
    return f"{key}{gap}{operator}{gap}{value}", operator, key, (value,)


def holds(operator: str, key: str, values: tuple[str, ...], labels: dict[str, str]) -> bool:
    if operator == "":
        return key in labels
    if operator == "!":
        return key not in labels
    hit = key in labels and labels[key] in values
    return hit if operator in ("==", "=", "in") else not hit


@given(st.lists(terms(), min_size=1, max_size=4), SPACES, LABELS)
def test_a_selector_chooses_what_all_its_requirements_choose(
    requirements: list[tuple[str, str, str, tuple[str, ...]]], gap: str, labels: dict[str, str]
) -> None:
    text = f"{gap},{gap}".join(requirement[0] for requirement in requirements)
    expected = all(holds(operator, key, values, labels) for _, operator, key, values in requirements)
    assert matches(parse_selector(text), labels) is expected


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_selector_chooses_everything(text: str) -> None:
    assert matches(parse_selector(text), {})


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        ",a",
        "a==b==c",
        "a in b",
        "a in (b",
        "a b",
        "-a",
        "a-",
        "!a==b",
        "a===b",
        "a in (b c)",
        "ä",
        "a==-b",
    ],
)
def test_a_malformed_selector_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_selector(text)
    assert caught.value.code == "invalid_input"


@pytest.mark.parametrize(
    "labels",
    [
        {"": "x"},
        {"-a": "x"},
        {"a" * 64: "x"},
        {"a": "x" * 64},
        {"a": "x-"},
        {"a": 1},
        {"hetzner.cloud/a": "b"},
        {"a": "b c"},
    ],
)
def test_a_label_that_may_not_be_is_refused(labels: object) -> None:
    with pytest.raises(ApiError):
        check_labels(labels)


def test_labels_that_may_be_pass() -> None:
    labels = {"a" * 63: "b" * 63, "example.com/role": "", "A_1.b-c": "planted.A-_9.k"}
    assert check_labels(labels) == labels
