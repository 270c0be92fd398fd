# SPDX-License-Identifier: GPL-3.0-or-later
"""The local ZeroTier Central's new API v2.

There is no copy of its published description to hold the answers against: the shapes below are those of a public client
that was generated from it. Nothing here was tried on the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

from sandbox.testing import Sandbox
from sandbox.zerotier_account import GROUP, NETWORK, ORGANISATION

pytestmark = pytest.mark.integration

NODE, OTHER = "8046d53400", "abcdef0123"

TEXT, FLAG, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
TEXTS = {"type": "array", "items": TEXT}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}


def shape(optional: dict[str, Any] | None = None, /, **required: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "required": sorted(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


def items(entry: dict[str, Any]) -> dict[str, Any]:
    return shape(items={"type": "array", "items": entry})


POOLS = {"type": "array", "items": shape(ipRangeStart=TEXT, ipRangeEnd=TEXT)}
ORG = shape(id=TEXT, name=TEXT)
GROUP_SHAPE = shape(id=TEXT, name=TEXT, description=TEXT, orgId=TEXT)
SUMMARY = shape(
    {
        "description": TEXT,
        "stats": shape(
            activeDevices=NUMBER,
            authorizedDevices=NUMBER,
            notAuthorizedDevices=NUMBER,
            rejectedDevices=NUMBER,
            totalDevices=NUMBER,
        ),
    },
    id=TEXT,
    name=TEXT,
    kind=TEXT,
    networkGroupId=TEXT,
    networkGroupName=TEXT,
)
NETWORK_SHAPE = shape(
    {"description": TEXT},
    id=TEXT,
    name=TEXT,
    kind=TEXT,
    networkGroupId=TEXT,
    creationTime=TIME,
    lastModified=TIME,
    config=shape(
        private=FLAG,
        enableBroadcast=FLAG,
        mtu=NUMBER,
        multicastLimit=NUMBER,
        dns=shape(domain=TEXT, servers=TEXTS),
        routes={"type": "array", "items": shape(target=TEXT, via={"type": ["string", "null"]})},
        v4AssignmentMode=shape(zt=FLAG),
        v6AssignmentMode=shape(zt=FLAG, rfc4193=FLAG, **{"6plane": FLAG}),
        v4IpAssignmentPools=POOLS,
        v6IpAssignmentPools=POOLS,
        v4Subnet=TEXT,
        v6Subnet=TEXT,
    ),
)
MEMBER = shape(
    {
        "lastSeenTime": TIME,
        "lastAuthorizedTime": TIME,
        "lastDeauthorizedTime": TIME,
        "lastAuthorizedCredential": TEXT,
    },
    deviceId=TEXT,
    networkId=TEXT,
    name=TEXT,
    description=TEXT,
    status={"enum": ["authorized", "not_authorized", "rejected"]},
    activeBridge=FLAG,
    noAutoAssignIps=FLAG,
    ipv4Assignments=TEXTS,
    ipv6Assignments=TEXTS,
    ipAssignmentRfc4193=TEXT,
    ipAssignment6plane=TEXT,
    identity=TEXT,
    macAddress=TEXT,
    agentVersion=TEXT,
    os=TEXT,
    arch=TEXT,
    lastSeen={"type": "object", "additionalProperties": TIME},
    lastSeenIp=TEXT,
    creationTime=TIME,
    lastModified=TIME,
    revision=NUMBER,
    tags=TEXTS,
    capabilities=TEXTS,
)
MEMBERS = {"type": "array", "items": MEMBER}
DONE = shape(message=TEXT)
BAD = shape(
    {"details": {"type": "array", "items": shape(field=TEXT, message=TEXT)}},
    code={"const": 400},
    message=TEXT,
)


class Client:
    """Calls the API, and holds every answer against its shape."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.base = f"{sandbox.url}/zerotier/api/v2"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {sandbox.zerotier_token}"

    def __call__(
        self, method: str, path: str, body: object = None, *, of: dict[str, Any] = DONE, status: int = 200
    ) -> Any:
        answer = self.session.request(method, self.base + path, json=body, timeout=30)
        assert answer.status_code == status, answer.text
        data = answer.json()
        Draft202012Validator(of).validate(data)
        return data


