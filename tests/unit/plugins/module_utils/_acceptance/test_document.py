# SPDX-License-Identifier: GPL-3.0-or-later
"""A run comes back from its document as it went in, and every document is as the published schema says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.document import (
    DocumentError,
    from_document,
    moment,
    plain,
    seconds_of,
    to_document,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Label,
    Verdict,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance_runs import BEGIN, entry, problems, run, runs

BURN_IN = {
    "hours": 24,
    "begin": moment(BEGIN),
    "end": None,
    "done_s": 3600.0,
    "interval_s": 5,
    "gaps": [{"begin": moment(BEGIN), "end": moment(BEGIN + 60), "why": "the machine was booted"}],
    "stopped": "",
}


@given(runs())
def test_every_document_is_as_the_schema_says(one):
    document = to_document(one)

    assert problems(document) == []
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@given(runs())
def test_a_run_comes_back_as_it_went_in(one):
    document = to_document(one)

    assert to_document(from_document(json.loads(json.dumps(document)))) == document


def test_a_burn_in_has_more_to_tell():
    document = to_document(run(entry(), suite="burn-in", burn_in=BURN_IN))

    assert problems(document) == []
    assert from_document(document).burn_in == BURN_IN
    assert problems({**document, "burn_in": None})


@pytest.mark.parametrize(
    "change",
    [
        {"label": "CPU"},
        {"verdict": {"checks": "PASS", "hardware": None, "says": "good"}},
        {"state": "running"},
        {"device": "cpu"},
        {"surprise": 1},
        {"begin": "yesterday"},
        {"schema": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_schema_refuses(change):
    document = to_document(run(entry()))

    assert problems(document) == []
    assert problems({**document, **change})


@pytest.mark.parametrize("change", [{"applies": False}, {"waived": "on loan"}])
def test_the_schema_refuses_a_green_check_that_was_not_made(change):
    document = to_document(run(entry()))
    document["checks"][0].update(change)

    assert problems(document)


def test_verdict_and_coverage_are_worked_out():
    document = to_document(run(entry("a"), entry("b", Verdict.FAIL), label=Label.SIMULATED))

    assert document["verdict"]["checks"] == "FAIL"
    assert document["verdict"]["hardware"] is None
    assert document["coverage"]["says"] == "2 of 2 checks ran"


def test_a_moment_is_utc_to_the_millisecond():
    assert moment(BEGIN + 0.25) == "2025-11-27T10:40:00.250Z"
    assert seconds_of("2025-11-27T10:40:00.250Z") == BEGIN + 0.25


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_plain_is_what_json_can_write(value):
    json.dumps(plain(value), allow_nan=False)


def test_what_is_no_number_is_no_reading():
    figures = (Figure("rate", math.nan), Figure("rate", math.inf), Figure("rate", 2.5))
    document = to_document(run(entry(figures=figures, data={"curve": (1, math.nan), 3: {"x"}})))

    assert [one["value"] for one in document["checks"][0]["figures"]] == [None, None, 2.5]
    assert document["checks"][0]["data"] == {"curve": [1, None], "3": ["x"]}


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ([], "it is not the document of a run of gpu-acceptance"),
        ({"id": "x"}, "it is not the document of a run of gpu-acceptance"),
        ({"schema": 7}, "it has schema 7, and this gpu-acceptance reads 1"),
        ({"schema": 1}, "the key id is missing"),
    ],
)
def test_what_is_no_document_is_refused(given_, says):
    with pytest.raises(DocumentError, match=says):
        from_document(given_)


@pytest.mark.parametrize("key", ["verdict", "label", "figures", "data", "begin"])
def test_a_broken_check_is_refused_in_one_sentence(key):
    document = to_document(run(entry()))
    document["checks"][0][key] = "nonsense"

    with pytest.raises(DocumentError, match="it cannot be read"):
        from_document(document)


def test_a_run_that_goes_on_has_no_end():
    document = to_document(replace(run(), state=State.RUNNING, end=None))

    assert problems(document) == []
    assert from_document(document).end is None
