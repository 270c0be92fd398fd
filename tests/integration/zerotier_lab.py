# SPDX-License-Identifier: GPL-3.0-or-later
"""Three ZeroTier nodes in network namespaces, of the real daemon or of the sandbox's stand-in.

Each namespace has an ``eth0`` on a bridge in a fourth one; none has a way out. The first node is the only root of their
planet, so nothing else is ever asked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PORT = 9993
COUNT = 3
_STAND_IN = (
    sys.executable,
    "-c",
    "import sys; from sandbox.zerotier_one.program import main; sys.exit(main(sys.argv[1:]))",
)
_IN_NAMESPACE = """
import http.client, json, sys
method, path, token, body = json.load(sys.stdin)
connection = http.client.HTTPConnection("127.0.0.1", 9993, timeout=10)
connection.request(method, path, body, {"X-ZT1-Auth": token, "Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""
_PING = """
import os, socket, struct, sys
address, device = sys.argv[1:]
echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
echo.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
echo.settimeout(1)
sent = struct.pack("!BBHHH", 128, 0, 0, os.getpid() & 0xFFFF, 1)
echo.sendto(sent, (address, 0))
while True:
    answer, (source, *_) = echo.recvfrom(1500)
    if answer[0] == 129 and answer[4:8] == sent[4:8] and source == address:
        break
"""
_ids = itertools.count()


def run(*words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        words, capture_output=True, text=True, check=check, input=stdin, timeout=60, cwd=ROOT
    )


def unable() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not shutil.which("ip"):
        return "needs ip (iproute2)"
    name = f"gpumesh-{os.getpid()}-probe"
    done = run("ip", "netns", "add", name, check=False)
    if done.returncode:
        return f"needs network namespaces: {done.stderr.strip()}"
    run("ip", "netns", "delete", name)
    return ""


def real_daemon() -> str:
    """The path of ZeroTier's own daemon; empty if there is none, or only the stand-in's package."""
    path = shutil.which("zerotier-one")
    return path if path and "SIMULATED" not in run(path, "-v", check=False).stdout else ""


class Gone(Exception):
    """A daemon that has ended."""


@dataclass
class Member:
    """One node: its namespace, home directory and daemon."""

    namespace: str
    address: str
    home: Path
    command: tuple[str, ...]
    token: str
    id: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon; returns when it answers."""
        log = (self.home / "log").open("ab")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *self.command, str(self.home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
        log.close()
        wait(self._answers, 15, "the daemon answers")

    def _answers(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise Gone((self.home / "log").read_text())
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.call("GET", "/status")[0] == 200
        return False

    def stop(self) -> None:
        """End the daemon, as systemd does."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(15)
            finally:
                self.process.kill()
                self.process.wait()
                self.process = None

    def call(self, method: str, path: str, content: object = None) -> tuple[int, Any]:
        """A request to its local interface: the status, and the JSON of the answer."""
        body = None if content is None else json.dumps(content)
        request = json.dumps([method, path, self.token, body])
        words = ("ip", "netns", "exec", self.namespace, sys.executable, "-c", _IN_NAMESPACE)
        status, text = json.loads(run(*words, stdin=request).stdout)
        return status, json.loads(text) if text else None

    def network(self, network: str) -> dict[str, Any]:
        """A network it has joined, as it sees it."""
        status, content = self.call("GET", f"/network/{network}")
        assert status == 200, (status, content)
        return dict(content)

    def ip(self, *words: str) -> str:
        """Run ``ip`` in its namespace."""
        return run("ip", "-n", self.namespace, *words).stdout

    def devices(self) -> list[str]:
        """Its network interfaces."""
        return [link["ifname"] for link in json.loads(self.ip("-json", "link", "show"))]

    def pings(self, address: str, device: str) -> bool:
        """Whether one ICMPv6 echo request gets an answer within a second, through that interface."""
        words = ("ip", "netns", "exec", self.namespace, sys.executable, "-c", _PING, address, device)
        done = run(*words, check=False)
        assert done.returncode == 0 or "Error" in done.stderr or "timed out" in done.stderr, done.stderr
        return done.returncode == 0


def wait(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.05) -> float:
    """Wait until it is so; how long it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return time.monotonic() - begin


@contextlib.contextmanager
def lab(kind: str, folder: Path) -> Iterator[list[Member]]:
    """The nodes, their daemons running; ``kind`` is ``stand-in`` or ``real``. Everything is gone at the end."""
    command = _STAND_IN if kind == "stand-in" else (real_daemon(),)
    # The program finds out by its name what it is.
    daemon = (*command, "zerotier-one", "-U") if kind == "stand-in" else (*command, "-U")
    idtool = (*command, "zerotier-idtool") if kind == "stand-in" else (*command, "-i")
    prefix = f"gz{os.getpid()}-{next(_ids)}"
    bridge, namespaces = f"{prefix}-b", [f"{prefix}-{number}" for number in range(COUNT)]
    nodes: list[Member] = []
    try:
        _wire(bridge, namespaces)
        for number, namespace in enumerate(namespaces):
            home = folder / f"n{number}"
            home.mkdir()
            node = Member(namespace, f"10.99.0.{10 + number}", home, daemon, f"token{number}".ljust(24, "0"))
            nodes.append(node)
            run(*idtool, "generate", str(home / "identity.secret"), str(home / "identity.public"))
            node.id = (home / "identity.public").read_text()[:10]
            (home / "authtoken.secret").write_text(node.token)
            (home / "local.conf").write_text(
                json.dumps(
                    {
                        "settings": {
                            "portMappingEnabled": False,
                            "allowTcpFallbackRelay": False,
                            "softwareUpdate": "disable",
                        }
                    }
                )
            )
        planet = _stand_in_planet(nodes[0]) if kind == "stand-in" else _real_planet(nodes[0], idtool, folder)
        for node in nodes:
            (node.home / "planet").write_bytes(planet)
            node.start()
        yield nodes
    finally:
        for node in nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.stop()
        for namespace in (*namespaces, bridge):
            run("ip", "netns", "delete", namespace, check=False)


def _wire(bridge: str, namespaces: list[str]) -> None:
    run("ip", "netns", "add", bridge)
    run("ip", "-n", bridge, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", bridge, "link", "set", "br0", "up")
    for number, namespace in enumerate(namespaces):
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        peer = ("peer", "name", f"p{number}", "netns", bridge)
        run("ip", "link", "add", "eth0", "netns", namespace, "type", "veth", *peer)
        run("ip", "-n", bridge, "link", "set", f"p{number}", "master", "br0", "up")
        run("ip", "-n", namespace, "address", "add", f"10.99.0.{10 + number}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")


def _stand_in_planet(root: Member) -> bytes:
    return json.dumps({"roots": [f"{root.address}:{PORT}"]}).encode()


def _real_planet(root: Member, idtool: tuple[str, ...], folder: Path) -> bytes:
    """A moon of the root, turned into a planet: the daemon does not check the signature of one it finds in its home."""
    moon = json.loads(run(*idtool, "initmoon", str(root.home / "identity.public")).stdout)
    moon["roots"][0]["stableEndpoints"] = [f"{root.address}/{PORT}"]
    (folder / "moon.json").write_text(json.dumps(moon))
    subprocess.run(
        [*idtool, "genmoon", str(folder / "moon.json")], cwd=folder, check=True, capture_output=True
    )
    content = next(folder.glob("*.moon")).read_bytes()
    return b"\x01" + content[1:-2]
