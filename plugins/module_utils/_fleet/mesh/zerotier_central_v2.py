# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its new API v2 (``https://central.zerotier.com/api/v2``).

**Not tried against the service.** Its published description was not at hand; paths and fields are those that public
clients of it use, which were made from that description. What it is known to lack is refused, not left out: a member's
tags cannot be set, and the rules of a network are the source text of another, unfinished API.

A member is authorised, not authorised or rejected, and goes from one to the other by requests of their own. It may be
added before its node was ever seen. Addresses are kept by family, and so are the pools of a network. There is no flag
that says who is online; who was seen in the last five minutes counts as online.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import errors
from ..machines import Member
from . import members, networks, wire
from .networks import Network, address_text, in_order
from .rest import Rest, adapter, converge
from .zerotier_central_v1 import ONLINE_WITHIN, SERVICE, existing

if TYPE_CHECKING:
    from ..clock import Clock
    from .members import MemberWish
    from .networks import Changes, NetworkWish

ENDPOINT = "https://central.zerotier.com/api/v2"

_HINTS = {
    401: "Check that the token (`mesh: token:` in a fleet file) is the key of a service account of central.zerotier.com",
    403: "Give the service account a role that may manage this network",
    404: "Check the network id, and that the service account belongs to the network's organization",
}

_SAME_NAMES = {"name": "name", "active_bridge": "activeBridge", "no_auto_assign": "noAutoAssignIps"}
_CONFIG_NAMES = ("private", "mtu", "multicastLimit", "enableBroadcast", "dns", "routes")


