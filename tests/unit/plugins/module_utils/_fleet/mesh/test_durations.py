# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans of time: what is written can be read."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import durations
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 604800), ("1d12h", 129600), ("90m", 5400), ("2m05s", 125), ("30s", 30), ("45", 45), (" 1 D ", 86400), ("0s", 0)],
)  # fmt: skip
def test_what_people_write(text: str, seconds: int) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "d", "7x", "-5s", "1.5h", "5s7d", "1h1h", "9999999999d", "７d", "7d\n;"]
)
def test_what_is_no_span_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 7d"):
        durations.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (0.4, "0s"), (59.6, "1m"), (61, "1m01s"), (3600, "1h"), (3661, "1h01m"), (86400 + 61, "1d"), (604800, "7d")],
)  # fmt: skip
def test_what_is_said(seconds: float, text: str) -> None:
    assert durations.words(seconds) == text


@given(st.integers(0, 10**8))
def test_what_is_said_can_be_read_and_is_cut_after_two_units(seconds: int) -> None:
    read = durations.seconds(durations.words(seconds))
    assert read <= seconds
    assert seconds - read < (3600 if seconds >= 86400 else 60 if seconds >= 3600 else 1)
