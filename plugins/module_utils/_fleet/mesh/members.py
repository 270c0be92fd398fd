# SPDX-License-Identifier: GPL-3.0-or-later
"""A member of a network as somebody wants it, and what differs from what it is. Pure.

A controller adds addresses of its own to those a member was given, at the node's first request or any later one. So
addresses are compared family by family: those that are wished for must be among those that are there. Only where a
member is exempt from automatic addresses is the list the whole truth.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from typing import Any

from ..addresses import node_number
from ..errors import InvalidRequest
from ..machines import Member
from .networks import Changes

_TAG_NUMBERS = range(2**32)


@dataclass(frozen=True, slots=True)
class MemberWish:
    """What a member shall be. None leaves alone what is there; empty means empty.

    Attributes:
        node_id: 10 hexadecimal digits; kept in lower case, for a controller stores an id as it is written.
        addresses: managed addresses, without prefix length. An empty list means none of one's own: with automatic
            assignment on, the member keeps what it has.
        tags: all of its tags, as pairs of id and value.

    Raises:
        InvalidRequest: a value is none that a controller would keep as it is.
    """

    node_id: str
    name: str | None = None
    authorized: bool | None = None
    addresses: Sequence[str] | None = None
    tags: Sequence[tuple[int, int]] | None = None
    active_bridge: bool | None = None
    no_auto_assign: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "node_id", node(self.node_id))
        for field in ("authorized", "active_bridge", "no_auto_assign"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, bool):
                raise InvalidRequest(f"{self.node_id}: {field} is to be true or false, not {value!r}")
        if self.name is not None and (
            not isinstance(self.name, str) or any(ord(letter) < 32 for letter in self.name)
        ):
            raise InvalidRequest(f"{self.node_id}: name is to be text of one line")
        if self.addresses is not None:
            unique = dict.fromkeys(_address(self.node_id, text) for text in self.addresses)
            object.__setattr__(self, "addresses", tuple(unique))
        if self.tags is not None:
            object.__setattr__(self, "tags", _tags(self.node_id, self.tags))

    @property
    def named(self) -> dict[str, Any]:
        """The fields that are wished for, and their values."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "node_id"}
        return {name: value for name, value in values.items() if value is not None}


def node(node_id: str) -> str:
    """A node id in lower case.

    Raises:
        InvalidRequest: it is not one, or one that no node can have; a controller would take it all the same.
    """
    try:
        node_number(node_id)
    except ValueError as exc:
        raise InvalidRequest(
            f"{node_id!r} is no node id: {exc}",
            hint="The node tells its own with: zerotier-cli info",
        ) from exc
    return node_id.lower()


def changes(current: Member | None, wish: MemberWish) -> Changes:
    """What would have to change, by field; for a member that does not exist, everything, and always whether it is authorised."""
    if current is None:
        named = {"authorized": False, **wish.named}
        return {name: (None, value) for name, value in named.items()}
    after = {**wish.named}
    if wish.addresses is not None:
        after["addresses"] = _addresses_after(current, wish)
    return {
        name: (getattr(current, name), value)
        for name, value in after.items()
        if getattr(current, name) != value
    }


def applied(current: Member | None, wish: MemberWish) -> Member:
    """The member once the wish has come true."""
    changed = {name: after for name, (_before, after) in changes(current, wish).items()}
    return replace(current or Member(wish.node_id), **changed)


def to_send(wish: MemberWish, look: Callable[[], Member | None]) -> dict[str, Any]:
    """The values to send in one request that changes what is wished and nothing else.

    A list of addresses replaces the one that is there, so those that the controller gave have to be sent along.

    Args:
        look: the member as it is; called only if that matters.
    """
    after = wish.named
    if wish.addresses is not None:
        del after["addresses"]
        left = changes(look(), wish)
        if "addresses" in left:
            after["addresses"] = left["addresses"][1]
    return after


def _addresses_after(current: Member, wish: MemberWish) -> tuple[str, ...]:
    """The list of addresses to ask for: the wished ones, and those that are there of a family the wish does not name."""
    wanted, have = tuple(wish.addresses or ()), current.addresses
    exempt = current.no_auto_assign if wish.no_auto_assign is None else wish.no_auto_assign
    if exempt:
        return have if set(have) == set(wanted) else wanted
    families = {_family(address) for address in wanted if address not in have}
    if not families:
        return have
    mine = tuple(address for address in wanted if _family(address) in families)
    return mine + tuple(address for address in have if _family(address) not in families)


def is_blank(member: Member) -> bool:
    """Nobody ever said anything about it, and it may not take part: a node that asked to join, or that was deleted and is still joined."""
    said = (
        member.authorized,
        member.name,
        member.addresses,
        member.tags,
        member.active_bridge,
        member.no_auto_assign,
    )
    return not any(said)


def duplicates(members: Iterable[Member]) -> dict[str, list[str]]:
    """Addresses that more than one member was given, and whose they are; a controller hands them out all the same."""
    owners: dict[str, set[str]] = {}
    for member in members:
        for address in member.addresses:
            owners.setdefault(_normal(address), set()).add(member.node_id)
    return {address: sorted(nodes) for address, nodes in sorted(owners.items()) if len(nodes) > 1}


def _family(text: str) -> int:
    return 6 if ":" in text else 4


def _normal(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return text


def _address(node_id: str, text: str) -> str:
    try:
        # A number would be taken for the address with that value.
        address = ip_address(text if isinstance(text, str) else "")
    except ValueError as exc:
        raise InvalidRequest(
            f"{node_id}: {text!r} is no IP address",
            hint="Give addresses without prefix length: the network's routes have it",
        ) from exc
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise InvalidRequest(f"{node_id}: {address} is no address that a member can have")
    return str(address)


def tags_from(given: Mapping[Any, Any]) -> tuple[tuple[int, int], ...]:
    """Tags given as a dictionary, where YAML and JSON make text of its keys.

    Raises:
        InvalidRequest: something in it is no number.
    """
    pairs = [(str(tag), str(value)) for tag, value in given.items()]
    if not all(number.isdecimal() for pair in pairs for number in pair):
        raise InvalidRequest("tags are to be numbers, id to value, as in {1000: 1}")
    return tuple((int(tag), int(value)) for tag, value in pairs)


def _tags(node_id: str, tags: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found: dict[int, int] = {}
    for pair in tags:
        numbers = tuple(pair)
        if len(numbers) != 2 or any(
            isinstance(number, bool) or not isinstance(number, int) or number not in _TAG_NUMBERS
            for number in numbers
        ):
            raise InvalidRequest(
                f"{node_id}: a tag is a pair of numbers from 0 to {_TAG_NUMBERS[-1]}, not {pair!r}"
            )
        if found.setdefault(numbers[0], numbers[1]) != numbers[1]:
            raise InvalidRequest(f"{node_id}: the tag {numbers[0]} is given two values")
    return tuple(sorted(found.items()))
