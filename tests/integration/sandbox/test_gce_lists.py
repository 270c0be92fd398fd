# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters and pages of the local Compute Engine, as pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.gce.errors import ApiError
from sandbox.gce.filters import compile_filter
from sandbox.gce.masks import compile_mask
from sandbox.gce.paging import page

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(
    st.sampled_from(["fleet", "gpumesh-fleet", "role"]), st.sampled_from(["a", "b", "a-b", ""])
)
STATES = st.sampled_from(["RUNNING", "TERMINATED", "STAGING"])
INSTANCES = st.lists(
    st.builds(
        lambda name, zone, labels, status, second: (
            f"zones/{zone}",
            {
                "name": name,
                "labels": labels,
                "status": status,
                "creationTimestamp": f"2026-11-20T10:00:{second:02}.000-08:00",
            },
        ),
        NAMES,
        st.sampled_from(["us-central1-a", "us-central1-b", "europe-west4-a"]),
        LABELS,
        STATES,
        st.integers(0, 3),
    ),
    max_size=40,
    unique_by=lambda entry: (entry[0], entry[1]["name"]),
)
RESOURCE: dict[str, Any] = {
    "name": "web-1",
    "labels": {"fleet": "minerals", "n": "5"},
    "status": "RUNNING",
    "machineType": "https://example.com/compute/v1/projects/p/zones/z/machineTypes/n1-standard-8",
    "scheduling": {"automaticRestart": False},
    "networkInterfaces": [{"networkIP": "10.0.0.2"}, {"networkIP": "10.0.1.2"}],
    "progress": 30,
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("labels.fleet=minerals", True),
        ("labels.fleet = minerals", True),
        ('labels.fleet="minerals"', True),
        ("labels.fleet='minerals'", True),
        ("labels.fleet=mineral", False),
        ("labels.fleet=min*", True),
        ("labels.fleet:*", True),
        ("labels.other:*", False),
        ("labels.other != x", True),
        ("labels.fleet:MINER", True),
        ("labels.fleet=minerals AND status=RUNNING", True),
        ("labels.fleet=minerals AND status!=RUNNING", False),
        ("labels.fleet=minerals status=TERMINATED", False),
        ("(labels.fleet=minerals) (status=RUNNING)", True),
        ("status=TERMINATED OR name=web-1", True),
        ("name=web-1 AND status=TERMINATED OR status=STAGING", False),
        ("status=RUNNING OR status=STAGING AND name=other", False),
        ("NOT status=RUNNING", False),
        ("-status=TERMINATED", True),
        ("NOT (status=TERMINATED OR name=x)", True),
        ("scheduling.automaticRestart = false", True),
        ("networkInterfaces.networkIP = 10.0.1.2", True),
        ("progress > 20", True),
        ("progress >= 31", False),
        ("progress < 100", True),
        ("labels.n <= 10", True),
        ("machineType:n1-standard-8", True),
        ("machineType=n1-standard-8", False),
        ("name eq web-1", True),
        ("name eq web", False),
        ("name eq 'web-.*'", True),
        ('name ne "web-.*"', False),
        ("name ne .*instance", True),
        ("name eq (web-1|web-2)", True),
        ("(name eq web.*) (status ne TERMINATED)", True),
        ("(name eq web.*) (status eq TERMINATED)", False),
        ("labels.fleet eq minerals", True),
    ],
)
def test_a_filter_selects(text: str, passes: bool) -> None:
    assert compile_filter(text)(RESOURCE) is passes


