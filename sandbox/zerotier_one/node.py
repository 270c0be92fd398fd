# SPDX-License-Identifier: GPL-3.0-or-later
"""The node: how it finds others, asks controllers, and answers those who ask its own.

Datagrams are JSON objects. SIMULATED: they carry no signature, so a node believes what comes from the address it knows a
peer by. Their kinds:

``hello`` and ``welcome``   who and where each is, and how long the way takes; ``to`` may name who is meant
``whois`` and ``there``     where a node is; those answer who know
``request``                 a node asks a network's controller for its configuration
``configuration``           its answer, or a change it tells on its own; the answer says where other members are
``revoked``                 the node is no longer a member: its traffic ends at once
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from .build import Build
from .controller import Controller, Message
from .home import Home
from .identity import Identity, read
from .joined import Joined
from .values import Json

log = logging.getLogger("zerotier-one")
Place = tuple[str, int]
TICK_SECONDS = 5.0
"""How often the node looks after its peers and networks."""
ONLINE_MS = 30_000
ACTIVE_MS = 235_000
"""So long a silent peer's path still counts as active."""
FORGET_MS = 600_000
MOST_OTHERS = 100
"""Of a network's other members, so many are named to a member."""
REPEATS = (0.0, 0.2, 0.6)
"""When a revocation is sent: nothing acknowledges it, and a lost one would let traffic through. So what controllers tell
is numbered, and a revocation older than the configuration at hand is of no effect."""


@dataclass(slots=True)
class Peer:
    """Another node that was heard of; times in milliseconds since 1970."""

    identity: str
    place: Place
    version: str
    root: bool = False
    last_receive: int = 0
    last_send: int = 0
    latency: int = -1

    def as_json(self, now: int) -> Json:
        """As the local interface shows it."""
        major, minor, revision = (int(part) for part in self.version.split("."))
        active = now - self.last_receive < ACTIVE_MS
        path = {
            "active": True,
            "address": f"{self.place[0]}/{self.place[1]}",
            "expired": False,
            "lastReceive": self.last_receive,
            "lastSend": self.last_send,
            "localPort": 0,
            "localSocket": 0,
            "preferred": True,
            "trustedPathId": 0,
        }
        return {
            "address": self.identity[:10],
            "isBonded": False,
            "latency": self.latency if active else -1,
            "paths": [path] if active else [],
            "role": "PLANET" if self.root else "LEAF",
            "tunneled": False,
            "version": self.version,
            "versionMajor": major,
            "versionMinor": minor,
            "versionRev": revision,
        }