@pytest.fixture
def central(sandbox: Sandbox) -> Iterator[Client]:
    client = Client(sandbox)
    with client.session:
        yield client


NET = f"/network/{NETWORK}"


def appears(sandbox: Sandbox, node: str = NODE, **what: str) -> None:
    """Let a node ask its controller for the network's configuration."""
    path = f"{sandbox.url}/zerotier/simulation/network/{NETWORK}/node/{node}"
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    assert requests.post(path, json=what, headers=headers, timeout=30).status_code == 200


def field(bad: dict[str, Any]) -> str:
    """The field a refusal is about."""
    return str(bad["details"][0]["field"])


@pytest.mark.parametrize("scheme", ["token", "basic", ""])
def test_nothing_but_a_bearer_opens_it(sandbox: Sandbox, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {sandbox.zerotier_token}".strip()}
    for path in ("/org", "/network", NET, f"{NET}/member"):
        answer = requests.get(f"{sandbox.url}/zerotier/api/v2{path}", headers=headers, timeout=30)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
    wrong = {"Authorization": "Bearer wrong"}
    assert requests.get(f"{sandbox.url}/zerotier/api/v2/org", headers=wrong, timeout=30).status_code == 401


def test_an_organisation_has_groups_and_a_group_networks(central: Client) -> None:
    assert central("GET", "/org", of=items(ORG))["items"][0]["id"] == ORGANISATION
    assert central("GET", f"/org/{ORGANISATION}", of=ORG)["id"] == ORGANISATION
    central("GET", "/org/other", status=404)
    (first,) = central("GET", "/network-group", of=items(GROUP_SHAPE))["items"]
    assert first["id"] == GROUP
    body = {"name": "spare", "description": "for tests"}
    made = central("POST", f"/org/{ORGANISATION}/network-group", body, of=GROUP_SHAPE)
    assert central("GET", f"/network-group/{made['id']}", of=GROUP_SHAPE) == made
    listed = central("GET", f"/org/{ORGANISATION}/network-group", of=items(GROUP_SHAPE))["items"]
    assert [group["name"] for group in listed] == ["Sandbox", "spare"]
    assert central("GET", "/network-group?org-id=other", of=items(GROUP_SHAPE))["items"] == []
    inside = f"/network-group/{made['id']}/network"
    assert central("GET", inside, of=items(SUMMARY))["items"] == []
    network = central("POST", inside, {"name": "lab"}, of=NETWORK_SHAPE)
    assert (network["name"], network["networkGroupId"]) == ("lab", made["id"])
    assert [entry["id"] for entry in central("GET", inside, of=items(SUMMARY))["items"]] == [network["id"]]
    assert [entry["id"] for entry in central("GET", "/network", of=items(SUMMARY))["items"]] == [
        NETWORK,
        network["id"],
    ]
    assert field(central("POST", inside, {"description": "nameless"}, of=BAD, status=400)) == "name"
    central("GET", "/network-group/none/network", status=404)


def test_a_network_changes_where_it_is_told_to_and_nowhere_else(central: Client) -> None:
    before = central("GET", NET, of=NETWORK_SHAPE)
    config = {
        "private": False,
        "enableBroadcast": False,
        "mtu": 1400,
        "multicastLimit": 64,
        "dns": {"domain": "zt", "servers": ["10.1.0.1"]},
        "routes": [
            {"target": "10.1.0.0/16", "via": None},
            {"target": "fd42::/64", "via": None},
            {"target": "0.0.0.0/0", "via": "10.1.0.1"},
        ],
        "v4AssignmentMode": {"zt": False},
        "v6AssignmentMode": {"6plane": True, "rfc4193": True, "zt": True},
        "v4IpAssignmentPools": [{"ipRangeStart": "10.1.0.10", "ipRangeEnd": "10.1.0.99"}],
        "v6IpAssignmentPools": [{"ipRangeStart": "fd42::1", "ipRangeEnd": "fd42::ffff"}],
        "v4Subnet": "10.1.0.0/16",
        "v6Subnet": "fd42::/64",
    }
    wish = {"name": "minerals", "description": "ours", "config": config}
    assert central("POST", NET, wish, of=NETWORK_SHAPE)["config"] == config
    found = central("GET", NET, of=NETWORK_SHAPE)
    assert (found["name"], found["description"], found["config"]) == ("minerals", "ours", config)
    for name, value in before["config"].items():
        after = central("POST", NET, {"config": {name: value}}, of=NETWORK_SHAPE)
        config[name] = value
        assert after["config"] == config
        assert (after["name"], after["description"]) == ("minerals", "ours")
    renamed = central("POST", NET, {"name": "ores", "description": ""}, of=NETWORK_SHAPE)
    assert (renamed["name"], renamed["description"], renamed["config"]) == ("ores", "", config)


def test_a_network_is_removed_with_its_members(central: Client) -> None:
    central("POST", f"{NET}/member", [{"deviceId": NODE}], of=MEMBERS)
    central("DELETE", NET)
    for method, path in (("GET", NET), ("DELETE", NET), ("GET", f"{NET}/member"), ("POST", NET)):
        central(method, path, {}, status=404)
    assert central("GET", "/network", of=items(SUMMARY))["items"] == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], "body"),
        ({"name": 5}, "name"),
        ({"name": ""}, "name"),
        ({"config": 5}, "config"),
        ({"config": {"private": "yes"}}, "config.private"),
        ({"config": {"mtu": True}}, "config.mtu"),
        ({"config": {"routes": ["10.0.0.0/8"]}}, "config.routes"),
        ({"config": {"routes": [{"target": "10.0.0.0/8"}]}}, "config.routes"),
        ({"config": {"v4IpAssignmentPools": [{"ipRangeStart": "fd00::1"}]}}, "config.v4IpAssignmentPools"),
        (
            {"config": {"v4IpAssignmentPools": [{"ipRangeStart": "fd00::1", "ipRangeEnd": "fd00::2"}]}},
            "config.v4IpAssignmentPools",
        ),
        ({"config": {"v6IpAssignmentPools": ["fd00::1"]}}, "config.v6IpAssignmentPools"),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(central: Client, body: object, where: str) -> None:
    before = central("GET", NET, of=NETWORK_SHAPE)
    assert field(central("POST", NET, body, of=BAD, status=400)) == where
    if isinstance(body, dict):
        inside = f"/network-group/{GROUP}/network"
        assert field(central("POST", inside, {"name": "x", **body}, of=BAD, status=400)) == where
    assert central("GET", NET, of=NETWORK_SHAPE) == before
    assert len(central("GET", "/network", of=items(SUMMARY))["items"]) == 1


