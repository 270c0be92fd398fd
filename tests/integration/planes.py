# SPDX-License-Identifier: GPL-3.0-or-later
"""The control planes of the mesh as tests use them: each a running one, with a proxy before it that can go wrong.

``central_v1`` and ``central_v2`` are the sandbox's ZeroTier Central; ``controller`` is the stand-in for zerotier-one. All are
talked to over loopback by the clients of the collection.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import mesh

from sandbox.testing import Sandbox, listen
from sandbox.zerotier_one import api, build, controller, home, node, store, web
from sandbox.zerotier_one.daemon import now
from tests.loopback import Answer, Seen, Server, closed_port

KINDS = ("central_v1", "central_v2", "controller")
TOKEN = "fakefakefakefakefakefake"
"""Of the stand-in's local interface."""


class Clock:
    """Time that hardly passes for those who sleep.

    Attributes:
        least: seconds that any sleep counts as, so that whoever is patient for two minutes asks a few times only.
    """

    def __init__(self) -> None:
        self.least = 0.0
        self._slept = 0.0

    def now(self) -> float:
        return time.monotonic() + self._slept

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.02))
        self._slept += max(seconds, self.least)


class Proxy:
    """Carries requests to a control plane, as long as nobody told it otherwise.

    Attributes:
        delay: seconds an answer is late; the request is carried out all the same.
        answer: what everybody gets instead of being carried on.
        credential: takes the place of the token, if set.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._hooks: list[tuple[re.Pattern[str], Callable[[], object]]] = []
        self.server = Server(self._respond)
        # Or else each answer waits 40 ms for the acknowledgement of its head.
        self.server._httpd.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined]
        self.heal()

    def heal(self) -> None:
        """Carry on as if nothing had been."""
        self.delay = 0.0
        self.answer: Answer | None = None
        self.credential = ""
        self._hooks.clear()

    def before(self, request: str, act: Callable[[], object]) -> None:
        """Do something once, before the first request whose ``METHOD /path`` this pattern is found in."""
        self._hooks.append((re.compile(request), act))

    def calls(self, method: str = "") -> list[str]:
        """The requests so far; ``method`` as a regular expression chooses."""
        return [call for call in self.server.calls if re.match(method, call)]

    def _respond(self, seen: Seen) -> Answer:
        for hook in self._hooks:
            if hook[0].search(str(seen)):
                self._hooks.remove(hook)
                hook[1]()
                break
        answer = self.answer or self._carry(seen)
        time.sleep(self.delay)
        return answer

    def _carry(self, seen: Seen) -> Answer:
        headers = {"Content-Type": "application/json"}
        for name in ("authorization", "x-zt1-auth"):
            if name in seen.headers:
                scheme, _, _ = seen.headers[name].rpartition(" ")
                headers[name] = (
                    f"{scheme} {self.credential}".strip() if self.credential else seen.headers[name]
                )
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            body = None if seen.body is None else json.dumps(seen.body)
            connection.request(seen.method, seen.path, body, headers)
            answer = connection.getresponse()
            shown = ("Content-Type", "Retry-After", "X-Gpumesh-Simulated")
            return Answer(
                answer.status,
                answer.read().decode(),
                {name: value for name in shown if (value := answer.getheader(name))},
            )
        finally:
            connection.close()


class Plane:
    """One control plane.

    Attributes:
        kind: as the collection calls it.
        network: id of a network that is there.
        other: id of one that is not, though it could be.
        clock: of its clients.
        proxy: before it.
    """

    def __init__(self, kind: str, url: str, path: str, token: str, network: str, other: str) -> None:
        self.kind, self.network, self.other = kind, network, other
        self.clock = Clock()
        self.proxy = Proxy(url)
        self._path, self._token, self._url = path, token, url

    def client(self, network: str = "") -> Any:
        """A client that goes through the proxy."""
        endpoint = self.proxy.server.url + self._path
        return mesh.open_plane(self.kind, network or self.network, self._token, endpoint, self.clock)

    def somebody(self) -> Any:
        """A client of somebody else, past the proxy."""
        return mesh.open_plane(self.kind, self.network, self._token, self._url + self._path, self.clock)

    def nowhere(self) -> Any:
        """A client whose endpoint is a port where nobody listens."""
        endpoint = f"http://127.0.0.1:{closed_port()}{self._path}"
        return mesh.open_plane(self.kind, self.network, self._token, endpoint, self.clock)

    @property
    def token(self) -> str:
        return self._token

    def appears(self, node_id: str) -> None:
        """Let a node ask for its configuration of the network."""
        raise NotImplementedError


class CentralPlane(Plane):
    """The sandbox's ZeroTier Central, through one of its two APIs, with a network of its own.

    So nothing that a test leaves on its way strikes the next one.
    """

    def __init__(self, kind: str, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        made = _call(sandbox, "/zerotier/api/v1/network", {"config": {"name": "sandbox"}})
        path = f"/zerotier/api/{kind.rpartition('_')[2]}"
        super().__init__(kind, sandbox.url, path, sandbox.zerotier_token, made["id"], "8056c2e21cfffff0")
        self.service = "zerotier" if kind == "central_v1" else "zerotier_v2"

    def appears(self, node_id: str) -> None:
        path = f"/zerotier/simulation/network/{self.network}/node/{node_id}"
        _call(self.sandbox, path, {"physicalAddress": "198.51.100.7", "version": "1.14.1"})


def _call(sandbox: Sandbox, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=30)
    try:
        headers = {"Authorization": f"token {sandbox.zerotier_token}"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())
    finally:
        connection.close()


class ControllerPlane(Plane):
    """The stand-in for zerotier-one as a controller, in a thread of its own; it joins nothing itself."""

    def __init__(self, folder: Path) -> None:
        self._listener = listen()
        port: int = self._listener.getsockname()[1]
        self._home = home.Home(folder)
        self._home.prepare()
        (folder / "authtoken.secret").write_text(TOKEN)
        self._identity = self._home.identity()
        own = self._identity.node
        super().__init__("controller", f"http://127.0.0.1:{port}", "", TOKEN, f"{own}000001", f"{own}000002")
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def running(self) -> Iterator[None]:
        made = build.Build()
        self._node = node.Node(
            self._home,
            made,
            self._identity,
            roots=[],
            is_root=True,
            controller=controller.Controller(self._identity.node, store.Memory(), now),
            now=now,
        )
        token, port = self._home.token(), self._listener.getsockname()[1]
        planet = self._home.planet(())
        local = api.Api(self._node, self._home, made, token=token, planet=planet, port=port, now=now)
        server = web.WebServer(local.answer, most=api.REQUESTS_PER_CONNECTION)
        thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="zerotier-one")
        thread.start()
        asyncio.run_coroutine_threadsafe(server.listen(self._listener), self._loop).result(30)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def appears(self, node_id: str) -> None:
        message = {
            "kind": "request",
            "identity": f"{node_id}:0:{'ab' * 64}",
            "version": "1.14.1",
            "time": now(),
            "network": self.network,
        }

        async def deliver() -> None:
            self._node.datagram_received(json.dumps(message).encode(), ("198.51.100.7", 9993))

        asyncio.run_coroutine_threadsafe(deliver(), self._loop).result(30)


@contextmanager
def running(kind: str, sandbox: Sandbox, folder: Path) -> Iterator[Plane]:
    """A control plane of that kind, whose network has Central's defaults: private, with an IPv4 pool."""
    if kind == "controller":
        plane = ControllerPlane(folder)
        with plane.running(), plane.proxy.server.running():
            networks = mesh.networks
            plane.somebody().save_network(
                networks.NetworkWish(
                    name="sandbox",
                    private=True,
                    routes=[networks.Route("10.147.17.0/24")],
                    pools=[networks.Pool("10.147.17.1", "10.147.17.254")],
                    v4_auto=True,
                )
            )
            yield plane
    else:
        sandbox.reset()
        sandbox.switch(zerotier_forgets=False, zerotier_v2_hides=False)
        central = CentralPlane(kind, sandbox)
        with central.proxy.server.running():
            yield central
