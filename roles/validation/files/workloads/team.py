# SPDX-License-Identifier: GPL-3.0-or-later
"""One process for each GPU: started, listened to, and ended together.

The first process has loaded the framework and has not touched a GPU; its children are forked from it, so that the framework is
loaded once. (A process that has used CUDA cannot be forked; the first one must not even count the GPUs.) A child that ends badly
ends all of them, and the workload says which GPU it was. Children do not outlive the first process, whatever ends that.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import re
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import workload

Work = Callable[[int], None]

DEVICES = Path("/sys/bus/pci/devices")

_PR_SET_PDEATHSIG = 1
_GRACE_S = 1.5
"""After the first bad news: time for the others' to come, so that the cause is told and not its consequence."""
_CONSEQUENCE = re.compile(
    r"connection|closed by peer|broken pipe|remote process|nccl|gloo|socket|timed? ?out", re.IGNORECASE
)


def name_of(device: str, index: int) -> str:
    """How one of them is called in a sentence."""
    return f"GPU {index}" if device == "cuda" else f"process {index}"


def barrier(workers: int) -> Any:
    """For `run`'s children to wait for each other; to be made before `run`."""
    return multiprocessing.get_context("fork").Barrier(workers)


@contextmanager
def meeting_place() -> Iterator[str]:
    """Where the processes of a framework's process group find each other: a file, for a port might be taken by another."""
    folder = tempfile.mkdtemp(prefix="gpumesh-")
    try:
        yield f"file://{folder}/meet"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def explain(problem: BaseException) -> str:
    """What an exception says, in one line: CUDA's are followed by a page of hints for programmers."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    said = lines[0] if lines else type(problem).__name__
    return said if isinstance(problem, RuntimeError) else f"{type(problem).__name__}: {said}"


def run(workers: int, device: str, work: Work) -> None:
    """Do the work once for each GPU, in a process of its own; returns when all are done.

    What a child says is passed on; of their progress, the mean. If one fails, the workload ends with its error.
    """
    children = _Children(device)
    try:
        for index in range(workers):
            children.start(index, work)
        children.follow()
    finally:
        children.end()
    if children.failures:
        _unused, _unused, index, says, missing = min(children.failures)
        workload.fail(says, gpu=index, missing=missing)


class _Children:
    def __init__(self, device: str) -> None:
        self.failures: list[tuple[int, int, int, str, str]] = []
        self._device = device
        self._pids: dict[int, int] = {}
        self._pipes: dict[int, int] = {}
        self._rest: dict[int, bytes] = {}
        self._spoke: set[int] = set()
        self._done: dict[int, float] = {}
        self._told = 0.0

    def start(self, index: int, work: Work) -> None:
        sys.stderr.flush()
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _child(index, self._device, work, writing, parent)
        os.close(writing)
        self._pids[index], self._pipes[index], self._rest[index] = pid, reading, b""
        self._done[index] = 0.0

    def follow(self) -> None:
        """Pass on what they say until all have ended, or one has failed and the others had time to say why."""
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            for index, pipe in self._pipes.items():
                selector.register(pipe, selectors.EVENT_READ, index)
            while selector.get_map() and (deadline is None or time.monotonic() < deadline):
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                for key, _unused in selector.select(wait):
                    index = int(key.data)
                    chunk = os.read(self._pipes[index], 1 << 16)
                    if chunk:
                        self._hear(index, chunk)
                    else:
                        selector.unregister(self._pipes[index])
                        self._reap(index)
                if self.failures and deadline is None:
                    deadline = time.monotonic() + _GRACE_S

    def end(self) -> None:
        """Whoever is left is killed."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids.values():
            os.waitpid(pid, 0)
        self._pids.clear()
        for pipe in self._pipes.values():
            os.close(pipe)

    def _reap(self, index: int) -> None:
        _unused, status = os.waitpid(self._pids.pop(index), 0)
        code = os.waitstatus_to_exitcode(status)
        if not code or index in self._spoke:
            return
        who = name_of(self._device, index)
        if code < 0:
            # An abort is what NCCL does to those whose peer is gone; any other signal is the cause.
            self._fail(
                2 if -code == signal.SIGABRT else 0,
                index,
                f"the process of {who} was ended by {signal.Signals(-code).name}",
            )
        else:
            self._fail(2, index, f"the process of {who} ended with status {code} and did not say why")

    def _hear(self, index: int, chunk: bytes) -> None:
        *lines, self._rest[index] = (self._rest[index] + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            kind = event.pop("event")
            if kind == "progress":
                self._progress(index, float(event["done"]), str(event["says"]))
            elif kind == "error":
                self._spoke.add(index)
                says = str(event["says"])
                grade = 3 if _CONSEQUENCE.search(says) else 1
                self._fail(grade, index, says, str(event.get("missing") or ""))
            else:
                workload.say(kind, **event)

    def _progress(self, index: int, done: float, says: str) -> None:
        self._done[index] = done
        mean = sum(self._done.values()) / len(self._done)
        if mean >= self._told + 0.01:
            self._told = mean
            workload.progress(mean, says)

    def _fail(self, grade: int, index: int, says: str, missing: str = "") -> None:
        self.failures.append((grade, len(self.failures), index, says, missing))


def _child(index: int, device: str, work: Work, writing: int, parent: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    workload.speak_into(writing)
    status = 1
    try:
        work(index)
        status = 0
    except SystemExit as problem:
        status = problem.code if isinstance(problem.code, int) else 1
    except BaseException as problem:
        traceback.print_exc()
        workload.say("error", says=f"{name_of(device, index)}: {explain(problem)}", gpu=index)
    finally:
        sys.stderr.flush()
        # Destructors of a framework may wait for a peer that is gone.
        os._exit(status)


def local_cpus(address: str) -> set[int]:
    """The CPUs beside a PCI device; none: the machine does not say."""
    try:
        text = (DEVICES / address.lower() / "local_cpulist").read_text(encoding="ascii").strip()
    except OSError:
        return set()
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _unused, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found & os.sched_getaffinity(0)
