# SPDX-License-Identifier: GPL-3.0-or-later
"""The same tests of all three control planes of the mesh: what one does for the collection, the others do, too.

The planes are SIMULATED: see :mod:`tests.integration.planes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import members, networks
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
    Dns,
    NetworkWish,
    Pool,
    Route,
)

from sandbox.testing import Sandbox, serve
from tests.integration import planes
from tests.integration.planes import CentralPlane, Plane
from tests.loopback import Answer

pytestmark = pytest.mark.integration

NODE, OTHER = "8046d53400", "abcdef0123"
WISH = MemberWish(NODE, name="stibnite", authorized=True)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture(params=planes.KINDS)
def plane(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Iterator[Plane]:
    with planes.running(request.param, sandbox, tmp_path) as plane:
        yield plane


@pytest.fixture
def client(plane: Plane) -> Iterator[Any]:
    client = plane.client()
    yield client
    client.close()


@pytest.fixture
def central(plane: Plane) -> CentralPlane:
    """The plane of a test that is about ZeroTier Central only."""
    assert isinstance(plane, CentralPlane)
    return plane


# Networks


def test_a_network_is_read(plane: Plane, client: Any) -> None:
    found = client.network()
    assert (client.kind, client.network_id, found.id) == (plane.kind, plane.network, plane.network)
    assert found.name.startswith("sandbox")
    assert (found.private, found.v4_auto, found.rfc4193, found.sixplane) == (True, True, False, False)
    assert found.routes == (Route("10.147.17.0/24"),)
    assert found.pools == (Pool("10.147.17.1", "10.147.17.254"),)
    assert (found.mtu, found.multicast_limit, found.broadcast, found.dns) == (2800, 32, True, Dns())
    assert client.simulated


def test_a_network_that_is_not_there(plane: Plane) -> None:
    client = plane.client(plane.other)
    assert client.network() is None
    assert client.delete_network() is False
    with pytest.raises(errors.NotFound, match="network"):
        client.members()
    if plane.kind == "controller":
        assert client.save_network(NetworkWish(name="new")).private is True
    else:
        with pytest.raises(errors.NotFound, match=plane.other):
            client.save_network(NetworkWish(name="new"))


CHANGES = {
    "name": "minerals",
    "private": False,
    "routes": (Route("10.1.0.0/16"), Route("0.0.0.0/0", "10.1.0.1"), Route("fd42::/64")),
    "pools": (Pool("10.1.0.10", "10.1.0.99"), Pool("fd42::1", "fd42::ffff")),
    "v4_auto": False,
    "v6_auto": True,
    "rfc4193": True,
    "sixplane": True,
    "mtu": 1400,
    "multicast_limit": 64,
    "broadcast": False,
    "dns": Dns("zt", ("10.147.17.1",)),
}


def test_one_field_changes_and_no_other(plane: Plane, client: Any) -> None:
    for name, value in CHANGES.items():
        before, wish = client.network(), NetworkWish(**{name: value})
        assert networks.changes(before, wish), name
        saved = client.save_network(wish)
        found = client.network()
        assert networks.changes(found, wish) == {}, name
        assert replace(found, **{name: getattr(before, name)}, revision=before.revision) == before
        assert saved == found


def test_a_whole_network_at_once_and_the_second_time_nothing(plane: Plane, client: Any) -> None:
    wish = NetworkWish(**CHANGES)
    client.save_network(wish)
    written = len(plane.proxy.calls("POST"))
    assert networks.changes(client.save_network(wish), wish) == {}
    assert len(plane.proxy.calls("POST")) == written == 1


def test_rules_where_they_can_be_set(plane: Plane, client: Any) -> None:
    wish = NetworkWish(rules=[{"type": "ACTION_DROP"}])
    if plane.kind == "central_v2":
        with pytest.raises(errors.InvalidRequest, match="rules"):
            client.save_network(wish)
        assert plane.proxy.calls("POST") == []
    else:
        saved = client.save_network(wish)
        assert [rule["type"] for rule in saved.rules] == ["ACTION_DROP"]
        assert networks.changes(client.network(), wish) == {}


def test_a_network_is_deleted(plane: Plane, client: Any) -> None:
    client.save_member(WISH)
    assert client.delete_network() is True
    assert client.network() is None
    assert client.delete_network() is False
    with pytest.raises(errors.NotFound):
        client.members()
    with pytest.raises(errors.NotFound):
        client.save_member(WISH)


# Members


def test_a_member_is_let_in_before_its_node_exists(plane: Plane, client: Any) -> None:
    assert client.member(NODE) is None
    saved = client.save_member(WISH)
    assert (saved.node_id, saved.name, saved.authorized) == (NODE, "stibnite", True)
    assert client.members() == (client.member(NODE),)
    assert (client.member(NODE).version, client.member(NODE).addresses) == (None, ())
    plane.appears(NODE)
    seen = client.member(NODE)
    assert (seen.authorized, seen.online, seen.version) == (True, True, "1.14.1")
    assert seen.addresses == ("10.147.17.169",)
    assert seen.physical_address == "198.51.100.7"
    assert seen.last_seen.endswith("Z")


def test_the_second_time_nothing_differs(plane: Plane, client: Any) -> None:
    wish = replace(WISH, addresses=["10.147.17.9"], active_bridge=True)
    first = client.save_member(wish)
    plane.appears(NODE)
    assert members.changes(client.member(NODE), wish) == {}
    second = client.save_member(wish)
    assert (second.addresses, second.name) == (first.addresses, first.name)
    assert members.changes(second, wish) == {}


def test_what_is_not_named_stays(plane: Plane, client: Any) -> None:
    everything = replace(WISH, addresses=["10.147.17.9"], active_bridge=True, no_auto_assign=True)
    client.save_member(everything)
    for name, value in (
        ("name", "galena"),
        ("active_bridge", False),
        ("addresses", ("10.147.17.10",)),
        ("authorized", False),
        ("no_auto_assign", False),
        ("authorized", True),
    ):
        before = client.member(NODE)
        client.save_member(MemberWish(NODE, **{name: value}))
        after = client.member(NODE)
        assert getattr(after, name) == value
        assert replace(after, **{name: getattr(before, name)}) == before, name


def test_addresses_of_the_other_family_stay(plane: Plane, client: Any) -> None:
    client.save_network(NetworkWish(routes=[Route("10.147.17.0/24"), Route("fd42::/64")]))
    client.save_member(replace(WISH, addresses=["10.147.17.9", "fd42::9"]))
    client.save_member(MemberWish(NODE, addresses=["10.147.17.10"]))
    assert set(client.member(NODE).addresses) == {"10.147.17.10", "fd42::9"}


def test_an_address_that_the_controller_adds_is_no_change(plane: Plane, client: Any) -> None:
    pools = [Pool("10.147.17.1", "10.147.17.254"), Pool("fd42::1", "fd42::ffff")]
    client.save_network(
        NetworkWish(routes=[Route("10.147.17.0/24"), Route("fd42::/64")], pools=pools, v6_auto=True)
    )
    wish = replace(WISH, addresses=["10.147.17.9"])
    client.save_member(wish)
    plane.appears(NODE)
    found = client.member(NODE)
    assert len(found.addresses) == 2
    assert members.changes(found, wish) == {}
    assert client.save_member(wish).addresses == found.addresses


def test_tags_where_they_can_be_set(plane: Plane, client: Any) -> None:
    wish = replace(WISH, tags=[(7, 1), (3, 2)])
    if plane.kind == "central_v2":
        with pytest.raises(errors.InvalidRequest, match="tags"):
            client.save_member(wish)
        assert client.members() == ()
    else:
        assert client.save_member(wish).tags == ((3, 2), (7, 1))
        assert client.save_member(replace(WISH, name="galena")).tags == ((3, 2), (7, 1))


def test_who_is_put_out_keeps_its_name_and_addresses(plane: Plane, client: Any) -> None:
    client.save_member(WISH)
    plane.appears(NODE)
    out = client.save_member(MemberWish(NODE, authorized=False))
    assert (out.authorized, out.name, out.addresses) == (False, "stibnite", ("10.147.17.169",))
    assert client.save_member(MemberWish(NODE, authorized=True)).addresses == ("10.147.17.169",)


def test_a_member_is_deleted(plane: Plane, client: Any) -> None:
    client.save_member(WISH)
    client.save_member(MemberWish(OTHER, name="galena", authorized=True))
    assert client.delete_member(NODE) is True
    assert [member.node_id for member in client.members()] == [OTHER]
    assert client.delete_member(NODE) is False
    assert client.member(NODE) is None


def test_a_deleted_node_that_is_still_joined_waits_outside(plane: Plane, client: Any) -> None:
    client.save_member(WISH)
    plane.appears(NODE)
    client.delete_member(NODE)
    plane.appears(NODE)
    (back,) = client.members()
    assert members.is_blank(back)


def test_a_node_nobody_knows_knocks(plane: Plane, client: Any) -> None:
    plane.appears(OTHER)
    (member,) = client.members()
    assert (member.node_id, member.authorized, member.name, member.addresses) == (OTHER, False, "", ())
    assert member.online is True
    assert client.save_member(MemberWish(OTHER, authorized=True, name="galena")).authorized is True


def test_many_members_in_one_listing(plane: Plane, client: Any) -> None:
    wishes = [MemberWish(f"{number:010x}", name=f"m{number}", authorized=True) for number in range(40, 0, -1)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.save_member, wishes))
    before = len(plane.proxy.calls())
    found = client.members()
    # The controller's daemon is asked for its peers and its clock besides.
    assert len(plane.proxy.calls()) - before <= (3 if plane.kind == "controller" else 1)
    assert [(member.node_id, member.name) for member in found] == [
        (f"{number:010x}", f"m{number}") for number in range(1, 41)
    ]


def test_two_members_with_one_address_are_found(plane: Plane, client: Any) -> None:
    for node in (NODE, OTHER):
        client.save_member(MemberWish(node, authorized=True, addresses=["10.147.17.9"]))
    assert members.duplicates(client.members()) == {"10.147.17.9": [NODE, OTHER]}


# When things go wrong

ACTIONS: dict[str, Callable[[Any], object]] = {
    "network": lambda client: client.network(),
    "save_network": lambda client: client.save_network(NetworkWish(name="minerals", mtu=1400)),
    "members": lambda client: client.members(),
    "member": lambda client: client.member(NODE),
    "save_member": lambda client: client.save_member(replace(WISH, addresses=["10.147.17.9"])),
    "delete_member": lambda client: client.delete_member(OTHER),
    "delete_network": lambda client: client.delete_network(),
}


def heals(plane: Plane) -> None:
    """Everything works for the next run."""
    plane.proxy.heal()
    plane.clock.least = 0.0
    client = plane.client()
    for act in ("save_network", "save_member", "delete_member"):
        ACTIONS[act](client)
    assert (client.network().name, client.network().mtu) == ("minerals", 1400)
    (member,) = client.members()
    assert (member.node_id, member.name, member.authorized) == (NODE, "stibnite", True)
    assert member.addresses == ("10.147.17.9",)
    client.close()


@pytest.fixture
def prepared(plane: Plane) -> Any:
    """A client of a plane that has the member that is to be deleted; it has already talked once."""
    plane.somebody().save_member(MemberWish(OTHER, name="galena", authorized=True))
    client = plane.client()
    client.members()
    return client


def untouched(plane: Plane) -> None:
    """Nothing of what was asked for has happened."""
    plane.proxy.heal()
    other = plane.client()
    (member,) = other.members()
    assert (member.node_id, member.name, member.authorized) == (OTHER, "galena", True)
    assert other.network().mtu == 2800


@pytest.mark.parametrize("act", ACTIONS)
def test_a_token_that_was_revoked_meanwhile(plane: Plane, prepared: Any, act: str) -> None:
    plane.proxy.credential = "revoked"
    with pytest.raises(errors.AuthError) as caught:
        ACTIONS[act](prepared)
    assert "401" in str(caught.value)
    assert caught.value.hint
    assert plane.token not in f"{caught.value} {caught.value.hint} {caught.value.details}"
    untouched(plane)
    heals(plane)


@pytest.mark.parametrize("act", ACTIONS)
def test_nobody_listens(plane: Plane, act: str) -> None:
    plane.clock.least = 10.0
    with pytest.raises(errors.Unreachable, match="could not be reached") as caught:
        ACTIONS[act](plane.nowhere())
    assert caught.value.hint


@pytest.mark.parametrize("act", ACTIONS)
def test_the_connection_breaks(plane: Plane, prepared: Any, act: str) -> None:
    plane.proxy.answer = Answer(0)
    plane.clock.least = 60.0
    with pytest.raises(errors.Unavailable, match=r"broke the connection|could not be reached"):
        ACTIONS[act](prepared)
    untouched(plane)
    heals(plane)


@pytest.mark.parametrize("act", ACTIONS)
def test_no_answer_in_time(plane: Plane, prepared: Any, act: str) -> None:
    # Half a minute of silence is what a control plane is really given.
    prepared._rest.adapter._timeout = (5.0, 0.1)
    plane.proxy.delay = 0.25
    plane.clock.least = 200.0
    with pytest.raises(errors.Unavailable, match="in time"):
        ACTIONS[act](prepared)
    if act != "delete_network":
        heals(plane)


@pytest.mark.parametrize("act", ["network", "members", "save_member"])
def test_a_late_answer_is_an_answer(plane: Plane, prepared: Any, act: str) -> None:
    plane.proxy.delay = 0.1
    ACTIONS[act](prepared)
    heals(plane)


# The answer to the deletion of a network may be empty, and says nothing that counts.
NONSENSE = [
    pytest.param(act, body, id=f"{act}-{name}")
    for act in ACTIONS
    for name, body in {
        "page": "<html>Log in to the network</html>",
        "list": "[1]",
        "number": "7",
        "cut": '{"id": ',
        "nothing": "",
        "other": '{"config": {}}',
    }.items()
    if act != "delete_network" or name not in ("nothing", "other")
]


@pytest.mark.parametrize(("act", "body"), NONSENSE)
def test_an_answer_that_is_not_of_this_service(plane: Plane, prepared: Any, act: str, body: str) -> None:
    plane.proxy.answer = Answer(200, body)
    with pytest.raises(errors.Unavailable, match="in a form that is not") as caught:
        ACTIONS[act](prepared)
    assert caught.value.hint
    untouched(plane)
    heals(plane)


@pytest.mark.parametrize("act", ACTIONS)
def test_a_short_illness_is_not_noticed(plane: Plane, prepared: Any, act: str) -> None:
    plane.proxy.answer = Answer(503, "")
    plane.clock.sleep = lambda seconds: plane.proxy.heal()  # type: ignore[method-assign]
    ACTIONS[act](prepared)
    assert plane.proxy.answer is None


@pytest.mark.parametrize("act", ACTIONS)
def test_a_long_illness_is(plane: Plane, prepared: Any, act: str) -> None:
    plane.proxy.answer = Answer(500, "no JSON here")
    plane.clock.least = 60.0
    with pytest.raises(errors.Unavailable, match="500"):
        ACTIONS[act](prepared)
    untouched(plane)
    heals(plane)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_member_that_somebody_deletes_while_it_is_changed(plane: Plane, client: Any, method: str) -> None:
    client.save_member(replace(WISH, addresses=["10.147.17.9"]))
    plane.proxy.before(f"{method} .*/member", lambda: plane.somebody().delete_member(NODE))
    wish = replace(WISH, name="galena", addresses=["10.147.17.10"])
    try:
        client.save_member(wish)
    except errors.NotFound as error:
        assert NODE in str(error)
    assert members.changes(client.save_member(wish), wish) == {}
    assert members.changes(client.member(NODE), wish) == {}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_member_that_somebody_deletes_while_it_is_deleted(plane: Plane, client: Any, method: str) -> None:
    client.save_member(WISH)
    plane.proxy.before(f"{method} .*/member", lambda: plane.somebody().delete_member(NODE))
    client.delete_member(NODE)
    assert client.member(NODE) is None
    assert client.members() == ()


def test_a_network_that_somebody_deletes_while_it_is_changed(plane: Plane, client: Any) -> None:
    plane.proxy.before("POST", lambda: plane.somebody().delete_network())
    if plane.kind == "controller":
        assert client.save_network(NetworkWish(name="minerals")).name == "minerals"
    else:
        with pytest.raises(errors.NotFound, match=plane.network):
            client.save_network(NetworkWish(name="minerals"))


# What only Central does


ONLY_CENTRAL = pytest.mark.parametrize("plane", ["central_v1", "central_v2"], indirect=True)


@ONLY_CENTRAL
def test_a_change_that_takes_its_time_is_waited_for(central: CentralPlane) -> None:
    client = central.client()
    client.save_member(WISH)
    fault = central.sandbox.fault(kind="slow_operation", service=central.service, seconds=0.1, times=2)
    assert client.save_network(NetworkWish(name="minerals")).name == "minerals"
    assert client.save_member(replace(WISH, name="galena")).name == "galena"
    assert central.sandbox.hits(fault) == 2


@ONLY_CENTRAL
@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_member_that_appears_late_is_waited_for(central: CentralPlane, seconds: float) -> None:
    fault = central.sandbox.fault(
        kind="slow_operation", service=central.service, verb="create", seconds=seconds
    )
    saved = central.client().save_member(replace(WISH, addresses=["10.147.17.9"]))
    assert central.sandbox.hits(fault) == 1
    assert (saved.name, saved.authorized, saved.addresses) == ("stibnite", True, ("10.147.17.9",))
    assert central.somebody().member(NODE) == saved


@ONLY_CENTRAL
def test_a_change_that_was_lost_is_asked_for_again(central: CentralPlane) -> None:
    client = central.client()
    fault = central.sandbox.fault(kind="failed_operation", service=central.service, name=NODE, times=2)
    client.save_member(replace(WISH, addresses=["10.147.17.9"]))
    assert central.sandbox.hits(fault) == 2
    member = central.somebody().member(NODE)
    assert (member.name, member.authorized, member.addresses) == ("stibnite", True, ("10.147.17.9",))


@ONLY_CENTRAL
def test_a_change_that_never_comes_is_said(central: CentralPlane) -> None:
    client = central.client()
    client.save_member(MemberWish(NODE, name="stibnite"))
    central.sandbox.fault(kind="failed_operation", service=central.service, name=NODE, times=0)
    central.clock.least = 5.0
    with pytest.raises(errors.WaitTimeout, match="name is 'stibnite' instead of 'galena'") as caught:
        client.save_member(MemberWish(NODE, name="galena"))
    assert NODE in str(caught.value)


@ONLY_CENTRAL
def test_a_member_that_lists_show_late(central: CentralPlane) -> None:
    client = central.client()
    central.sandbox.fault(kind="list_lag", service=central.service, seconds=3600)
    client.save_member(WISH)
    assert client.members() == ()
    assert client.member(NODE).name == "stibnite"
    assert client.delete_member(NODE) is True


@ONLY_CENTRAL
def test_more_than_the_plan_allows(central: CentralPlane) -> None:
    central.sandbox.fault(kind="quota", service=central.service, times=0)
    client = central.client()
    with pytest.raises(errors.Forbidden) as caught:
        client.save_member(WISH)
    assert NODE in str(caught.value)
    assert client.members() == ()


@pytest.mark.parametrize("plane", ["central_v1"], indirect=True)
def test_what_central_forgets_is_told_again(central: CentralPlane) -> None:
    central.sandbox.switch(zerotier_forgets=True)
    wish = replace(WISH, addresses=["10.147.17.9"])
    assert members.changes(central.client().save_member(wish), wish) == {}
    assert members.changes(central.client().member(NODE), wish) == {}


@pytest.mark.parametrize("plane", ["central_v2"], indirect=True)
def test_the_new_central_may_forbid_what_is_not_there(central: CentralPlane) -> None:
    central.sandbox.switch(zerotier_v2_hides=True)
    client = central.client()
    assert client.member(NODE) is None
    assert client.delete_member(NODE) is False
    assert client.save_member(WISH).authorized is True
    assert client.delete_member(NODE) is True
    lost = central.client(central.other)
    assert lost.network() is None
    with pytest.raises(errors.ProviderError, match=central.other):
        lost.members()


# What only a controller of one's own does


@pytest.mark.parametrize("plane", ["controller"], indirect=True)
@pytest.mark.parametrize("act", ACTIONS)
def test_the_network_of_another_controller(plane: Plane, act: str) -> None:
    client = plane.client("db4344343b14b903")
    with pytest.raises(errors.InvalidRequest, match=f"db4344343b.*{plane.network[:10]}"):
        ACTIONS[act](client)
    assert plane.proxy.calls("POST|DELETE") == []
