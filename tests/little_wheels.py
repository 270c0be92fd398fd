# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny real wheels, a lock for them, and an index that serves them, for tests that install for real."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), content: str = "") -> Path:
    """Write a wheel with one module, which has the version as VERSION."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{name}.py": content or f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for one, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(one), text)
    return path


def lock(*wheels: Path) -> str:
    """A lock of exactly these."""
    lines = []
    for one in wheels:
        name, version = one.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(one.read_bytes()).hexdigest()}\n")
    return "".join(lines)


class Gate:
    """What an index does before it hands a wheel out: says that it was asked, and waits while it is shut."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.open = threading.Event()


@contextmanager
def index(folder: Path, gate: Gate | None = None) -> Iterator[str]:
    """Serve a folder of wheels as a package index; its address."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if gate and self.path.endswith(".whl"):
                gate.asked.set()
                gate.open.wait(60)
            parts = self.path.strip("/").split("/")
            if len(parts) != 2 or parts[0] != "simple":
                super().do_GET()
                return
            links = "".join(
                f'<a href="/{one.name}">{one.name}</a>\n'
                for one in sorted(folder.glob("*.whl"))
                if one.name.split("-")[0].replace("_", "-") == parts[1]
            )
            self.send_response(200 if links else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(links.encode())

        def log_message(self, *_said: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        if gate:
            gate.open.set()
        server.shutdown()
        server.server_close()
