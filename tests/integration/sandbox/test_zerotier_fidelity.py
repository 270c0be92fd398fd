# SPDX-License-Identifier: GPL-3.0-or-later
"""The local ZeroTier Central keeps to the API description of the real one.

Every exchange these tests have through ``central`` is held against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sandbox.testing import Sandbox, serve
from sandbox.zerotier_account import NETWORK
from tests.integration.sandbox.contract import Contract

pytestmark = pytest.mark.integration
NODE = "8046d53400"


class Stopped:
    """A clock at which it is always the same second, until somebody sets it."""

    seconds = 1_800_000_000.0

    def time(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here takes time")


@pytest.fixture(scope="session")
def zerotier_contract(root: Path) -> Contract:
    """The description of ZeroTier Central's API v1."""
    path = root.parent / "shared" / "specs" / "zerotier-central-v1.openapi.json"
    if not path.exists():
        pytest.skip(f"the API description is not here: {path}")
    return Contract(json.loads(path.read_text()), "/zerotier/api/v1")


@pytest.fixture
def central(sandbox: Sandbox, zerotier_contract: Contract) -> Iterator[requests.Session]:
    """A session with the token; at the end every exchange must have kept to the description."""
    problems: list[str] = []

    def check(response: requests.Response, **_: object) -> None:
        problems.extend(zerotier_contract.problems(response.request, response))

    with requests.Session() as session:
        session.headers["Authorization"] = f"token {sandbox.zerotier_token}"
        session.hooks["response"].append(check)
        yield session
    assert problems == []


@pytest.fixture
def network(sandbox: Sandbox) -> str:
    return f"{sandbox.zerotier}/network/{NETWORK}"


def appears(sandbox: Sandbox, node: str = NODE, **what: str) -> None:
    """Let a node ask its controller for the network's configuration."""
    path = f"{sandbox.url}/zerotier/simulation/network/{NETWORK}/node/{node}"
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    assert requests.post(path, json=what, headers=headers, timeout=30).status_code == 200


def test_the_status_names_the_user_to_who_has_a_token(sandbox: Sandbox, central: requests.Session) -> None:
    assert central.get(f"{sandbox.zerotier}/status").json()["user"]["email"] == "sandbox@example.com"
    assert "user" not in requests.get(f"{sandbox.zerotier}/status", timeout=30).json()


@pytest.mark.parametrize("header", ["", "token wrong", "token", "token é"])
def test_without_the_token_there_is_nothing(sandbox: Sandbox, network: str, header: str) -> None:
    headers = {"Authorization": header.encode()} if header else {}
    assert requests.get(f"{sandbox.zerotier}/network", headers=headers, timeout=30).status_code == 403
    for path in ("", "/member", f"/member/{NODE}"):
        answer = requests.get(network + path, headers=headers, timeout=30)
        assert (answer.status_code, answer.content) == (401, b"")


def test_a_network_is_made_changed_and_removed(sandbox: Sandbox, central: requests.Session) -> None:
    made = central.post(f"{sandbox.zerotier}/network", json={}).json()
    path = f"{sandbox.zerotier}/network/{made['id']}"
    assert len(made["id"]) == 16
    assert made["config"]["private"] is True
    change = {
        "description": "ours",
        "config": {"name": "minerals", "v6AssignMode": {"rfc4193": True}, "mtu": 1400},
    }
    central.post(path, json=change)
    found = central.get(path).json()
    assert (found["description"], found["config"]["name"], found["config"]["mtu"]) == (
        "ours",
        "minerals",
        1400,
    )
    assert found["config"]["v6AssignMode"] == {"rfc4193": True}
    assert found["config"]["private"] is True
    second = central.post(f"{sandbox.zerotier}/network", json={}).json()
    assert [entry["id"] for entry in central.get(f"{sandbox.zerotier}/network").json()] == [
        NETWORK,
        made["id"],
        second["id"],
    ]
    assert central.delete(path).status_code == 200
    assert central.get(path).status_code == 404


