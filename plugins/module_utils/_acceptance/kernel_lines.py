# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's log of this boot, from the journal, from a file that the profile names, or from the kernel itself.

A log that is empty was not read: no kernel boots without a word.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .._host.gpu_programs import Ran
from .check import CannotLook

_SECONDS = 60.0
_JOURNAL = ("journalctl", "-k", "-b", "-o", "short-unix", "--no-pager", "-q")
_TIMED = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})? ")
_SINCE_BOOT = re.compile(r"(?:<[0-9]{1,3}>)?\[ *([0-9]{1,10}\.[0-9]{1,9})\] (.*)")

Runner = Callable[[Sequence[str], float], Ran]


def read(file: str, run: Runner, now: float, uptime: Path = Path("/proc/uptime")) -> list[str]:
    """Lines, each with its time in seconds since the epoch in front.

    Args:
        file: what is read instead; empty: the journal, or the kernel where there is no journal.
        run: runs a program.
        now: seconds since the epoch.

    Raises:
        CannotLook: there is nothing to be read.
    """
    if file:
        try:
            return timed(Path(file).read_text(encoding="utf-8", errors="replace"))
        except OSError as problem:
            raise CannotLook(
                f"the kernel's log {file} cannot be read: {problem.strerror}",
                "see `kernel_log` in the profile",
            ) from problem
    journal = run(_JOURNAL, _SECONDS)
    if journal.status == 0 and (lines := timed(journal.out)):
        return lines
    kernel = run(("dmesg",), _SECONDS)
    if kernel.status == 0 and (lines := since_boot(kernel.out, booted(uptime, now))):
        return lines
    raise CannotLook(
        f"the kernel's log cannot be read: journalctl: {_why(journal)}; dmesg: {_why(kernel)}",
        "run this as root",
    )


def _why(ran: Ran) -> str:
    return ran.says if ran.status or ran.err.strip() else "it has no line of this boot"


def timed(text: str) -> list[str]:
    """The lines that begin with a time, as journalctl writes them with ``-o short-unix``. Pure."""
    return [line for line in text.splitlines() if _TIMED.match(line)]


def since_boot(text: str, boot: float | None) -> list[str]:
    """What dmesg prints, with the time of the day instead of the time since the boot. Pure."""
    if boot is None:
        return []
    found = (_SINCE_BOOT.match(line) for line in text.splitlines())
    return [f"{boot + float(one[1]):.6f} kernel: {one[2]}" for one in found if one]


def booted(uptime: Path, now: float) -> float | None:
    """When the machine was booted, in seconds since the epoch."""
    try:
        return now - float(uptime.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
