# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sandbox``: run the local clouds until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path

import uvicorn

from .backends.base import Backend, BackendError
from .backends.container import ContainerBackend
from .backends.virtual import VirtualBackend
from .testing import listen, serve_world, server_config
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Local clouds on loopback.")
    parser.add_argument("--port", type=int, default=8480)
    parser.add_argument(
        "--backend", choices=("container", "virtual"), default="virtual", help="what a machine is"
    )
    parser.add_argument("--state-dir", type=Path, default=Path(".sandbox"), help="where its key files go")
    parser.add_argument(
        "--operation-seconds", type=float, default=1.0, help="how long operations take at least"
    )
    parser.add_argument("--remove", action="store_true", help="only remove what an earlier run left, and end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="sandbox: %(message)s")

    state_dir: Path = options.state_dir.resolve()
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(state_dir, 0o700)
    url = f"http://127.0.0.1:{options.port}"
    # The folder is the sandbox: whatever ran with it before is what this run replaces.
    identity = hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]
    backend: Backend = ContainerBackend(identity) if options.backend == "container" else VirtualBackend()
    if options.remove:
        return _guarded(backend.close())
    world = World(backend, state_dir=state_dir, base_url=url, base_seconds=options.operation_seconds)
    server = uvicorn.Server(server_config(world))

    def end(*_: object) -> None:
        server.should_exit = True

    # Before uvicorn has handlers of its own, and after its end, when it raises the signal again: we have to tidy up.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        # Before anything of an earlier run is removed: it may still be running.
        listener = listen(options.port)
    except OSError as error:
        print(f"sandbox: cannot listen on 127.0.0.1:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    return _guarded(_run(server, world, listener, f"sandbox ready at {url} ({options.backend} machines)"))


def _guarded(work: Coroutine[None, None, None]) -> int:
    """The exit status of work that may fail with a sentence."""
    try:
        asyncio.run(work)
    except BackendError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(server: uvicorn.Server, world: World, listener: socket.socket, ready: str) -> None:
    announcement = asyncio.ensure_future(_announce(server, ready))
    try:
        await serve_world(server, world, listener)
    finally:
        announcement.cancel()


async def _announce(server: uvicorn.Server, ready: str) -> None:
    """Say in one line that it is ready, for whoever waits for it."""
    while not server.started:
        await asyncio.sleep(0.02)
    print(ready, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