class Node(asyncio.DatagramProtocol):
    """One node.

    Args:
        roots: where the planet's roots are.
        is_root: this node is one of them.
        now: milliseconds since 1970.
    """

    def __init__(
        self,
        home: Home,
        build: Build,
        identity: Identity,
        *,
        roots: list[Place],
        is_root: bool,
        controller: Controller | None,
        now: Callable[[], int],
    ) -> None:
        self.identity = identity
        self.controller = controller
        self.networks: dict[str, Joined] = {}
        self.peers: dict[str, Peer] = {}
        self.surface: set[str] = set()
        self._home = home
        self._build = build
        self._roots = roots
        self._is_root = is_root
        self._now = now
        self._transport: asyncio.DatagramTransport | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._last_number = 0

    @property
    def online(self) -> bool:
        """Whether a root answers, or the node is one."""
        now = self._now()
        return self._is_root or any(
            peer.root and now - peer.last_receive < ONLINE_MS for peer in self.peers.values()
        )

    def start(self) -> None:
        """Join what was joined, and begin to look after it."""
        self.join_again()
        self._ticking = asyncio.create_task(self._tick_for_ever())

    def join_again(self) -> None:
        """Join what was joined when it last ran, or what has been put there for it."""
        for network, (configuration, settings) in self._home.joined().items():
            joined = self.networks[network] = Joined(network, self.identity.node, settings)
            if configuration:
                joined.remember(configuration)
            joined.apply()

    async def stop(self) -> None:
        """End, and take every interface off the host."""
        if self._ticking:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
        if self._transport:
            self._transport.close()
        for joined in self.networks.values():
            joined.leave()

    def join(self, network: str, settings: dict[str, bool]) -> Joined:
        """Join a network, or change the local settings of a joined one."""
        joined = self.networks.get(network)
        if joined is None:
            joined = self.networks[network] = Joined(network, self.identity.node, {})
            self._home.keep(network, {})
        joined.settings = settings
        self._home.keep_settings(network, settings)
        joined.apply()
        return joined

    def leave(self, network: str) -> bool:
        """Leave a network; False if it was not joined."""
        joined = self.networks.pop(network, None)
        if joined:
            joined.leave()
            self._home.forget(network)
        return joined is not None

    async def _tick_for_ever(self) -> None:
        while True:
            self.tick()
            await asyncio.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Greet roots and peers, and ask for configurations that are due."""
        now = self._now()
        self.peers = {node: peer for node, peer in self.peers.items() if now - peer.last_receive < FORGET_MS}
        if not self._is_root:
            for root in self._roots:
                self._send(root, self._greeting("hello", now))
        for peer in self.peers.values():
            if not peer.root or self._is_root:
                self._send(peer.place, self._greeting("hello", now) | {"to": peer.identity[:10]})
            peer.last_send = now
        for joined in list(self.networks.values()):
            if joined.wants(now):
                self._ask(joined)

    def _greeting(self, kind: str, time: int) -> Json:
        return {"kind": kind, "identity": self.identity.public, "version": self._build.version, "time": time}

    def _ask(self, joined: Joined) -> None:
        """Ask the network's controller, or the roots where it is."""
        if joined.controller == self.identity.node:
            if self.controller:
                self._take(
                    joined, self.controller.request(joined.id, self.identity.public, self._build.numbers)
                )
                self.settle()
        elif peer := self.peers.get(joined.controller):
            request = self._greeting("request", self._now()) | {"network": joined.id}
            self._send(peer.place, request)
            peer.last_send = self._now()
        else:
            for root in self._roots:
                self._send(root, self._greeting("whois", self._now()) | {"node": joined.controller})

    def _take(self, joined: Joined, reply: Json) -> None:
        if joined.take(reply, self._now()):
            self._home.keep(joined.id, reply)
        joined.apply()

    def settle(self) -> None:
        """Tell nodes what the controller has to tell them; called after everything that may change it."""
        for message in self.controller.settle() if self.controller else []:
            if message.node == self.identity.node:
                self._told(message.network, message.reply)
            elif peer := self.peers.get(message.node):
                self._tell(peer, message)

    def _tell(self, peer: Peer, message: Message) -> None:
        content: Json = {"network": message.network, "node": message.node, "number": self._number()}
        if message.reply is None:
            content["kind"] = "revoked"
            for delay in REPEATS:
                asyncio.get_running_loop().call_later(delay, self._send, peer.place, content)
        else:
            self._send(peer.place, content | {"kind": "configuration", "reply": message.reply})

    def _number(self) -> int:
        """Higher than any before, also after a restart."""
        self._last_number = max(self._last_number + 1, self._now())
        return self._last_number

    def _told(self, network: str, reply: Json | None) -> None:
        """What a controller says on its own, or when it was asked."""
        joined = self.networks.get(network)
        if joined is None:
            return
        if reply is None:
            joined.revoke()
            joined.apply()
        else:
            self._take(joined, reply)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Older versions of Python do not derive theirs from it.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """A root or peer that is not there is no news."""

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            message = json.loads(data)
            self._received(message, (str(addr[0]), int(addr[1])))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a datagram from %s is none of ours", addr[0])

    def _received(self, message: Json, place: Place) -> None:
        now, kind = self._now(), message["kind"]
        if message.get("to", self.identity.node) != self.identity.node:
            return
        if "identity" in message:
            self._heard(message, place, now)
        match kind:
            case "hello":
                more = {"seen": f"{place[0]}/{place[1]}", "root": self._is_root}
                self._send(place, self._greeting("welcome", message["time"]) | more)
            case "welcome":
                self._welcomed(message, place, now)
            case "whois":
                if found := self.peers.get(message["node"]):
                    self._send(place, {"kind": "there", "node": message["node"], "place": list(found.place)})
            case "there":
                hello = self._greeting("hello", now) | {"to": message["node"]}
                self._send((str(message["place"][0]), int(message["place"][1])), hello)
            case "request":
                self._requested(message, place)
            case "configuration" | "revoked":
                controller = self.peers.get(message["network"][:10])
                meant = message["node"] == self.identity.node
                if controller and meant and controller.place[0] == place[0]:
                    controller.last_receive = now
                    self._answered(message)

    def _answered(self, message: Json) -> None:
        joined = self.networks.get(message["network"])
        if joined is None or message["number"] < joined.number:
            return
        joined.number = message["number"]
        for other, host, port in message.get("others", []):
            if other not in self.peers:
                self._send((str(host), int(port)), self._greeting("hello", self._now()) | {"to": other})
        self._told(joined.id, message["reply"] if message["kind"] == "configuration" else None)

    def _heard(self, message: Json, place: Place, now: int) -> None:
        identity = read(message["identity"])
        if not identity or identity.node == self.identity.node:
            return
        known = self.peers.get(identity.node)
        if known and known.identity != identity.public and now - known.last_receive < ONLINE_MS:
            return  # another key with the same node id
        if known:
            known.identity, known.place, known.version = identity.public, place, message["version"]
        else:
            known = self.peers[identity.node] = Peer(identity.public, place, message["version"])
        known.root = known.root or (bool(message.get("root")) and place in self._roots)
        known.last_receive = now

    def _welcomed(self, message: Json, place: Place, now: int) -> None:
        node = message["identity"][:10]
        if peer := self.peers.get(node):
            peer.latency = max(0, now - int(message["time"]))
        if place in self._roots:
            self.surface.add(message["seen"])
        for joined in self.networks.values():
            # Its controller has just been found, or the root that knows it.
            if not joined.updated and (node == joined.controller or place in self._roots):
                self._ask_once(joined)

    def _ask_once(self, joined: Joined) -> None:
        """Ask out of turn, but only a network that has had no answer at all."""
        if joined.status in ("REQUESTING_CONFIGURATION", "OK"):
            self._ask(joined)

    def _requested(self, message: Json, place: Place) -> None:
        if not self.controller:
            return
        network = str(message["network"])
        numbers = message["version"].split(".")
        reply = self.controller.request(
            network, message["identity"], (int(numbers[0]), int(numbers[1]), int(numbers[2]))
        )
        node = message["identity"][:10]
        content: Json = {"kind": "configuration", "network": network, "node": node, "number": self._number()}
        if reply["status"] == "OK":
            content["others"] = self._others(network, node)
        self._send(place, content | {"reply": reply})
        self.settle()

    def _others(self, network: str, node: str) -> list[list[object]]:
        """Where the other members are, so that a member finds them: real ones learn it from their traffic."""
        members = self.controller.authorised(network) if self.controller else []
        found = {other: self.peers[other].place for other in members if other in self.peers and other != node}
        return [[other, *place] for other, place in found.items()][:MOST_OTHERS]

    def _send(self, place: Place, message: Json) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.sendto(json.dumps(message).encode(), place)