def test_a_body_that_is_no_json_or_too_long(central: Client) -> None:
    answer = central.session.post(central.base + NET, data=b"{", timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    long = central.session.post(central.base + NET, data=b'"' + b"x" * 1024 * 1024 + b'"', timeout=30)
    assert long.status_code == 413
    assert set(long.json()) == {"message"}


def test_a_member_is_made_let_in_put_out_and_removed(sandbox: Sandbox, central: Client) -> None:
    central("GET", f"{NET}/member/{NODE}", status=404)
    wish = {"deviceId": NODE.upper(), "name": "stibnite", "ipv4Assignments": ["10.147.17.9"]}
    (made,) = central("POST", f"{NET}/member", [wish], of=MEMBERS)
    assert (made["deviceId"], made["name"], made["status"]) == (NODE, "stibnite", "not_authorized")
    assert (made["agentVersion"], made["lastSeen"], "lastSeenTime" in made) == ("", {}, False)
    inside = central("POST", f"{NET}/member/{NODE}/authorize", of=MEMBER)
    assert (inside["status"], "lastAuthorizedTime" in inside) == ("authorized", True)
    appears(sandbox, version="1.14.1", physicalAddress="203.0.113.9")
    seen = central("GET", f"{NET}/member/{NODE}", of=MEMBER)
    assert (seen["agentVersion"], seen["lastSeenIp"]) == ("1.14.1", "203.0.113.9")
    assert seen["lastSeen"] == {"203.0.113.9/9993": seen["lastSeenTime"]}
    assert seen["ipv4Assignments"] == ["10.147.17.9"]
    assert seen["macAddress"] == "02:39:52:ee:00:44"
    out = central("POST", f"{NET}/member/{NODE}/de-authorize", of=MEMBER)
    assert (out["status"], "lastDeauthorizedTime" in out) == ("not_authorized", True)
    no = central("POST", f"{NET}/member/{NODE}/reject", of=MEMBER)
    assert no["status"] == "rejected"
    assert central("POST", f"{NET}/member/{NODE}/de-authorize", of=MEMBER)["status"] == "not_authorized"
    central("DELETE", f"{NET}/member", [{"deviceId": NODE}, {"deviceId": OTHER}])
    assert central("GET", f"{NET}/member", of=MEMBERS) == []
    appears(sandbox)
    (back,) = central("GET", f"{NET}/member", of=MEMBERS)
    assert (back["name"], back["status"]) == ("", "not_authorized")


def test_a_member_changes_where_it_is_told_to(central: Client) -> None:
    first = {
        "deviceId": NODE,
        "name": "stibnite",
        "description": "a laptop",
        "activeBridge": True,
        "noAutoAssignIps": True,
        "ipv4Assignments": ["10.147.17.9"],
        "ipv6Assignments": ["fd00::9"],
    }
    (made,) = central("POST", f"{NET}/member", [first], of=MEMBERS)
    assert {name: made[name] for name in first} == first
    path = f"{NET}/member/{NODE}"
    for name, value in (
        ("name", "galena"),
        ("description", ""),
        ("activeBridge", False),
        ("noAutoAssignIps", False),
        ("ipv4Assignments", ["10.147.17.10"]),
        ("ipv6Assignments", []),
    ):
        first[name] = value
        changed = central("POST", path, {name: value}, of=MEMBER)
        assert {key: changed[key] for key in first} == first
    ignored = {"authorized": True, "status": "authorized", "tags": ["7"], "revision": 99}
    after = central("POST", path, ignored, of=MEMBER)
    assert (after["status"], after["tags"], after["revision"]) == ("not_authorized", [], 9)
    central("POST", f"{NET}/member/{OTHER}", {"name": "nobody"}, status=404)


def test_computed_addresses_are_shown_where_the_network_has_them(central: Client) -> None:
    (made,) = central("POST", f"{NET}/member", [{"deviceId": NODE}], of=MEMBERS)
    assert (made["ipAssignmentRfc4193"], made["ipAssignment6plane"]) == ("", "")
    modes = {"v6AssignmentMode": {"6plane": True, "rfc4193": True, "zt": False}}
    central("POST", NET, {"config": modes}, of=NETWORK_SHAPE)
    (found,) = central("GET", f"{NET}/member", of=MEMBERS)
    assert found["ipAssignmentRfc4193"] == "fddb:4344:343b:14b9:399:9380:46d5:3400"
    assert found["ipAssignment6plane"] == "fce0:57fd:3780:46d5:3400::1"
    exempt = central("POST", f"{NET}/member/{NODE}", {"noAutoAssignIps": True}, of=MEMBER)
    assert (exempt["ipAssignmentRfc4193"], exempt["ipAssignment6plane"]) == ("", "")


@pytest.mark.parametrize(
    ("verb", "status"),
    [("authorize", "authorized"), ("de-authorize", "not_authorized"), ("reject", "rejected")],
)
def test_many_members_at_once(central: Client, verb: str, status: str) -> None:
    nodes = [f"{number:010x}" for number in range(1, 51)]
    central("POST", f"{NET}/member", [{"deviceId": node} for node in nodes], of=MEMBERS)
    central("POST", f"{NET}/member/{nodes[0]}/authorize", of=MEMBER)
    central("POST", f"{NET}/member/{verb}", [*nodes[:40], OTHER], status=404)
    before = [member["status"] for member in central("GET", f"{NET}/member", of=MEMBERS)]
    assert before == ["authorized"] + ["not_authorized"] * 49, "all or nothing"
    central("POST", f"{NET}/member/{verb}", nodes[:40])
    after = [member["status"] for member in central("GET", f"{NET}/member", of=MEMBERS)]
    assert after == [status] * 40 + ["not_authorized"] * 10
    (entry,) = central("GET", "/network?stats=true", of=items(SUMMARY))["items"]
    stats = entry["stats"]
    assert stats["totalDevices"] == 50
    key = {"authorize": "authorizedDevices", "reject": "rejectedDevices"}.get(verb, "notAuthorizedDevices")
    assert stats[key] == (50 if verb == "de-authorize" else 40)


@pytest.mark.parametrize(
    ("path", "method", "body", "where"),
    [
        ("/member", "POST", {"deviceId": NODE}, "body"),
        ("/member", "POST", [NODE], "body"),
        ("/member", "POST", 5, "body"),
        ("/member", "POST", [{"deviceId": "8046"}], "deviceId"),
        ("/member", "POST", [{"deviceId": NODE}, {"deviceId": OTHER, "name": 5}], "name"),
        ("/member", "POST", [{"deviceId": NODE, "ipv4Assignments": ["fd00::1"]}], "ipv4Assignments"),
        ("/member", "POST", [{"deviceId": NODE, "ipv6Assignments": [5]}], "ipv6Assignments"),
        ("/member", "DELETE", [{"id": OTHER}], "deviceId"),
        ("/member/authorize", "POST", [{"deviceId": OTHER}], "deviceId"),
        (f"/member/{OTHER}", "POST", {"activeBridge": "yes"}, "activeBridge"),
    ],
)
def test_a_request_about_members_that_makes_no_sense_is_refused(
    central: Client, path: str, method: str, body: object, where: str
) -> None:
    central("POST", f"{NET}/member", [{"deviceId": OTHER}], of=MEMBERS)
    assert field(central(method, NET + path, body, of=BAD, status=400)) == where
    assert [member["deviceId"] for member in central("GET", f"{NET}/member", of=MEMBERS)] == [OTHER]


def test_what_is_not_there_may_be_forbidden_instead(sandbox: Sandbox, central: Client) -> None:
    sandbox.switch(zerotier_v2_hides=True)
    try:
        for path in (f"{NET}/member/{NODE}", "/network/8056c2e21c00ffff", "/network-group/none"):
            assert central("GET", path, status=403) == {"message": "Forbidden"}
    finally:
        sandbox.switch(zerotier_v2_hides=False)


def test_both_versions_show_the_same_account(sandbox: Sandbox, central: Client) -> None:
    central("POST", f"{NET}/member", [{"deviceId": NODE, "name": "stibnite"}], of=MEMBERS)
    central("POST", f"{NET}/member/{NODE}/reject", of=MEMBER)
    headers = {"Authorization": f"token {sandbox.zerotier_token}"}
    old = f"{sandbox.zerotier}/network/{NETWORK}/member/{NODE}"
    found = requests.get(old, headers=headers, timeout=30).json()
    assert (found["name"], found["config"]["authorized"]) == ("stibnite", False)
    body = {"config": {"authorized": True, "tags": [[7, 1]]}}
    requests.post(old, json=body, headers=headers, timeout=30)
    now = central("GET", f"{NET}/member/{NODE}", of=MEMBER)
    assert (now["status"], now["tags"]) == ("authorized", ["7"])
    requests.post(old, json={"config": {"authorized": False}}, headers=headers, timeout=30)
    assert central("GET", f"{NET}/member/{NODE}", of=MEMBER)["status"] == "not_authorized"
