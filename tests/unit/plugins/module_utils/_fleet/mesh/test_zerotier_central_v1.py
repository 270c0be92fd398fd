# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central v1: records made after its published description, and a scripted server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, mesh, spec
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
    Dns,
    Network,
    NetworkWish,
    Pool,
    Route,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.zerotier_central_v1 import to_member
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Server, closed_port, script

NETWORK = "8056c2e21c000001"
TOKEN = "planted-token-0123456789abcdef"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLOCK = int(NOW.timestamp() * 1000)

RECORD: dict[str, Any] = {
    "id": f"{NETWORK}-abcdef0123",
    "clock": CLOCK,
    "networkId": NETWORK,
    "nodeId": "abcdef0123",
    "controllerId": NETWORK[:10],
    "hidden": False,
    "name": "my-cray-supercomputer",
    "description": "",
    "lastOnline": CLOCK - 60_000,
    "lastSeen": CLOCK - 60_000,
    "physicalAddress": "192.0.2.8",
    "clientVersion": "1.14.2",
    "protocolVersion": 12,
    "config": {"authorized": True, "ipAssignments": ["10.147.17.33"], "activeBridge": False, "tags": []},
}


def record(**given: Any) -> dict[str, Any]:
    return {**RECORD, **given}


def test_a_member_in_our_words() -> None:
    assert to_member(RECORD, NOW) == Member(
        node_id="abcdef0123",
        name="my-cray-supercomputer",
        authorized=True,
        online=True,
        addresses=("10.147.17.33",),
        version="1.14.2",
        last_seen="2026-11-20T11:59:00.000Z",
        latency_ms=None,
        physical_address="192.0.2.8",
    )


@pytest.mark.parametrize(
    ("given", "online", "last_seen"),
    [
        ({"lastSeen": CLOCK - 300_000}, True, "2026-11-20T11:55:00.000Z"),
        ({"lastSeen": CLOCK - 300_001}, False, "2026-11-20T11:54:59.999Z"),
        ({"lastSeen": 0, "lastOnline": 0}, None, None),
        ({"lastSeen": None, "lastOnline": None}, None, None),
        ({"lastSeen": None}, True, "2026-11-20T11:59:00.000Z"),
        ({"clock": CLOCK + 600_000}, False, "2026-11-20T11:59:00.000Z"),
        ({"clock": None}, True, "2026-11-20T11:59:00.000Z"),
    ],
)
def test_online_is_judged_by_centrals_own_clock(
    given: dict[str, Any], online: bool | None, last_seen: str | None
) -> None:
    member = to_member(record(**given), NOW)
    assert (member.online, member.last_seen) == (online, last_seen)


def test_a_member_that_was_never_seen() -> None:
    bare: dict[str, Any] = {
        "id": f"{NETWORK}-ABCDEF0123",
        "config": {},
        "clientVersion": "-1.-1.-1",
        "physicalAddress": None,
    }
    assert to_member(bare, NOW) == Member(node_id="abcdef0123")
    assert to_member({**bare, "clientVersion": "0.0.0"}, NOW).version is None


@pytest.mark.parametrize("authorized", ["true", 1, None])
def test_only_true_is_authorised(authorized: object) -> None:
    assert not to_member(record(config={"authorized": authorized}), NOW).authorized


Connect = Callable[..., tuple[Server, mesh.ControlPlane]]


def fleet(
    controller: str = "central_v1", token: str | None = TOKEN, endpoint: str | None = None
) -> spec.FleetSpec:
    block = spec.Mesh(network=NETWORK, controller=controller, token=token, endpoint=endpoint)
    return spec.FleetSpec(
        fleet="minerals", providers={}, mesh=block, machines={}, base_dir="/", known_hosts="/nowhere"
    )


@pytest.fixture
def central() -> Iterator[Connect]:
    with ExitStack() as stack:

        def connected(*answers: Answer) -> tuple[Server, mesh.ControlPlane]:
            server = stack.enter_context(Server(script(*answers)).running())
            return server, mesh.connect(fleet(endpoint=f"{server.url}/api/v1/"), {}, FakeClock())

        yield connected


def test_all_members_in_one_request(central: Connect) -> None:
    records = [record(nodeId=f"{i:010x}") for i in reversed(range(200))]
    server, plane = central(Answer(200, records))
    assert [member.node_id for member in plane.members()] == [f"{i:010x}" for i in range(200)]
    assert server.calls == [f"GET /api/v1/network/{NETWORK}/member"]
    assert server.seen[0].headers["authorization"] == f"token {TOKEN}"


def test_a_network_without_members(central: Connect) -> None:
    assert central(Answer(200, []))[1].members() == ()


