# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller of one's own: the one inside a zerotier-one, asked through that daemon's local API.

How it behaves was recorded from zerotier-one 1.14.1. It takes nearly anything, bends it, and answers 200, so all checks
are on our side (:mod:`.networks`, :mod:`.members`, :mod:`.rules`). It stores networks that it can never serve, so its
node id is compared with the network's before anything else is asked. The record of a member says nothing about where it
is; that is in the daemon's list of peers.

Releases from 1.16.0 on have the controller under another licence, and the packages most people install are built
without it. Such a daemon answers all of this with 404.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import addresses, errors
from ..machines import Member
from . import members, networks, wire
from .rest import Rest, adapter, converge

if TYPE_CHECKING:
    from ..clock import Clock
    from .members import MemberWish
    from .networks import Changes, Network, NetworkWish
    from .relay import SshTarget

ENDPOINT = "http://127.0.0.1:9993"

TOKEN_FILE = "/var/lib/zerotier-one/authtoken.secret"  # noqa: S105 - where it is, not what it is

ONLINE_WITHIN = 130.0
"""Seconds since a member was last heard in which it counts as online.

Nodes ping each other once a minute, so this is two pings missed. The daemon itself calls the path of a stopped node
active for 235 s.
"""

SERVICE = "the ZeroTier controller"

_DEADLINE = 60.0
"""Seconds for one request with all its repeats: the daemon is next door."""

_HINTS = {
    401: "Either the token is not that of this zerotier-one (authtoken.secret), or the request came from an address it does"
    " not answer, which is any but loopback unless allowManagementFrom in its local.conf says otherwise",
    503: "The controller is still reading its database: run the same command again",
}


_DOWN = "Start zerotier-one on the controller's machine (systemctl start zerotier-one), then run the same command again"


