# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for nvidia-persistenced: while it runs, the driver stays in use and persistence mode is on. SIMULATED.

The simulated driver finds it by the process id that it leaves in the simulated root.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

ROOT = Path("/var/lib/gpumesh-simulated-gpus/root")
_PID = "persistenced.pid"


def drives(root: Path) -> bool:
    """Whether a driver is loaded and drives a GPU."""
    return (root / "proc/driver/nvidia/version").is_file() and any(root.glob("proc/driver/nvidia/gpus/*"))


def serve(root: Path) -> int:
    """Hold the driver until somebody stops this."""
    if not drives(root):
        print(
            "nvidia-persistenced failed to initialize. Failed to query NVIDIA devices. Please ensure that the NVIDIA device "
            "files (/dev/nvidia*) exist, and that user 0 has read and write permissions for those files. (SIMULATED)",
            file=sys.stderr,
        )
        return 1
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    pid = root / _PID
    pid.write_text(f"{os.getpid()}\n")
    print("Persistence mode is on for all devices (SIMULATED)", flush=True)
    _tell_systemd("READY=1")
    try:
        while not stopped:
            # The root is made anew where a test lets the machine boot without a boot.
            if drives(root) and not pid.exists():
                pid.write_text(f"{os.getpid()}\n")
            time.sleep(0.2)
    finally:
        pid.unlink(missing_ok=True)
    return 0


def _tell_systemd(word: str) -> None:
    """As ``sd_notify`` does: a start is over when the daemon serves, and has failed when it does not."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(word.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


if __name__ == "__main__":
    raise SystemExit(serve(ROOT))
