# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox inside a test::

with serve() as sandbox:
    client = hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner)
    sandbox.fault(kind="rate_limit", service="hetzner", retry_after=1)
    ...
    assert sandbox.requests(method="POST") == 3
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from .app import build
from .backends.base import Backend
from .backends.virtual import VirtualBackend
from .private import read_only, read_token
from .world import Clock, World


class Sandbox:
    """A running sandbox, seen from outside; everything goes through its HTTP interface."""

    def __init__(self, url: str, state_dir: Path) -> None:
        self.url = url
        self.state_dir = state_dir
        self.hetzner = f"{url}/hetzner/v1"
        self.token = self.hetzner_token = self.zerotier_token = read_token(state_dir)
        self.hetzner_read_only_token = read_only(self.token)
        self.compute = f"{url}/compute/v1"
        self.google_credentials = state_dir / "gcp-service-account.json"
        self.storage = f"{url}/gcs"
        self.zerotier = f"{url}/zerotier/api/v1"

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """A call to ``/admin``; the answer's JSON."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=120)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, f"/admin/{path}", content, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ValueError(f"{method} /admin/{path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    def fault(self, **rule: object) -> int:
        """Put a fault in force (fields of :class:`sandbox.faults.Rule`); its id."""
        return int(self.admin("POST", "faults", rule)["id"])

    def hits(self, fault: int) -> int:
        """How often that fault has struck."""
        return next(
            int(rule["hits"]) for rule in self.admin("GET", "faults")["faults"] if rule["id"] == fault
        )

    def clear_faults(self) -> None:
        self.admin("DELETE", "faults")

    def requests(self, **wanted: str) -> int:
        """How many requests came in; ``service``, ``method``, ``path`` (regular expression) choose."""
        return int(self.admin("GET", f"requests?{urllib.parse.urlencode({**wanted, 'count': '1'})}")["total"])

    def machines(self) -> list[dict[str, Any]]:
        """What really exists behind the clouds."""
        found: list[dict[str, Any]] = self.admin("GET", "machines")["machines"]
        return found

    def set_operation_seconds(self, seconds: float) -> None:
        self.admin("PUT", "settings", {"operation_seconds": seconds})

    def switch(self, **options: bool | int) -> None:
        """Settings of single clouds: ``options`` of :class:`sandbox.world.World`."""
        self.admin("PUT", "settings", options)

    def reset(self) -> None:
        """An empty cloud."""
        self.admin("POST", "reset")


@contextmanager
def serve(
    backend: Backend | None = None,
    *,
    operation_seconds: float = 0.02,
    clock: Clock | None = None,
    state_dir: Path | None = None,
) -> Iterator[Sandbox]:
    """Run a sandbox in a thread, on a free port of loopback; by default with virtual machines."""
    with tempfile.TemporaryDirectory(prefix="gpumesh-sandbox-") as temporary, listen() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        world = World(
            backend or VirtualBackend(),
            state_dir=state_dir or Path(temporary),
            base_url=url,
            base_seconds=operation_seconds,
            clock=clock,
        )
        server = uvicorn.Server(server_config(world))
        thread = threading.Thread(
            target=lambda: asyncio.run(serve_world(server, world, listener)), daemon=True, name="sandbox"
        )
        thread.start()
        while not server.started:
            thread.join(0.01)
            if not thread.is_alive():
                raise RuntimeError("the sandbox did not start; its log says why")
        try:
            yield Sandbox(url, world.state_dir)
        finally:
            server.should_exit = True
            thread.join()


def listen(port: int = 0) -> socket.socket:
    """A socket on that port of loopback, or on a free one.

    Only because it says that it is TCP does asyncio switch off Nagle's delay of 40 ms an answer.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener


def server_config(world: World) -> uvicorn.Config:
    """How uvicorn serves a sandbox; also for ``python -m sandbox``."""
    return uvicorn.Config(
        build(world),
        log_level="warning",
        access_log=False,
        lifespan="off",
        # A client that hangs on purpose must not keep the service from ending.
        timeout_graceful_shutdown=2,
    )


async def serve_world(server: uvicorn.Server, world: World, listener: socket.socket) -> None:
    """Serve a sandbox until the server is told to end, then remove its machines.

    Raises:
        BackendError: the back end cannot get ready.
    """
    await world.backend.open()
    try:
        await server.serve([listener])
    finally:
        await world.close()
