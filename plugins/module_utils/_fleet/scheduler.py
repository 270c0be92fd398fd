# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs many jobs at once: their requests in threads, their waiting in none.

A job is a generator. It yields what it needs next, an answer (:class:`Ask`), the end of an operation (:class:`Await`),
some time (:class:`Pause`), and is resumed with it. All jobs live on the caller's thread, so they share data freely;
only the requests run elsewhere. Operations of one provider are asked about together, however many there are.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from .clock import Clock
from .errors import AuthError, FleetError, Forbidden, ProviderError, WaitTimeout
from .providers.base import Operation, Progress, Provider

Result = TypeVar("Result")

POLL_SECONDS = (0.25, 5.0)
"""The shortest and the longest time between two looks at a provider's operations."""

_LOST_AFTER = 3
"""How many answers in a row may leave an operation out before it counts as ended; the job then looks for itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Make this call in a thread; resume with its result, or with its exception raised."""

    provider: str
    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Await:
    """Resume with the :class:`Progress` of this operation once it has ended.

    Raises, in the job: :class:`WaitTimeout` after ``seconds``; whatever keeps the provider from being asked for good.
    """

    provider: str
    operation: Operation
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Resume after so many seconds."""

    seconds: float


Job: TypeAlias = Generator["Ask | Await | Pause", Any, Result]


@dataclass(slots=True)
class _Watch:
    job: str
    operation: Operation
    since: float
    until: float
    left_out: int = 0


@dataclass(slots=True)
class _Cloud:
    """What is going on at one provider."""

    requests: ThreadPoolExecutor
    polls: ThreadPoolExecutor
    watches: dict[str, _Watch] = field(default_factory=dict)
    youngest: float = float("-inf")
    polled: float = float("-inf")
    polling: bool = False
    trouble: FleetError | None = None

    def next_poll(self) -> float:
        """When to look again: soon while the youngest operation is young, more rarely as it ages."""
        shortest, longest = POLL_SECONDS
        since = max(self.polled, self.youngest)
        return since + min(longest, max(shortest, (since - self.youngest) / 10))


class Scheduler(Generic[Result]):
    """Runs jobs until each has ended.

    Args:
        workers: how many requests to one provider may be under way at once.
    """

    def __init__(self, providers: Mapping[str, Provider], clock: Clock, *, workers: int = 16) -> None:
        self._providers = providers
        self._clock = clock
        self._workers = workers
        self._clouds: dict[str, _Cloud] = {}
        self._jobs: dict[str, Job[Result]] = {}
        self._ended: dict[str, Result | Exception] = {}
        self._ready: deque[tuple[str, Any, Exception | None]] = deque()
        self._sleeping: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._inbox: SimpleQueue[tuple[Callable[[Any, Exception | None], None], Future[Any]]] = SimpleQueue()
        self._under_way = 0

    def run(self, jobs: Mapping[str, Job[Result]]) -> dict[str, Result | Exception]:
        """Run them all. What a job raises is its outcome; nothing a job does ends another.

        On KeyboardInterrupt nothing new is begun, and every job that has not ended ends in :class:`WaitTimeout`.
        """
        self._jobs = dict(jobs)
        self._ready.extend((key, None, None) for key in jobs)
        interrupted = False
        try:
            while self._jobs:
                self._turn()
        except KeyboardInterrupt:
            interrupted = True
            for key, job in list(self._jobs.items()):
                job.close()
                self._ended[key] = WaitTimeout(
                    "interrupted before its work had ended; what was asked for already may still happen",
                    hint="Run the same command again: it goes on from what exists then",
                )
            self._jobs.clear()
        finally:
            for cloud in self._clouds.values():
                cloud.requests.shutdown(wait=not interrupted, cancel_futures=True)
                cloud.polls.shutdown(wait=not interrupted, cancel_futures=True)
        return self._ended

    def _turn(self) -> None:
        """Do what can be done now, then wait for the next thing to happen."""
        while self._ready:
            self._resume(*self._ready.popleft())
        now = self._clock.now()
        due = [self._wake(now), *(self._tend(name, cloud, now) for name, cloud in self._clouds.items())]
        if self._ready or not self._jobs:
            return
        soonest = min((at for at in due if at is not None), default=None)
        if self._under_way:
            self._receive(None if soonest is None else max(0.0, soonest - now))
        elif soonest is not None:
            self._clock.sleep(max(0.0, soonest - now))

    def _wake(self, now: float) -> float | None:
        while self._sleeping and self._sleeping[0][0] <= now:
            self._ready.append((heapq.heappop(self._sleeping)[2], None, None))
        return self._sleeping[0][0] if self._sleeping else None

    def _tend(self, name: str, cloud: _Cloud, now: float) -> float | None:
        """When it is time, give up on overdue operations and look at the others; returns when to come back."""
        if not cloud.watches or cloud.polling:
            return None
        if (at := cloud.next_poll()) > now:
            return at
        for watch in [watch for watch in cloud.watches.values() if watch.until <= now]:
            del cloud.watches[watch.operation.id]
            self._ready.append((watch.job, None, _overdue(watch, now, cloud.trouble)))
        if operations := [watch.operation for watch in cloud.watches.values()]:
            provider = self._providers[name]
            cloud.polling, cloud.polled = True, now
            self._submit(
                cloud.polls,
                lambda: provider.poll(operations),
                lambda answer, error: self._polled(cloud, operations, answer, error),
            )
        return None

    def _polled(
        self,
        cloud: _Cloud,
        asked: list[Operation],
        answer: Mapping[str, Progress] | None,
        error: Exception | None,
    ) -> None:
        cloud.polling = False
        if error is not None:
            # A cloud that is out of order for a while is asked again until the operation is overdue.
            if isinstance(error, ProviderError) and not isinstance(error, (AuthError, Forbidden)):
                cloud.trouble = error
                return
            for watch in cloud.watches.values():
                self._ready.append((watch.job, None, error))
            cloud.watches.clear()
            return
        cloud.trouble = None
        for operation in asked:
            watch = cloud.watches[operation.id]
            progress = (answer or {}).get(operation.id)
            watch.left_out = watch.left_out + 1 if progress is None else 0
            if watch.left_out >= _LOST_AFTER:
                progress = Progress(done=True)
            if progress and progress.done:
                del cloud.watches[operation.id]
                self._ready.append((watch.job, progress, None))

    def _receive(self, seconds: float | None) -> None:
        try:
            then, future = self._inbox.get(timeout=seconds)
            while True:
                self._under_way -= 1
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                then(None if error else future.result(), error)
                then, future = self._inbox.get_nowait()
        except Empty:
            return

    def _submit(
        self, pool: ThreadPoolExecutor, call: Callable[[], Any], then: Callable[[Any, Exception | None], None]
    ) -> None:
        self._under_way += 1
        pool.submit(call).add_done_callback(lambda future: self._inbox.put((then, future)))

    def _cloud(self, name: str) -> _Cloud:
        if name not in self._clouds:
            # A pool for each: one that hangs holds nobody else up.
            self._clouds[name] = _Cloud(
                ThreadPoolExecutor(self._workers, thread_name_prefix=name),
                ThreadPoolExecutor(1, thread_name_prefix=f"{name}-poll"),
            )
        return self._clouds[name]

    def _resume(self, key: str, value: Any, error: Exception | None) -> None:
        job = self._jobs[key]
        try:
            step = job.throw(error) if error is not None else job.send(value)
        except StopIteration as end:
            self._ended[key] = end.value
            del self._jobs[key]
            return
        except Exception as failure:
            self._ended[key] = failure
            del self._jobs[key]
            return
        if isinstance(step, Ask):
            self._submit(
                self._cloud(step.provider).requests,
                step.call,
                lambda answer, raised: self._ready.append((key, answer, raised)),
            )
        elif isinstance(step, Await):
            now = self._clock.now()
            cloud = self._cloud(step.provider)
            cloud.watches[step.operation.id] = _Watch(
                key, step.operation, since=now, until=now + step.seconds
            )
            cloud.youngest = now
        else:
            heapq.heappush(self._sleeping, (self._clock.now() + step.seconds, next(self._order), key))


def _overdue(watch: _Watch, now: float, trouble: FleetError | None) -> WaitTimeout:
    operation = watch.operation
    reason = f"; asking how it stands failed last with: {trouble.what}" if trouble else ""
    return WaitTimeout(
        f"the {operation.verb} was accepted (operation {operation.id}) and had not ended after {now - watch.since:.0f} s{reason}",
        machine=operation.machine,
        hint="It may still succeed: run the same command again, which goes on from what exists then, or raise wait_timeout",
    )
