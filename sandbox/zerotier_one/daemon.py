# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``zerotier-one``: a daemon that runs until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .api import REQUESTS_PER_CONNECTION, Api
from .build import Build
from .controller import Controller
from .home import DEFAULT, Home, HomeError, write
from .interface import own_addresses
from .node import TICK_SECONDS, Node, Place
from .store import Folder
from .values import to_int
from .web import WebServer

PORT = 9993
log = logging.getLogger("zerotier-one")
USAGE = """\
ZeroTier One version {version} (SIMULATED)
Usage: {name} [-switches] [home directory]

Available switches:
  -h                - Display this help
  -v                - Show version
  -U                - Skip privilege check and do not attempt to drop privileges
  -p<port>          - Port for UDP and TCP/HTTP (default: 9993)
  -i                - Generate and manage identities (zerotier-idtool)
  -q                - Query API (zerotier-cli)
"""


def main(arguments: Sequence[str], build: Build) -> int:
    """Run it; the exit status."""
    port, folder, unprivileged = 0, DEFAULT, False
    for argument in arguments:
        match argument[:2]:
            case "-v":
                print(f"{build.version} SIMULATED")
                return 0
            case "-U":
                unprivileged = True
            case "-p" if argument[2:].isdigit():
                port = int(argument[2:])
            case flag if flag.startswith("-"):
                print(USAGE.format(version=build.version, name="zerotier-one"), end="")
                return 0 if flag == "-h" else 1
            case _:
                folder = Path(argument)
    if os.geteuid() and not unprivileged:
        print("zerotier-one: must be run as root", file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    log.info("ZeroTier One %s, SIMULATED", build.version)
    os.umask(0o077)
    try:
        asyncio.run(_run(Home(folder), build, port))
    except (HomeError, OSError) as error:
        print(f"zerotier-one: fatal error: {error}", file=sys.stderr)
        return 1
    return 0


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def _run(home: Home, build: Build, port: int) -> None:
    home.prepare()
    identity, token, planet = home.identity(), home.token(), home.planet(build.roots)
    settings = home.local_conf().get("settings")
    port = port or to_int(settings.get("primaryPort") if isinstance(settings, dict) else None, PORT)
    roots = [_place(root) for root in planet["roots"]]
    own = {"127.0.0.1", *own_addresses()}
    node = Node(
        home,
        build,
        identity,
        roots=roots,
        is_root=any(root in ((address, port) for address in own) for root in roots),
        controller=Controller(identity.node, Folder(home.path / "controller.d"), now)
        if build.controller
        else None,
        now=now,
    )
    api = Api(node, home, build, token=token, planet=planet, port=port, now=now)
    web = WebServer(api.answer, most=REQUESTS_PER_CONNECTION)
    # Both or neither: who finds the port of the interface taken has found another daemon.
    sockets = _listeners(port)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: node, local_addr=("0.0.0.0", port))  # noqa: S104 - as the real one
    for listener in sockets:
        await web.listen(listener)
    write(home.path / "zerotier-one.port", str(port), 0o644)
    write(home.path / "zerotier-one.pid", str(os.getpid()), 0o644)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    try:
        node.start()
        home.hand_over()
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), TICK_SECONDS)
            except TimeoutError:
                api.look_at_settings()
    finally:
        await web.close()
        await node.stop()
        for name in ("zerotier-one.port", "zerotier-one.pid"):
            (home.path / name).unlink(missing_ok=True)


def _listeners(port: int) -> list[socket.socket]:
    """Sockets of the local interface, IPv4 and, where the host has it, IPv6."""
    sockets = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - as the real one
        try:
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError:
            continue
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            listener.close()
            if family == socket.AF_INET6:
                continue  # IPv6 is switched off
            raise OSError(f"cannot bind to local control interface port {port} ({error.strerror})") from error
        sockets.append(listener)
    return sockets


def _place(text: str) -> Place:
    host, _, port = text.rpartition(":")
    return host, int(port)
