# SPDX-License-Identifier: GPL-3.0-or-later
"""The layer around all clouds: keeps the log of requests and carries out transport faults."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .faults import Rule, Subject
from .world import Service, World

_SECRET_PARAMETERS = {"access_token", "oauth_token", "key", "auth", "token"}
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_ZONE = re.compile(r"/zones/([^/]+)")
SIMULATED = (b"x-gpumesh-simulated", b"true")
"""On every answer, so that nobody takes this for a cloud."""


@dataclass(slots=True)
class Logged:
    """One request, without headers and body: they hold secrets."""

    number: int
    time: float
    service: str
    method: str
    path: str
    query: list[tuple[str, str]]
    status: int = 0
    fault: str = ""


class RequestLog:
    """The latest requests to the clouds; calls to ``/admin`` are not logged."""

    def __init__(self, keep: int = 200_000) -> None:
        self.entries: deque[Logged] = deque(maxlen=keep)
        self._count = 0

    def add(self, time: float, service: str, scope: Scope) -> Logged:
        """Log a request that has just come in."""
        self._count += 1
        query = [
            (key, "***" if key in _SECRET_PARAMETERS else value)
            for key, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        ]
        entry = Logged(self._count, time, service, scope["method"], scope["path"], query)
        self.entries.append(entry)
        return entry


class FaultMiddleware:
    """Wraps the whole service. It must get the server's own ``send``, through which it reaches for the TCP transport."""

    def __init__(self, app: ASGIApp, world: World, requests: RequestLog) -> None:
        self.app = app
        self.world = world
        self.requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.world.service_of(scope["path"]) if scope["type"] == "http" else None
        if service is None:
            await self.app(scope, receive, send)
            return
        entry = self.requests.add(self.world.clock.time(), service.name, scope)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                message["headers"] = [*message["headers"], SIMULATED]
            await send(message)

        # Without rules the body must not be read here: this is the path of the benchmarks.
        if not self.world.faults.rules:
            await self.app(scope, receive, counted)
            return
        body = await _read(receive)
        rule = self.world.faults.transport(
            service=service.name,
            method=scope["method"],
            path=scope["path"],
            subject=_subject(service, scope["path"], body),
        )
        if rule:
            entry.fault = rule.kind
            await self._strike(rule, service, body, scope, receive, counted, send)
        else:
            await self.app(scope, _replay(body, receive), counted)

    async def _strike(
        self,
        rule: Rule,
        service: Service,
        body: bytes,
        scope: Scope,
        receive: Receive,
        answer: Send,
        raw: Send,
    ) -> None:
        match rule.kind:
            case "rate_limit" | "error" | "unavailable":
                response = service.error({"rate_limit": 429, "unavailable": 503}.get(rule.kind, rule.status))
                if rule.retry_after >= 0 and rule.kind != "error":
                    response.headers["Retry-After"] = f"{rule.retry_after:g}"
                await response(scope, receive, answer)
            case "reset":
                await _reset(raw, receive)
            case "reset_after":
                await self.app(scope, _replay(body, receive), _nowhere)
                await _reset(raw, receive)
            case "hang":
                waiting = asyncio.ensure_future(_gone(receive))
                await asyncio.wait({waiting}, timeout=rule.seconds or None)
                waiting.cancel()
                await _reset(raw, receive)
            case "slow":
                await self.world.clock.sleep(rule.seconds)
                await self.app(scope, _replay(body, receive), answer)
            case "duplicate":
                await self.app(dict(scope), _replay(body, receive), _nowhere)
                await self.app(scope, _replay(body, receive), answer)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _nowhere(message: Message) -> None:
    """Swallow an answer."""


async def _gone(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(send: Send, receive: Receive) -> None:
    """Reset the TCP connection, so that the client sees ECONNRESET and not a tidy end.

    ASGI has no word for it, so this takes the transport from uvicorn's cycle object, whose method ``send`` is.
    """
    transport: Any = getattr(send, "__self__").transport  # noqa: B009  (a plain attribute access does not type-check)
    if connection := transport.get_extra_info("socket"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    transport.abort()
    # The server would answer 500 if we returned before it has noticed.
    await _gone(receive)


def _subject(service: Service, path: str, body: bytes) -> Subject:
    """What a request is about: the object its path names, or the one its body would create."""
    if known := service.describe(path[len(service.prefix) :]):
        return known
    try:
        given = json.loads(body) if body else {}
    except ValueError:
        given = {}
    if not isinstance(given, dict):
        return Subject()
    labels = given.get("labels")
    zone = _ZONE.search(path)
    return Subject(
        name=str(given.get("name", "")),
        labels=labels if isinstance(labels, dict) else {},
        zone=zone[1] if zone else str(given.get("location") or ""),
        type=str(given.get("server_type") or given.get("machineType", "")).rpartition("/")[2],
    )
