# SPDX-License-Identifier: GPL-3.0-or-later
"""A ZeroTier network: as it is, as somebody wants it, and what differs. Pure.

Both are kept in one normal form, so that what means the same is equal: IPv6 text compressed, routes and pools sorted,
rules with every default written out. A wish is checked when it is made, for a controller accepts nearly anything, makes
something else of it, and says that all is well: a route without prefix length becomes the default route, and the text
``yes`` makes a private network public.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from ..errors import InvalidRequest
from . import rules as network_rules

Rule = Mapping[str, Any]
Changes = dict[str, tuple[Any, Any]]
"""By field: what it is (None where there is nothing yet), and what it shall be."""

Item = TypeVar("Item", "Route", "Pool")

MTU = range(1280, 10001)
"""What a controller keeps; it bends any other number to the nearest of these."""

_MAX_TEXT = 127
"""Bytes of a name or domain that a node has room for."""

_MAX_DNS_SERVERS = 4
_MAX_MULTICAST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route that members are given. Without ``via`` the target is in the network itself."""

    target: str
    via: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A range of addresses to give out, both ends included."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Dns:
    """What members ask for names, and the domain they ask it for; neither is the same as no DNS."""

    domain: str = ""
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A network as its control plane knows it.

    Attributes:
        id: 16 hexadecimal digits, lower case.
        private: members must be authorised. Whoever joins a network that is not is a member, and stays one.
        routes, pools: in normal order.
        v4_auto, v6_auto: members are given an address from the pools of that family.
        rfc4193, sixplane: members have the address that is computed from their id.
        multicast_limit: receivers of one multicast; 0 switches IPv4 off, for it needs ARP.
        rules: in their own order, which matters; None where the control plane does not tell.
        revision: goes up with every change; None where the control plane has none.
    """

    id: str
    name: str = ""
    private: bool = True
    routes: tuple[Route, ...] = ()
    pools: tuple[Pool, ...] = ()
    v4_auto: bool = False
    v6_auto: bool = False
    rfc4193: bool = False
    sixplane: bool = False
    mtu: int = 2800
    multicast_limit: int = 32
    broadcast: bool = True
    dns: Dns = Dns()
    rules: tuple[Rule, ...] | None = None
    revision: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a module's result and its diff."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class NetworkWish:
    """What a network shall be. None leaves alone what is there; empty means empty.

    Raises:
        InvalidRequest: a value is none that a controller would keep as it is.
    """

    name: str | None = None
    private: bool | None = None
    routes: Sequence[Route] | None = None
    pools: Sequence[Pool] | None = None
    v4_auto: bool | None = None
    v6_auto: bool | None = None
    rfc4193: bool | None = None
    sixplane: bool | None = None
    mtu: int | None = None
    multicast_limit: int | None = None
    broadcast: bool | None = None
    dns: Dns | None = None
    rules: Sequence[Rule] | None = None

    def __post_init__(self) -> None:
        for name in ("private", "v4_auto", "v6_auto", "rfc4193", "sixplane", "broadcast"):
            _check_bool(name, getattr(self, name))
        _check_text("name", self.name)
        _check_int("mtu", self.mtu, MTU)
        _check_int("multicast_limit", self.multicast_limit, range(_MAX_MULTICAST + 1))
        if self.routes is not None:
            object.__setattr__(self, "routes", in_order(_route(route) for route in self.routes))
        if self.pools is not None:
            object.__setattr__(self, "pools", in_order(_pool(pool) for pool in self.pools))
        if self.dns is not None:
            object.__setattr__(self, "dns", _dns(self.dns))
        if self.rules is not None:
            object.__setattr__(self, "rules", tuple(network_rules.checked(rule) for rule in self.rules))
        if self.routes and self.pools:
            _check_cover(self.routes, self.pools)

    @property
    def named(self) -> dict[str, Any]:
        """The fields that are wished for, and their values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to_create(self) -> NetworkWish:
        """The same for a network that does not exist: private where nobody said otherwise, for nothing turns public by accident."""
        return self if self.private is not None else replace(self, private=True)


def changes(current: Network | None, wish: NetworkWish) -> Changes:
    """What would have to change, by field; for a network that does not exist, everything."""
    if current is None:
        return {name: (None, value) for name, value in wish.to_create().named.items()}
    return {
        name: (getattr(current, name), value)
        for name, value in wish.named.items()
        if getattr(current, name) != value
    }


