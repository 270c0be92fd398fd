# SPDX-License-Identifier: GPL-3.0-or-later
"""What all clouds of one sandbox share: time, ids, the machines' back end, faults, and background work.

How a cloud plugs in: its module has ``routes(world) -> list[BaseRoute]`` (Starlette routes with full paths, such as
``Mount("/hetzner/v1", ...)``), which first calls :meth:`World.register` with its :class:`Service`. It keeps its objects
in a class of its own, got by ``world.store(MyStore)`` in each handler (never kept over requests: a reset drops it).
Work that outlives a request is started with :meth:`World.spawn`, waits with ``world.clock.sleep``, and asks
``world.operation_seconds(...)`` how long it should take. Handlers run on one event loop, so stores need no locks, as
long as they do not await between a check and the change that relies on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from starlette.responses import Response

from .backends.base import Backend
from .faults import Faults, Subject
from .private import settle_token

log = logging.getLogger("sandbox")
Store = TypeVar("Store")


class Clock(Protocol):
    """Time, so that tests can have their own."""

    def time(self) -> float:
        """Seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The real one."""

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Service:
    """What the sandbox must know of a cloud to inject faults into it.

    Attributes:
        name: ``hetzner``, ``gce``, ``zerotier``, ``oauth``; what a fault rule's ``service`` matches.
        prefix: the path it is mounted at, ``/hetzner/v1``. The longest prefix that fits a request wins.
        error: an error answer with this HTTP status as this cloud words it. Headers such as Retry-After are added.
        describe: name, labels and zone of the object a path (below the prefix) is about; None where it is about none.
    """

    name: str
    prefix: str
    error: Callable[[int], Response]
    describe: Callable[[str], Subject | None] = lambda path: None


class World:
    """One sandbox.

    Attributes:
        backend: makes the machines.
        state_dir: for files of the sandbox (its token, a throw-away service-account key); exists, mode 0700.
        base_url: where this sandbox listens, ``http://127.0.0.1:8480``.
        base_seconds: how long an operation takes at least.
        token: what opens its services and ``/admin``; see sandbox.private.
        options: settings of single clouds, which each adds with its default in ``routes``.
        closers: what is done at a reset and at the end before the machines are removed.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        state_dir: Path,
        base_url: str = "http://127.0.0.1:8480",
        base_seconds: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.backend = backend
        self.state_dir = state_dir
        self.base_url = base_url
        self.base_seconds = base_seconds
        self.clock: Clock = clock or SystemClock()
        self.token = settle_token(state_dir)
        self.options: dict[str, bool | int] = {}
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self.faults = Faults()
        self.services: dict[str, Service] = {}
        self._stores: dict[object, object] = {}
        self._ids: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def register(self, service: Service) -> None:
        """Make a cloud known; see the module's docstring."""
        self.services[service.name] = service

    def service_of(self, path: str) -> Service | None:
        """The cloud a request path belongs to."""
        fitting = [s for s in self.services.values() if path == s.prefix or path.startswith(f"{s.prefix}/")]
        return max(fitting, key=lambda service: len(service.prefix), default=None)

    def store(self, kind: Callable[[World], Store]) -> Store:
        """The one object of that class, made with ``kind(world)`` at first use and again after a reset."""
        if kind not in self._stores:
            self._stores[kind] = kind(self)
        return cast(Store, self._stores[kind])

    def next_id(self, kind: str, first: int = 1) -> int:
        """A number never used before for this kind, rising; not reset by :meth:`reset`."""
        self._ids[kind] = self._ids.get(kind, first - 1) + 1
        return self._ids[kind]

    def operation_seconds(self, service: str, subject: Subject) -> float:
        """How long an operation on that object should take now: the setting, or what a ``slow_operation`` fault says."""
        rule = self.faults.take("slow_operation", service=service, subject=subject)
        return rule.seconds if rule else self.base_seconds

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work in the background until it ends, or the sandbox is reset or closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background work failed: %r", error, exc_info=error)

    async def reset(self) -> None:
        """Back to an empty cloud: no machines, no objects, no faults."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for close in self.closers:
            await close()
        self._stores.clear()
        self.faults.clear()
        await self.backend.close()

    async def close(self) -> None:
        """Stop background work and remove every machine."""
        await self.reset()
