# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own machine in the sandbox's ZeroTier, SIMULATED: a member without a daemon.

A host of the sandbox reaches its mesh through a daemon of its own. The machine the sandbox runs on has none, and should
get none for a test. So the sandbox plays a node for it, and puts the addresses it is given on the bridge its hosts are
connected to. They are taken off when the membership ends.

GET    /zerotier/simulation/operator   the node, its status and its addresses
POST   /zerotier/simulation/operator   ``{"node_id": "8046d53400", "network": "db4344343b14b903"}``: be this node, joined to that
                                       network; replaces the one before
DELETE /zerotier/simulation/operator   leave
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from .backends.base import BackendError
from .backends.container import DEFAULT_IMAGE, ContainerBackend, docker
from .world import World
from .zerotier_one.build import VERSION
from .zerotier_one.identity import valid_node
from .zerotier_one.node import TICK_SECONDS, Place
from .zerotier_one.values import Json

PATH = "/zerotier/simulation/operator"
_REFRESH_SECONDS = 60
_SECONDS = 20
_PLACE = "127.0.0.1/9993"
# Its arguments: the bridge, what to do (replace or del), the addresses. Taking off what is gone is no failure.
_SCRIPT = """\
bridge=$1 verb=$2
shift 2
echo 0 >"/proc/sys/net/ipv6/conf/$bridge/disable_ipv6"
for address; do
  case $address in
    *:*) more=nodad ;;
    *) more= ;;
  esac
  if [ "$verb" = del ]; then more=; fi
  ip address "$verb" "$address" dev "$bridge" $more || [ "$verb" = del ]
done
"""
_LEFT_FILE = "zerotier-operator.json"
log = logging.getLogger("sandbox")


class Root(Protocol):
    """What the root (:mod:`.zerotier_root`) does for the node that it speaks for."""

    world: World
    operator: Operator | None

    @property
    def place(self) -> Place: ...
    def place_of(self, node: str) -> Place | None: ...
    def is_authorised(self, network: str, node: str) -> bool: ...
    def configuration(self, network: str, node: str, place: str, version: str, public: str) -> Json: ...
    def greeting(self, kind: str, node: str) -> Json: ...
    def send(self, place: Place, message: Json) -> None: ...
    async def declare(self, node: str, network: str) -> Json: ...
    async def dismiss(self) -> None: ...


