# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to a zerotier-one that answers on its own machine's loopback only, carried there by ssh.

One ssh is started when the first request is made, and runs a small program there (:mod:`.relay_remote`) that performs
requests as root, since root alone may read the daemon's token. The token never leaves that machine. Requests of many
threads share the one ssh, each with a number by which its answer is known. If the ssh dies, the next try starts
another; if one cannot be started, no other is tried.

Needs ``requests``.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError
from urllib3.response import HTTPResponse

from ..errors import FleetError
from ..http import TIMEOUT, RetryAdapter, RetryPolicy
from . import relay_remote
from .relay_ssh import Ended, Slow, Ssh, SshTarget

if TYPE_CHECKING:
    from ..clock import Clock

__all__ = ["RelayAdapter", "SshTarget"]

TOKEN_FILE = "/var/lib/zerotier-one/authtoken.secret"  # noqa: S105 - where it is, not what it is
START_TIMEOUT = 45.0
"""Seconds until the far end must have reported: ssh, login, sudo, Python."""

_GRACE = 5.0
"""Seconds more than the far end waits for the daemon; then it is ssh that hangs."""


class _Carrier(HTTPAdapter):
    """Sends one request, once, through ssh. Stands below :class:`~..http.RetryAdapter`, where HTTPAdapter stands otherwise."""

    target: SshTarget
    token_file: str = TOKEN_FILE
    start_timeout: float = START_TIMEOUT
    grace: float = _GRACE

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._starting = threading.Lock()
        self._ssh: Ssh | None = None
        self._failure: FleetError | None = None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """As the parent; TLS and proxies have no part in it."""
        ssh = self._running()
        patience = (timeout[1] if isinstance(timeout, tuple) else timeout) or TIMEOUT[1]
        try:
            answer = ssh.ask(_as_data(request, patience), patience + self.grace)
        except Slow:
            raise requests.ReadTimeout("ssh did not bring an answer", request=request) from None
        except Ended:
            raise requests.ConnectionError("the ssh that carries requests ended", request=request) from None
        if "error" in answer:
            raise _failure(str(answer["error"]), request)
        return self._response(request, answer)

    def _response(self, request: requests.PreparedRequest, answer: Mapping[str, Any]) -> requests.Response:
        raw = HTTPResponse(
            body=io.BytesIO(str(answer["body"]).encode()),
            # The far end has read the body already, so what describes how it came no longer holds.
            headers={
                name: text
                for name, text in answer["headers"].items()
                if name.lower() not in ("content-length", "content-encoding", "transfer-encoding")
            },
            status=int(answer["status"]),
            reason=str(answer["reason"]),
            preload_content=False,
        )
        return self.build_response(request, raw)

    def close(self) -> None:
        """End the ssh. A later request starts another."""
        with self._starting:
            if self._ssh is not None:
                self._ssh.end()
                self._ssh = None
        super().close()

    def _running(self) -> Ssh:
        with self._starting:
            if self._failure is not None:
                raise self._failure
            if self._ssh is None or self._ssh.over:
                try:
                    self._ssh = Ssh(self.target, self.token_file, self.start_timeout)
                except FleetError as error:
                    # Many threads may be waiting here, and each would wait for a failure of its own.
                    self._failure = error
                    raise
                # Ends it with the adapter, and at the latest with the program.
                weakref.finalize(self, self._ssh.end)
            return self._ssh


class RelayAdapter(RetryAdapter, _Carrier):
    """Carries HTTP requests to 127.0.0.1 of another machine, with the retries of every other adapter here.

    Only the port of a request's URL counts, and without one the daemon's own; its host is that machine, by way of ssh. Use
    it as a context manager, or call :meth:`close`; a program that ends does so itself.

    Args:
        target: the machine.
        clock: for waits between tries.
        policy: when to repeat a request.
        timeout: seconds to connect, which here ssh has its own of, and seconds the daemon may take.
        token_file: where the daemon's token is on that machine.
        start_timeout: seconds until ssh, sudo and Python must have started there.
        grace: seconds ssh may take to bring an answer, after those the daemon may take.
    """

    def __init__(
        self,
        target: SshTarget,
        clock: Clock,
        policy: RetryPolicy | None = None,
        *,
        timeout: tuple[float, float] = TIMEOUT,
        token_file: str = TOKEN_FILE,
        start_timeout: float = START_TIMEOUT,
        grace: float = _GRACE,
    ) -> None:
        super().__init__(clock, policy, timeout=timeout)
        self.target = target
        self.token_file = token_file
        self.start_timeout = start_timeout
        self.grace = grace

    def __enter__(self) -> RelayAdapter:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def _as_data(request: requests.PreparedRequest, patience: float) -> dict[str, Any]:
    """A request as the far end wants it."""
    body = request.body
    parts = urlsplit(request.url or "")
    return {
        "method": request.method,
        "path": request.path_url,
        "port": parts.port,
        "headers": {str(name): str(text) for name, text in request.headers.items()},
        "body": body.decode() if isinstance(body, bytes) else body,
        "timeout": patience,
    }


def _failure(word: str, request: requests.PreparedRequest) -> requests.RequestException:
    """What requests would raise if it stood there itself."""
    parts = urlsplit(request.url or "")
    if word == relay_remote.REFUSED:
        nobody = NewConnectionError(HTTPConnection("127.0.0.1", parts.port), "Connection refused")
        cause = MaxRetryError(None, request.path_url, nobody)  # type: ignore[arg-type]
        return requests.ConnectionError(cause, request=request)
    if word == relay_remote.SLOW:
        return requests.ReadTimeout("the daemon did not answer", request=request)
    return requests.ConnectionError("the daemon broke the connection", request=request)