class ZeroTierController:
    """One network at a controller of one's own. Safe to use from many threads."""

    kind = "controller"

    def __init__(self, network_id: str, rest: Rest, clock: Clock) -> None:
        self.network_id = network_id
        self._rest = rest
        self._clock = clock
        self._path = f"/controller/network/{network_id}"
        self._greeted = False

    @property
    def simulated(self) -> bool:
        """An answer came from a sandbox."""
        return self._rest.adapter.simulated

    def network(self) -> Network | None:
        """The network; None if the controller has none of this id."""
        doing = f"reading the network {self.network_id}"
        record = self._record(doing)
        return None if record is None else self._network(record, doing)

    def save_network(self, wish: NetworkWish) -> Network:
        """Create the network, or change it where it differs."""
        doing = f"changing the network {self.network_id}"

        def act() -> tuple[Network, Changes]:
            record = self._record(doing)
            current = None if record is None else self._network(record, doing)
            left = networks.changes(current, wish)
            if current is None or left:
                body = wire.network_body(left, current)
                if record and record.get("remoteTraceLevel"):
                    # Any request that does not name it sets it to 0.
                    body["remoteTraceLevel"] = record["remoteTraceLevel"]
                current = self._network(self._rest.post(self._path, body, doing), doing)
            return current, networks.changes(current, wish)

        return converge(self._clock, doing, act)

    def check_network(self, wish: NetworkWish, current: Network | None) -> None:
        """Nothing to refuse: it takes every field, and makes a network under any id that begins with its own."""

    def delete_network(self) -> bool:
        """Delete the network with all memberships."""
        doing = f"deleting the network {self.network_id}"
        self._greet(doing)
        if self._rest.delete(self._path, doing):
            return True
        self._expect_controller(doing)
        return False

    def members(self) -> tuple[Member, ...]:
        """Every member, in the order of their node ids: one request for all records, and two to know who is online."""
        doing = f"listing the members of the network {self.network_id}"
        status = self._greet(doing) or self._status(doing)
        records = self._records(doing)
        peers = self._rest.get("/peer", doing)
        with self._rest.shape(doing):
            by_node = {str(peer["address"]).lower(): peer for peer in peers}
            found = [
                to_member(record, by_node.get(wire.node_from(record["id"])), status) for record in records
            ]
            return tuple(sorted(found, key=lambda member: member.node_id))

    def member(self, node_id: str) -> Member | None:
        """One member; None if the controller has no record of it."""
        node_id = members.node(node_id)
        doing = f"reading the member {node_id} of the network {self.network_id}"
        status = self._greet(doing)
        record = self._member_record(node_id, doing)
        if record is None:
            return None
        # A peer it does not know is answered with an empty object.
        peer = self._rest.get(f"/peer/{node_id}", doing)
        status = status or self._status(doing)
        with self._rest.shape(doing):
            return to_member(record, peer or None, status)

    def save_member(self, wish: MemberWish) -> Member:
        """Create or change the member, in one request: two at once would lose one of both."""
        doing = f"changing the member {wish.node_id} of the network {self.network_id}"
        path = f"{self._path}/member/{wish.node_id}"
        self._greet(doing)

        def act() -> tuple[Member, Changes]:
            body = wire.member_body(members.to_send(wish, lambda: self._bare_member(wish.node_id, doing)))
            try:
                saved = self._member(self._rest.post(path, body, doing), doing)
            except errors.NotFound as error:
                self._expect_controller(doing)
                raise self._no_network(doing) from error
            return saved, members.changes(saved, wish)

        return converge(self._clock, doing, act)

    def check_member(self, wish: MemberWish) -> None:
        """Nothing to refuse: it takes every field."""

    def delete_member(self, node_id: str) -> bool:
        """Deauthorise, which reaches the other members at once, then delete."""
        node_id = members.node(node_id)
        doing = f"removing the member {node_id} of the network {self.network_id}"
        self._greet(doing)
        current = self._bare_member(node_id, doing)
        if current is None:
            return False
        path = f"{self._path}/member/{node_id}"
        if current.authorized:
            self._rest.post(path, wire.member_body({"authorized": False}), doing)
        self._rest.delete(path, doing)
        return True

    def close(self) -> None:
        """Let go of open connections, and of the ssh process if there is one."""
        self._rest.adapter.close()

    def _status(self, doing: str) -> Mapping[str, Any]:
        """What the daemon says of itself: its node id and its clock, by which it dates its peers."""
        status = self._rest.get("/status", doing)
        with self._rest.shape(doing):
            own = wire.node_from(status["address"])
            float(status["clock"])
        wanted = addresses.controller(self.network_id)
        if own != wanted:
            raise errors.InvalidRequest(
                f"{doing}: the network belongs to the controller {wanted}, and this is the controller {own}, which could"
                " never serve it",
                hint=f"Ask the zerotier-one whose node id is {wanted}, or use a network id that begins with {own}",
            )
        return dict(status)

    def _greet(self, doing: str) -> Mapping[str, Any] | None:
        """Make sure, once, that this controller can serve the network; the status if it was asked for that."""
        if self._greeted:
            return None
        status = self._status(doing)
        self._greeted = True
        return status

    def _expect_controller(self, doing: str) -> None:
        """Tell a daemon without a controller from one that answered 404 because something is not there."""
        answer = self._rest.find("/controller", doing)
        if not isinstance(answer, Mapping) or answer.get("controller") is not True:
            raise errors.NotFound(
                f"{doing}: this zerotier-one was built without a controller, as the default packages are from 1.16.0 on",
                hint="Install a build with the controller on that machine, such as release 1.14.2",
                code="404",
            )

    def _no_network(self, doing: str) -> errors.NotFound:
        return errors.NotFound(
            f"{doing}: the controller has no such network",
            hint="Create it with gpumesh.fleet.zerotier_network, or check the network id",
            code="404",
        )

    def _record(self, doing: str) -> Mapping[str, Any] | None:
        self._greet(doing)
        record = self._rest.find(self._path, doing)
        if record is None:
            self._expect_controller(doing)
        return record  # type: ignore[no-any-return]

    def _member_record(self, node_id: str, doing: str) -> Mapping[str, Any] | None:
        record = self._rest.find(f"{self._path}/member/{node_id}", doing)
        if record is None:
            self._expect_controller(doing)
        return record  # type: ignore[no-any-return]

    def _records(self, doing: str) -> list[Mapping[str, Any]]:
        """The records of all members, in one answer where the daemon has that, else one by one."""
        answer = self._rest.find(f"/unstable{self._path}/member", doing)
        if answer is not None:
            with self._rest.shape(doing):
                return list(answer["data"])
        by_node = self._rest.find(f"{self._path}/member", doing)
        if by_node is None:
            self._expect_controller(doing)
            raise self._no_network(doing)
        with self._rest.shape(doing):
            nodes = [wire.node_from(node_id) for node_id in dict(by_node)]
        # One that is gone by now was deleted in between.
        found = (self._rest.find(f"{self._path}/member/{node_id}", doing) for node_id in nodes)
        return [record for record in found if record is not None]

    def _bare_member(self, node_id: str, doing: str) -> Member | None:
        """What the record alone says of a member: nothing of whether it is online."""
        record = self._member_record(node_id, doing)
        return None if record is None else self._member(record, doing)

    def _network(self, record: Any, doing: str) -> Network:
        with self._rest.shape(doing):
            return wire.network_from(record, self.network_id)

    def _member(self, record: Any, doing: str) -> Member:
        with self._rest.shape(doing):
            return to_member(record, None, None)


