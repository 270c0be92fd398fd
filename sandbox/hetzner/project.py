# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of the one Hetzner Cloud project of a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ..backends.base import Addresses, BackendError
from ..faults import Rule, Subject
from ..world import World
from . import catalog
from .errors import ApiError, not_found
from .labels import Term, matches, parse_selector

cached_selector: Callable[[str], tuple[Term, ...]] = lru_cache(maxsize=256)(parse_selector)


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as the API writes time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Action:
    """Work that takes time. ``seconds`` is how long it is thought to take; 0 until it has begun."""

    id: int
    command: str
    resources: tuple[tuple[str, int], ...]
    started: float
    seconds: float = 0.0
    finished: float | None = None
    error: tuple[str, str] | None = None

    def as_json(self, now: float) -> dict[str, Any]:
        progress = 100
        if self.finished is None:
            progress = min(99, int(100 * (now - self.started) / self.seconds)) if self.seconds else 0
        return {
            "id": self.id,
            "command": self.command,
            "status": "running" if self.finished is None else "error" if self.error else "success",
            "progress": progress,
            "started": timestamp(self.started),
            "finished": None if self.finished is None else timestamp(self.finished),
            "resources": [{"id": number, "type": kind} for kind, number in self.resources],
            "error": {"code": self.error[0], "message": self.error[1]} if self.error else None,
        }


@dataclass(slots=True)
class Server:
    """A server. What its user data was, no API tells, so it is not kept here."""

    id: int
    name: str
    created: float
    type: catalog.Type
    location: str
    image: dict[str, Any]
    addresses: Addresses
    labels: dict[str, str] = field(default_factory=dict)
    status: str = "initializing"
    locked: bool = True
    ipv4_id: int | None = None
    ipv6_id: int | None = None
    firewalls: list[int] = field(default_factory=list)
    networks: dict[int, str] = field(default_factory=dict)
    protected: bool = False
    hidden_until: float = 0.0
    disk: int = 0
    rescue_keys: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """Its name at the back end."""
        return f"hetzner-{self.id}"

    def subject(self, verb: str = "") -> Subject:
        return Subject(self.name, self.labels, self.location, self.type.name, verb)


