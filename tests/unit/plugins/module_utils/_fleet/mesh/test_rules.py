# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of a network: what a controller would lose in silence is refused, and what means the same is equal."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import rules
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"type": "NO_SUCH_RULE"}, "'NO_SUCH_RULE' is no type"),
        ({"type": "INTEGER_RANGE", "start": 1, "end": 2}, "'INTEGER_RANGE' is no type"),
        ({}, "no type"),
        ({"type": []}, "no type"),
        ("ACTION_DROP", "no type"),
        ({"type": "action_drop"}, "no type"),
        ({"type": "MATCH_ETHERTYPE"}, "etherType is missing"),
        ({"type": "MATCH_ETHERTYPE", "ethertype": 2048}, "no field ethertype"),
        ({"type": "MATCH_ETHERTYPE", "etherType": "2048"}, "from 0 to 65535, not '2048'"),
        ({"type": "MATCH_ETHERTYPE", "etherType": 65536}, "from 0 to 65535"),
        ({"type": "MATCH_ETHERTYPE", "etherType": True}, "not True"),
        ({"type": "MATCH_ETHERTYPE", "etherType": 1, "not": "yes"}, "not is to be true or false"),
        ({"type": "ACTION_DROP", "not": True}, "for rules that match"),
        ({"type": "ACTION_DROP", "or": True}, "for rules that match"),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "10.0.0.1"}, "prefix length"),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "fd00::/8"}, "IPv4"),
        ({"type": "MATCH_IPV6_DEST", "ip": "10.0.0.0/8"}, "IPv6"),
        ({"type": "MATCH_IPV6_DEST", "ip": "fd00::/129"}, "IPv6"),
        ({"type": "MATCH_MAC_SOURCE", "mac": "aa:bb"}, "MAC"),
        ({"type": "MATCH_SOURCE_ZEROTIER_ADDRESS", "zt": "abc"}, "node id"),
        ({"type": "MATCH_SOURCE_ZEROTIER_ADDRESS", "zt": 1234567890}, "node id"),
        ({"type": "MATCH_CHARACTERISTICS", "mask": "xyz"}, "64 bits"),
        ({"type": "MATCH_CHARACTERISTICS", "mask": 2**64}, "64 bits"),
        ({"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": 256}, "255"),
        ({"type": "MATCH_TAGS_EQUAL", "id": 1}, "value is missing"),
    ],
)
def test_what_would_be_lost_is_refused(rule: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        rules.checked(rule)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "normal"),
    [
        ({"type": "ACTION_ACCEPT", "not": False, "or": False}, {"type": "ACTION_ACCEPT"}),
        ({"type": "ACTION_TEE", "address": "ABCDEF0123"}, {"type": "ACTION_TEE", "address": "abcdef0123", "flags": 0, "length": 0}),
        ({"type": "MATCH_ETHERTYPE", "etherType": 2048}, {"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": False, "or": False}),
        (
            {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 22, "or": True},
            {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 22, "end": 22, "not": False, "or": True},
        ),
        (
            {"type": "MATCH_ICMP", "icmpType": 8},
            {"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": None, "not": False, "or": False},
        ),
        (
            {"type": "MATCH_MAC_DEST", "mac": "AA-BB-CC-00-11-22", "not": True},
            {"type": "MATCH_MAC_DEST", "mac": "aa:bb:cc:00:11:22", "not": True, "or": False},
        ),
        (
            {"type": "MATCH_CHARACTERISTICS", "mask": 2},
            {"type": "MATCH_CHARACTERISTICS", "mask": "0000000000000002", "not": False, "or": False},
        ),
        (
            {"type": "MATCH_CHARACTERISTICS", "mask": "A"},
            {"type": "MATCH_CHARACTERISTICS", "mask": "000000000000000a", "not": False, "or": False},
        ),
        (
            {"type": "MATCH_IPV6_SOURCE", "ip": "FD00:0::1/64"},
            {"type": "MATCH_IPV6_SOURCE", "ip": "fd00::1/64", "not": False, "or": False},
        ),
    ],
)  # fmt: skip
def test_what_means_the_same_is_equal(rule: dict[str, Any], normal: dict[str, Any]) -> None:
    assert rules.checked(rule) == normal
    assert rules.normalised(rule) == normal
    assert rules.normalised({**rule, "surplus": 1}) == normal, "what is told besides does not matter"


@pytest.mark.parametrize(
    "rule",
    [{"type": "INTEGER_RANGE", "start": "00"}, {"type": "MATCH_ETHERTYPE"}, {"type": 5}, {"type": []}, {}],
)
def test_what_is_told_and_not_known_stays_as_it_is(rule: dict[str, Any]) -> None:
    assert rules.normalised(rule) == rule


ALL = {**rules.ACTIONS, **rules.MATCHES}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "address": st.just("ABCDEF0123"),
    "zt": st.just("abcdef0123"),
    "mac": st.sampled_from(["aa:bb:cc:dd:ee:ff", "AABBCCDDEEFF"]),
    "icmpCode": st.none() | st.integers(0, 255),
}


@st.composite
def rule_texts(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(ALL)))
    rule: dict[str, Any] = {"type": kind}
    for name in ALL[kind]:
        if name == "ip":
            rule[name] = "10.0.0.0/8" if "IPV4" in kind else "FD00::/8"
        elif name == "end":
            if draw(st.booleans()) or kind == "MATCH_IP_TOS":
                rule[name] = draw(st.integers(0, 255))
        else:
            rule[name] = draw(VALUES.get(name, st.integers(0, 255)))
    if kind in rules.MATCHES:
        rule |= draw(st.fixed_dictionaries({}, optional={"not": st.booleans(), "or": st.booleans()}))
    return rule


@given(rule_texts())
def test_normal_form_is_normal(rule: dict[str, Any]) -> None:
    normal = rules.checked(rule)
    assert rules.checked(normal) == normal
    assert rules.normalised(normal) == normal
    assert rules.normalised(rule) == normal
    assert set(normal) == {
        "type",
        *ALL[rule["type"]],
        *(("not", "or") if rule["type"] in rules.MATCHES else ()),
    }
