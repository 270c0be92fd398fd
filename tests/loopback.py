# SPDX-License-Identifier: GPL-3.0-or-later
"""Doubles for the outermost edge: a clock that nobody waits for, and a real HTTP server on loopback with scripted answers."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, start: datetime = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)) -> None:
        self.start = start
        self.slept: list[float] = []

    def now(self) -> float:
        return sum(self.slept)

    def utc(self) -> datetime:
        return self.start + timedelta(seconds=self.now())

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass(frozen=True)
class Answer:
    """What the server says.

    Attributes:
        status: HTTP status; 0 resets the connection instead.
        body: JSON data, or text as it is.
        cut: promise the whole body and break off after half of it.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class Seen:
    """A request the server was sent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Respond = Callable[[Seen], Answer]


class Server:
    """A server whose answers a test decides, and which remembers every request."""

    def __init__(self, respond: Respond) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise each answer on a kept connection waits 40 ms for the acknowledgement of the one before.
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                parts = urlsplit(self.path)
                is_json = raw and raw[:1] in b"{["
                request = Seen(
                    self.command,
                    parts.path,
                    tuple(parse_qsl(parts.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(raw) if is_json else raw.decode() or None,
                )
                with outer._lock:
                    outer.seen.append(request)
                    answer = respond(request)
                if answer.status == 0:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                text = (
                    answer.body
                    if isinstance(answer.body, str)
                    else ""
                    if answer.body is None
                    else json.dumps(answer.body)
                )
                data = text.encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if answer.cut else data)
                if answer.cut:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    return

            def log_message(self, *args: Any) -> None:
                return

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    @property
    def calls(self) -> list[str]:
        """Every request as ``METHOD /path``, in order."""
        return [str(seen) for seen in self.seen]

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(
            target=self._httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._httpd.shutdown()
            self._httpd.server_close()


def script(*answers: Answer) -> Respond:
    """These answers in this order; one request more is a failure the test sees as status 599."""
    left = list(answers)
    return lambda seen: left.pop(0) if left else Answer(599, {"unscripted": str(seen)})


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
