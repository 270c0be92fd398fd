# SPDX-License-Identifier: GPL-3.0-or-later
"""The module zerotier_member, against a controller on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.doc_fragments.zerotier import ModuleDocFragment
from ansible_collections.gpumesh.fleet.plugins.modules import zerotier_member
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Server
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module
from ansible_collections.gpumesh.fleet.tests.own_controller import NETWORK, TOKEN, OwnController

NODE = "8046d53400"
PATH = f"/member/{NODE}"
FULL: dict[str, Any] = {
    "name": "stibnite",
    "authorized": True,
    "addresses": ["10.147.17.33"],
    "tags": {"1000": 1, "2": 7},
    "active_bridge": True,
    "no_auto_assign": False,
}


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotier_member, "SystemClock", FakeClock)


@pytest.fixture
def daemon() -> Iterator[OwnController]:
    with OwnController().running() as daemon:
        daemon.make(
            "",
            {
                "routes": [{"target": "10.147.17.0/24"}, {"target": "fd42:147:17::/64"}],
                "ipAssignmentPools": [
                    {"ipRangeStart": "10.147.17.100", "ipRangeEnd": "10.147.17.199"},
                    {"ipRangeStart": "fd42:147:17::", "ipRangeEnd": "fd42:147:17:0:ffff:ffff:ffff:ffff"},
                ],
                "v4AssignMode": {"zt": True},
                "v6AssignMode": {"zt": True},
            },
        )
        yield daemon


def run(daemon: OwnController, **given: Any) -> dict[str, Any]:
    arguments = {"network": NETWORK, "node_id": NODE, "token": TOKEN, "endpoint": daemon.server.url, **given}
    result = run_module(
        zerotier_member.main, **{name: value for name, value in arguments.items() if value is not None}
    )
    assert "Traceback" not in str(result)
    assert TOKEN not in str(result)
    return result


def test_the_documentation_is_yaml_and_has_every_option() -> None:
    documentation = yaml.safe_load(zerotier_member.DOCUMENTATION)
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)
    assert documentation["module"] == "zerotier_member"
    assert {*documentation["options"], *shared["options"]} >= {*FULL, "state", "plane", "network", "node_id"}
    assert yaml.safe_load(zerotier_member.EXAMPLES) and yaml.safe_load(zerotier_member.RETURN)


def test_a_member_is_made_before_its_node_exists_and_then_there_is_nothing_to_do(
    daemon: OwnController,
) -> None:
    predicted = run(daemon, **FULL, check=True)
    assert predicted["changed"] and predicted["member"] is None
    assert not daemon.writes and daemon.get(PATH) is None, "check mode writes nothing"
    made = run(daemon, **FULL)
    assert made["changed"] and made["diff"] == predicted["diff"]
    assert made["diff"]["before"] == {"state": "absent"}
    assert made["member"]["tags"] == [[2, 7], [1000, 1]]
    assert len(daemon.writes) == 1, "one request with all fields"
    daemon.join(NODE)
    assert "fd42:147:17::80:46d5:3400" in daemon.get(PATH)["ipAssignments"], "the controller added one"
    for _ in range(2):
        again = run(daemon, **FULL)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert len(daemon.writes) == 1
    assert again["member"]["addresses"][0] == "10.147.17.33"
    assert again["member"]["identity"].startswith(f"{NODE}:0:")


def test_one_field_leaves_all_others_alone(daemon: OwnController) -> None:
    run(daemon, **FULL)
    daemon.join(NODE)
    before = daemon.get(PATH)
    result = run(daemon, name="galena")
    assert result["changed"] and daemon.writes[-1][1] == {"name": "galena"}
    after = daemon.get(PATH)
    assert {name for name in before if before[name] != after[name]} == {"name", "revision"}
    assert result["diff"]["before"] | {"name": "galena"} == result["diff"]["after"]


def test_an_address_takes_the_place_of_its_family_only(daemon: OwnController) -> None:
    run(daemon, **FULL)
    daemon.join(NODE)
    result = run(daemon, addresses=["10.147.17.50"])
    assert result["changed"]
    assert daemon.get(PATH)["ipAssignments"] == ["10.147.17.50", "fd42:147:17::80:46d5:3400"]
    assert not run(daemon, addresses=["10.147.17.50"])["changed"]
    assert not run(daemon, addresses=[])["changed"], "none of one's own is what it has"
    assert run(daemon, addresses=[], no_auto_assign=True)["changed"]
    assert daemon.get(PATH)["ipAssignments"] == []


@pytest.mark.parametrize(
    ("empty", "after"), [({"tags": {}}, []), ({"name": ""}, ""), ({"active_bridge": False}, False)]
)
def test_empty_is_not_the_same_as_not_given(daemon: OwnController, empty: dict[str, Any], after: Any) -> None:
    run(daemon, **FULL)
    (name,) = empty
    assert run(daemon)["member"][name] != after
    result = run(daemon, **empty)
    assert result["changed"] and result["member"][name] == after
    assert not run(daemon, **empty)["changed"]


def test_who_is_made_a_member_is_not_authorised_by_that(daemon: OwnController) -> None:
    result = run(daemon, name="stibnite")
    assert result["changed"] and result["member"]["authorized"] is False
    assert daemon.get(PATH)["authorized"] is False
    authorised = run(daemon, authorized=True)
    assert authorised["member"]["authorized"] is True
    assert run(daemon, name="stibnite")["changed"] is False
    assert daemon.get(PATH)["authorized"] is True, "not given is left alone"
    assert run(daemon, authorized=False)["member"]["authorized"] is False


def test_an_id_in_upper_case_is_the_same_member(daemon: OwnController) -> None:
    run(daemon, **FULL)
    assert not run(daemon, **FULL, node_id=NODE.upper())["changed"]
    assert all(call == call.lower().replace("post", "POST") for call, _body in daemon.writes)


def test_a_member_is_deauthorised_then_deleted_and_may_come_back(daemon: OwnController) -> None:
    run(daemon, **FULL)
    predicted = run(daemon, state="absent", check=True)
    assert predicted["changed"] and predicted["member"]["name"] == "stibnite"
    assert daemon.get(PATH) is not None
    result = run(daemon, state="absent")
    assert result["changed"] and result["member"] is None and result["diff"] == predicted["diff"]
    path = f"/controller/network/{NETWORK}{PATH}"
    assert daemon.writes[-2:] == [(f"POST {path}", {"authorized": False}), (f"DELETE {path}", None)]
    assert not run(daemon, state="absent")["changed"]
    daemon.join(NODE)
    assert daemon.get(PATH) is not None, "it is still joined, and asks again"
    back = run(daemon, state="absent")
    assert not back["changed"] and back["member"]["authorized"] is False
    assert len(daemon.writes) == 3


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"node_id": "abc"}, "InvalidRequest", "no node id"),
        ({"node_id": "ff00000001"}, "InvalidRequest", "no node id"),
        ({"addresses": ["10.0.0.1/24"]}, "InvalidRequest", "prefix length"),
        ({"tags": {"x": 1}}, "InvalidRequest", "numbers"),
        ({"network": "8056c2e21c000001"}, "InvalidRequest", "8056c2e21c"),
        ({"network": "db4344343bffffff"}, "NotFound", "network"),
        ({"token": "wrong"}, "AuthError", "allowManagementFrom"),
    ],
)
def test_what_goes_wrong_is_told_and_nothing_is_half_done(
    daemon: OwnController, given: dict[str, Any], kind: str, words: str
) -> None:
    for check in (True, False):
        result = run(daemon, **{"name": "a", "authorized": True, **given}, check=check)
        assert result["failed"] and result["failure"]["kind"] == kind
        assert words in result["msg"] == result["failure"]["text"]
    assert daemon.get(PATH) is None


@pytest.mark.parametrize("given", [{"authorized": "perhaps"}, {"active_bridge": "some"}, {"tags": "a"}])
def test_what_is_of_another_type_is_refused(daemon: OwnController, given: dict[str, Any]) -> None:
    assert run(daemon, **given)["failed"]
    assert not daemon.server.seen


def test_a_token_that_is_revoked_leaves_no_half_member(daemon: OwnController) -> None:
    run(daemon, **FULL)
    daemon.revoked = True
    result = run(daemon, state="absent")
    assert result["failure"]["kind"] == "AuthError"
    assert daemon.get(PATH)["authorized"] is True
    daemon.revoked = False
    assert run(daemon, state="absent")["changed"], "the next run heals"


@pytest.mark.parametrize("plane", ["central_v1", "central_v2"])
def test_central_needs_a_token(plane: str) -> None:
    result = run_module(zerotier_member.main, network=NETWORK, node_id=NODE, plane=plane)
    assert result["failed"] and "token" in result["msg"]


def test_central_v1_is_asked_with_the_same_arguments() -> None:
    record = {
        "nodeId": NODE, "name": "stibnite", "lastSeen": 1, "clock": 2,
        "config": {"authorized": True, "ipAssignments": ["10.147.17.33"], "tags": [[2, 7], [1000, 1]], "activeBridge": True},
    }  # fmt: skip
    with Server(lambda seen: Answer(200, record)).running() as server:
        result = run_module(
            zerotier_member.main, network=NETWORK, node_id=NODE, plane="central_v1", token=TOKEN, endpoint=server.url, **FULL
        )  # fmt: skip
    assert result["changed"] is False and result["member"]["name"] == "stibnite"
    assert server.calls == [f"GET /network/{NETWORK}/member/{NODE}"]


def test_central_v2_cannot_set_tags_and_check_mode_knows() -> None:
    with Server(lambda seen: Answer(404)).running() as server:
        result = run_module(
            zerotier_member.main, network=NETWORK, node_id=NODE, plane="central_v2", token=TOKEN, endpoint=server.url,
            check=True, tags={"1": 2},
        )  # fmt: skip
    assert result["failure"]["kind"] == "InvalidRequest" and "tags" in result["msg"]


def test_without_the_engine_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotier_member, "MISSING", ImportError("no", name="requests"))
    result = run_module(zerotier_member.main, network=NETWORK, node_id=NODE)
    assert result["failed"] and "requests" in result["msg"]
