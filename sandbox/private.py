# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a sandbox its owner's: the token in its folder, and the guard before everything it serves.

On loopback is not the same as private: every user of the machine can connect, and so can every page open in a browser.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_FILE = "token"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
_GUARDED = ("/admin", "/zerotier/simulation")
_OPEN = "/admin/health"


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, at no moment otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    os.replace(temporary, path)


def settle_token(state_dir: Path) -> str:
    """The sandbox's token: that of the environment's SANDBOX_TOKEN, of an earlier run, or a new one; left in its file."""
    token = os.environ.get("SANDBOX_TOKEN") or read_token(state_dir) or secrets.token_hex(32)
    write_private(state_dir / TOKEN_FILE, f"{token}\n")
    return token


def read_token(state_dir: Path) -> str:
    """The token in a sandbox's folder; empty if there is none."""
    try:
        return (state_dir / TOKEN_FILE).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def read_only(token: str) -> str:
    """The second token of the Hetzner project, which may only read."""
    return hashlib.sha256(f"read only {token}".encode()).hexdigest()


def same(given: str, token: str) -> bool:
    """Whether a token is the right one, in a time that tells nothing about it."""
    return secrets.compare_digest(given.encode(), token.encode())


class Guard:
    """Refuses requests that name another host, and those to the sandbox's own controls without its token.

    A page whose name has been pointed at loopback (DNS rebinding) still sends that name as Host.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self._refusal(scope) if scope["type"] == "http" else None:
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers, path = Headers(scope=scope), scope["path"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not _LOOPBACK.fullmatch(hosts[0]):
            return JSONResponse({"error": "this is a sandbox on loopback and no other host"}, 421)
        if path == _OPEN or not any(path == prefix or path.startswith(f"{prefix}/") for prefix in _GUARDED):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token") and same(given.strip(), self.token):
            return None
        return JSONResponse({"error": f"the token in the sandbox's file {TOKEN_FILE!r} is required"}, 401)
