# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to let many members into a mesh, and how often the control plane is asked for what. See ``run.py``."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import membership
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import connect
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS

from sandbox.testing import Sandbox
from sandbox.zerotier_account import NETWORK

Row = tuple[str, str, str]

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "fakefakefakefakefakefake"
_STAND_IN = "import sys; from sandbox.zerotier_one.program import main; sys.exit(main(['zerotier-one', *sys.argv[1:]]))"


def joining(count: int, sandbox: Callable[[float], Any]) -> list[Row]:
    """Rows for ``count`` members at each control plane."""
    rows: list[Row] = []
    with sandbox(0.0) as place:
        cloud: Sandbox = place.cloud
        for kind in ("central_v1", "central_v2"):
            cloud.reset()
            endpoint = f"{cloud.url}/zerotier/api/{kind.rpartition('_')[2]}"
            mesh = {
                "network": NETWORK,
                "controller": kind,
                "token": cloud.zerotier_token,
                "endpoint": endpoint,
            }
            rows += _rows(kind, place.folder, mesh, {}, count)
    with _stand_in() as (url, node), tempfile.TemporaryDirectory(prefix="gpumesh-benchmark-") as folder:
        mesh = {"network": f"{node}000001", "controller": "keeper", "token": TOKEN, "endpoint": url}
        keeper = {"keeper": {"provider": "baremetal", "address": "192.0.2.1"}}
        rows += _rows("controller", Path(folder), mesh, keeper, count)
    return rows


def _rows(
    kind: str, folder: Path, mesh: Mapping[str, Any], machines: Mapping[str, Any], count: int
) -> list[Row]:
    def run(members: int) -> tuple[float, Counter[str]]:
        fleet = folder / "fleet.yml"
        content = {
            "plugin": "gpumesh.fleet.fleet",
            "fleet": "minerals",
            "mesh": dict(mesh),
            "machines": {
                **machines,
                **{
                    f"m{number:05}": {"provider": "external", "node_id": f"{number + 1:010x}"}
                    for number in range(members)
                },
            },
        }
        fleet.write_text(yaml.safe_dump(content, sort_keys=False))
        asked: Counter[str] = Counter()
        request = membership.Request(str(fleet), carry_out=True)
        began = time.perf_counter()
        report = membership.run(request, KINDS, os.environ, SystemClock(), _counting(asked))
        seconds = time.perf_counter() - began
        if report.errors:
            raise SystemExit(f"{kind}: {[str(error) for error in report.errors][:3]}")
        admitted = sum(1 for member in report.result.members if member.authorized)
        if admitted != members + len(machines):
            raise SystemExit(f"{kind}: {admitted} members instead of {members + len(machines)}")
        return seconds, asked

    one, _asked = run(1)
    many, asked = run(count + 1)
    again, nothing = run(count + 1)
    return [
        (f"{kind}: 1 member joins", f"{one:.2f} s", ""),
        (f"{kind}: {count} more join", f"{many:.2f} s", f"{1000 * many / count:.1f} ms each: {_said(asked)}"),
        (
            f"{kind}: run again, nothing to do",
            f"{again:.2f} s",
            f"{again / many:.2f} of the joining: {_said(nothing)}",
        ),
    ]


def _counting(asked: Counter[str]) -> Callable[..., Any]:
    """Connects, and counts what is then asked for; what is asked again because the service said so counts once."""

    def connected(*given: Any) -> Any:
        plane = connect(*given)
        adapter = plane._rest.adapter
        send = adapter.send

        def counted(request: Any, *rest: Any, **options: Any) -> Any:
            asked[_kind(request.method, urlsplit(request.url).path)] += 1
            return send(request, *rest, **options)

        adapter.send = counted
        return plane

    return connected


def _kind(method: str, path: str) -> str:
    """A request without the ids in it."""
    path = re.sub(r"^(/zerotier/api/v[12])?(/unstable)?(/controller)?/", "", path)
    path = re.sub(r"^network/[0-9a-f]{16}", "network", path)
    return f"{method} {re.sub(r'(?<=/)[0-9a-f]{10}(?=/|$)', '<node>', path)}"


def _said(asked: Counter[str]) -> str:
    return ", ".join(
        f"{number} x {kind}" for kind, number in sorted(asked.items(), key=lambda item: (item[1], item[0]))
    )


@contextlib.contextmanager
def _stand_in() -> Iterator[tuple[str, str]]:
    """The stand-in for zerotier-one in a process of its own: its URL, and its node id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gpumesh-benchmark-") as folder:
        home = Path(folder)
        (home / "authtoken.secret").write_text(TOKEN)
        (home / "planet").write_text('{"roots": []}')
        process = subprocess.Popen(
            [sys.executable, "-c", _STAND_IN, "-U", f"-p{port}", folder],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}", (home / "identity.public").read_text()[:10]
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):  # It makes an identity first.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("the stand-in for zerotier-one did not start")
