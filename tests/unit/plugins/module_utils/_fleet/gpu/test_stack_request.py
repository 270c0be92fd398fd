# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions as people and roles write them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import (
    WishError,
    read_gpus,
    read_wishes,
)
from hypothesis import given
from hypothesis import strategies as st


def read(given: Any) -> list[tuple[str, int, str]]:
    groups, strangers = read_gpus(given)
    known = [(group.model.name, group.count, group.card.pci_id if group.card else "") for group in groups]
    return known + [(name, 0, "unknown") for name in strangers]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rtx5090x4", [("rtx5090", 4, "")]),
        ("4x rtx5090", [("rtx5090", 4, "")]),
        ("RTX 5090 x 4", [("rtx5090", 4, "")]),
        ("5090", [("rtx5090", 1, "")]),
        ("rtx5090, t4, rtx5090", [("rtx5090", 2, ""), ("t4", 1, "")]),
        (["10de:2b85", "2B85"], [("rtx5090", 2, "2b85")]),
        ("10de:2b85x3", [("rtx5090", 3, "2b85")]),
        ([{"model": "l4", "count": 2}], [("l4", 2, "")]),
        ([{"pci_id": "1eb8"}], [("t4", 1, "1eb8")]),
        ({"model": "l4"}, [("l4", 1, "")]),
        ([{"model": "l4", "count": 0}], []),
        ("rtx5091", [("rtx5091", 0, "unknown")]),
        ("", []),
    ],
)
def test_gpus(given: Any, expected: list[tuple[str, int, str]]) -> None:
    assert read(given) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5090, "give names"),
        ([{"count": 2}], "neither model nor pci_id"),
        ([{"model": "t4", "number": 2}], "number: an entry has"),
        ([{"model": "t4", "count": "many"}], "no count"),
        ([{"model": "t4", "count": True}], "no count"),
        ("t4x100", "no count"),
        ([""], "a name is empty"),
    ],
)
def test_gpus_that_cannot_be_read(given: Any, says: str) -> None:
    with pytest.raises(WishError, match=says):
        read_gpus(given)


def test_what_is_empty_is_no_wish() -> None:
    empty = {
        "branch": "", "driver": "", "flavour": "", "source": None, "eol_allowed": [], "cuda": "", "cudnn": "", "pytorch": "",
        "power_limit_w": 0, "build_allowed": False, "mok": "",
    }  # fmt: skip
    assert read_wishes(empty) == read_wishes({})


def test_wishes_from_a_command_line_are_text() -> None:
    text = read_wishes(
        {"branch": 580, "cudnn": "true", "eol_allowed": "550,535", "power_limit_w": "450", "pytorch": "false"}
    )
    assert (text.branch, text.cudnn, text.eol_allowed, text.power_limit_w) == (
        "580",
        True,
        ("550", "535"),
        450,
    )
    assert text.frameworks["pytorch"] is None and text.frameworks["jax"] == ""
    assert read_wishes({"driver": "580.178.04"}).branch == "580"
    assert read_wishes({"power_limit_w": {"RTX 5090": "450 W", "t4": 0}}).power_limit_w == {"rtx5090": 450}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"drivers": "580"}, "drivers is none"),
        ({"driver": "580"}, "no version"),
        ({"driver": "580.1; reboot"}, "no version"),
        ({"branch": "latest"}, "no version"),
        ({"branch": "595", "driver": "580.178.04"}, "not of branch 595"),
        ({"flavour": "proprietary"}, "none of auto, open, closed"),
        ({"source": "runfile"}, "none of auto, nvidia, distribution"),
        ({"cuda": "thirteen"}, "no version"),
        ({"cudnn": "9"}, "neither true nor false"),
        ({"pytorch": 2.1}, "in quotation marks"),
        ({"pytorch": "newest"}, "no version"),
        ({"eol_allowed": ["all"]}, "no version"),
        ({"power_limit_w": "much"}, "no number of watts"),
        ({"power_limit_w": True}, "no number of watts"),
        ({"power_limit_w": {"rtx1": 1}}, "no GPU is known as rtx1"),
        ("580", "give a mapping"),
    ],
)
def test_wishes_that_cannot_be_read(given: Any, says: str) -> None:
    with pytest.raises(WishError, match=says):
        read_wishes(given)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WISHES = st.dictionaries(
    st.sampled_from(
        [
            "branch",
            "driver",
            "flavour",
            "source",
            "eol_allowed",
            "cuda",
            "cudnn",
            "pytorch",
            "power_limit_w",
            "mok",
        ]
    ),
    JSON,
)


@given(JSON, WISHES)
def test_whatever_is_given_is_read_or_refused_in_words(gpus: Any, wishes: Any) -> None:
    for read_it, what in ((read_gpus, gpus), (read_wishes, wishes)):
        try:
            read_it(what)
        except WishError as exc:
            assert str(exc)