class ZeroTierCentralV2:
    """One network at the new ZeroTier Central."""

    kind = "central_v2"

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
        """The network; None if the organization has none of this id."""
        doing = f"reading the network {self.network_id}"
        try:
            record = self._rest.find(self._path, doing)
        except errors.Forbidden:
            # Perhaps that is how it says that there is none: then those that may be seen can be listed, without this.
            if self._listed("/network", "id", self.network_id, doing):
                raise
            return None
        if record is None:
            return None
        with self._rest.shape(doing):
            return to_network(record, self.network_id)

    def save_network(self, wish: NetworkWish) -> Network:
        """Change the network where it differs. Central chooses the ids of its networks, so it makes none here."""
        doing = f"changing the network {self.network_id}"

        def act() -> tuple[Network, Changes]:
            found = self.network()
            self.check_network(wish, found)
            current = existing(found, self.network_id)
            left = networks.changes(current, wish)
            if left:
                self._rest.post(self._path, network_body(left, current), doing)
                current = existing(self.network(), self.network_id)
            return current, networks.changes(current, wish)

        return converge(self._clock, doing, act)

    def check_network(self, wish: NetworkWish, current: Network | None) -> None:
        """Refuse to make a network, for Central chooses their ids, and to set rules."""
        if wish.rules is not None:
            raise errors.InvalidRequest(
                f"the rules of the network {self.network_id} cannot be set through the API v2 of ZeroTier Central",
                hint="Leave them out here, and set them in the web interface",
            )
        existing(current, self.network_id)

    def delete_network(self) -> bool:
        """Delete the network with all memberships."""
        try:
            return self._rest.delete(self._path, f"deleting the network {self.network_id}")
        except errors.Forbidden:
            if self.network() is None:
                return False
            raise

    def members(self) -> tuple[Member, ...]:
        """Every member of the network, in the order of their node ids."""
        doing = f"listing the members of the network {self.network_id}"
        answer = self._rest.get(f"{self._path}/member", doing)
        with self._rest.shape(doing):
            now = self._clock.utc()
            found = (to_member(record, now) for record in _items(answer))
            return tuple(sorted(found, key=lambda member: member.node_id))

    def member(self, node_id: str) -> Member | None:
        """One member; None if Central has no record of it."""
        node_id = members.node(node_id)
        doing = f"reading the member {node_id} of the network {self.network_id}"
        try:
            record = self._rest.find(f"{self._path}/member/{node_id}", doing)
        except errors.Forbidden:
            if self._listed(f"{self._path}/member", "deviceId", node_id, doing):
                raise
            return None
        if record is None:
            return None
        with self._rest.shape(doing):
            return to_member(record, self._clock.utc())

    def save_member(self, wish: MemberWish) -> Member:
        """Add the member if need be, change it where it differs, then authorise or deauthorise it."""
        self.check_member(wish)
        doing = f"changing the member {wish.node_id} of the network {self.network_id}"
        path = f"{self._path}/member/{wish.node_id}"

        wanted = wish

        def act() -> tuple[Member, Changes]:
            nonlocal wanted
            current = self.member(wish.node_id)
            if current is None:
                # What Central makes of a member that is added, nobody has seen: it is not to let one in by itself.
                wanted = replace(wish, authorized=wish.authorized is True)
            left = members.changes(current, wanted)
            body = _member_body(left)
            if current is None:
                self._add(wish.node_id, body, doing)
            try:
                if current is not None and body:
                    self._rest.post(path, body, doing)
                if "authorized" in left and (current is not None or wanted.authorized):
                    self._set_authorized(wish.node_id, wanted.authorized is True, doing)
            except errors.NotFound:
                # Deleted by somebody else in between: begin again. If it is the network that is gone, adding says so.
                return Member(wish.node_id), members.changes(None, wanted)
            if left:
                current = self.member(wish.node_id)
            return current or Member(wish.node_id), members.changes(current, wanted)

        return converge(self._clock, doing, act)

    def check_member(self, wish: MemberWish) -> None:
        """Refuse to set tags."""
        if wish.tags is not None:
            raise errors.InvalidRequest(
                f"the tags of the member {wish.node_id} cannot be set through the API v2 of ZeroTier Central",
                hint="Leave them out here, and set them in the web interface",
            )

    def delete_member(self, node_id: str) -> bool:
        """Deauthorise, then delete."""
        current = self.member(node_id)
        if current is None:
            return False
        doing = f"removing the member {current.node_id} of the network {self.network_id}"
        if current.authorized:
            # Where somebody else was faster, there is nobody to deauthorise.
            with suppress(errors.NotFound):
                self._set_authorized(current.node_id, False, doing)
        self._rest.delete(f"{self._path}/member", doing, [{"deviceId": current.node_id}])
        return True

    def close(self) -> None:
        """Let go of open connections."""
        self._rest.adapter.close()

    def _add(self, node_id: str, body: wire.Json, doing: str) -> None:
        try:
            self._rest.post(f"{self._path}/member", [{"deviceId": node_id, **body}], doing)
        except errors.ProviderError as error:
            # The repeat of a request whose answer was lost finds the member there; so does one that came second.
            taken = isinstance(error, (errors.Conflict, errors.InvalidRequest))
            if not taken or self.member(node_id) is None:
                raise

    def _set_authorized(self, node_id: str, authorized: bool, doing: str) -> None:
        word = "authorize" if authorized else "de-authorize"
        self._rest.post(f"{self._path}/member/{node_id}/{word}", {}, doing)

    def _listed(self, path: str, name: str, value: str, doing: str) -> bool:
        """Whether a list has such a record."""
        answer = self._rest.get(path, doing)
        with self._rest.shape(doing):
            return any(record[name].lower() == value for record in _items(answer))


def _items(answer: Any) -> list[Mapping[str, Any]]:
    """The records of a list: of most kinds in an object, of members by themselves.

    Raises:
        KeyError, TypeError: it is none.
    """
    records = answer["items"] if isinstance(answer, dict) else answer
    if not isinstance(records, list):
        raise TypeError("not a list")
    return records


