# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of an answer, and what becomes of a source that gives none."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, snapshot, spec, spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, Member, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Listing
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec_file import Document
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr


class Settings(spec.ProviderSettings):
    token: SecretStr | None = None


KINDS = {
    "cloudy": Kind("cloudy", spec.CloudMachine, Settings),
    "stormy": Kind("stormy", spec.CloudMachine, Settings),
}


def fleet(policy: str = "fail", given: str = "{{ lookup('env', 'TOKEN') }}") -> str:
    return f"""\
plugin: gpumesh.fleet.fleet
fleet: minerals
providers: {{cloudy: {{when_sick: {policy}, token: "{given}"}}, stormy: {{}}}}
mesh: {{network: db4344343b14b903, controller: central_v1, when_sick: {policy}}}
machines: {{}}
"""


def parse(text: str, **environ: str) -> spec.FleetSpec:
    return spec_file.parse([Document("fleet.yml", text)], KINDS, environ)


ORE = Instance(
    "cloudy", "1", "ore", State.RUNNING, "ON", "here", "small", labels={"a": "b"}, host_keys=("k",),
    price=Price(Decimal("0.0100"), "EUR", "a book", Decimal(5)),
)  # fmt: skip
OLD = snapshot.Snapshot(
    {"cloudy": Listing((ORE,), ("there",))},
    (Member("8046d53400", addresses=("10.0.0.1",), tags=((1, 2),)),),
    True,
)
FRESH = snapshot.Snapshot({"stormy": Listing(())}, ())
REFUSED = errors.AuthError("the token is refused", code="unauthorized")
SICK = errors.Unavailable("listing: 503", code="503")


def test_a_snapshot_survives_the_cache() -> None:
    assert snapshot.Snapshot.from_json(json.loads(json.dumps(OLD.to_json()))) == OLD
    assert OLD.sources == {"cloudy", "mesh"}
    assert OLD.only("cloudy") == snapshot.Snapshot(OLD.listings)
    assert OLD.only("mesh") == snapshot.Snapshot({}, OLD.members, True)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"listings": None}, {"members": [{}]}, {"listings": {"x": {}}}]
)
def test_another_form_is_not_read(change: dict[str, Any]) -> None:
    assert snapshot.Snapshot.from_json({**OLD.to_json(), **change}) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_junk_in_the_cache_breaks_it(junk: Any) -> None:
    assert snapshot.Snapshot.from_json(junk) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthError("there is no token"),
        errors.Unreachable("no network"),
        errors.MissingLibrary("no hcloud"),
    ],
)
@pytest.mark.parametrize("policy", ["fail", "stale", "partial"])
def test_a_source_that_was_not_asked_is_no_failure(error: errors.FleetError, policy: str) -> None:
    outcome = snapshot.settle(parse(fleet(policy)), FRESH, {"cloudy": error}, {})
    assert (outcome.failures, len(outcome.notes), outcome.snapshot) == ((), 1, FRESH)


@pytest.mark.parametrize("error", [REFUSED, SICK, errors.Forbidden("no"), errors.RateLimited("slow")])
@pytest.mark.parametrize("source", ["cloudy", "mesh"])
def test_a_sick_source_fails_by_default_or_is_left_out(error: errors.FleetError, source: str) -> None:
    outcome = snapshot.settle(parse(fleet("fail")), FRESH, {source: error}, {source: OLD.only(source)})
    assert (len(outcome.failures), outcome.notes) == (1, ())
    assert outcome.failures[0] == f"{source}: {error}"
    outcome = snapshot.settle(parse(fleet("partial")), FRESH, {source: error}, {source: OLD.only(source)})
    assert (outcome.failures, len(outcome.notes), outcome.snapshot) == ((), 1, FRESH)


@pytest.mark.parametrize("error", [REFUSED, SICK, errors.Unreachable("no network")])
def test_stale_goes_on_with_the_last_answer(error: errors.FleetError) -> None:
    outcome = snapshot.settle(parse(fleet("stale")), FRESH, {"cloudy": error}, {"cloudy": OLD.only("cloudy")})
    assert outcome.failures == ()
    assert outcome.stale == {"cloudy"}
    assert outcome.snapshot.listings == {**FRESH.listings, **OLD.listings}
    assert outcome.snapshot.members == FRESH.members
    silent = snapshot.Snapshot(FRESH.listings)
    outcome = snapshot.settle(parse(fleet("stale")), silent, {"mesh": error}, {"mesh": OLD.only("mesh")})
    assert (outcome.stale, outcome.snapshot.members) == ({"mesh"}, OLD.members)
    assert outcome.snapshot.simulated_mesh, "who told it then is told now"


def test_stale_without_a_memory_fails_and_says_what_to_do() -> None:
    outcome = snapshot.settle(parse(fleet("stale")), FRESH, {"cloudy": SICK}, {})
    assert "set cache to true" in outcome.failures[0]


def test_a_provider_without_a_block_has_the_default_policy() -> None:
    assert snapshot.settle(parse(fleet("partial")), FRESH, {"stormy": SICK}, {}).failures


def key(text: str, **environ: str) -> str:
    return snapshot.key(parse(text, **environ), [Document("fleet.yml", text)], environ)


def test_an_answer_is_kept_for_one_file_and_one_credential() -> None:
    keys = [
        key(fleet()),
        key(fleet(), TOKEN="one"),
        key(fleet(), TOKEN="two"),
        key(fleet(given="one")),
        key(fleet() + "# changed\n"),
        key(fleet(), CLOUDSDK_CORE_PROJECT="x"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(fleet(), TOKEN="one", LANG="C", PWD="/a") == key(fleet(), TOKEN="one", LANG="de", PWD="/b")


def test_the_last_answer_of_a_source_outlives_edits_of_the_machines() -> None:
    one, two = (
        parse(fleet(), TOKEN="one"),
        parse(fleet().replace("machines: {}", "machines: {}\ndefaults: {user: a}"), TOKEN="one"),
    )
    assert snapshot.source_key(one, "cloudy", {}) == snapshot.source_key(two, "cloudy", {})
    other = parse(fleet(), TOKEN="two")
    assert snapshot.source_key(one, "cloudy", {}) != snapshot.source_key(other, "cloudy", {})
    assert snapshot.source_key(one, "mesh", {}) != snapshot.source_key(one, "cloudy", {})
