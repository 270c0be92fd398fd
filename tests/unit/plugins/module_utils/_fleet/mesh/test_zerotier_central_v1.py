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


@pytest.mark.parametrize("controller", ["central_v2", "cinnabar"])
def test_a_control_plane_this_release_does_not_know_is_named(controller: str) -> None:
    with pytest.raises(errors.FleetError, match=f"{controller}.*it knows central_v1"):
        mesh.connect(fleet(controller), {}, FakeClock())
