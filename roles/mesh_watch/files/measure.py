# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the round trips to other members of the mesh once, all at the same time, and print them as one JSON object.

usage: python3 - '{"peers": {NAME: ADDRESS, ...}, "count": 3, "seconds": 2}' < measure.py
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MOST_AT_ONCE = 64
ROUND_TRIP = re.compile(r"\btime[=<]([0-9.]+) ?ms")
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def measure(address: str, count: int, seconds: int) -> dict[str, Any]:
    """Some round trips to one address, a fifth of a second apart, until all are answered or the time is over."""
    command = ["ping", "-n", "-i", "0.2", "-c", str(count), "-w", str(seconds), address]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=seconds + 5, env=ENVIRONMENT
        )
    except subprocess.TimeoutExpired:
        return {"answers": 0, "says": f"ping did not end within {seconds + 5} seconds"}
    rtts = [float(text) for text in ROUND_TRIP.findall(done.stdout)]
    if not rtts:
        said = done.stderr.strip().splitlines()
        return {"answers": 0, "says": said[-1] if said else ""}
    # The first packet may have waited for the path to be found; a median of three forgets it.
    return {
        "answers": len(rtts),
        "median": round(statistics.median(rtts), 3),
        "min": min(rtts),
        "max": max(rtts),
    }


def main() -> None:
    """Measure to all peers, and print."""
    wanted = json.loads(sys.argv[1])
    peers: dict[str, str] = wanted["peers"]
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        try:
            found = list(
                pool.map(lambda address: measure(address, wanted["count"], wanted["seconds"]), peers.values())
            )
        except FileNotFoundError:
            print(json.dumps({"problem": "ping is not installed here; install iputils-ping"}))
            return
    print(json.dumps({"peers": dict(zip(peers, found, strict=True))}))


if __name__ == "__main__":
    main()