class Operator:
    """One node, in one network.

    Args:
        root: that of the sandbox; it speaks for the node.
    """

    def __init__(self, root: Root, node: str, network: str) -> None:
        self.node = node
        self.network = network
        self.status = "REQUESTING_CONFIGURATION"
        self._root = root
        self._addresses: tuple[str, ...] = ()
        self._on_bridge: tuple[str, ...] = ()
        self._asked = 0.0
        self._number = 0
        self._lock = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None

    def as_json(self) -> Json:
        """As it is shown: ``reachable`` are the addresses on the bridge."""
        return {
            "node_id": self.node,
            "network": self.network,
            "status": self.status,
            "addresses": list(self._addresses),
            "reachable": list(self._on_bridge),
        }

    async def appear(self) -> None:
        """Ask for the network's configuration, now and from time to time."""
        await self._clean_up()
        self.ask()
        self._ticking = self._root.world.spawn(self._tick())

    async def close(self) -> None:
        """Take the addresses off the bridge."""
        if self._ticking:
            self._ticking.cancel()
        await self._put(())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.status != "OK" or self._root.world.clock.time() - self._asked >= _REFRESH_SECONDS:
                self.ask()

    def ask(self) -> None:
        """Ask the network's controller, wherever it is."""
        controller = self.network[:10]
        place = self._root.place_of(controller)
        if place == self._root.place:
            reply = self._root.configuration(
                self.network, self.node, _PLACE, VERSION, made_identity(self.node)
            )
            self._take(reply)
        elif place:
            self._root.send(place, self._root.greeting("hello", self.node) | {"to": controller})
            self._root.send(place, self._root.greeting("request", self.node) | {"network": self.network})

    def told(self, message: Json) -> None:
        """What a controller on a host says."""
        if message["network"] != self.network or message["number"] < self._number:
            return
        self._number = message["number"]
        if message["kind"] == "configuration":
            self._take(message["reply"])
        else:
            self.revoke()

    def changed(self, network: str, node: str | None) -> None:
        """Something changed at Central; what it means for this node."""
        if network == self.network and node in (None, self.node):
            if self._root.is_authorised(network, self.node):
                self.ask()
            else:
                self.revoke()

    def revoke(self) -> None:
        """It is no longer a member."""
        self.status = "ACCESS_DENIED"
        self._root.world.spawn(self._put(()))

    def _take(self, reply: Json) -> None:
        self.status = str(reply.get("status"))
        if self.status == "OK":
            self._asked = self._root.world.clock.time()
            self._addresses = tuple(str(address) for address in reply["addresses"])
        self._root.world.spawn(self._put(self._addresses if self.status == "OK" else ()))

    async def _put(self, wanted: tuple[str, ...]) -> None:
        """Bring the bridge in line."""
        async with self._lock:
            gone = tuple(address for address in self._on_bridge if address not in wanted)
            new = tuple(address for address in wanted if address not in self._on_bridge)
            # Whatever is cut off in the middle is still known to be there.
            try:
                if gone and await self._change("del", gone):
                    self._on_bridge = tuple(address for address in self._on_bridge if address in wanted)
                if new:
                    self._remember((*self._on_bridge, *new))
                    if await self._change("replace", new):
                        self._on_bridge = (*self._on_bridge, *new)
            except BackendError as error:
                log.error("the operator's addresses are not as they should be: %s", error)

    async def _change(self, verb: str, addresses: tuple[str, ...]) -> bool:
        """Run the script, as root or in a short-lived container that may; whether there is a bridge to change.

        Raises:
            BackendError: it fails.
        """
        backend = self._root.world.backend
        bridge = await backend.bridge() if isinstance(backend, ContainerBackend) else ""
        if not bridge:
            return verb == "del"
        words = ("sh", "-ec", _SCRIPT, "sh", bridge, verb, *addresses)
        if is_root():
            await _run(words)
        else:
            options = (
                "--rm",
                "--network=host",
                "--cap-add=NET_ADMIN",
                "--security-opt=systempaths=unconfined",
            )
            await docker(("run", *options, "--pull=never", DEFAULT_IMAGE, *words))
        return True

    def _remember(self, addresses: tuple[str, ...]) -> None:
        """For a later run, should this one be killed."""
        (self._root.world.state_dir / _LEFT_FILE).write_text(json.dumps(addresses), "utf-8")

    async def _clean_up(self) -> None:
        """Take off what a run left that was killed."""
        try:
            left = json.loads((self._root.world.state_dir / _LEFT_FILE).read_text("utf-8"))
            await self._change("del", tuple(map(str, left)))
        except (OSError, ValueError, BackendError):
            return


def is_root() -> bool:
    """Whether it can change the bridge itself."""
    return os.geteuid() == 0


async def _run(words: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise BackendError(f"ip took longer than {_SECONDS} s") from error
    if process.returncode:
        raise BackendError(
            complaint.decode(errors="replace").strip() or f"ip ended with {process.returncode}"
        )


def made_identity(node: str) -> str:
    """A public identity for a node whose key nobody here has; always the same."""
    return f"{node}:0:{hashlib.sha512(node.encode()).hexdigest()}"


def routes(root: Root) -> list[BaseRoute]:
    """The route; see the module's docstring."""

    async def show(request: Request) -> Response:
        return JSONResponse(root.operator.as_json() if root.operator else {})

    async def declare(request: Request) -> Response:
        try:
            given = await request.json()
            node, network = str(given["node_id"]).lower(), str(given["network"]).lower()
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "node_id and network are required"}, 422)
        if not re.fullmatch("[0-9a-f]{10}", node) or not valid_node(node):
            return JSONResponse({"error": "node_id is no ZeroTier node id"}, 422)
        if not re.fullmatch("[0-9a-f]{16}", network):
            return JSONResponse({"error": "network is no ZeroTier network id"}, 422)
        return JSONResponse(await root.declare(node, network))

    async def leave(request: Request) -> Response:
        await root.dismiss()
        return Response(status_code=204)

    return [
        Route(PATH, show, methods=["GET"]),
        Route(PATH, declare, methods=["POST"]),
        Route(PATH, leave, methods=["DELETE"]),
    ]
