# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a workload: a program of its own, in a session of its own, read while it runs and ended when its time is up.

What it prints is described in roles/validation/files/workloads/workload.py. It is not trusted: a line that is no JSON object
stays in the log, and one that is too long is cut.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .check import WorkloadRun
from .files import shipped

Event = Mapping[str, Any]

MOST_LINE = 1 << 20
MOST_EVENTS = 100_000
_PATIENCE_S = 5.0
"""For a program that was asked to end, before it is killed."""
_TICK_S = 0.5
_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH")
"""What our own interpreter was started with is nothing for a framework's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a workload.

    Attributes:
        missing: the framework, or the part of one, that is not there to be tried; empty: nothing is.
    """

    run: WorkloadRun
    missing: str = ""


@dataclass(slots=True)
class _Told:
    """What it has said so far."""

    begin: Event = field(default_factory=dict)
    figures: list[Event] = field(default_factory=list)
    phases: list[Event] = field(default_factory=list)
    error: Event | None = None
    ended: bool = False
    events: int = 0

    def take(self, line: bytes) -> Event | None:
        """One line; None: it is none of the protocol."""
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(event, dict) or self.events >= MOST_EVENTS:
            return None
        self.events += 1
        kind = event.pop("event", None)
        if kind == "begin":
            self.begin = event
        elif kind == "figure" and isinstance(event.get("name"), str) and "value" in event:
            self.figures.append(event)
        elif kind == "phase" and isinstance(event.get("name"), str) and _is_span(event):
            self.phases.append(event)
        elif kind == "error":
            self.error = event
        elif kind == "end":
            self.ended = True
        elif kind != "progress":
            return None
        return {"event": kind, **event}


def _is_span(event: Event) -> bool:
    return all(isinstance(event.get(key), (int, float)) for key in ("begin", "end"))


def path_of(name: str) -> Path:
    """The file of a workload."""
    return shipped("workloads", f"{name}.py")


def run(
    command: Sequence[str],
    *,
    name: str,
    seconds: float,
    log: Path,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_tick: Callable[[], None] = lambda: None,
    stop: Callable[[], str] = lambda: "",
) -> Outcome:
    """Run a workload to its end.

    Args:
        command: the interpreter with its absolute path, the workload's file, its options.
        name: how it is called in sentences.
        seconds: how long it may take.
        log: where what it prints is kept.
        environment: more for its environment.
        on_event: is given each of its lines as it comes.
        on_tick: is called about twice a second.
        stop: is asked as often; a reason that it gives ends the workload.

    Whatever ends this function, an interrupt as well, the workload and all that it started are gone then.
    """
    told = _Told()
    with log.open("wb", buffering=0) as kept:
        kept.write(f"$ {' '.join(command)}\n".encode(errors="replace"))
        try:
            process = _start(command, kept, environment or {})
        except OSError as problem:
            return Outcome(_crashed(told, f"{command[0]} cannot be run: {problem.strerror}"))
        try:
            why = _follow(process, kept, told, time.monotonic() + seconds, on_event, on_tick, stop)
        finally:
            stayed = end(process)
    if why == _LATE:
        why = f"{name} did not end within {seconds:g} seconds"
    return _outcome(name, process, told, why, log, stayed)


_LATE = "late"


def _start(
    command: Sequence[str], kept: IO[bytes], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    inherited = {key: value for key, value in os.environ.items() if key not in _OURS}
    leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")), str(os.getpid())]
    return subprocess.Popen(  # noqa: S603
        [*leash, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=kept,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )


def _follow(
    process: subprocess.Popen[bytes],
    kept: IO[bytes],
    told: _Told,
    deadline: float,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None],
    stop: Callable[[], str],
) -> str:
    """Read it until it ends; the reason for which it is to be ended before, or nothing."""
    stream = process.stdout
    if stream is None:
        return ""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return _LATE
            if why := stop():
                return why
            on_tick()
            if not selector.select(min(_TICK_S, left)):
                # A grandchild may hold the pipe open after the workload itself is gone.
                if process.poll() is not None and not selector.select(0):
                    return ""
                continue
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, min(_PATIENCE_S, deadline - time.monotonic())))
                return ""
            kept.write(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if event := told.take(line):
                    on_event(event)
            if len(rest) > MOST_LINE:
                # It stays in pieces, none of which is JSON; what follows its end is read again.
                rest = b"\0"


def end(process: subprocess.Popen[bytes]) -> bool:
    """End a process and all of its session's group; whether it stayed although it was killed.

    A process that hangs in the driver of a dead card cannot be killed; it is left behind.
    """
    stayed = False
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _signal(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                stayed = True
    # Its children can outlive it; the group has its number as long as one of them does.
    _signal(process.pid, signal.SIGKILL)
    if process.stdout:
        process.stdout.close()
    return stayed


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _outcome(
    name: str, process: subprocess.Popen[bytes], told: _Told, why: str, log: Path, stayed: bool
) -> Outcome:
    if told.error is not None:
        says = str(told.error.get("says") or f"{name} gave up without a reason")
        missing = str(told.error.get("missing") or "")
        return Outcome(WorkloadRun(told.begin, told.figures, told.phases, says), missing)
    if why:
        left = ", and does not go away although it was killed" if stayed else ""
        return Outcome(WorkloadRun(told.begin, told.figures, told.phases, f"{why}{left}"))
    if told.ended and process.returncode == 0:
        return Outcome(WorkloadRun(told.begin, told.figures, told.phases))
    said = f": {last}" if (last := _last_words(log)) else ""
    return Outcome(_crashed(told, f"{name} {_death(process.returncode)}{said}"))


def _crashed(told: _Told, why: str) -> WorkloadRun:
    return WorkloadRun(told.begin, told.figures, told.phases, why, crashed=True)


def _death(status: int | None) -> str:
    if status is None:
        return "stopped writing and did not end"
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with status {status} before it had said that it is done" if status else "ended halfway"


def _last_words(log: Path) -> str:
    """The last line that is none of the protocol: of a traceback, the one that says what it was."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 16)))
        lines = file.read().decode("utf-8", "replace").splitlines()[1:]
        for line in reversed(lines):
            if line.strip() and not line.startswith("{"):
                return line.strip()[:300]
    return ""