def applied(current: Network, wish: NetworkWish) -> Network:
    """The network once the wish has come true."""
    return replace(current, **{name: after for name, (_before, after) in changes(current, wish).items()})


def plain(value: Any) -> Any:
    """Any value of these fields as JSON data."""
    if isinstance(value, (Route, Pool, Dns)):
        return {name: plain(part) for name, part in asdict(value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    return dict(value) if isinstance(value, Mapping) else value


def in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """Without repetitions, and in an order that does not depend on theirs."""
    return tuple(sorted(set(items), key=repr))


def prefix_text(text: str) -> str:
    """A prefix as the control plane tells it, in normal form; host bits are kept, as they are by it."""
    try:
        return ip_interface(text).with_prefixlen
    except ValueError:
        return text.lower()


def address_text(text: str) -> str:
    """An address as the control plane tells it, without prefix length and in normal form."""
    bare = text.partition("/")[0]
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare.lower()


def _route(route: Route) -> Route:
    text = route.target
    if not isinstance(text, str) or "/" not in text:
        raise InvalidRequest(
            f"the route target {text!r} has no prefix length",
            hint="Write it like 10.147.17.0/24: without one a controller takes it for the default route",
        )
    try:
        target = ip_network(text, strict=False)
        wanted = ip_network(text)
    except ValueError as exc:
        hint = None
        if "host bits" in str(exc):
            hint = f"Write {ip_network(text, strict=False)}, or the address with /32 or /128"
        raise InvalidRequest(f"the route target {text!r} is no network: {exc}", hint=hint) from exc
    if route.via is None:
        return Route(str(wanted))
    via = _address("the gateway of a route", route.via)
    if ip_address(via).version != target.version:
        raise InvalidRequest(f"the route to {wanted} goes via {via}, which is of the other address family")
    return Route(str(wanted), via)


def _pool(pool: Pool) -> Pool:
    start, end = _address("the start of a pool", pool.start), _address("the end of a pool", pool.end)
    first, last = ip_address(start), ip_address(end)
    if first.version != last.version:
        raise InvalidRequest(f"the pool from {start} to {end} mixes two address families")
    if int(first) > int(last):
        raise InvalidRequest(f"the pool from {start} to {end} ends before it starts")
    return Pool(start, end)


def _dns(dns: Dns) -> Dns:
    _check_text("dns domain", dns.domain)
    servers = tuple(_address("a DNS server", server) for server in dns.servers)
    if len(servers) > _MAX_DNS_SERVERS:
        raise InvalidRequest(f"{len(servers)} DNS servers are more than the {_MAX_DNS_SERVERS} a node takes")
    return Dns(dns.domain, servers)


def _check_cover(routes: Iterable[Route], pools: Iterable[Pool]) -> None:
    """An address that no route of the network covers is written down for a member and never given to it."""
    within = sorted(
        (net.version, int(net.network_address), int(net.broadcast_address))
        for net in (ip_network(route.target) for route in routes if route.via is None)
    )
    for pool in pools:
        first, last = ip_address(pool.start), ip_address(pool.end)
        covered = int(first)
        for version, start, end in within:
            if version == first.version and start <= covered <= end:
                covered = end + 1
        if covered <= int(last):
            raise InvalidRequest(
                f"no route covers the whole pool from {pool.start} to {pool.end}, so members would not get its addresses",
                hint="Add a route without gateway for the network the pool is in",
            )


def _address(what: str, text: str) -> str:
    try:
        # A number would be taken for the address with that value.
        return str(ip_address(text if isinstance(text, str) else ""))
    except ValueError as exc:
        raise InvalidRequest(f"{what} is {text!r}, which is no IP address without prefix length") from exc


def _check_text(field: str, value: str | None) -> None:
    if value is None:
        return
    if not isinstance(value, str) or any(ord(letter) < 32 for letter in value):
        raise InvalidRequest(f"{field} is to be text of one line")
    if len(value.encode()) > _MAX_TEXT:
        raise InvalidRequest(f"{field} is longer than the {_MAX_TEXT} bytes a node has room for")


def _check_bool(field: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{field} is to be true or false, not {value!r}")


def _check_int(field: str, value: object, allowed: range) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise InvalidRequest(f"{field} is to be a number from {allowed[0]} to {allowed[-1]}, not {value!r}")