def to_member(
    record: Mapping[str, Any], peer: Mapping[str, Any] | None, status: Mapping[str, Any] | None
) -> Member:
    """A member in our words. Pure.

    Args:
        record: what the controller says.
        peer: what the daemon knows of that node as a peer; None if nothing.
        status: of the daemon, with its clock; None if its peers were not asked for, so that nothing is known of who is online.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: one of them has not the shape it should.
    """
    node_id = wire.node_from(record["id"])
    major = int(record.get("vMajor", -1))
    version = f"{major}.{int(record['vMinor'])}.{int(record['vRev'])}" if major >= 0 else None
    facts: dict[str, Any] = {}
    if status is not None:
        if node_id == wire.node_from(status["address"]):
            # No daemon is its own peer, and this one has just answered.
            facts = {"online": True, "last_seen": wire.moment(float(status["clock"]))}
            version = str(status["version"]) if status.get("version") else version
        else:
            facts = _reached(peer or {}, float(status["clock"]))
            known = str((peer or {}).get("version") or "")
            version = version or (known if known[:1].isdigit() else None)
    return Member(
        node_id=node_id,
        name=record.get("name") or "",
        version=version,
        **facts,
        **wire.member_fields(record),
    )


def _reached(peer: Mapping[str, Any], clock: float) -> dict[str, Any]:
    """Whether, when, where and how fast a peer was heard."""
    paths = [path for path in peer.get("paths") or () if path.get("lastReceive", 0) > 0]
    if not paths:
        return {"online": False}
    last = max(float(path["lastReceive"]) for path in paths)
    best = max(paths, key=lambda path: (path.get("preferred") is True, path["lastReceive"]))
    latency = float(peer.get("latency", -1))
    return {
        "online": (clock - last) / 1000 <= ONLINE_WITHIN,
        "last_seen": wire.moment(last),
        "latency_ms": latency if latency >= 0 else None,
        "physical_address": str(best["address"]).rpartition("/")[0] or None,
    }


def open_plane(network_id: str, token: str, endpoint: str | None, clock: Clock) -> ZeroTierController:
    """Make ready to talk to a controller that can be reached from here; nothing is sent yet.

    Raises:
        MissingLibrary: requests is not installed.
    """
    rest = Rest(
        endpoint=(endpoint or ENDPOINT).rstrip("/"),
        headers={"X-ZT1-Auth": token},
        adapter=adapter(clock, SERVICE, deadline=_DEADLINE),
        service=SERVICE,
        hints=_HINTS,
        down=_DOWN,
        secrets=(token,),
    )
    return ZeroTierController(network_id, rest, clock)


def open_relayed(
    network_id: str, target: SshTarget, endpoint: str | None, clock: Clock
) -> ZeroTierController:
    """The same through SSH, for a controller on another machine's loopback; nothing is started yet.

    Raises:
        MissingLibrary: requests is not installed.
    """
    from .rest import missing_library, policy

    try:
        from .relay import RelayAdapter
    except ImportError as exc:
        raise missing_library(SERVICE, exc) from exc
    rest = Rest(
        # Without a port: the daemon's own, which it has left in a file there.
        endpoint=(endpoint or "http://127.0.0.1").rstrip("/"),
        headers={},
        adapter=RelayAdapter(target, clock, policy(deadline=_DEADLINE)),
        service=f"{SERVICE} on {target.label}",
        hints=_HINTS,
        down=_DOWN,
    )
    return ZeroTierController(network_id, rest, clock)


def read_token(path: str) -> str:
    """The token from its file, for whoever is on the controller's own machine.

    Raises:
        NotFound: there is no such file.
        Forbidden: it may not be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise errors.NotFound(
            f"there is no {path}: zerotier-one is not installed here",
            hint="Run this on the controller's machine (delegate_to), or give the token",
        ) from exc
    except PermissionError as exc:
        raise errors.Forbidden(
            f"{path} may be read by root only",
            hint="Run this with become: true, or give the token",
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.InvalidRequest(f"{path} cannot be read as a token: {type(exc).__name__}") from exc
