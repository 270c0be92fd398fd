# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks as they are wished for: what is refused, what is equal, and what differs."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import networks, wire
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
    Dns,
    Network,
    NetworkWish,
    Pool,
    Route,
    applied,
    changes,
)
from hypothesis import given
from hypothesis import strategies as st

ID = "db4344343b14b903"
ACCEPT = {"type": "ACTION_ACCEPT"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"private": "yes"}, "private is to be true or false"),
        ({"private": 1}, "private is to be true or false"),
        ({"v4_auto": "true"}, "v4_auto is to be"),
        ({"rfc4193": 0}, "rfc4193 is to be"),
        ({"broadcast": "no"}, "broadcast is to be"),
        ({"mtu": 1279}, "from 1280 to 10000"),
        ({"mtu": 10001}, "from 1280 to 10000"),
        ({"mtu": "1500"}, "not '1500'"),
        ({"mtu": True}, "not True"),
        ({"multicast_limit": -1}, "multicast_limit"),
        ({"multicast_limit": 2**31}, "multicast_limit"),
        ({"name": 7}, "text"),
        ({"name": "a\nb"}, "one line"),
        ({"name": "ü" * 64}, "127 bytes"),
        ({"routes": [Route("10.8.0.0")]}, "default route"),
        ({"routes": [Route("10.1.2.3/24")]}, "10.1.2.0/24"),
        ({"routes": [Route("10.7.0.0/33")]}, "no network"),
        ({"routes": [Route("not-an-ip/24")]}, "no network"),
        ({"routes": [Route("10.9.0.0/16", "fd00::1")]}, "other address family"),
        ({"routes": [Route("10.9.0.0/16", "10.9.0.1/16")]}, "gateway"),
        ({"pools": [Pool("10.0.0.9", "10.0.0.1")]}, "ends before it starts"),
        ({"pools": [Pool("10.0.0.1", "fd00::1")]}, "two address families"),
        ({"pools": [Pool("10.0.0.10/24", "10.0.0.20/24")]}, "without prefix length"),
        ({"pools": [Pool("x", "y")]}, "no IP address"),
        ({"dns": Dns("a.example", ("nonsense",))}, "DNS server"),
        ({"dns": Dns("a" * 128)}, "127 bytes"),
        ({"dns": Dns("a", tuple(f"10.0.0.{n}" for n in range(5)))}, "5 DNS servers"),
        ({"rules": [{"type": "NO_SUCH_RULE"}]}, "NO_SUCH_RULE"),
        ({"routes": [Route("10.0.0.0/24")], "pools": [Pool("10.0.0.200", "10.0.1.10")]}, "no route covers"),
        (
            {"routes": [Route("10.0.0.0/16", "10.1.0.1")], "pools": [Pool("10.0.0.1", "10.0.0.9")]},
            "no route covers",
        ),
        ({"routes": [Route("10.0.0.0/16")], "pools": [Pool("fd00::1", "fd00::9")]}, "no route covers"),
    ],
)
def test_what_a_controller_would_bend_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        NetworkWish(**given)
    assert words in str(caught.value)


def test_the_smallest_and_the_largest_are_taken() -> None:
    for mtu in (1280, 10000):
        assert NetworkWish(mtu=mtu).mtu == mtu
    assert NetworkWish(name="n" * 127, multicast_limit=0, dns=Dns("d" * 127)).named.keys() == {
        "name",
        "multicast_limit",
        "dns",
    }
    routes = [Route("10.0.0.0/24"), Route("10.0.1.0/24"), Route("0.0.0.0/0", "10.0.0.1")]
    wish = NetworkWish(routes=routes, pools=[Pool("10.0.0.1", "10.0.1.254"), Pool("10.0.0.0", "10.0.0.0")])
    assert len(wish.pools or ()) == 2, "two routes side by side cover a pool together"


def test_a_wish_is_in_normal_form() -> None:
    wish = NetworkWish(
        routes=[Route("FD00:0::/48"), Route("10.0.0.0/8", "10.0.0.1"), Route("fd00::/48")],
        pools=[Pool("FD00::1", "fd00:0:0::2")],
        dns=Dns("zt", ("FD00::53",)),
    )
    assert wish.routes == (Route("10.0.0.0/8", "10.0.0.1"), Route("fd00::/48"))
    assert wish.pools == (Pool("fd00::1", "fd00::2"),)
    assert wish.dns == Dns("zt", ("fd00::53",))


def test_what_is_not_named_is_left_alone_and_empty_is_empty() -> None:
    there = Network(ID, "minerals", routes=(Route("10.0.0.0/8"),), dns=Dns("zt", ("10.0.0.1",)))
    assert changes(there, NetworkWish()) == {}
    assert changes(there, NetworkWish(name="minerals", private=True)) == {}
    assert changes(there, NetworkWish(routes=[], name="", dns=Dns())) == {
        "name": ("minerals", ""),
        "routes": ((Route("10.0.0.0/8"),), ()),
        "dns": (Dns("zt", ("10.0.0.1",)), Dns()),
    }