class Project:
    """Everything there is, with the indexes that keep lists of 10,000 servers fast."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: dict[int, Server] = {}
        self.server_names: dict[str, int] = {}
        self.actions: dict[int, Action] = {}
        self.actions_of: dict[tuple[str, int], list[int]] = {}
        self.ssh_keys: dict[int, dict[str, Any]] = {}
        self.firewalls: dict[int, dict[str, Any]] = {}
        self.networks: dict[int, dict[str, Any]] = {}
        self.primary_ips: dict[int, dict[str, Any]] = {}
        self.snapshots: dict[int, dict[str, Any]] = {}
        self._chosen: dict[str, list[Server]] = {}
        self._hidden: set[int] = set()
        self._spent = 0.0
        self._refilled = world.clock.time()

    @property
    def rate_limit(self) -> int:
        """Requests an hour, and the size of the bucket."""
        return self.world.options["hetzner_rate_limit"]

    def spend_request(self) -> tuple[int, int]:
        """Take one request out of the bucket; how many are left, and when (UNIX time) it will be full.

        Raises:
            ApiError: it is empty.
        """
        now, refill = self.world.clock.time(), self.rate_limit / 3600
        self._spent = max(0.0, self._spent - (now - self._refilled) * refill)
        self._refilled = now
        if self._spent + 1 > self.rate_limit:
            raise ApiError("rate_limit_exceeded", f"limit of {self.rate_limit} requests per hour reached")
        self._spent += 1
        return int(self.rate_limit - self._spent), int(now + self._spent / refill) + 1

    # Servers

    def server(self, number: int) -> Server:
        """By id.

        Raises:
            ApiError: there is none.
        """
        if found := self.servers.get(number):
            return found
        raise not_found("server", number)

    def add_server(self, server: Server) -> None:
        self.servers[server.id] = server
        self.server_names[server.name] = server.id
        if server.hidden_until:
            self._hidden.add(server.id)
        self.touch()

    def remove_server(self, server: Server) -> None:
        self.servers.pop(server.id, None)
        self._hidden.discard(server.id)
        # The name may have been given to another one meanwhile.
        if self.server_names.get(server.name) == server.id:
            del self.server_names[server.name]
        for number in (server.ipv4_id, server.ipv6_id):
            self.primary_ips.pop(number or 0, None)
        self.touch()

    def touch(self) -> None:
        """Forget which servers selectors choose: servers or labels have changed."""
        self._chosen.clear()

    def select_servers(self, selector: str) -> list[Server]:
        """The servers a label selector chooses, in order of creation, without those no list shows yet."""
        now = self.world.clock.time()
        shown = {number for number in self._hidden if self.servers[number].hidden_until <= now}
        if shown:
            self._hidden -= shown
            self.touch()
        if selector not in self._chosen:
            terms = cached_selector(selector)
            self._chosen[selector] = [
                server
                for server in self.servers.values()
                if server.id not in self._hidden and (not terms or matches(terms, server.labels))
            ]
        return self._chosen[selector]

    def named_server(self, name: str, selector: str) -> list[Server]:
        """The server of that name, if the selector chooses it; also while lists do not show it yet."""
        server = self.servers.get(self.server_names.get(name, 0))
        return [server] if server and matches(cached_selector(selector), server.labels) else []

    def sold_out(self, kind: catalog.Type) -> frozenset[str]:
        """The locations where a lasting stock-out is declared for a type."""
        faults = self.world.faults
        if not faults.rules:
            return frozenset()
        return frozenset(
            location
            for location in kind.locations
            if faults.lasting("stockout", service="hetzner", subject=Subject(zone=location, type=kind.name))
        )

    def firewalls_of(self, server: Server) -> list[int]:
        """The firewalls on a server: those put on it, and those whose selector chooses it."""
        found = list(server.firewalls)
        for number, firewall in self.firewalls.items():
            selectors = [
                entry["label_selector"]["selector"]
                for entry in firewall["applied_to"]
                if "label_selector" in entry
            ]
            if number not in found and any(
                matches(cached_selector(text), server.labels) for text in selectors
            ):
                found.append(number)
        return found

    def show_server(self, server: Server) -> dict[str, Any]:
        """A server as the API shows it."""
        ipv4, ipv6 = server.addresses.ipv4, server.addresses.ipv6
        if server.status == "running" and self.world.backend.running(server.key) is False:
            server.status = "off"  # it has shut itself down
        dropped = {}
        if self.world.options["hetzner_datacenter"]:
            dropped["datacenter"] = catalog.datacenter(server.location)
        return {
            **dropped,
            "id": server.id,
            "name": server.name,
            "status": server.status,
            "created": timestamp(server.created),
            "public_net": {
                "ipv4": server.ipv4_id
                and {
                    "id": server.ipv4_id,
                    "ip": ipv4,
                    "blocked": False,
                    "dns_ptr": f"static.{'.'.join(reversed(ipv4.split('.')))}.clients.your-server.de",
                },
                "ipv6": server.ipv6_id
                and {"id": server.ipv6_id, "ip": ipv6, "blocked": False, "dns_ptr": []},
                "floating_ips": [],
                "firewalls": [{"id": number, "status": "applied"} for number in self.firewalls_of(server)],
            },
            "private_net": [
                {
                    "network": number,
                    "ip": ip,
                    "alias_ips": [],
                    "mac_address": f"86:00:ff:{server.id & 0xFF:02x}:00:{number & 0xFF:02x}",
                }
                for number, ip in server.networks.items()
            ],
            "server_type": catalog.server_type(server.type),
            "location": catalog.LOCATIONS[server.location],
            "image": server.image,
            "iso": None,
            "rescue_enabled": server.rescue_keys is not None,
            "locked": server.locked,
            "backup_window": None,
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "included_traffic": 21_990_232_555_520,
            "protection": {"delete": server.protected, "rebuild": server.protected},
            "labels": server.labels,
            "volumes": [],
            "load_balancers": [],
            "primary_disk_size": server.disk,
            "placement_group": None,
        }

    # Actions

    def action(self, command: str, *resources: tuple[str, int]) -> Action:
        """A new one, running."""
        action = Action(self.world.next_id("hetzner-action"), command, resources, self.world.clock.time())
        self.actions[action.id] = action
        for resource in resources:
            self.actions_of.setdefault(resource, []).append(action.id)
        return action

    def finish(self, action: Action, error: tuple[str, str] | None = None) -> Action:
        """End it, well or with an error code and message."""
        action.finished = self.world.clock.time()
        action.error = error
        return action

    def show_actions(self, actions: Iterable[Action]) -> list[dict[str, Any]]:
        now = self.world.clock.time()
        return [action.as_json(now) for action in actions]

    async def carry_out(
        self, action: Action, seconds: float, failure: Rule | None, work: Callable[[], Awaitable[None]]
    ) -> bool:
        """Do an action's work, for at least so many seconds, and end the action; whether it went well."""
        action.started, action.seconds = self.world.clock.time(), seconds
        error = None
        try:
            await work()
        except BackendError as problem:
            error = ("action_failed", str(problem))
        await self.world.clock.sleep(max(0.0, action.started + seconds - self.world.clock.time()))
        if failure:
            error = (failure.code or "action_failed", failure.message or "Action failed")
        self.finish(action, error)
        return error is None
