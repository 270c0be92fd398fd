# SPDX-License-Identifier: GPL-3.0-or-later
"""A zerotier-one with a controller, on loopback: the sandbox's stand-in for the controller, which has contract tests of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.zerotier_one.controller import Controller
from sandbox.zerotier_one.store import Memory

from .loopback import Answer, Seen, Server

NODE = "db4344343b"
NETWORK = f"{NODE}14b903"
TOKEN = "planted0token0of0zerotier"
NOW = 1_795_195_347_611


class OwnController:
    """Answers requests, and remembers them.

    Attributes:
        revoked: the token is no longer good.
    """

    def __init__(self) -> None:
        self.controller = Controller(NODE, Memory(), lambda: NOW)
        self.revoked = False
        self.server = Server(self._respond)

    @contextmanager
    def running(self) -> Iterator[OwnController]:
        with self.server.running():
            yield self

    @property
    def writes(self) -> list[tuple[str, Any]]:
        """Every request that was to change something."""
        return [(str(seen), seen.body) for seen in self.server.seen if seen.method != "GET"]

    def make(self, path: str, body: Any) -> Any:
        """Change something behind everybody's back."""
        answer = self.controller.answer(
            "POST", f"/controller/network/{NETWORK}{path}", json.dumps(body).encode()
        )
        return json.loads(answer.text or "null")

    def get(self, path: str = "") -> Any:
        """What is there; None if nothing is."""
        answer = self.controller.answer("GET", f"/controller/network/{NETWORK}{path}")
        return json.loads(answer.text) if answer.text else None

    def join(self, node: str) -> None:
        """A node asks to be let in, which makes a record of it, and gives it addresses if it may."""
        self.controller.request(NETWORK, f"{node}:0:{'a' * 128}", (1, 14, 1))

    def _respond(self, seen: Seen) -> Answer:
        if self.revoked or seen.headers.get("x-zt1-auth") != TOKEN:
            return Answer(401, {})
        if seen.path == "/status":
            return Answer(200, {"address": NODE, "clock": NOW, "version": "1.14.1"})
        if seen.path.startswith("/peer"):
            return Answer(200, [] if seen.path == "/peer" else {})
        body = b"" if seen.body is None else json.dumps(seen.body).encode()
        answer = self.controller.answer(seen.method, seen.path, body)
        return Answer(answer.status, answer.text)