def test_what_does_not_exist_yet_differs_in_everything_and_is_private() -> None:
    assert changes(None, NetworkWish(name="a")) == {"name": (None, "a"), "private": (None, True)}
    assert changes(None, NetworkWish(private=False)) == {"private": (None, False)}
    assert NetworkWish().to_create().private is True


def test_rules_are_compared_in_order() -> None:
    drop = {"type": "ACTION_DROP"}
    there = replace(Network(ID), rules=(ACCEPT, drop))
    assert changes(there, NetworkWish(rules=[ACCEPT, drop])) == {}
    assert changes(there, NetworkWish(rules=[drop, ACCEPT])).keys() == {"rules"}
    assert changes(replace(there, rules=None), NetworkWish(rules=[])).keys() == {"rules"}, (
        "not known is not none"
    )


def test_a_network_is_plain_data() -> None:
    there = Network(ID, routes=(Route("10.0.0.0/8"),), pools=(Pool("10.0.0.1", "10.0.0.9"),), rules=(ACCEPT,))
    shown = json.loads(json.dumps(there.to_json()))
    assert shown["routes"] == [{"target": "10.0.0.0/8", "via": None}]
    assert shown["pools"] == [{"start": "10.0.0.1", "end": "10.0.0.9"}]
    assert (shown["dns"], shown["rules"]) == ({"domain": "", "servers": []}, [ACCEPT])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.1.2.3/24", "10.1.2.3/24"),
        ("FD00:0::/48", "fd00::/48"),
        ("10.8.0.0/0", "10.8.0.0/0"),
        ("Nonsense", "nonsense"),
    ],
)
def test_a_prefix_as_it_is_told(text: str, normal: str) -> None:
    assert networks.prefix_text(text) == normal


# Laws

v4_networks = st.builds(
    lambda bits, number: IPv4Network((number >> (32 - bits) << (32 - bits), bits)),
    st.integers(8, 30),
    st.integers(0, 2**32 - 1),
)
v6_networks = st.builds(
    lambda bits, number: IPv6Network((number >> (128 - bits) << (128 - bits), bits)),
    st.integers(16, 120),
    st.integers(0, 2**128 - 1),
)
routes = st.one_of(
    st.builds(lambda net: Route(str(net)), v4_networks),
    st.builds(lambda net: Route(net.exploded.upper(), str(net[1])), v6_networks),
)
pools = st.builds(lambda net: Pool(net[0].exploded, str(net[-1])), st.one_of(v4_networks, v6_networks))
rules = st.sampled_from(
    [
        ACCEPT,
        {"type": "ACTION_DROP", "not": False, "or": False},
        {"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": True},
        {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 22},
    ]
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)
maybe = st.none()
wishes = st.builds(
    NetworkWish,
    name=maybe | texts,
    private=maybe | st.booleans(),
    routes=maybe | st.lists(routes, max_size=4),
    v4_auto=maybe | st.booleans(),
    v6_auto=maybe | st.booleans(),
    rfc4193=maybe | st.booleans(),
    sixplane=maybe | st.booleans(),
    mtu=maybe | st.integers(1280, 10000),
    multicast_limit=maybe | st.integers(0, 1000),
    broadcast=maybe | st.booleans(),
    dns=maybe
    | st.builds(Dns, texts, st.lists(st.sampled_from(["10.0.0.1", "FD00::1"]), max_size=4).map(tuple)),
    rules=maybe | st.lists(rules, max_size=4),
) | st.builds(NetworkWish, pools=st.lists(pools, max_size=4))
there = st.builds(lambda wish: applied(Network(ID), wish.to_create()), wishes)


@given(there, wishes)
def test_a_wish_that_came_true_leaves_nothing_to_do(current: Network, wish: NetworkWish) -> None:
    then = applied(current, wish)
    assert changes(then, wish) == {}
    assert applied(then, wish) == then
    untouched = {field: value for field, value in current.to_json().items() if field not in wish.named}
    assert {field: then.to_json()[field] for field in untouched} == untouched


@given(wishes)
def test_normal_form_is_normal(wish: NetworkWish) -> None:
    assert NetworkWish(**wish.named) == wish


@given(there, wishes)
def test_what_a_controller_keeps_is_what_was_asked_for(current: Network, wish: NetworkWish) -> None:
    """Through the words of the API and back: what is sent, merged as a controller merges, leaves nothing to do."""
    left = changes(current, wish)
    record = {**_record(current), **wire.network_body(left, current)}
    kept = wire.network_from(json.loads(json.dumps(record)), ID)
    assert changes(kept, wish) == {}
    assert replace(kept, revision=None) == replace(applied(current, wish), revision=None, rules=kept.rules)


def _record(network: Network) -> dict[str, Any]:
    everything = changes(None, NetworkWish(**{**_fields(network), "rules": network.rules or []}))
    return wire.network_body(everything, None)


def _fields(network: Network) -> dict[str, Any]:
    hidden = ("id", "revision", "pools", "routes")
    found = {name: getattr(network, name) for name in NetworkWish().__slots__ if name not in hidden}
    # A wish for both is checked for routes that cover the pools, which these do not.
    return found | ({"routes": network.routes} if network.routes else {"pools": network.pools})
