# SPDX-License-Identifier: GPL-3.0-or-later
"""The workers of a burn-in: one process of the workload burn.py a GPU, all at once. None is started again.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import workloads

_LEASH = Path(workloads.__file__).with_name("leash.py")
_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH")
_KILLED_S = 2.0
MOST_LOG_BYTES = 4 * 1024 * 1024
"""Of what a worker prints: a library that complains at every turn would fill the disk in a day."""


class Worker:
    """One process. What it says is read in a thread of its own; what it said last is what counts.

    Attributes:
        burning: it has said that it burns.
        heard: when it last said something, by the monotonic clock.
        ended: it said that it is done.
        wrong: what it would compare with is not what the CPU makes of it.
    """

    def __init__(self, gpu: int, command: Sequence[str], log: Path, wake: Callable[[], None]) -> None:
        self.gpu = gpu
        self.log = log
        self.burning = False
        self.ended = False
        self.wrong = False
        self.error = ""
        self.missing = ""
        self.versions: dict[str, str] = {}
        self.simulated = False
        self.memory: dict[str, Any] = {}
        self.rate: float | None = None
        self.traffic: float | None = None
        self.precision = ""
        self.checked = 0
        self.mismatches = 0
        self.heard = time.monotonic()
        self._wake = wake
        self._logged = 0
        self._closed = False
        self._log = log.open("ab", buffering=0)
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
        environment = {key: value for key, value in os.environ.items() if key not in _OURS}
        self._process = subprocess.Popen(  # noqa: S603
            [*leash, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C is for the one that watches; it ends the workers in order.
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, name=f"worker {gpu}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        for line in stream:
            self._keep(line)
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                with contextlib.suppress(TypeError, ValueError):
                    self._hear(event)
        self._wake()

    def _keep(self, line: bytes) -> None:
        self._logged += len(line)
        if self._logged <= MOST_LOG_BYTES:
            with contextlib.suppress(OSError):
                self._log.write(line)

    def _hear(self, event: dict[str, Any]) -> None:
        self.heard = time.monotonic()
        match event.get("event"), event.get("name"):
            case "begin", _:
                self.simulated = event.get("simulated") is True
                self.versions = {
                    str(name): str(version) for name, version in (event.get("versions") or {}).items()
                }
            case "progress", _:
                self.burning = True
                self._wake()
            case "figure", "memory":
                self.memory = {"gib": event.get("value"), "share": event.get("share")}
            case "figure", "reference":
                self.wrong = self.wrong or event.get("value") is False
            case "figure", "rate":
                self.rate = event.get("value")
                self.traffic = event.get("traffic")
                self.precision = str(event.get("precision") or "")
                self.checked = int(event.get("checked") or 0)
                self.mismatches = int(event.get("mismatches") or 0)
            case "figure", "mismatch":
                self.mismatches += int(event.get("value") or 0)
            case "error", _:
                self.error = str(event.get("says") or "it gave up without a reason")
                self.missing = str(event.get("missing") or "")
            case "end", _:
                self.ended = True

    def ask_to_end(self) -> None:
        """Tell it to end after what it has at hand."""
        stream = self._process.stdin
        if stream and not self._closed:
            with contextlib.suppress(OSError):
                stream.write(b"stop\n")
                stream.flush()

    def kill(self) -> None:
        """End it now, with all that it started."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it. One that hangs in the driver of a dead card cannot be killed, and is left behind."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_KILLED_S)
        self._thread.join(timeout=1)
        read = None if self._thread.is_alive() else self._process.stdout
        for stream in (self._process.stdin, read, self._log):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def death(self) -> str:
        """How it ended, in words."""
        self._thread.join(timeout=1)
        name = f"the worker of GPU {self.gpu}"
        if self.error:
            return f"{name} gave up: {self.error}"
        status = self._process.poll()
        if status is not None and status < 0:
            return f"{name} was killed by signal {-status}"
        last = last_words(self.log)
        return f"{name} ended by itself with status {status}" + (f": {last}" if last else "")


def last_words(log: Path) -> str:
    """The last line of a log that is none of the protocol: of a traceback, the one that says what it was."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip() and line[0] != "{"), "")


class Workers:
    """All of them.

    Args:
        commands: by the GPU's index, what to run.
        folder: where what they print is kept.
    """

    def __init__(self, commands: Mapping[int, Sequence[str]], folder: Path, wake: Callable[[], None]) -> None:
        self.all: list[Worker] = []
        try:
            for gpu, command in commands.items():
                self.all.append(Worker(gpu, command, folder / f"burn-{gpu}.log", wake))
        except BaseException:
            self.end(0)
            raise

    @property
    def burning(self) -> bool:
        """Whether all of them are."""
        return all(worker.burning for worker in self.all)

    def dead(self) -> list[Worker]:
        """Those that have ended although nobody told them to."""
        return [worker for worker in self.all if worker.gone]

    def silent(self, seconds: float) -> list[Worker]:
        """Those that have said nothing for so long."""
        now = time.monotonic()
        return [worker for worker in self.all if now - worker.heard > seconds]

    def end(self, patience_s: float) -> None:
        """End all of them at the same time."""
        deadline = time.monotonic() + patience_s
        for worker in self.all:
            worker.ask_to_end()
        while patience_s and time.monotonic() < deadline and not all(worker.gone for worker in self.all):
            time.sleep(0.05)
        for worker in self.all:
            worker.kill()
        for worker in self.all:
            worker.close()
