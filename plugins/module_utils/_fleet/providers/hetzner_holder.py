# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work with a cloud object: a process, told by the object's labels, so that two runs do not mix.

On this machine it can be seen whether the process still lives. Of one on another machine it is only known how long it
may take at most.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BY_LABEL = "gpumesh-image-by"
"""The label that says which process is at it: machine, process id, and when the process began."""

UNTIL_LABEL = "gpumesh-image-until"
"""The label that says how long it may take at most, in seconds since 1970."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process."""

    machine: str
    pid: int
    begun: str

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(_machine(), os.getpid(), _begun(os.getpid()) or "0")

    def labels(self, until: float) -> dict[str, str]:
        """Labels that say that it is at work, at most until then."""
        return {BY_LABEL: f"{self.machine}.{self.pid}.{self.begun}", UNTIL_LABEL: str(int(until))}

    def keeps_us_off(self, labels: Mapping[str, str], now: datetime) -> str | None:
        """Until when an object with these labels is another's; None where it is nobody's, or ours."""
        machine, _dummy, process = labels.get(BY_LABEL, "").partition(".")
        pid, _dummy, begun = process.partition(".")
        until = labels.get(UNTIL_LABEL, "")
        if not (pid.isdecimal() and until.isdecimal()) or now.timestamp() >= int(until):
            return None
        if (machine, pid, begun) == (self.machine, str(self.pid), self.begun):
            return None
        if machine == self.machine and not _lives(int(pid), begun):
            return None  # It is dead; what has its number now is another.
        return datetime.fromtimestamp(int(until), UTC).strftime("%Y-%m-%d %H:%M UTC")


def _machine() -> str:
    """This machine since its last start, as far as its processes see each other."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        boot, space = "", ""
    return hashlib.sha256(f"{os.uname().nodename} {boot} {space}".encode()).hexdigest()[:12]


def _lives(pid: int, begun: str) -> bool:
    """Whether the process that began then still lives; where that cannot be seen, whether there is one of that number."""
    if (_PROC / str(pid) / "stat").exists():
        return _begun(pid) == begun
    # There is no /proc, as on macOS, or it shows only one's own processes.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _begun(pid: int) -> str | None:
    """When a process began, in ticks since the machine started; None if there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]
