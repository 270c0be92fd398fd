#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python tests/benchmarks/run.py [NAME ...]``: how long the fleet takes at size, against a sandbox of its own.

Times depend on the machine and on what else it does, so each table also gives ratios of two times of the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".ansible" / "collections")]

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import (  # noqa: E402
    live,
    plan,
    plan_table,
    provision,
    spec_file,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock  # noqa: E402
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS  # noqa: E402
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.quotes import LiveQuotes  # noqa: E402
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.text_table import aligned  # noqa: E402

from sandbox.testing import Sandbox  # noqa: E402
from tests.benchmarks import mesh  # noqa: E402
from tests.fleets import gcp, hetzner, write_fleet  # noqa: E402

Row = tuple[str, str, str]


@contextlib.contextmanager
def sandbox(operation_seconds: float) -> Iterator[SimpleNamespace]:
    """A sandbox of virtual machines in a process of its own, and an empty folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gpumesh-benchmark-") as folder:
        command = [sys.executable, "-m", "sandbox", "--port", str(port), "--backend", "virtual"]
        command += ["--operation-seconds", str(operation_seconds), "--state-dir", f"{folder}/state"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url, process)
            cloud = Sandbox(url, Path(folder, "state"))
            # What is measured is this collection, not how long one project may be asked.
            cloud.admin("PUT", "settings", {"hetzner_rate_limit": 10_000_000})
            yield SimpleNamespace(cloud=cloud, folder=Path(folder))
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/admin/health"):  # noqa: S310
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("the sandbox did not start; try `python -m sandbox --backend virtual`")


def machines(count: int) -> dict[str, dict[str, Any]]:
    """So many machines, half of them in each cloud."""
    return {f"m{n:05}": hetzner() if n % 2 else gcp() for n in range(count)}


def applied(place: SimpleNamespace, count: int, **options: Any) -> float:
    """Seconds to plan and create so many machines that are not there yet."""
    path = write_fleet(place.folder, place.cloud, machines(count))
    began = time.perf_counter()
    request = provision.Request(str(path), carry_out=True, approve=True, **options)
    report = provision.run(request, KINDS, os.environ, SystemClock())
    seconds = time.perf_counter() - began
    if report.errors or len(place.cloud.machines()) != count:
        raise SystemExit(f"the apply failed: {[str(error) for error in report.errors][:3]}")
    return seconds


def apply_100() -> list[Row]:
    """Create 100 machines whose create operations take 5 s each."""
    with sandbox(5.0) as place:
        one = applied(place, 1)
        place.cloud.reset()
        many = applied(place, 100)
        request = provision.Request(str(place.folder / "fleet.yml"), carry_out=True, approve=True)
        began = time.perf_counter()
        provision.run(request, KINDS, os.environ, SystemClock())
        again = time.perf_counter() - began
    return [
        ("create 1 machine", f"{one:.1f} s", ""),
        (
            "create 100 machines",
            f"{many:.1f} s",
            f"{many / one:.1f} times one; one by one would be {100 * one / many:.0f} times as long",
        ),
        ("run again, nothing to do", f"{again:.2f} s", f"{again / many:.2f} of the create"),
    ]


def plan_10000() -> list[Row]:
    """List and plan 10,000 machines."""
    count = 10_000
    rows: list[Row] = []
    with sandbox(0.0) as place:
        filled = applied(place, count, key_timeout=0)
        rows.append(
            (
                f"create {count:,} machines, operations of 0 s",
                f"{filled:.0f} s",
                f"{1000 * filled / count:.1f} ms each",
            )
        )
        path = place.folder / "fleet.yml"

        def timed(what: str, call: Callable[[], Any]) -> tuple[Any, float]:
            began = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - began
            rows.append((what, f"{seconds:.2f} s", f"{1e6 * seconds / count:.0f} us each"))
            return result, seconds

        spec, _ = timed(
            f"read a fleet file of {count:,}", lambda: spec_file.load(str(path), KINDS, os.environ)
        )
        seen, listing = timed(f"list {count:,} in two clouds", lambda: live.look(spec, KINDS, SystemClock()))
        quotes = LiveQuotes(seen.providers)
        made, planning = timed(f"plan {count:,}", lambda: plan.make(spec, seen.instances, quotes))
        timed("write the plan as text", lambda: plan_table.lines(made))
        rows.append(("planning over listing", "", f"{planning / listing:.2f}"))
    return rows


def inventory_1000() -> list[Row]:
    """List 1,000 machines of two clouds with ansible-inventory."""
    count = 1_000

    def listed(source: Path, *options: str) -> float:
        command = [
            str(Path(sys.executable).parent / "ansible-inventory"),
            "-i",
            str(source),
            "--list",
            *options,
        ]
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    with sandbox(0.0) as place:
        applied(place, count, key_timeout=0)
        fleet, static = place.folder / "fleet.yml", place.folder / "static.yml"
        listed(fleet, "--yaml", "--output", str(static))
        asked = listed(fleet)
        floor = listed(static)
        (place.folder / "empty.yml").write_text("all: {}\n")
        command = listed(place.folder / "empty.yml")
    return [
        ("the command alone", f"{command:.2f} s", ""),
        (f"{count:,} machines from a static file", f"{floor:.2f} s", ""),
        (
            f"{count:,} machines from two clouds",
            f"{asked:.2f} s",
            f"{asked / floor:.2f} times the static file",
        ),
    ]


def mesh_200() -> list[Row]:
    """Let 200 members into a mesh at once, at each kind of control plane, and what it is asked for."""
    return mesh.joining(200, sandbox)


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "apply-100": apply_100,
    "inventory-1000": inventory_1000,
    "mesh-200": mesh_200,
    "plan-10000": plan_10000,
}


def main() -> None:
    """Run those named, or all, and print a table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default"
    )
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        print(f"\n{name}: {BENCHMARKS[name].__doc__}")
        rows = BENCHMARKS[name]()
        print("\n".join(f"  {line}" for line in aligned(rows, right=(1,))))
    print(
        f"\nOn {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Machines are virtual; their clouds are SIMULATED."
    )


if __name__ == "__main__":
    main()
