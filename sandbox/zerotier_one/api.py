# SPDX-License-Identifier: GPL-3.0-or-later
"""The local HTTP interface, as version 1.14.1 answers it: who may ask, what for, and what comes back."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from .build import Build
from .home import SETTINGS, Home
from .interface import own_addresses
from .node import Node
from .values import BadJson, Json, dump, parse
from .web import Request, Response

REQUESTS_PER_CONNECTION = 5
_LONGEST_FORM = 8192
_WRITE_SECONDS = 0.001
"""How long a write to a member takes; of two that overlap one is lost, as with the real daemon."""
_JSON = "application/json"
_OPEN = "/health"


class Api:
    """Answers requests for one node.

    Args:
        port: where it listens.
        now: milliseconds since 1970.
    """

    def __init__(
        self,
        node: Node,
        home: Home,
        build: Build,
        *,
        token: str,
        planet: Json,
        port: int,
        now: Callable[[], int],
    ) -> None:
        self._node = node
        self._home = home
        self._build = build
        self._token = token
        self._planet = planet
        self._port = port
        self._now = now
        self._local_conf = home.local_conf()
        self._local_conf_time = home.local_conf_time()

    def look_at_settings(self) -> None:
        """Read ``local.conf`` again if it has changed."""
        time = self._home.local_conf_time()
        if time != self._local_conf_time:
            self._local_conf, self._local_conf_time = self._home.local_conf(), time

    @property
    def _settings(self) -> Json:
        found = self._local_conf.get("settings")
        return found if isinstance(found, dict) else {}

    async def answer(self, request: Request) -> Response:
        """The answer to a request, in the order of the daemon's own checks."""
        if not self._may_ask(request):
            return Response(401, b"{}", _JSON)
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if form and len(request.body) > _LONGEST_FORM:
            return Response(413)
        response = await self._route(request)
        if response.kind and "jsonp" in request.query:
            body = f"{request.query['jsonp']}({response.body.decode()});"
            response = Response(response.status, body.encode(), "application/javascript")
        if request.method == "HEAD":
            response.headers.append(("Accept-Ranges", "bytes"))
        return response

    def _may_ask(self, request: Request) -> bool:
        """The address of whoever asks has to be allowed, and then the token right. A present header is what counts."""
        client = ip_address(request.client.partition("%")[0])
        if not client.is_loopback and not any(
            client in network for network in self._managers() if network.version == client.version
        ):
            return False
        if request.path == _OPEN:
            return True
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if "x-zt1-auth" in request.headers:
            given = request.headers["x-zt1-auth"]
        elif kind.lower() == "bearer":
            given = bearer.strip()
        else:
            given = request.query.get("auth", "")
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _managers(self) -> list[IPv4Network | IPv6Network]:
        listed = self._settings.get("allowManagementFrom")
        networks: list[IPv4Network | IPv6Network] = []
        for text in listed if isinstance(listed, list) else []:
            try:
                networks.append(ip_network(str(text), strict=False))
            except ValueError:
                continue
        return networks

    async def _route(self, request: Request) -> Response:
        path, method = request.path, "GET" if request.method == "HEAD" else request.method
        if re.match(r"(/unstable)?/controller(/|$)", path):
            return await self._controller(request)
        for pattern, methods, handler in self._routes():
            found = re.fullmatch(pattern, path)
            if found and method in methods:
                return handler(request, *(group.lower() for group in found.groups()))
        return Response(404)

    def _routes(self) -> list[tuple[str, tuple[str, ...], Callable[..., Response]]]:
        get, write = ("GET",), ("POST", "PUT")
        network, moon = "/network/([0-9a-fA-F]{16})", "/moon/([0-9a-fA-F]{10})"
        return [
            ("/status", get, self._status),
            ("/health", get, self._health),
            ("/config", get, lambda request: _json(self._local_conf)),
            ("/config/settings", write, self._configure),
            ("/network", get, lambda request: _json([n.as_json() for n in self._node.networks.values()])),
            (network, get, self._network),
            (network, write, self._join),
            (network, ("DELETE",), self._leave),
            ("/peer", get, self._peers),
            ("/peer/([0-9a-fA-F]{10})", get, self._peer),
            # Moons are not simulated: one is waited for until it is left, and never listed.
            ("/moon", get, lambda request: _json([])),
            (moon, get, lambda request, moon: _json({})),
            (moon, write, self._orbit),
            (moon, ("DELETE",), lambda request, moon: _json({"result": True})),
        ]

    async def _controller(self, request: Request) -> Response:
        controller = self._node.controller
        if controller is None:
            return Response(404)
        before = controller.look(request.path) if request.method in ("POST", "PUT") else None
        if before is not None:
            await asyncio.sleep(_WRITE_SECONDS)
        answer = controller.answer(request.method, request.path, request.body, before)
        # The nodes are told after the answer is on its way.
        asyncio.get_running_loop().call_soon(self._node.settle)
        if answer.text is None:
            return Response(answer.status)
        return Response(answer.status, answer.text.encode(), _JSON)

    def _version(self) -> Json:
        major, minor, revision = self._build.numbers
        return {
            "version": self._build.version,
            "versionBuild": 0,
            "versionMajor": major,
            "versionMinor": minor,
            "versionRev": revision,
        }

    def _health(self, request: Request) -> Response:
        return _json({"clock": self._now(), "online": self._node.online, **self._version()})

    def _status(self, request: Request) -> Response:
        settings = {
            "allowTcpFallbackRelay": True,
            "forceTcpRelay": False,
            "portMappingEnabled": True,
            "primaryPort": self._port,
            "secondaryPort": 0,
            "softwareUpdate": "disable",
            "softwareUpdateChannel": "release",
            "tertiaryPort": 0,
            **self._settings,
            "homeDir": str(self._home.path),
            "listeningOn": [f"{address}/{self._port}" for address in own_addresses()],
            "surfaceAddresses": sorted(self._node.surface),
        }
        return _json(
            {
                "address": self._node.identity.node,
                "clock": self._now(),
                "config": {"settings": settings},
                "online": self._node.online,
                "planetWorldId": self._planet.get("id", 149604618),
                "planetWorldTimestamp": self._planet.get("timestamp", 0),
                "publicIdentity": self._node.identity.public,
                "tcpFallbackActive": False,
                **self._version(),
            }
        )

    def _configure(self, request: Request) -> Response:
        """Put settings into ``local.conf``, unchecked."""
        given = _object(request.body)
        if given:
            self._home.write_local_conf(self._local_conf | {"settings": self._settings | given})
        return _json({})

    def _network(self, request: Request, network: str) -> Response:
        found = self._node.networks.get(network)
        return _json(found.as_json()) if found else _json({}, 404)

    def _join(self, request: Request, network: str) -> Response:
        known = self._node.networks.get(network)
        settings = dict(known.settings if known else SETTINGS)
        for name, value in _object(request.body).items():
            if name in settings and isinstance(value, bool):
                settings[name] = value
        return _json(self._node.join(network, settings).as_json())

    def _leave(self, request: Request, network: str) -> Response:
        return _json({"result": True} if self._node.leave(network) else {})

    def _peers(self, request: Request) -> Response:
        return _json([peer.as_json(self._now()) for _, peer in sorted(self._node.peers.items())])

    def _peer(self, request: Request, node: str) -> Response:
        found = self._node.peers.get(node)
        return _json(found.as_json(self._now()) if found else {})

    def _orbit(self, request: Request, moon: str) -> Response:
        waiting: Json = {
            "roots": [],
            "signature": None,
            "timestamp": 0,
            "updatesMustBeSignedBy": None,
            "waiting": True,
        }
        return _json({"id": moon.rjust(16, "0"), **waiting})


def _json(content: object, status: int = 200) -> Response:
    return Response(status, dump(content).encode(), _JSON)


def _object(body: bytes) -> Json:
    """The object of a request; empty for everything else."""
    try:
        given = parse(body)
    except BadJson:
        return {}
    return given if isinstance(given, dict) else {}
