# SPDX-License-Identifier: GPL-3.0-or-later
"""Members as they are wished for: what is refused, what is equal, and what differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import members, wire
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import (
    MemberWish,
    applied,
    changes,
    duplicates,
    is_blank,
    tags_from,
    to_send,
)
from hypothesis import given
from hypothesis import strategies as st

NODE = "8046d53400"
V4, OTHER_V4, V6 = "10.147.17.33", "10.147.17.34", "fd42:147:17::33"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"authorized": "yes"}, "authorized is to be true or false"),
        ({"authorized": 0}, "authorized is to be true or false"),
        ({"active_bridge": 1}, "active_bridge"),
        ({"no_auto_assign": "true"}, "no_auto_assign"),
        ({"name": "a\tb"}, "one line"),
        ({"name": 7}, "text"),
        ({"addresses": ["10.147.17.33/24"]}, "without prefix length"),
        ({"addresses": [""]}, "no IP address"),
        ({"addresses": [1]}, "no IP address"),
        ({"addresses": ["0.0.0.0"]}, "no address that a member can have"),  # noqa: S104
        ({"addresses": ["::1"]}, "no address that a member can have"),
        ({"addresses": ["224.0.0.1"]}, "no address that a member can have"),
        ({"tags": [(1, 2, 3)]}, "pair of numbers"),
        ({"tags": [("x", 1)]}, "pair of numbers"),
        ({"tags": [(True, 1)]}, "pair of numbers"),
        ({"tags": [(1, -1)]}, "pair of numbers"),
        ({"tags": [(1, 2**32)]}, "pair of numbers"),
        ({"tags": [(1, 2), (1, 3)]}, "two values"),
    ],
)
def test_what_a_controller_would_bend_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        MemberWish(NODE, **given)
    assert words in str(caught.value) and NODE in str(caught.value)


@pytest.mark.parametrize("node_id", ["abc", "zzzzzzzzzz", "12345678901", "0000000000", "ff00000001", "", 5])
def test_what_is_no_node_id_is_refused(node_id: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="no node id"):
        MemberWish(node_id)


def test_a_wish_is_in_normal_form() -> None:
    wish = MemberWish("8046D53400", addresses=["FD00::1", "fd00::1", V4], tags=[(9, 1), (2, 7), (9, 1)])
    assert (wish.node_id, wish.addresses, wish.tags) == (NODE, ("fd00::1", V4), ((2, 7), (9, 1)))


def test_who_is_not_there_differs_in_everything_and_is_not_authorised() -> None:
    assert changes(None, MemberWish(NODE)) == {"authorized": (None, False)}
    assert changes(None, MemberWish(NODE, name="a", authorized=True)) == {
        "name": (None, "a"),
        "authorized": (None, True),
    }


@pytest.mark.parametrize(
    ("have", "wanted", "after"),
    [
        ((V4, V6), [V4], None),  # what the controller added is left alone
        ((V6, V4), [V4, V6], None),
        ((V4, V6), [], None),
        ((), [], None),
        ((), [V4], (V4,)),
        ((V6,), [V4], (V4, V6)),
        ((OTHER_V4, V6), [V4], (V4, V6)),  # the address of the same family makes place
        ((OTHER_V4,), [V6], (V6, OTHER_V4)),
        ((OTHER_V4, V6), [V4, V6], (V4, V6)),
        ((OTHER_V4, "172.16.5.5"), ["172.16.5.5"], None),  # added because no route covers the other
    ],
)
def test_addresses_are_compared_family_by_family(
    have: tuple[str, ...], wanted: list[str], after: tuple[str, ...] | None
) -> None:
    expected = {} if after is None else {"addresses": (have, after)}
    assert changes(Member(NODE, addresses=have), MemberWish(NODE, addresses=wanted)) == expected


@pytest.mark.parametrize(
    ("have", "wanted", "after"),
    [((V4, V6), [V4], (V4,)), ((V4,), [], ()), ((V4, V6), [V6, V4], None), ((), [], None)],
)
def test_for_a_member_that_is_exempt_the_list_is_the_whole_truth(
    have: tuple[str, ...], wanted: list[str], after: tuple[str, ...] | None
) -> None:
    there = Member(NODE, addresses=have, no_auto_assign=True)
    expected = {} if after is None else {"addresses": (have, after)}
    assert changes(there, MemberWish(NODE, addresses=wanted)) == expected
    free = replace(there, no_auto_assign=False)
    exempted = changes(free, MemberWish(NODE, addresses=wanted, no_auto_assign=True))
    assert exempted == {"no_auto_assign": (False, True), **expected}


def test_one_request_says_what_is_wished_and_no_more() -> None:
    def nobody() -> Member | None:
        raise AssertionError("there was no need to look")

    assert to_send(MemberWish(NODE), nobody) == {}
    assert to_send(MemberWish(NODE, name="", authorized=False), nobody) == {"name": "", "authorized": False}
    there = Member(NODE, authorized=True, addresses=(OTHER_V4, V6))
    assert to_send(MemberWish(NODE, addresses=[V4]), lambda: there) == {"addresses": (V4, V6)}
    assert to_send(MemberWish(NODE, name="a", addresses=[V6]), lambda: there) == {"name": "a"}
    assert to_send(MemberWish(NODE, addresses=[V6]), lambda: None) == {"addresses": (V6,)}


def test_a_member_of_whom_nobody_said_anything() -> None:
    knocking = Member(NODE, online=True, version="1.14.1", identity="x", physical_address="192.0.2.1")
    assert is_blank(knocking)
    for said in (
        {"authorized": True},
        {"name": "a"},
        {"addresses": (V4,)},
        {"tags": ((1, 2),)},
        {"active_bridge": True},
        {"no_auto_assign": True},
    ):
        assert not is_blank(replace(knocking, **said))


def test_addresses_that_more_than_one_has() -> None:
    found = duplicates(
        [
            Member("bbbbbbbbbb", addresses=(V4, "fd00::1")),
            Member("aaaaaaaaaa", addresses=(V4, V4, OTHER_V4)),
            Member("cccccccccc", addresses=("FD00:0::1", "nonsense")),
            Member("dddddddddd", addresses=("nonsense",)),
        ]
    )
    assert found == {
        V4: ["aaaaaaaaaa", "bbbbbbbbbb"],
        "fd00::1": ["bbbbbbbbbb", "cccccccccc"],
        "nonsense": ["cccccccccc", "dddddddddd"],
    }
    assert duplicates([Member(NODE, addresses=(V4, V4))]) == {}, "twice with one member is once"


def test_tags_from_a_dictionary() -> None:
    assert tags_from({"1000": 1, 2: "7"}) == ((1000, 1), (2, 7))
    for wrong in ({"x": 1}, {1: None}, {1: -1}, {1: 1.5}, {True: 1}):
        with pytest.raises(errors.InvalidRequest, match="numbers"):
            tags_from(wrong)


def test_a_member_survives_the_cache_and_one_of_an_earlier_release_does_too() -> None:
    member = Member(NODE, "a", True, None, (V4,), tags=((1, 2),), identity="x", active_bridge=True)
    stored = json.loads(json.dumps(member.to_json()))
    assert Member.from_json(stored) == member
    for name in ("tags", "identity", "active_bridge", "no_auto_assign"):
        del stored[name]
    assert Member.from_json(stored) == Member(NODE, "a", True, None, (V4,))


# Laws

nodes = st.integers(1, 0xFE_FFFFFFFF).map(lambda number: f"{number:010x}")
addresses = st.lists(st.sampled_from([V4, OTHER_V4, "10.0.0.9", V6, "fd00::2"]), max_size=4)
numbers = st.integers(0, 2**32 - 1)
maybe = st.none()
mine = st.just(NODE)


def wishes(node: st.SearchStrategy[str]) -> st.SearchStrategy[MemberWish]:
    return st.builds(
        MemberWish,
        node,
        name=maybe | st.text(st.characters(min_codepoint=32), max_size=10),
        authorized=maybe | st.booleans(),
        addresses=maybe | addresses,
        tags=maybe | st.dictionaries(numbers, numbers, max_size=3).map(lambda tags: list(tags.items())),
        active_bridge=maybe | st.booleans(),
        no_auto_assign=maybe | st.booleans(),
    )


there = maybe | wishes(mine).map(lambda wish: applied(None, wish))


@given(there, wishes(mine), addresses)
def test_a_wish_that_came_true_leaves_nothing_to_do(
    current: Member | None, wish: MemberWish, added: list[str]
) -> None:
    then = applied(current, wish)
    assert changes(then, wish) == {}
    assert applied(then, wish) == then
    if not then.no_auto_assign:
        more = replace(then, addresses=tuple(dict.fromkeys([*added, *then.addresses])))
        assert changes(more, wish) == {}, "what the controller adds is no difference"
    for name in {"name", "authorized", "tags", "active_bridge", "no_auto_assign"} - set(wish.named):
        assert getattr(then, name) == getattr(current or Member(NODE), name)


@given(wishes(nodes))
def test_normal_form_is_normal(wish: MemberWish) -> None:
    assert MemberWish(wish.node_id.upper(), **wish.named) == wish


@given(there, wishes(mine))
def test_an_address_of_the_other_family_survives(current: Member | None, wish: MemberWish) -> None:
    if current is None or wish.addresses is None:
        return
    then = applied(current, wish)
    if then.no_auto_assign:
        return
    named = {":" in address for address in wish.addresses}
    kept = [address for address in current.addresses if (":" in address) not in named]
    assert [address for address in then.addresses if (":" in address) not in named] == kept


@given(there, wishes(mine))
def test_what_a_controller_keeps_is_what_was_asked_for(current: Member | None, wish: MemberWish) -> None:
    """Through the words of the API and back: what is sent, merged as a controller merges, leaves nothing to do."""
    before: dict[str, Any] = {}
    if current is not None:
        everything = {
            name: getattr(current, name) for name in MemberWish(NODE).__slots__ if name != "node_id"
        }
        before = wire.member_body(everything)
    record = json.loads(json.dumps({**before, **wire.member_body(to_send(wish, lambda: current))}))
    kept = Member(NODE, record.get("name") or "", **wire.member_fields(record))
    assert changes(kept, wish) == {}
    assert members.applied(current, wish) == kept
