# SPDX-License-Identifier: GPL-3.0-or-later
"""The root of the sandbox's ZeroTier, SIMULATED: nodes on its hosts find each other through it, and Central's networks.

It listens on the gateway address of the containers' network, which is an address of this machine that the hosts reach
and nobody else does; the port is the sandbox's own plus ten. On TCP it serves the vendor's package repository:

    http://10.77.0.1:8490/zerotier/debian    suites of any name, component main; as the vendor's it has a version with a
                                             controller, and a newer one without
    http://10.77.0.1:8490/zerotier/key.asc   its key; the fingerprint is in the state folder, zerotier.fingerprint
    http://10.77.0.1:8490/gpu/               NVIDIA's repositories (:mod:`sandbox.gpu`); nvidia.fingerprint

On UDP it speaks the nodes' language (:mod:`sandbox.zerotier_one.node`): it says where a node is, and answers for the
controllers of Central's networks, whose node ids it bears beside its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .backends.container import ContainerBackend
from .gpu import cloud as gpu_cloud
from .packages import Repository, repository, signing_key
from .world import World
from .zerotier_account import Central
from .zerotier_one import identity
from .zerotier_one.build import VERSION, WITHOUT_CONTROLLER, Build
from .zerotier_one.node import MOST_OTHERS, REPEATS, Place
from .zerotier_one.values import Json
from .zerotier_one.web import Request, Response, WebServer
from .zerotier_operator import Operator, made_identity

PORT_ABOVE = 10
FINGERPRINT_FILE = "zerotier.fingerprint"
NODE = "5a9db0c0de"
"""The root's own node id."""
_PREFIX = "/zerotier/"
_REQUESTS_PER_CONNECTION = 100
_FRESH_SECONDS = 60
log = logging.getLogger("sandbox")


@dataclass(slots=True)
class _Seen:
    """A node that was heard of."""

    identity: str
    version: str
    place: Place
    at: float


