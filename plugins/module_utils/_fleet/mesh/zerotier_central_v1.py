# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its legacy API v1 (``https://api.zerotier.com/api/v1``).

One request answers with all members of a network. There is no flag that says who is online; a node asks its controller
for news about once a minute, so whoever did so in the last five minutes counts as online.

What Central answers to a change is not yet what it keeps: it may forget what it is told of a member whose node it never
saw, save that it is authorised, and members appear late. So each change is followed by a look, and asked for again until
the look shows it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import errors
from ..machines import Member
from . import members, networks, wire
from .rest import Rest, adapter, converge

if TYPE_CHECKING:
    from ..clock import Clock
    from .members import MemberWish
    from .networks import Changes, Network, NetworkWish

ENDPOINT = "https://api.zerotier.com/api/v1"

ONLINE_WITHIN = 300.0
"""Seconds since a member was last seen in which it counts as online."""

SERVICE = "ZeroTier Central"

_HINTS = {
    401: "Check that the token (`mesh: token:` in a fleet file) is valid, and is one of Central's old kind (my.zerotier.com)",
    403: "Use the token of an account that may manage this network",
    404: "Check the network id, and that the token's account owns the network",
}


class ZeroTierCentralV1:
    """One network at ZeroTier Central."""

    kind = "central_v1"

    def __init__(self, network_id: str, rest: Rest, clock: Clock) -> None:
        self.network_id = network_id
        self._rest = rest
        self._clock = clock
        self._path = f"/network/{network_id}"

    @property
    def simulated(self) -> bool:
        """An answer came from a sandbox."""
        return self._rest.adapter.simulated

    def network(self) -> Network | None:
        """The network; None if the account has none of this id."""
        doing = f"reading the network {self.network_id}"
        record = self._rest.find(self._path, doing)
        return None if record is None else self._network(record, doing)

    def save_network(self, wish: NetworkWish) -> Network:
        """Change the network where it differs. Central chooses the ids of its networks, so it makes none here."""
        doing = f"changing the network {self.network_id}"

        def act() -> tuple[Network, Changes]:
            current = existing(self.network(), self.network_id)
            left = networks.changes(current, wish)
            if left:
                self._rest.post(self._path, {"config": wire.network_body(left, current)}, doing)
                current = existing(self.network(), self.network_id)
            return current, networks.changes(current, wish)

        return converge(self._clock, doing, act)

    def check_network(self, wish: NetworkWish, current: Network | None) -> None:
        """Refuse to make a network: Central chooses their ids."""
        existing(current, self.network_id)

    def delete_network(self) -> bool:
        """Delete the network with all memberships."""
        return self._rest.delete(self._path, f"deleting the network {self.network_id}")

    def members(self) -> tuple[Member, ...]:
        """Every member of the network, in the order of their node ids."""
        doing = f"listing the members of the network {self.network_id}"
        records = self._rest.get(f"{self._path}/member", doing)
        with self._rest.shape(doing):
            if not isinstance(records, list):
                raise TypeError("not a list")
            now = self._clock.utc()
            return tuple(
                sorted((to_member(record, now) for record in records), key=lambda member: member.node_id)
            )

    def member(self, node_id: str) -> Member | None:
        """One member; None if Central has no record of it."""
        node_id = members.node(node_id)
        doing = f"reading the member {node_id} of the network {self.network_id}"
        record = self._rest.find(f"{self._path}/member/{node_id}", doing)
        return None if record is None else self._member(record, doing)

    def save_member(self, wish: MemberWish) -> Member:
        """Create or change the member."""
        doing = f"changing the member {wish.node_id} of the network {self.network_id}"
        path = f"{self._path}/member/{wish.node_id}"

        def act() -> tuple[Member, Changes]:
            self._rest.post(
                path, _member_body(members.to_send(wish, lambda: self.member(wish.node_id))), doing
            )
            saved = self.member(wish.node_id)
            return saved or Member(wish.node_id), members.changes(saved, wish)

        return converge(self._clock, doing, act)

    def check_member(self, wish: MemberWish) -> None:
        """Nothing to refuse: it takes every field."""

    def delete_member(self, node_id: str) -> bool:
        """Deauthorise, then delete."""
        current = self.member(node_id)
        if current is None:
            return False
        doing = f"removing the member {current.node_id} of the network {self.network_id}"
        path = f"{self._path}/member/{current.node_id}"
        if current.authorized:
            self._rest.post(path, _member_body({"authorized": False}), doing)
        self._rest.delete(path, doing)
        return True

    def close(self) -> None:
        """Let go of open connections."""
        self._rest.adapter.close()

    def _network(self, record: Any, doing: str) -> Network:
        with self._rest.shape(doing):
            return wire.network_from(record["config"], self.network_id)

    def _member(self, record: Any, doing: str) -> Member:
        with self._rest.shape(doing):
            return to_member(record, self._clock.utc())


def _member_body(after: Mapping[str, Any]) -> wire.Json:
    """By the names of this API: all but the name is under ``config``."""
    config = wire.member_body(after)
    top = {"name": config.pop("name")} if "name" in config else {}
    return {**top, "config": config}


def to_member(record: Mapping[str, Any], now: datetime) -> Member:
    """A member as Central describes it, in our words. Pure.

    Args:
        now: the time, for records that do not carry Central's own.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has not the shape of a member.
    """
    config = record.get("config") or {}
    # 0 where Central does not know (any more): the figure is ephemeral.
    seen = record.get("lastSeen") or record.get("lastOnline") or 0
    clock = record.get("clock") or now.timestamp() * 1000
    return Member(
        node_id=wire.node_from(record.get("nodeId") or record["id"].rpartition("-")[2]),
        name=record.get("name") or "",
        online=(clock - seen) / 1000 <= ONLINE_WITHIN if seen > 0 else None,
        version=wire.version(record.get("clientVersion")),
        last_seen=wire.moment(seen) if seen > 0 else None,
        physical_address=(record.get("physicalAddress") or "").partition("/")[0] or None,
        **wire.member_fields(config),
    )


def existing(network: Network | None, network_id: str) -> Network:
    """The network, which must be there.

    Raises:
        NotFound: it is not, and Central makes none under an id of ours.
    """
    if network is None:
        raise errors.NotFound(
            f"there is no network {network_id} at {SERVICE}, which chooses the ids of its networks itself",
            hint="Create a network there and use its id, or check that the token's account owns this one",
        )
    return network


def open_plane(network_id: str, token: str, endpoint: str | None, clock: Clock) -> ZeroTierCentralV1:
    """Make ready to talk; nothing is sent yet.

    Raises:
        MissingLibrary: requests is not installed.
    """
    rest = Rest(
        endpoint=(endpoint or ENDPOINT).rstrip("/"),
        headers={"Authorization": f"token {token}"},
        adapter=adapter(clock, SERVICE),
        service=SERVICE,
        hints=_HINTS,
        secrets=(token,),
    )
    return ZeroTierCentralV1(network_id, rest, clock)
