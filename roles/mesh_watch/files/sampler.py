# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the round trips to other members of the mesh at every interval, until a set time, and write them down.

Runs as the service gpumesh-mesh-watch@NAME, which starts it again after a crash or a restart of the machine. What it finds
it appends to NAME.jsonl beside its configuration, one JSON object a line:

  {"event": "begin", "t": ..., "m": ..., "boot": ..., "interval": ..., "until": ..., "peers": {...}, "simulated": ...}
  {"t": time of day, "m": seconds since the machine was started, "rtt": {peer: milliseconds, or null if lost}}
  {"event": "end", "t": ..., "m": ..., "why": "finished", "stopped", "full" or "terminated"}

usage: sampler.py /var/lib/gpumesh/mesh-watch/NAME.json
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SYNC_SECONDS = 60.0
MOST_AT_ONCE = 64
ROUND_TRIP = re.compile(r"\btime[=<]([0-9.]+) ?ms")


def uptime() -> float:
    """Seconds since the machine was started, those it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ping(address: str, timeout: float) -> float | None:
    """One round trip in milliseconds; None if no answer came in time, or nothing could be sent."""
    command = ["ping", "-n", "-c", "1", "-W", f"{timeout:g}", address]
    environment = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=timeout + 5, env=environment
        )
    except subprocess.TimeoutExpired:
        return None
    found = ROUND_TRIP.search(done.stdout)
    return float(found[1]) if done.returncode == 0 and found else None


class Samples:
    """The file of samples, which only grows, up to a limit."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size
        # A crash may have left half a line; the next one begins on a line of its own.
        self._torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return self._size

    def write(self, record: dict[str, Any]) -> None:
        """Append a record. Where the disk is full it is lost, and the measuring goes on."""
        line = f"{json.dumps(record, separators=(',', ':'))}\n".encode()
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as problem:
            print(f"a sample is lost: {problem}", file=sys.stderr, flush=True)
            return
        self._size += written
        self._torn = written < len(line)
        if time.monotonic() - self._synced >= SYNC_SECONDS or "event" in record:
            self.sync()

    def sync(self) -> None:
        """Have the disk keep what was written."""
        os.fsync(self._file)
        self._synced = time.monotonic()


class Sampler:
    """One watch on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._read = 0
        self._config: dict[str, Any] = {}

    def interrupt(self, _number: int, _frame: object) -> None:
        """End after the tick at hand."""
        self._stop.set()

    def reload(self) -> bool:
        """Read the configuration if it was written since; whether it was."""
        written = self._path.stat().st_mtime_ns
        if written == self._read:
            return False
        self._config = json.loads(self._path.read_text(encoding="utf-8"))
        self._read = written
        return True

    def begin(self, samples: Samples) -> None:
        """Say from what moment on, and under which configuration, samples are taken."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        told = ("watch", "host", "interval", "until", "peers", "simulated")
        samples.write(
            {
                "event": "begin",
                "t": round(time.time(), 3),
                "m": round(uptime(), 3),
                "boot": boot,
                **{name: self._config[name] for name in told},
            }
        )

    def tick(self, pool: ThreadPoolExecutor, samples: Samples) -> None:
        """Ask all peers at once."""
        peers = self._config["peers"]
        now, running = round(time.time(), 3), round(uptime(), 3)
        answers = pool.map(lambda address: ping(address, self._config["timeout"]), peers.values())
        samples.write({"t": now, "m": running, "rtt": dict(zip(peers, answers, strict=True))})

    def run(self) -> str:
        """Sample until the end; why it ended."""
        self.reload()
        if time.time() >= self._config["until"]:
            return "finished before"
        samples = Samples(self._path.with_suffix(".jsonl"))
        self.begin(samples)
        due = uptime()
        with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
            why = ""
            while not why:
                self.tick(pool, samples)
                due += self._config["interval"]
                # Ticks that were missed, because the machine slept, are missed: they are not made up for in a burst.
                late = uptime() - due
                if late > 0:
                    due += self._config["interval"] * (late // self._config["interval"] + 1)
                # The time of day may be set at any moment, so the end is looked for often.
                while not self._stop.is_set() and uptime() < due and time.time() < self._config["until"]:
                    self._stop.wait(min(1.0, max(0.0, due - uptime())))
                if self.reload() and not self._stop.is_set():
                    self.begin(samples)
                why = self.reason(samples)
        samples.write({"event": "end", "t": round(time.time(), 3), "m": round(uptime(), 3), "why": why})
        return why

    def reason(self, samples: Samples) -> str:
        """Why this is the end; empty if it is not."""
        if self._config.get("stopped"):
            return "stopped"
        if self._stop.is_set():
            return "terminated"
        if time.time() >= self._config["until"]:
            return "finished"
        return "full" if len(samples) >= self._config["limit"] else ""


def main() -> None:
    """Run the watch whose configuration is named."""
    sampler = Sampler(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, sampler.interrupt)
    signal.signal(signal.SIGINT, sampler.interrupt)
    print(f"mesh watch: {sampler.run()}", flush=True)


if __name__ == "__main__":
    main()