def test_a_member_can_be_authorised_before_its_node_appears(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    assert central.get(f"{network}/member/{NODE}").status_code == 404
    made = central.post(
        f"{network}/member/{NODE}", json={"name": "stibnite", "config": {"authorized": True}}
    ).json()
    assert (made["nodeId"], made["id"]) == (NODE, f"{NETWORK}-{NODE}")
    assert (made["name"], made["config"]["authorized"], made["lastSeen"]) == ("stibnite", True, 0)
    assert made["config"]["lastAuthorizedTime"] > 0
    assert made["config"]["ipAssignments"] == []
    appears(sandbox, version="1.14.1", physicalAddress="203.0.113.9")
    seen = central.get(f"{network}/member/{NODE}").json()
    assert seen["lastSeen"] <= seen["clock"]
    assert (seen["clientVersion"], seen["config"]["vMinor"], seen["physicalAddress"]) == (
        "1.14.1",
        14,
        "203.0.113.9",
    )
    assert seen["config"]["ipAssignments"] == ["10.147.17.169"], "the start and the node id modulo 253"
    counts = central.get(network).json()
    assert (counts["totalMemberCount"], counts["authorizedMemberCount"], counts["onlineMemberCount"]) == (
        1,
        1,
        1,
    )
    assert central.get(f"{sandbox.zerotier}/network").json()[0]["onlineMemberCount"] == 0


def test_with_the_quirk_a_name_sticks_only_the_second_time(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    sandbox.switch(zerotier_forgets=True)
    try:
        wish = {"name": "stibnite", "config": {"authorized": True, "ipAssignments": ["10.147.17.9"]}}
        first = central.post(f"{network}/member/{NODE}", json=wish).json()
        assert (first["name"], first["config"]["authorized"]) == ("", True)
        assert first["config"]["ipAssignments"] == []
        second = central.post(f"{network}/member/{NODE}", json=wish).json()
        assert (second["name"], second["config"]["ipAssignments"]) == ("stibnite", ["10.147.17.9"])
    finally:
        sandbox.switch(zerotier_forgets=False)


def test_a_node_that_nobody_declared_waits_outside(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    appears(sandbox, "deadbeef01")
    member = central.get(f"{network}/member").json()[0]
    assert (member["nodeId"], member["config"]["authorized"]) == ("deadbeef01", False)
    assert member["config"]["ipAssignments"] == []
    assert central.delete(f"{network}/member/deadbeef01").status_code == 200
    assert central.get(f"{network}/member").json() == []
    appears(sandbox, "deadbeef01")
    assert len(central.get(f"{network}/member").json()) == 1


def test_what_only_the_controller_sets_cannot_be_written(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    given = {"nodeId": "ffffffffff", "lastSeen": 5, "config": {"revision": 99, "identity": "x"}}
    made = central.post(f"{network}/member/{NODE}", json=given).json()
    assert (made["nodeId"], made["lastSeen"]) == (NODE, 0)
    assert (made["config"]["revision"], made["config"]["identity"]) == (2, "")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"config": 5}',
        b'{"config": {"authorized": "yes"}}',
        b'{"name": 5}',
        b'{"config": {"ipAssignments": [5]}}',
    ],
)
def test_a_body_that_makes_no_sense_is_refused(sandbox: Sandbox, network: str, body: bytes) -> None:
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    answer = requests.post(f"{network}/member/{NODE}", data=body, headers=headers, timeout=30)
    assert answer.status_code == 400
    assert requests.get(f"{network}/member", headers=headers, timeout=30).json() == []


@pytest.mark.parametrize(
    "config",
    [{"mtu": True}, {"mtu": "1400"}, {"private": "yes"}, {"routes": ["10.0.0.0/8"]}, {"v4AssignMode": []}],
)
def test_a_network_that_makes_no_sense_is_refused(
    sandbox: Sandbox, network: str, config: dict[str, object]
) -> None:
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    before = requests.get(network, headers=headers, timeout=30).json()["config"]
    for path in (network, f"{sandbox.zerotier}/network"):
        answer = requests.post(path, json={"config": {"name": "x", **config}}, headers=headers, timeout=30)
        assert (answer.status_code, answer.content) == (400, b"")
    (only,) = requests.get(f"{sandbox.zerotier}/network", headers=headers, timeout=30).json()
    assert only["config"] == before


def test_addresses_are_given_once_each(sandbox: Sandbox, central: requests.Session, network: str) -> None:
    pool = {
        "ipAssignmentPools": [{"ipRangeStart": "10.1.0.1", "ipRangeEnd": "10.1.0.3"}],
        "routes": [{"target": "10.1.0.0/24"}],
    }
    central.post(network, json={"config": pool})
    for number in range(3):
        central.post(f"{network}/member/000000000{number}", json={"config": {"authorized": True}})
        appears(sandbox, f"000000000{number}")
    given = [member["config"]["ipAssignments"] for member in central.get(f"{network}/member").json()]
    assert given == [["10.1.0.1"], ["10.1.0.2"], []], "the last one of a pool is never used"
    central.delete(f"{network}/member/0000000000")
    appears(sandbox, "0000000002")
    assert central.get(f"{network}/member/0000000002").json()["config"]["ipAssignments"] == ["10.1.0.1"]


def test_a_node_that_waits_gets_its_address_when_it_is_let_in(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    appears(sandbox)
    let_in = central.post(f"{network}/member/{NODE}", json={"config": {"authorized": True}}).json()
    assert let_in["config"]["ipAssignments"] == ["10.147.17.169"]


def test_who_was_let_in_keeps_its_address_when_it_is_put_out(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    central.post(f"{network}/member/{NODE}", json={"name": "stibnite", "config": {"authorized": True}})
    appears(sandbox)
    out = central.post(f"{network}/member/{NODE}", json={"config": {"authorized": False}}).json()
    assert (out["name"], out["config"]["ipAssignments"]) == ("stibnite", ["10.147.17.169"])
    assert out["config"]["lastDeauthorizedTime"] >= out["config"]["lastAuthorizedTime"] > 0
    again = central.post(f"{network}/member/{NODE}", json={"config": {"authorized": True}}).json()
    assert again["config"]["ipAssignments"] == ["10.147.17.169"]


def test_every_field_that_may_be_written_is_kept(
    sandbox: Sandbox, central: requests.Session, network: str
) -> None:
    config = {
        "activeBridge": True,
        "noAutoAssignIps": True,
        "ipAssignments": ["10.147.17.9", "fd00::9"],
        "tags": [[1, 2]],
        "authorized": True,
    }
    wish = {"name": "stibnite", "description": "a laptop", "hidden": True, "config": config}
    central.post(f"{network}/member/{NODE}", json=wish)
    found = central.get(f"{network}/member/{NODE}").json()
    assert {key: found[key] for key in ("name", "description", "hidden")} == {
        "name": "stibnite",
        "description": "a laptop",
        "hidden": True,
    }
    assert {key: found["config"][key] for key in config} == config
    changes = {
        "name": "minerals",
        "private": False,
        "routes": [{"target": "10.1.0.0/16", "via": None}, {"target": "0.0.0.0/0", "via": "10.1.0.1"}],
        "ipAssignmentPools": [{"ipRangeStart": "10.1.0.10", "ipRangeEnd": "10.1.0.99"}],
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"6plane": True, "rfc4193": True, "zt": False},
        "dns": {"domain": "zt", "servers": ["10.1.0.1"]},
        "mtu": 1400,
        "multicastLimit": 64,
        "enableBroadcast": False,
        "rules": [{"type": "ACTION_ACCEPT"}],
    }
    central.post(network, json={"config": changes})
    kept = central.get(network).json()["config"]
    assert {key: kept[key] for key in changes} == changes


def test_a_null_and_an_unknown_field_change_nothing(central: requests.Session, network: str) -> None:
    before = central.get(network).json()["config"]
    central.post(network, json={"config": {"mtu": None, "sandwich": True, "name": before["name"]}})
    after = central.get(network).json()["config"]
    assert {key: after[key] for key in before if key != "lastModified"} == {
        key: value for key, value in before.items() if key != "lastModified"
    }


def test_a_second_has_room_for_a_hundred_requests() -> None:
    clock = Stopped()
    with serve(clock=clock) as stopped, requests.Session() as session:
        session.headers["Authorization"] = f"token {stopped.zerotier_token}"
        answers = [session.get(f"{stopped.zerotier}/network", timeout=30) for _ in range(101)]
        clock.seconds += 1
        assert session.get(f"{stopped.zerotier}/network", timeout=30).status_code == 200
    assert {answer.status_code for answer in answers[:100]} == {200}
    assert answers[100].status_code == 429
    assert "Retry-After" not in answers[100].headers, "the description promises none"


def test_an_injected_rate_limit_says_when_to_come_back(sandbox: Sandbox, network: str) -> None:
    sandbox.fault(kind="rate_limit", service="zerotier", retry_after=2)
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    answer = requests.get(network, headers=headers, timeout=30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert requests.get(network, headers=headers, timeout=30).status_code == 200
