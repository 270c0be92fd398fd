# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central v2: records as public clients of it describe them, and a scripted server on loopback.

Nothing of it was tried against the service, so these tests say what the client does, not that the service agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, mesh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
    Dns,
    Network,
    NetworkWish,
    Pool,
    Route,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.zerotier_central_v2 import to_member
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Server, script

NETWORK, NODE = "8056c2e21c000001", "abcdef0123"
TOKEN = "planted-token-0123456789abcdef"
NOW = FakeClock().start
PATH = f"/api/v2/network/{NETWORK}"
MEMBER_PATH = f"{PATH}/member/{NODE}"

RECORD: dict[str, Any] = {
    "deviceId": NODE,
    "networkId": NETWORK,
    "name": "my-cray-supercomputer",
    "description": "",
    "status": "authorized",
    "activeBridge": False,
    "noAutoAssignIps": False,
    "agentVersion": "1.14.2",
    "os": "linux",
    "arch": "x64",
    "capabilities": [],
    "tags": [],
    "identity": f"{NODE}:0:aa",
    "ipAssignment6plane": "",
    "ipAssignmentRfc4193": "fd80::1",
    "ipv4Assignments": ["10.147.17.33"],
    "ipv6Assignments": ["FD42:147:17::33"],
    "lastSeen": {"192.0.2.8/9993": "2026-11-20T11:59:00Z"},
    "lastSeenIp": "192.0.2.8/9993",
    "lastSeenTime": "2026-11-20T11:59:00Z",
    "creationTime": "2026-11-01T00:00:00Z",
    "revision": 4,
}
OUT = {**RECORD, "status": "not_authorized"}
NETWORK_RECORD: dict[str, Any] = {
    "id": NETWORK,
    "name": "old",
    "description": "",
    "kind": "v1",
    "networkGroupId": "group",
    "config": {
        "private": True,
        "enableBroadcast": True,
        "mtu": 2800,
        "multicastLimit": 32,
        "dns": {"domain": "", "servers": []},
        "routes": [{"target": "10.147.17.0/24", "via": ""}],
        "v4AssignmentMode": {"zt": True},
        "v6AssignmentMode": {"zt": False, "rfc4193": True, "6plane": False},
        "v4IpAssignmentPools": [{"ipRangeStart": "10.147.17.1", "ipRangeEnd": "10.147.17.254"}],
        "v6IpAssignmentPools": [],
        "v4Subnet": "10.147.17.0/24",
        "v6Subnet": "",
    },
}

Connect = Callable[..., tuple[Server, mesh.ControlPlane]]


@pytest.fixture
def central() -> Iterator[Connect]:
    with ExitStack() as stack:

        def connected(*answers: Answer) -> tuple[Server, mesh.ControlPlane]:
            server = stack.enter_context(Server(script(*answers)).running())
            return server, mesh.open_plane("central_v2", NETWORK, TOKEN, f"{server.url}/api/v2/", FakeClock())

        yield connected


def writes(server: Server) -> list[tuple[str, Any]]:
    return [(str(seen), seen.body) for seen in server.seen if seen.method != "GET"]


def test_a_member_in_our_words() -> None:
    assert to_member(RECORD, NOW) == Member(
        node_id=NODE,
        name="my-cray-supercomputer",
        authorized=True,
        online=True,
        addresses=("10.147.17.33", "fd42:147:17::33"),
        version="1.14.2",
        last_seen="2026-11-20T11:59:00.000Z",
        physical_address="192.0.2.8",
        identity=f"{NODE}:0:aa",
    )


@pytest.mark.parametrize(
    ("given", "online", "last_seen"),
    [
        ({"lastSeenTime": "2026-11-20T11:55:00Z"}, True, "2026-11-20T11:55:00.000Z"),
        ({"lastSeenTime": "2026-11-20T11:54:59.5Z"}, False, "2026-11-20T11:54:59.500Z"),
        ({"lastSeenTime": "2026-11-20T12:54:00+01:00"}, False, "2026-11-20T11:54:00.000Z"),
        ({"lastSeenTime": "2026-11-20T11:59:00"}, True, "2026-11-20T11:59:00.000Z"),
        ({"lastSeenTime": "0001-01-01T00:00:00Z"}, None, None),
        ({"lastSeenTime": None}, None, None),
        ({"lastSeenTime": ""}, None, None),
    ],
)
def test_who_was_seen_of_late_is_online(
    given: dict[str, Any], online: bool | None, last_seen: str | None
) -> None:
    member = to_member({**RECORD, **given}, NOW)
    assert (member.online, member.last_seen) == (online, last_seen)
    assert datetime(2026, 11, 20, 12, 0, tzinfo=UTC) == NOW


