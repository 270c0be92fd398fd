# SPDX-License-Identifier: GPL-3.0-or-later
"""The far end of the relay: runs as root on the controller's machine and asks the zerotier-one there.

It is sent there as text and read from standard input, so nothing of it has to be installed: only the standard library,
and nothing younger than Python 3.7. It reads the daemon's token itself and never tells it: not in an answer, not in an
error, and standard error stays empty.

A line from here begins with MARK, for a login shell may have printed something before.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO

MARK = "gpumesh-relay:"
"""What each line from here begins with."""

NO_FILE = "no token file"
"""What is said where zerotier-one is not installed."""

NOT_READABLE = "token file not readable"
"""What is said where the token may not be read."""

REFUSED = "refused"
"""What is said where nobody listens."""

SLOW = "slow"
"""What is said where the daemon took too long."""

BROKEN = "broken"
"""What is said where the daemon broke off, or spoke no HTTP."""

_AT_ONCE = 16
_PASSED_ON = ("content-type", "accept", "user-agent")


class Relay:
    """Answers requests, many at once."""

    def __init__(self, token: str, out: BinaryIO, port: int = 9993) -> None:
        self._token = token
        self._port = port
        self._out = out
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(_AT_ONCE)

    def say(self, **answer: Any) -> None:
        """One line to the near end."""
        line = MARK + json.dumps(answer) + "\n"
        with self._lock:
            self._out.write(line.encode())
            self._out.flush()

    def serve(self, requests: Iterable[bytes]) -> None:
        """Answer one request a line until there are no more."""
        for line in requests:
            request = json.loads(line.decode())
            self._slots.acquire()
            threading.Thread(target=self._serve_one, args=(request,), daemon=True).start()

    def _serve_one(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any]
        try:
            answer = self._perform(request)
        except ConnectionRefusedError:
            answer = {"error": REFUSED}
        except socket.timeout:  # noqa: UP041 - before Python 3.10 it is no TimeoutError
            answer = {"error": SLOW}
        except Exception:  # its text might hold anything, the token too
            answer = {"error": BROKEN}
        finally:
            self._slots.release()
        self.say(id=request["id"], **answer)

    def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = {name: text for name, text in request["headers"].items() if name.lower() in _PASSED_ON}
        headers["X-ZT1-Auth"] = self._token
        body = request["body"]
        port = request["port"] or self._port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=request["timeout"])
        try:
            connection.request(request["method"], request["path"], body and body.encode(), headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return {
                "status": response.status,
                "reason": response.reason,
                "headers": dict(response.getheaders()),
                "body": text.replace(self._token, "***"),
            }
        finally:
            connection.close()


def port_beside(token_file: str) -> int:
    """The port the daemon listens on, by the file it keeps in the same folder; the usual one where there is none."""
    try:
        with open(os.path.join(os.path.dirname(token_file), "zerotier-one.port"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 9993


def main() -> None:
    """Read where the token is, then the token, then requests."""
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    settings = json.loads(lines.readline().decode())
    try:
        with open(settings["token_file"], encoding="utf-8") as file:
            token = file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        Relay("", out).say(failed=NO_FILE)
        return
    except (OSError, ValueError):
        Relay("", out).say(failed=NOT_READABLE)
        return
    if not token:
        Relay("", out).say(failed=NOT_READABLE)
        return
    relay = Relay(token, out, port_beside(settings["token_file"]))
    relay.say(ready=True)
    relay.serve(lines)


if __name__ == "__main__":
    sys.excepthook = lambda kind, problem, trace: None
    main()
