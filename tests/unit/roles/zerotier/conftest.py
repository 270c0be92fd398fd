# SPDX-License-Identifier: GPL-3.0-or-later
"""A local API on loopback that answers as a real daemon was recorded to, and the programs that the role runs beside it."""

from __future__ import annotations

import copy
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILES = Path(__file__).parents[4] / "roles" / "zerotier" / "files"
NETWORK = "0537bdcc750000aa"
NODE = "fa34221551"
ADDRESS = "fd05:37bd:cc75:0:aa99:93fa:3422:1551"
# What ZeroTier One 1.14.1 answered, less what nobody here reads.
STATUS: dict[str, Any] = {
    "address": NODE,
    "config": {"settings": {"listeningOn": ["10.99.0.11/9993", "10.99.0.11/29335"], "primaryPort": 9993}},
    "online": True,
    "version": "1.14.1",
}
MEMBERSHIP: dict[str, Any] = {
    "allowDNS": False,
    "allowDefault": False,
    "allowGlobal": False,
    "allowManaged": True,
    "assignedAddresses": [f"{ADDRESS}/88", "10.147.17.150/24"],
    "id": NETWORK,
    "mac": "aa:fa:34:57:d9:ec",
    "mtu": 2800,
    "nwid": NETWORK,
    "portDeviceName": "ztzfbl3tg7",
    "status": "OK",
    "type": "PRIVATE",
}
LINK: dict[str, Any] = {
    "ifname": "ztzfbl3tg7",
    "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
    "mtu": 2800,
    "address": "aa:fa:34:57:d9:ec",
    "addr_info": [
        {"family": "inet6", "local": ADDRESS, "prefixlen": 88, "scope": "global"},
        {"family": "inet", "local": "10.147.17.150", "prefixlen": 24, "scope": "global"},
        {"family": "inet6", "local": "fe80::a8fa:34ff:fe57:d9ec", "prefixlen": 64, "scope": "link"},
    ],
}
ALLOW = {"allowManaged": True, "allowGlobal": False, "allowDefault": False, "allowDNS": False}


class Daemon:
    """A local API on loopback: remembers what it is asked, and changes as a real one does."""

    def __init__(self) -> None:
        self.token = "secret-token"
        self.status = copy.deepcopy(STATUS)
        self.networks: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.controller = True
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                if self.headers.get("X-ZT1-Auth") != daemon.token:
                    return self._say(401, {})
                daemon.asked.append((self.command, self.path, body))
                answer = daemon.answer(self.command, self.path, body)
                return self._say(404 if answer is None else 200, {} if answer is None else answer)

            def _say(self, status: int, answer: Any) -> None:
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, *_args: Any) -> None:
                """Nothing: tests are silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, method: str, path: str, body: Any) -> Any:
        """As recorded: what is not there is None."""
        name = path.rpartition("/")[2]
        if path == "/status":
            return self.status
        if path == "/controller":
            return {"controller": True} if self.controller else None
        if path == "/network":
            return list(self.networks.values())
        if method == "POST":
            joined = {**MEMBERSHIP, "nwid": name, "id": name, "status": "REQUESTING_CONFIGURATION"}
            self.networks[name] = {**self.networks.get(name, joined), **body}
        if method == "DELETE":
            self.networks.pop(name, None)
            return {"result": True}
        return self.networks.get(name)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """One that has joined nothing."""
    running = Daemon()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def home(tmp_path: Path, daemon: Daemon) -> Path:
    """Its folder."""
    (tmp_path / "authtoken.secret").write_text(f"{daemon.token}\n", encoding="utf-8")
    (tmp_path / "zerotier-one.port").write_text(str(daemon.server.server_address[1]), encoding="utf-8")
    (tmp_path / "networks.d").mkdir()
    return tmp_path


def load(name: str, home: Path) -> ModuleType:
    """A program, not run, that takes a folder for the daemon's."""
    found = importlib.util.spec_from_file_location(f"zerotier_{name}", FILES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.HOME = home  # type: ignore[attr-defined]
    return module


@pytest.fixture
def node(home: Path) -> ModuleType:
    """node.py."""
    return load("node", home)


@pytest.fixture
def gate(home: Path) -> ModuleType:
    """gate.py; each loading begins with no checks."""
    return load("gate", home)