@pytest.mark.parametrize(
    "text",
    ["name", "name=", "=x", "name==x", "(name=x", "name=x)", "name=x AND", "OR name=x", "name=x OR OR name=y",
     "name eq", "name eq a b", "name eq 'a", "(name eq a) x", "name eq (a", "name ~ x", "NOT", '"name"=x', "n$me=x",
     "name=x status"],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid list filter expression") as refused:
        compile_filter(text)
    assert (refused.value.code, refused.value.reason) == (400, "invalid")


@given(st.text(max_size=40))
def test_any_filter_is_understood_or_refused(text: str) -> None:
    try:
        result = compile_filter(text)(RESOURCE)
    except ApiError:
        return
    assert isinstance(result, bool)


@given(LABELS, STATES, st.sampled_from(["a", "b", "a-b"]), STATES)
def test_a_filter_means_what_it_says(
    labels: dict[str, str], status: str, wanted: str, wanted_status: str
) -> None:
    resource = {"labels": labels, "status": status}
    equal, same = labels.get("gpumesh-fleet") == wanted, status == wanted_status
    left, right = f"labels.gpumesh-fleet={wanted}", f"status = {wanted_status}"
    assert compile_filter(f"{left} AND {right}")(resource) is (equal and same)
    assert compile_filter(f"{left} OR {right}")(resource) is (equal or same)
    assert compile_filter(f"NOT {left}")(resource) is not equal
    assert compile_filter(f"(labels.gpumesh-fleet ne {wanted}) (status eq {wanted_status})")(resource) is (
        not equal and same
    )


def walk(entries: list[tuple[str, dict[str, Any]]], **query: str) -> list[tuple[str, str]]:
    """Scope and name of everything, page after page."""
    found: list[tuple[str, str]] = []
    token = ""
    while True:
        one = page(entries, query | {"pageToken": token}, "Instance")
        found += [(scope, item["name"]) for scope, item in one.entries]
        token = one.token
        if not token:
            return found
        assert one.entries


@given(INSTANCES, st.integers(1, 12), st.sampled_from(["", "name", "creationTimestamp desc"]))
def test_every_instance_is_on_exactly_one_page(
    entries: list[tuple[str, dict[str, Any]]], size: int, order: str
) -> None:
    query = {"maxResults": str(size)} | ({"orderBy": order} if order else {})
    found = walk(entries, **query)
    assert sorted(found) == sorted((scope, item["name"]) for scope, item in entries)
    if order == "creationTimestamp desc":
        times = {(scope, item["name"]): item["creationTimestamp"] for scope, item in entries}
        assert [times[one] for one in found] == sorted(times.values(), reverse=True)


@given(INSTANCES, st.integers(1, 5))
def test_pages_of_a_filter_are_the_filtered_list(
    entries: list[tuple[str, dict[str, Any]]], size: int
) -> None:
    found = walk(entries, maxResults=str(size), filter="status = RUNNING")
    assert sorted(found) == sorted((s, item["name"]) for s, item in entries if item["status"] == "RUNNING")


@given(INSTANCES, st.integers(1, 5), st.data())
def test_what_stays_is_listed_once_though_others_come_and_go(
    entries: list[tuple[str, dict[str, Any]]], size: int, data: st.DataObject
) -> None:
    here = list(entries)
    stays = {(scope, item["name"]) for scope, item in entries}
    found: list[tuple[str, str]] = []
    token = ""
    while True:
        one = page(here, {"maxResults": str(size), "pageToken": token}, "Instance")
        found += [(scope, item["name"]) for scope, item in one.entries]
        token = one.token
        if not token:
            break
        leaving = data.draw(st.sampled_from(here))
        here.remove(leaving)
        stays.discard((leaving[0], leaving[1]["name"]))
    assert len(found) == len(set(found))
    assert stays <= set(found)


def test_a_token_is_for_one_query_only() -> None:
    entries = [("", {"name": name, "status": "RUNNING"}) for name in "abc"]
    token = page(entries, {"maxResults": "1"}, "Instance").token
    with pytest.raises(ApiError, match="page token"):
        page(entries, {"maxResults": "1", "pageToken": token, "filter": "name != a"}, "Instance")


SCHEMAS: dict[str, Any] = {
    "List": {"properties": {"items": {"additionalProperties": {"$ref": "Scope"}}, "next": {"type": "string"}}},
    "Scope": {"properties": {"things": {"type": "array", "items": {"$ref": "Thing"}}, "warning": {"$ref": "Thing"}}},
    "Thing": {"properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"$ref": "Thing"}}},
}  # fmt: skip
ANSWER = {
    "next": "t",
    "items": {"x": {"things": [{"a": "1", "b": "2", "c": {"a": "3", "b": "4"}}]}, "y": {"warning": {"a": "5", "b": "6"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        ("next", {"next": "t"}),
        ("*", ANSWER),
        ("items/*/things/a", {"items": {"x": {"things": [{"a": "1"}]}, "y": {}}}),
        ("items/x(things(a,c/b))", {"items": {"x": {"things": [{"a": "1", "c": {"b": "4"}}]}}}),
        (" next , items/*(warning/a)", {"next": "t", "items": {"x": {}, "y": {"warning": {"a": "5"}}}}),
        ("items/y,items/y/warning/a", {"items": {"y": ANSWER["items"]["y"]}}),  # type: ignore[index]
        (
            "items/x/things/c/a,items/x/things/c/b",
            {"items": {"x": {"things": [{"c": {"a": "3", "b": "4"}}]}}},
        ),
    ],
)
def test_a_mask_keeps_what_it_names(mask: str, kept: dict[str, Any]) -> None:
    assert compile_mask(mask, SCHEMAS, "List")(ANSWER) == kept


@pytest.mark.parametrize(
    "mask", ["", "nxt", "items/*/thing", "next/", "items(", "items)", "items/*(things(d))", "a b", "n$"]
)
def test_a_mask_that_is_none_is_refused(mask: str) -> None:
    with pytest.raises(ApiError, match="Invalid field selection"):
        compile_mask(mask, SCHEMAS, "List")