def to_network(record: Mapping[str, Any], network_id: str) -> Network:
    """A network as Central describes it, in our words. Pure.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has not the shape of one.
    """
    config = record["config"]
    v4, v6 = config.get("v4AssignmentMode") or {}, config.get("v6AssignmentMode") or {}
    pools = [*(config.get("v4IpAssignmentPools") or ()), *(config.get("v6IpAssignmentPools") or ())]
    return Network(
        id=network_id,
        name=record.get("name") or "",
        private=wire.flag(config, "private"),
        routes=wire.routes_from(config.get("routes")),
        pools=wire.pools_from(pools),
        v4_auto=v4.get("zt") is True,
        v6_auto=v6.get("zt") is True,
        rfc4193=v6.get("rfc4193") is True,
        sixplane=v6.get("6plane") is True,
        mtu=int(config.get("mtu") or wire.DEFAULT_MTU),
        multicast_limit=int(config.get("multicastLimit", wire.DEFAULT_MULTICAST_LIMIT)),
        broadcast=config.get("enableBroadcast") is not False,
        dns=wire.dns_from(config.get("dns")),
    )


def network_body(left: Changes, current: Network) -> wire.Json:
    """What to send so that the network changes in these fields. Pure."""
    shared = wire.network_body(left, current)
    config = {name: shared[name] for name in _CONFIG_NAMES if name in shared}
    if "pools" in left:
        for family in (4, 6):
            pools = [pool for pool in left["pools"][1] if (":" in pool.start) == (family == 6)]
            config[f"v{family}IpAssignmentPools"] = [wire.pool_body(pool) for pool in in_order(pools)]
    for family in (4, 6):
        if f"v{family}AssignMode" in shared:
            config[f"v{family}AssignmentMode"] = shared[f"v{family}AssignMode"]
    body = {"name": shared["name"]} if "name" in shared else {}
    return {**body, "config": config} if config else body


def _member_body(left: Changes) -> wire.Json:
    """What to send so that the member changes in these fields; whether it is authorised is another request."""
    body = {word: left[name][1] for name, word in _SAME_NAMES.items() if name in left}
    if "addresses" in left:
        addresses = left["addresses"][1]
        body["ipv4Assignments"] = [address for address in addresses if ":" not in address]
        body["ipv6Assignments"] = [address for address in addresses if ":" in address]
    return body


def to_member(record: Mapping[str, Any], now: datetime) -> Member:
    """A member as Central describes it, in our words. Pure.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has not the shape of a member.
    """
    seen = _time(record.get("lastSeenTime"))
    given = [*(record.get("ipv4Assignments") or ()), *(record.get("ipv6Assignments") or ())]
    return Member(
        node_id=wire.node_from(record["deviceId"]),
        name=record.get("name") or "",
        authorized=record["status"] == "authorized",
        online=(now - seen).total_seconds() <= ONLINE_WITHIN if seen else None,
        addresses=tuple(address_text(text) for text in given),
        version=wire.version(record.get("agentVersion")),
        last_seen=wire.moment(seen.timestamp() * 1000) if seen else None,
        physical_address=(record.get("lastSeenIp") or "").partition("/")[0] or None,
        active_bridge=record.get("activeBridge") is True,
        no_auto_assign=record.get("noAutoAssignIps") is True,
        identity=record.get("identity") or None,
    )


def _time(text: str | None) -> datetime | None:
    """A time as the API gives it; the year 1 is how it says never."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if found.year > 1970 else None


def open_plane(network_id: str, token: str, endpoint: str | None, clock: Clock) -> ZeroTierCentralV2:
    """Make ready to talk; nothing is sent yet.

    Raises:
        MissingLibrary: requests is not installed.
    """
    rest = Rest(
        endpoint=(endpoint or ENDPOINT).rstrip("/"),
        headers={"Authorization": f"Bearer {token}"},
        adapter=adapter(clock, SERVICE),
        service=SERVICE,
        hints=_HINTS,
        secrets=(token,),
    )
    return ZeroTierCentralV2(network_id, rest, clock)
