# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP server with the habits of the daemon's: a header that announces keep-alive, and its end after a few requests."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

SIMULATED = ("X-Gpumesh-Simulated", "true")
"""On every answer, so that nobody takes this for ZeroTier."""
_MOST_BODY = 64 << 20
_IDLE_SECONDS = 5


@dataclass(slots=True)
class Request:
    """One request; names of headers are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str


@dataclass(slots=True)
class Response:
    """One answer. Without a kind it has no Content-Type."""

    status: int
    body: bytes = b""
    kind: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)


Handler = Callable[[Request], Awaitable[Response]]


class WebServer:
    """Serves a handler on any number of sockets.

    Args:
        most: requests a connection serves before it is closed.
    """

    def __init__(self, handler: Handler, *, most: int) -> None:
        self._handler = handler
        self._most = most
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        self._servers.append(await asyncio.start_server(self._accept, sock=sock))

    async def close(self) -> None:
        """Stop serving; open connections are cut."""
        for server in self._servers:
            server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._servers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._open.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, ValueError, TimeoutError):
            pass  # the client went away, was silent for too long, or speaks something else
        except asyncio.CancelledError:
            pass  # the server closes; asyncio would report the end of its own task as an error
        finally:
            if task:
                self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        client = str(peer[0]) if peer else ""
        for number in range(1, self._most + 1):
            request = await asyncio.wait_for(_read(reader, writer, client), _IDLE_SECONDS)
            if request is None:
                return
            last = number == self._most or request.headers.get("connection", "").lower() == "close"
            response = await self._handler(request)
            writer.write(self._head(response, last))
            if request.method != "HEAD":
                writer.write(response.body)
            await writer.drain()
            if last:
                return

    def _head(self, response: Response, last: bool) -> bytes:
        reason = http.HTTPStatus(response.status).phrase
        keep = (
            ("Connection", "close") if last else ("Keep-Alive", f"timeout={_IDLE_SECONDS}, max={self._most}")
        )
        headers = [("Content-Length", str(len(response.body))), *response.headers, keep, SIMULATED]
        if response.kind:
            headers.insert(1, ("Content-Type", response.kind))
        lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> Request | None:
    """The next request of a connection; None at its end."""
    line = await reader.readline()
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split()
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MOST_BODY:
        raise ValueError("a body of that length is not taken")
    body = await reader.readexactly(length) if length else b""
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(method, unquote(url.path), query, headers, body, client)
