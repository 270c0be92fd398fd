# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hetzner_server: its documentation, and what it says without a cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_one import Wish, predict
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_server
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, Server, script
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

TOKEN = "planted-token-0123456789abcdef"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1FR0FNRUdBTUVHQU1FR0FNRUdBTUVHQU1FR0FNRUdB"
THERE = {"state": "started", "type": "cx23", "location": "fsn1", "image": "debian-13", "labels": {"a": "1"}}


def test_the_documentation_is_yaml_and_has_its_parts() -> None:
    documentation = yaml.safe_load(hetzner_server.DOCUMENTATION)
    assert documentation["module"] == "hetzner_server"
    assert yaml.safe_load(hetzner_server.EXAMPLES) and yaml.safe_load(hetzner_server.RETURN)


def test_without_a_token_it_says_where_to_put_one() -> None:
    result = run_module(hetzner_server.main, name="a", endpoint="http://127.0.0.1:1/v1")
    assert result["failed"]
    assert result["failure"]["kind"] == "AuthError"
    assert "HCLOUD_TOKEN" in result["msg"]
    assert "Traceback" not in str(result)


@pytest.fixture
def refusing() -> Iterator[Server]:
    error = {"error": {"code": "unauthorized", "message": f"the token {TOKEN} is invalid", "details": None}}
    with Server(lambda _: Answer(401, error, {"X-Correlation-Id": "c0ffee"})).running() as server:
        yield server


def test_a_token_that_is_refused_is_not_shown(refusing: Server) -> None:
    result = run_module(hetzner_server.main, name="a", token=TOKEN, endpoint=refusing.url)
    assert result["failure"]["kind"] == "AuthError"
    assert result["failure"]["request_id"] == "c0ffee"
    assert TOKEN not in str(result)
    assert refusing.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_the_token_and_endpoint_are_found_in_the_environment(
    refusing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HCLOUD_TOKEN", TOKEN)
    monkeypatch.setenv("HCLOUD_ENDPOINT", refusing.url)
    assert run_module(hetzner_server.main, name="a")["failure"]["code"] == "unauthorized"


def test_an_answer_that_is_not_hetzners_is_reported_as_such() -> None:
    with Server(script(Answer(200, "<html>"), *[Answer(200, "<html>")] * 9)).running() as server:
        result = run_module(hetzner_server.main, name="a", token=TOKEN, endpoint=server.url)
    assert result["failed"]
    assert "Traceback" not in str(result)


@pytest.mark.parametrize(
    ("wish", "before", "after"),
    [
        (Wish("a"), THERE, THERE),
        (Wish("a", image="ubuntu-24.04", user_data="x"), THERE, THERE),
        (Wish("a", state="stopped"), THERE, {**THERE, "state": "stopped"}),
        (Wish("a"), {**THERE, "state": "stopped"}, {**THERE, "state": "stopped"}),
        (Wish("a", state="started"), {**THERE, "state": "stopped"}, THERE),
        (Wish("a", state="absent"), THERE, {"state": "absent"}),
        (Wish("a", state="absent"), {"state": "absent"}, {"state": "absent"}),
        (Wish("a", labels={}), THERE, {**THERE, "labels": {}}),
        (
            Wish("a", labels={"b": "2"}),
            {**THERE, "labels": {"a": "1", "gpumesh-fleet": "x"}},
            {**THERE, "labels": {"b": "2", "gpumesh-fleet": "x"}},
        ),
        (
            Wish("a", type="cx23", location="fsn1", image="debian-13", public_keys=(KEY,)),
            {"state": "absent"},
            {**THERE, "labels": {}},
        ),
    ],
)
def test_what_will_be(wish: Wish, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert predict(wish, before) == after


@pytest.mark.parametrize(
    ("wish", "before", "words"),
    [
        (Wish("a"), {"state": "absent"}, "type, location, image must be given"),
        (Wish("a", type="cx23", location="fsn1", image="debian-13"), {"state": "absent"}, "ssh_keys"),
        (Wish("a", type="cx33"), THERE, "its type is cx23"),
        (Wish("a", location="nbg1"), THERE, "its location is fsn1"),
        (Wish("a", labels={"a b": "1"}), THERE, "label key"),
    ],
)
def test_what_cannot_be_had(wish: Wish, before: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=words):
        predict(wish, before)