def test_too_many_requests_are_waited_out(central: Connect) -> None:
    server, plane = central(
        Answer(429, headers={"Retry-After": "1"}), Answer(503), Answer(0), Answer(200, [RECORD])
    )
    assert len(plane.members()) == 1
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(401), errors.AuthError, "token"),
        (Answer(403), errors.Forbidden, "account"),
        (Answer(404), errors.NotFound, "network id"),
        (Answer(400, {"message": "no"}), errors.InvalidRequest, "400"),
        (Answer(200, "<html>hello</html>"), errors.Unavailable, "endpoint"),
        (Answer(200, {"items": []}), errors.Unavailable, "endpoint"),
        (Answer(200, [{"nodeId": "nonsense"}]), errors.Unavailable, "endpoint"),
        (Answer(200, ["abcdef0123"]), errors.Unavailable, "endpoint"),
    ],
)
def test_each_trouble_is_one_clear_error(
    central: Connect, answer: Answer, kind: type[errors.ProviderError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        central(answer)[1].members()
    assert words in str(caught.value)
    assert NETWORK in str(caught.value)


def test_an_answer_that_echoes_the_token_does_not_spread_it(central: Connect) -> None:
    with pytest.raises(errors.AuthError) as caught:
        central(Answer(401, f"bad token {TOKEN}"))[1].members()
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"


def test_nobody_there(central: Connect) -> None:
    plane = mesh.connect(fleet(endpoint=f"http://127.0.0.1:{closed_port()}"), {}, FakeClock())
    with pytest.raises(errors.Unavailable) as caught:
        plane.members()
    assert "ZeroTier Central at 127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("token", [None, "", "  \n"])
def test_without_a_token_it_says_where_to_put_one(token: str | None) -> None:
    with pytest.raises(errors.AuthError, match="ZEROTIER_TOKEN"):
        mesh.connect(fleet(token=token), {}, FakeClock())


def test_a_token_that_is_none_is_not_shown() -> None:
    with pytest.raises(errors.AuthError) as caught:
        mesh.connect(fleet(token=f"{TOKEN}\n{TOKEN}"), {}, FakeClock())
    assert TOKEN not in str(caught.value)


# Writing


def writes(server: Server) -> list[tuple[str, Any]]:
    return [(str(seen), seen.body) for seen in server.seen if seen.method != "GET"]


NODE = "abcdef0123"
MEMBER_PATH = f"/api/v1/network/{NETWORK}/member/{NODE}"
NETWORK_PATH = f"/api/v1/network/{NETWORK}"
NETWORK_RECORD: dict[str, Any] = {
    "id": NETWORK,
    "clock": CLOCK,
    "rulesSource": "accept;",
    "config": {
        "id": NETWORK,
        "name": "old",
        "private": True,
        "enableBroadcast": True,
        "mtu": 2800,
        "multicastLimit": 32,
        "dns": {"domain": "", "servers": None},
        "ipAssignmentPools": [{"ipRangeStart": "10.147.17.1", "ipRangeEnd": "10.147.17.254"}],
        "routes": [{"target": "10.147.17.0/24"}],
        "rules": [{"type": "ACTION_ACCEPT", "not": False, "or": False}],
        "v4AssignMode": {"zt": True},
        "v6AssignMode": {"6plane": False, "rfc4193": True, "zt": False},
    },
}


def network_record(**config: Any) -> dict[str, Any]:
    return {**NETWORK_RECORD, "config": {**NETWORK_RECORD["config"], **config}}


def test_a_network_in_our_words(central: Connect) -> None:
    _server, plane = central(Answer(200, NETWORK_RECORD))
    assert plane.network() == Network(
        NETWORK,
        "old",
        routes=(Route("10.147.17.0/24"),),
        pools=(Pool("10.147.17.1", "10.147.17.254"),),
        v4_auto=True,
        rfc4193=True,
        rules=({"type": "ACTION_ACCEPT"},),
    )
    assert central(Answer(404))[1].network() is None


@pytest.mark.parametrize(
    "config", [{"private": None}, {"private": "yes"}, {"routes": ["10.0.0.0/8"]}, {"mtu": "big"}]
)
def test_a_network_that_is_none(central: Connect, config: dict[str, Any]) -> None:
    with pytest.raises(errors.Unavailable, match="not ZeroTier Central's"):
        central(Answer(200, network_record(**config)))[1].network()


def test_a_network_is_changed_where_it_differs(central: Connect) -> None:
    then = network_record(name="new", v6AssignMode={"6plane": True, "rfc4193": True, "zt": False})
    server, plane = central(*[Answer(200, answer) for answer in (NETWORK_RECORD, then, then)])
    saved = plane.save_network(NetworkWish(name="new", sixplane=True, private=True))
    assert (saved.name, saved.sixplane, saved.rfc4193) == ("new", True, True)
    body = {"config": {"name": "new", "v6AssignMode": {"zt": False, "rfc4193": True, "6plane": True}}}
    assert writes(server) == [(f"POST {NETWORK_PATH}", body)]


def test_a_network_that_is_so_already_is_left_alone(central: Connect) -> None:
    server, plane = central(Answer(200, NETWORK_RECORD))
    plane.save_network(NetworkWish(name="old", dns=Dns(), rules=[{"type": "ACTION_ACCEPT"}]))
    assert not writes(server)


def test_central_makes_no_network_under_an_id_of_ours(central: Connect) -> None:
    server, plane = central(Answer(404))
    with pytest.raises(errors.NotFound, match=f"{NETWORK}.*chooses the ids"):
        plane.save_network(NetworkWish(name="new"))
    with pytest.raises(errors.NotFound):
        plane.check_network(NetworkWish(), None)
    plane.check_member(MemberWish(NODE, tags=[(1, 2)]))
    assert not writes(server)


def test_a_network_is_deleted(central: Connect) -> None:
    server, plane = central(Answer(200), Answer(404))
    assert plane.delete_network() is True
    assert plane.delete_network() is False
    assert server.calls == [f"DELETE {NETWORK_PATH}"] * 2


@pytest.mark.parametrize("body", ["<html>Log in to the network</html>", "7", "[1]", '{"id": '])
def test_a_page_is_no_word_that_a_network_is_gone(central: Connect, body: str) -> None:
    with pytest.raises(errors.Unavailable, match="not ZeroTier Central's"):
        central(Answer(200, body))[1].delete_network()


def test_a_member_is_written_in_one_request_then_looked_at(central: Connect) -> None:
    server, plane = central(Answer(200, {}), Answer(200, RECORD))
    wish = MemberWish(NODE, name="my-cray-supercomputer", authorized=True, tags=[], active_bridge=False)
    assert plane.save_member(wish).authorized
    body = {
        "name": "my-cray-supercomputer",
        "config": {"authorized": True, "tags": [], "activeBridge": False},
    }
    assert server.seen[0].body == body
    assert server.calls == [f"POST {MEMBER_PATH}", f"GET {MEMBER_PATH}"]


def test_what_central_forgot_is_said_again(central: Connect) -> None:
    """The answer repeats the name, the next look does not show it, or not even the member."""
    told, forgot = record(name="galena"), record(name="")
    server, plane = central(
        Answer(200, told),
        Answer(200, forgot),
        Answer(200, told),
        Answer(404),
        Answer(200, told),
        Answer(200, told),
    )
    assert plane.save_member(MemberWish(NODE, name="galena", authorized=True)).name == "galena"
    assert server.calls == [f"POST {MEMBER_PATH}", f"GET {MEMBER_PATH}"] * 3


def test_a_network_that_central_forgot_to_change_is_changed_again(central: Connect) -> None:
    then = network_record(name="new")
    server, plane = central(
        *[Answer(200, answer) for answer in (NETWORK_RECORD, then, NETWORK_RECORD) * 2], Answer(200, then)
    )
    assert plane.save_network(NetworkWish(name="new")).name == "new"
    assert len(writes(server)) == 2


def test_addresses_that_central_gave_are_sent_along(central: Connect) -> None:
    config = {**RECORD["config"], "ipAssignments": ["10.147.17.9", "fd00::9"]}
    then = record(config={**config, "ipAssignments": ["10.147.17.33", "fd00::9"]})
    server, plane = central(*[Answer(200, answer) for answer in (record(config=config), then, then)])
    saved = plane.save_member(MemberWish(NODE, addresses=["10.147.17.33"]))
    assert saved.addresses == ("10.147.17.33", "fd00::9")
    assert writes(server) == [
        (f"POST {MEMBER_PATH}", {"config": {"ipAssignments": ["10.147.17.33", "fd00::9"]}})
    ]


def test_a_member_is_deauthorised_then_deleted(central: Connect) -> None:
    out = record(config={**RECORD["config"], "authorized": False})
    server, plane = central(
        Answer(200, RECORD), Answer(200, out), Answer(200), Answer(200, out), Answer(404), Answer(404)
    )
    assert plane.delete_member("ABCDEF0123") is True
    assert writes(server) == [
        (f"POST {MEMBER_PATH}", {"config": {"authorized": False}}),
        (f"DELETE {MEMBER_PATH}", None),
    ]
    assert plane.delete_member(NODE) is True, "somebody else was faster at the last step"
    assert plane.delete_member(NODE) is False
    assert len(writes(server)) == 3


def test_a_token_that_is_revoked_in_mid_run(central: Connect) -> None:
    server, plane = central(Answer(200, RECORD), Answer(401))
    with pytest.raises(errors.AuthError, match="mesh: token:"):
        plane.delete_member(NODE)
    assert writes(server) == [(f"POST {MEMBER_PATH}", {"config": {"authorized": False}})], "not deleted half"


def test_what_never_comes_true_ends_with_what_differs(central: Connect) -> None:
    _server, plane = central(*[Answer(200, RECORD)] * 30)
    with pytest.raises(errors.WaitTimeout, match="authorized is True instead of False"):
        plane.save_member(MemberWish(NODE, authorized=False))


def test_a_write_that_was_not_answered_is_made_again(central: Connect) -> None:
    server, plane = central(
        Answer(0),
        Answer(503),
        Answer(429, headers={"Retry-After": "1"}),
        Answer(200, RECORD),
        Answer(200, RECORD),
    )
    assert plane.save_member(MemberWish(NODE, authorized=True)).authorized
    assert server.calls == [*[f"POST {MEMBER_PATH}"] * 4, f"GET {MEMBER_PATH}"]