@pytest.mark.parametrize(
    ("status", "authorized"), [("authorized", True), ("not_authorized", False), ("rejected", False)]
)
def test_only_who_is_authorised_is(status: str, authorized: bool) -> None:
    assert to_member({**RECORD, "status": status}, NOW).authorized is authorized


@pytest.mark.parametrize("wrapped", [False, True])
def test_all_members_in_one_request(central: Connect, wrapped: bool) -> None:
    records = [{**RECORD, "deviceId": f"{i:010X}"} for i in reversed(range(1, 201))]
    server, plane = central(Answer(200, {"items": records} if wrapped else records))
    assert [member.node_id for member in plane.members()] == [f"{i:010x}" for i in range(1, 201)]
    assert server.calls == [f"GET {PATH}/member"]
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(401, {"message": f"bad token {TOKEN}"}), errors.AuthError, "service account"),
        (Answer(403, {"message": "no"}), errors.Forbidden, "role"),
        (Answer(404), errors.NotFound, "network id"),
        (Answer(400, {"code": 400, "details": []}), errors.InvalidRequest, "400"),
        (Answer(200, "<html>"), errors.Unavailable, "endpoint"),
        (Answer(200, {"members": []}), errors.Unavailable, "endpoint"),
        (Answer(200, {"items": 5}), errors.Unavailable, "endpoint"),
        (Answer(200, [{"deviceId": "nonsense", "status": "authorized"}]), errors.Unavailable, "endpoint"),
        (Answer(200, [{"deviceId": NODE}]), errors.Unavailable, "endpoint"),
        (Answer(200, [{**RECORD, "lastSeenTime": "yesterday"}]), errors.Unavailable, "endpoint"),
    ],
)
def test_each_trouble_is_one_clear_error(
    central: Connect, answer: Answer, kind: type[errors.ProviderError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        central(answer)[1].members()
    assert words in str(caught.value) and NETWORK in str(caught.value)
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"


def test_a_network_in_our_words(central: Connect) -> None:
    assert central(Answer(200, NETWORK_RECORD))[1].network() == Network(
        NETWORK,
        "old",
        routes=(Route("10.147.17.0/24"),),
        pools=(Pool("10.147.17.1", "10.147.17.254"),),
        v4_auto=True,
        rfc4193=True,
    )
    assert central(Answer(404))[1].network() is None
    broken = {**NETWORK_RECORD, "config": {**NETWORK_RECORD["config"], "private": "yes"}}
    with pytest.raises(errors.Unavailable):
        central(Answer(200, broken))[1].network()


def test_a_network_is_changed_where_it_differs(central: Connect) -> None:
    pools = [Pool("10.147.17.100", "10.147.17.199"), Pool("fd42::1", "fd42::9")]
    config = {
        **NETWORK_RECORD["config"],
        "mtu": 1400,
        "dns": {"domain": "zt", "servers": ["10.147.17.1"]},
        "v6AssignmentMode": {"zt": True, "rfc4193": True, "6plane": False},
        "v4IpAssignmentPools": [{"ipRangeStart": "10.147.17.100", "ipRangeEnd": "10.147.17.199"}],
        "v6IpAssignmentPools": [{"ipRangeStart": "fd42::1", "ipRangeEnd": "fd42::9"}],
    }
    then = {**NETWORK_RECORD, "name": "new", "config": config}
    server, plane = central(*[Answer(200, answer) for answer in (NETWORK_RECORD, then, then)])
    wish = NetworkWish(
        name="new", mtu=1400, v6_auto=True, pools=pools, private=True, dns=Dns("zt", ("10.147.17.1",))
    )
    assert plane.save_network(wish).name == "new"
    assert writes(server) == [
        (
            f"POST {PATH}",
            {
                "name": "new",
                "config": {
                    name: config[name]
                    for name in (
                        "mtu",
                        "dns",
                        "v6AssignmentMode",
                        "v4IpAssignmentPools",
                        "v6IpAssignmentPools",
                    )
                },
            },
        )
    ]


def test_only_the_name_of_a_network(central: Connect) -> None:
    then = {**NETWORK_RECORD, "name": "new"}
    server, plane = central(*[Answer(200, answer) for answer in (NETWORK_RECORD, then, then)])
    plane.save_network(NetworkWish(name="new"))
    assert writes(server) == [(f"POST {PATH}", {"name": "new"})]
    server, plane = central(Answer(200, NETWORK_RECORD))
    plane.save_network(NetworkWish(name="old", v4_auto=True))
    assert not writes(server)


def test_what_this_api_cannot_do_is_refused(central: Connect) -> None:
    server, plane = central(Answer(200, NETWORK_RECORD), Answer(404))
    with pytest.raises(errors.InvalidRequest, match="rules"):
        plane.save_network(NetworkWish(rules=[]))
    with pytest.raises(errors.InvalidRequest, match="rules"):
        plane.check_network(NetworkWish(rules=[]), None)
    with pytest.raises(errors.InvalidRequest, match="tags"):
        plane.save_member(MemberWish(NODE, tags=[]))
    with pytest.raises(errors.InvalidRequest, match="tags"):
        plane.check_member(MemberWish(NODE, tags=[]))
    with pytest.raises(errors.NotFound, match="chooses the ids"):
        plane.save_network(NetworkWish(name="new"))
    assert not writes(server)


def test_a_network_is_deleted(central: Connect) -> None:
    _server, plane = central(Answer(200, {"message": "ok"}), Answer(404))
    assert (plane.delete_network(), plane.delete_network()) == (True, False)


def test_a_new_member_is_added_then_authorised(central: Connect) -> None:
    added = {**OUT, "name": "galena", "lastSeenTime": None}
    server, plane = central(
        Answer(404), Answer(200, [added]), Answer(200, added), Answer(200, {**added, "status": "authorized"})
    )
    wish = MemberWish(NODE, name="galena", authorized=True, addresses=["10.147.17.33"], no_auto_assign=False)
    assert plane.save_member(wish).authorized
    assert writes(server) == [
        (
            f"POST {PATH}/member",
            [
                {
                    "deviceId": NODE,
                    "name": "galena",
                    "noAutoAssignIps": False,
                    "ipv4Assignments": ["10.147.17.33"],
                    "ipv6Assignments": [],
                }
            ],
        ),
        (f"POST {MEMBER_PATH}/authorize", {}),
    ]


def test_a_member_that_somebody_else_added_first(central: Connect) -> None:
    server, plane = central(
        Answer(404),
        Answer(400, {"message": "exists"}),
        Answer(200, OUT),
        Answer(200, RECORD),
        Answer(200, RECORD),
    )
    assert plane.save_member(MemberWish(NODE, authorized=True)).authorized
    assert [call for call, _body in writes(server)] == [
        f"POST {PATH}/member",
        f"POST {MEMBER_PATH}/authorize",
    ]


def test_a_member_that_cannot_be_added(central: Connect) -> None:
    with pytest.raises(errors.InvalidRequest, match="400"):
        central(Answer(404), Answer(400, {"message": "no"}), Answer(404))[1].save_member(MemberWish(NODE))
    with pytest.raises(errors.NotFound, match=NETWORK):
        central(Answer(404), Answer(404))[1].save_member(MemberWish(NODE))


def test_who_is_added_is_not_let_in_by_that(central: Connect) -> None:
    """Should Central authorise whom one adds, that is taken back unless it was asked for."""
    server, plane = central(
        Answer(404),
        Answer(200, [RECORD]),
        Answer(200, RECORD),
        Answer(200, RECORD),
        Answer(200, OUT),
        Answer(200, OUT),
    )
    assert not plane.save_member(MemberWish(NODE)).authorized
    assert [call for call, _body in writes(server)] == [
        f"POST {PATH}/member",
        f"POST {MEMBER_PATH}/de-authorize",
    ]


def test_a_member_is_changed_where_it_differs(central: Connect) -> None:
    then = {**RECORD, "name": "new"}
    server, plane = central(Answer(200, RECORD), Answer(200, then), Answer(200, then))
    plane.save_member(MemberWish(NODE, name="new", authorized=True, addresses=["10.147.17.33"]))
    assert writes(server) == [(f"POST {MEMBER_PATH}", {"name": "new"})]
    server, plane = central(Answer(200, RECORD))
    plane.save_member(MemberWish(NODE, name="my-cray-supercomputer"))
    assert not writes(server)


def test_addresses_of_the_other_family_are_sent_along(central: Connect) -> None:
    then = {**RECORD, "ipv4Assignments": ["10.147.17.9"]}
    server, plane = central(Answer(200, RECORD), Answer(200, then), Answer(200, then))
    plane.save_member(MemberWish(NODE, addresses=["10.147.17.9"]))
    assert writes(server) == [
        (f"POST {MEMBER_PATH}", {"ipv4Assignments": ["10.147.17.9"], "ipv6Assignments": ["fd42:147:17::33"]})
    ]


def test_a_member_that_is_deleted_by_somebody_else_in_mid_run_is_made_again(central: Connect) -> None:
    server, plane = central(
        Answer(200, OUT),
        Answer(404),
        Answer(404),
        Answer(200, [OUT]),
        Answer(200, RECORD),
        Answer(200, RECORD),
    )
    assert plane.save_member(MemberWish(NODE, authorized=True)).authorized
    assert [call for call, _body in writes(server)] == [
        f"POST {MEMBER_PATH}/authorize",
        f"POST {PATH}/member",
        f"POST {MEMBER_PATH}/authorize",
    ]


def test_a_member_is_deauthorised_then_deleted(central: Connect) -> None:
    server, plane = central(
        Answer(200, RECORD), Answer(200, OUT), Answer(200, []), Answer(200, OUT), Answer(200, []), Answer(404)
    )
    assert plane.delete_member(NODE) is True
    assert writes(server) == [
        (f"POST {MEMBER_PATH}/de-authorize", {}),
        (f"DELETE {PATH}/member", [{"deviceId": NODE}]),
    ]
    assert plane.delete_member(NODE) is True
    assert len(writes(server)) == 3, "who is not authorised need not be deauthorised"
    assert plane.delete_member(NODE) is False


def test_a_member_that_somebody_else_deleted_first(central: Connect) -> None:
    server, plane = central(Answer(200, RECORD), Answer(404), Answer(200, {"message": "success"}))
    assert plane.delete_member(NODE) is True
    assert len(writes(server)) == 2


def test_what_is_not_there_may_be_forbidden(central: Connect) -> None:
    """Then the list says whether it is."""
    mine = [{"id": "8056c2e21c00ffff", "name": "another"}]
    _server, plane = central(Answer(403), Answer(200, {"items": mine}))
    assert plane.network() is None
    _server, plane = central(Answer(403), Answer(200, {"items": [*mine, {"id": NETWORK.upper()}]}))
    with pytest.raises(errors.Forbidden, match="role"):
        plane.network()
    _server, plane = central(Answer(403), Answer(403))
    with pytest.raises(errors.Forbidden):
        plane.network()
    _server, plane = central(Answer(403), Answer(200, [{**RECORD, "deviceId": "0123456789"}]))
    assert plane.member(NODE) is None
    _server, plane = central(Answer(403), Answer(200, [RECORD]))
    with pytest.raises(errors.Forbidden):
        plane.member(NODE)
    server, plane = central(Answer(403), Answer(403), Answer(200, {"items": mine}))
    assert plane.delete_network() is False
    server, plane = central(Answer(403), Answer(200, NETWORK_RECORD))
    with pytest.raises(errors.Forbidden):
        plane.delete_network()
    assert len(writes(server)) == 1


def test_a_token_that_is_revoked_in_mid_run(central: Connect) -> None:
    server, plane = central(Answer(200, RECORD), Answer(401, {"message": "no"}))
    with pytest.raises(errors.AuthError):
        plane.delete_member(NODE)
    assert [call for call, _body in writes(server)] == [f"POST {MEMBER_PATH}/de-authorize"]