class Root(asyncio.DatagramProtocol):
    """The root. It opens when there is a network of containers, and closes with the sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operator: Operator | None = None
        self._gateway = ""
        self._nodes: dict[str, _Seen] = {}
        self._members: set[tuple[str, str]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._web: WebServer | None = None
        self._repository: Repository | None = None
        self.gpu_vendor: gpu_cloud.Vendor | None = None
        self._central: Central | None = None
        self._last_number = 0

    @property
    def port(self) -> int:
        """Where it listens, UDP and TCP."""
        return (urlsplit(self.world.base_url).port or 0) + PORT_ABOVE

    async def open(self, gateway: str) -> None:
        """Listen on the gateway's address; does nothing where it does."""
        if self._transport:
            return
        web, listener = WebServer(self._serve, most=_REQUESTS_PER_CONNECTION), None
        try:
            listener = socket.create_server((gateway, self.port))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self, local_addr=(gateway, self.port)
            )
            await web.listen(listener)
        except OSError as error:
            if listener:
                listener.close()
            log.error(
                "no ZeroTier for the hosts: cannot listen on %s:%s: %s", gateway, self.port, error.strerror
            )
            return
        self._gateway, self._transport, self._web = gateway, transport, web
        if isinstance(self.world.backend, ContainerBackend):
            self.world.backend.gpu_archives = f"http://{gateway}:{self.port}{gpu_cloud.PREFIX}"
        self._listen_to_central()
        if self.operator:
            self.operator.ask()

    async def close(self) -> None:
        """Stop, and forget everybody."""
        await self.dismiss()
        if self._transport:
            self._transport.close()
        if self._web:
            await self._web.close()
        self._transport = self._web = self._repository = None
        self._nodes.clear()
        self._members.clear()

    # The operator

    async def declare(self, node: str, network: str) -> Json:
        """Be that node for the machine of the sandbox, and no other."""
        await self.dismiss()
        self.operator = Operator(self, node, network)
        await self.operator.appear()
        return self.operator.as_json()

    async def dismiss(self) -> None:
        """Be no node for it any more."""
        operator, self.operator = self.operator, None
        if operator:
            await operator.close()

    # The repository

    async def _serve(self, request: Request) -> Response:
        content = self._file(request.path) if request.method in ("GET", "HEAD") else None
        # pip takes no index of packages that does not say that it is HTML.
        kind = "text/html" if request.path.endswith(("/", ".html")) else "application/octet-stream"
        return Response(404) if content is None else Response(200, content, kind)

    def _file(self, path: str) -> bytes | None:
        if path.startswith(gpu_cloud.PREFIX):
            return self.gpu_vendor.file(path.removeprefix(gpu_cloud.PREFIX)) if self.gpu_vendor else None
        if not path.startswith(_PREFIX):
            return None
        if self._repository is None:
            roots = (f"{self._gateway}:{self.port}",)
            builds = [Build.of(version, roots) for version in (VERSION, WITHOUT_CONTROLLER)]
            self._repository = repository(self.world.state_dir, builds)
        return self._repository.file(path.removeprefix(_PREFIX))

    # Central's networks

    def _listen_to_central(self) -> Central:
        """The account; its changes are learnt from now on."""
        central = self.world.store(Central)
        if central is not self._central:
            central.listeners.append(self._changed)
            self._central = central
        return central

    def _changed(self, network: str, node: str | None) -> None:
        # A listener is called in the middle of a change.
        asyncio.get_running_loop().call_soon(self._tell, network, node)

    def _tell(self, network: str, node: str | None) -> None:
        """Tell the nodes that have asked for a network what has become of their membership."""
        if self.operator:
            self.operator.changed(network, node)
        for member in [m for m in self._members if m[0] == network and node in (None, m[1])]:
            seen = self._nodes.get(member[1])
            if not seen:
                continue
            if self.is_authorised(*member):
                self._send_configuration(network, member[1], seen)
            else:
                # Not asked again on its behalf: that would make a deleted member come back.
                content = {"kind": "revoked", "network": network, "node": member[1], "number": self._number()}
                for delay in REPEATS:
                    asyncio.get_running_loop().call_later(delay, self.send, seen.place, content)

    def is_authorised(self, network: str, node: str) -> bool:
        """Whether Central says that the node is a member of the network."""
        found = self._listen_to_central().networks.get(network)
        member = found.members.get(node) if found else None
        return bool(member and member.config["authorized"])

    def configuration(self, network: str, node: str, place: str, version: str, public: str) -> Json:
        """What Central answers a node that asks."""
        reply = self._listen_to_central().configuration(network, node, place, version, public)
        return reply | {"type": "PRIVATE" if reply.get("private", True) else "PUBLIC"}

    def _send_configuration(self, network: str, node: str, seen: _Seen) -> None:
        place = f"{seen.place[0]}/{seen.place[1]}"
        reply = self.configuration(network, node, place, seen.version, seen.identity)
        content: Json = {"kind": "configuration", "network": network, "node": node, "number": self._number()}
        if reply["status"] == "OK":
            content["others"] = self._others(network, node)
        self.send(seen.place, content | {"reply": reply})

    def _others(self, network: str, node: str) -> list[list[object]]:
        """Where the other members of a network of Central's are."""
        members = [m for known, m in self._members if known == network and m != node and m in self._nodes]
        return [[m, *self._nodes[m].place] for m in members if self.is_authorised(network, m)][:MOST_OTHERS]

    def _number(self) -> int:
        self._last_number = max(self._last_number + 1, int(self.world.clock.time() * 1000))
        return self._last_number

    # Nodes

    @property
    def place(self) -> Place:
        """Where the nodes are that it bears."""
        return self._gateway, self.port

    def place_of(self, node: str) -> Place | None:
        """Where a node is that was heard of lately, this one's own ones included."""
        if node in self._own():
            return self.place
        seen = self._nodes.get(node)
        fresh = seen and self.world.clock.time() - seen.at < _FRESH_SECONDS
        return seen.place if seen and fresh else None

    def _own(self) -> dict[str, str]:
        """The node ids it bears, with their identities."""
        nodes = {NODE, *(network[:10] for network in self._listen_to_central().networks)}
        if self.operator:
            nodes.add(self.operator.node)
        return {node: made_identity(node) for node in nodes}

    def greeting(self, kind: str, node: str) -> Json:
        """A message of one of its nodes."""
        time = int(self.world.clock.time() * 1000)
        return {"kind": kind, "identity": made_identity(node), "version": VERSION, "time": time}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready at once."""

    def error_received(self, exc: Exception) -> None:
        """A host that is gone is no news."""

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            self._received(json.loads(data), (str(addr[0]), int(addr[1])))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a datagram from %s is no message of a node", addr[0])

    def _received(self, message: Json, place: Place) -> None:
        found = identity.read(message["identity"]) if "identity" in message else None
        if found and found.node not in self._own():
            now = self.world.clock.time()
            self._nodes[found.node] = _Seen(found.public, str(message["version"]), place, now)
        match message["kind"]:
            case "hello":
                meant = str(message.get("to", NODE))
                if meant in self._own():
                    more = {"time": message["time"], "seen": f"{place[0]}/{place[1]}", "root": meant == NODE}
                    self.send(place, self.greeting("welcome", meant) | more)
            case "whois":
                node = str(message["node"])
                if known := self.place_of(node):
                    self.send(place, {"kind": "there", "node": node, "place": list(known)})
            case "request" if found:
                network = str(message["network"])
                self._members.add((network, found.node))
                self._send_configuration(network, found.node, self._nodes[found.node])
            case "configuration" | "revoked" if self.operator and message["node"] == self.operator.node:
                self.operator.told(message)

    def send(self, place: Place, message: Json) -> None:
        """Send a message to a node."""
        if self._transport and not self._transport.is_closing():
            self._transport.sendto(json.dumps(message).encode(), place)


def attach(world: World) -> Root:
    """Give the hosts of a sandbox their root; it starts with their network."""
    root = Root(world)
    world.closers.append(root.close)
    if isinstance(world.backend, ContainerBackend):
        world.backend.on_network = root.open
        root.gpu_vendor = gpu_cloud.Vendor(world.state_dir)
        fingerprint = signing_key(world.state_dir).fingerprint
        (world.state_dir / FINGERPRINT_FILE).write_text(f"{fingerprint}\n", "ascii")
    return root
