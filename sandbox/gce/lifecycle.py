# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to an instance behind an operation: it boots, stops, goes.

An instance passes PROVISIONING, STAGING, RUNNING; STOPPING, TERMINATED. The machine behind it is made meanwhile, and an
operation ends when both its time is over and the machine is there.
"""

from __future__ import annotations

import asyncio

from ..world import World
from . import guest
from .errors import OperationError
from .operations import gone
from .rules import run_seconds
from .store import Instance, Project, timestamp


class Life:
    """The life of one instance."""

    def __init__(self, world: World, project: Project, instance: Instance) -> None:
        self.world = world
        self.project = project
        self.instance = instance

    async def create(self, seconds: float) -> OperationError | None:
        """Make the machine and boot it."""
        machine = guest.machine(self.instance, self.world.clock.time())
        await asyncio.gather(self.world.backend.create(machine), self._boot(seconds))
        self._running()
        return None

    async def uncreate(self) -> None:
        """Leave nothing of a create that failed."""
        self._remove()
        await self.world.backend.delete(self.instance.key)

    async def start(self, seconds: float) -> OperationError | None:
        """Boot a stopped machine."""
        if self.instance.leaving:
            return gone(self.instance)
        if self.instance.status == "RUNNING":
            return None
        self.instance.resource["status"] = "PROVISIONING"
        await asyncio.gather(self.world.backend.start(self.instance.key), self._boot(seconds))
        self._running()
        return None

    async def unstart(self) -> None:
        """Back to a stopped machine."""
        self.instance.resource["status"] = "TERMINATED"

    async def stop(self, seconds: float) -> OperationError | None:
        """Shut the machine down."""
        if self.instance.leaving:
            return gone(self.instance)
        if self.instance.status == "TERMINATED":
            return None
        self.instance.resource["status"] = "STOPPING"
        await asyncio.gather(self.world.backend.stop(self.instance.key), self.world.clock.sleep(seconds))
        self.instance.resource |= {"status": "TERMINATED", "lastStopTimestamp": timestamp(self.world)}
        self.instance.resource.pop("resourceStatus", None)
        self._address(None)
        guest.note(self.instance, "stopped")
        return None

    async def unstop(self) -> None:
        """It goes on running."""
        self.instance.resource["status"] = "RUNNING"

    async def delete(self, seconds: float) -> OperationError | None:
        """Remove the machine and the instance."""
        self.instance.resource["status"] = "STOPPING"
        await asyncio.gather(self.world.backend.delete(self.instance.key), self.world.clock.sleep(seconds))
        self._remove()
        return None

    async def undelete(self) -> None:
        """It stays."""
        running = self.world.backend.running(self.instance.key)
        self.instance.resource["status"] = "RUNNING" if running else "TERMINATED"
        self.instance.leaving = False

    async def _boot(self, seconds: float) -> None:
        await self.world.clock.sleep(seconds / 2)
        self.instance.resource["status"] = "STAGING"
        self._address(self.instance.addresses.ipv4)
        await self.world.clock.sleep(seconds / 2)

    def _running(self) -> None:
        self.instance.boots += 1
        self.instance.resource |= {"status": "RUNNING", "lastStartTimestamp": timestamp(self.world)}
        guest.note(self.instance, "booted")
        if limit := run_seconds(self.instance.resource["scheduling"]):
            self.world.spawn(self._end_after(limit, self.instance.boots))

    async def _end_after(self, seconds: int, boot: int) -> None:
        """Stop or delete it when its time is over, whoever still cares."""
        await self.world.clock.sleep(seconds)
        async with self.instance.lock:
            if self.instance.leaving or self.instance.boots != boot or self.instance.status != "RUNNING":
                return
            if self.instance.resource["scheduling"]["instanceTerminationAction"] == "DELETE":
                self.instance.leaving = True
                await self.delete(0)
            else:
                await self.stop(0)

    def _remove(self) -> None:
        self.instance.leaving = True
        if self.project.instances.pop((self.instance.zone, self.instance.name), None):
            self.project.count(self.instance, -1)

    def _address(self, address: str | None) -> None:
        """Give the first interface its external address, or take it away, if it was to have one."""
        for config in self.instance.resource["networkInterfaces"][0].get("accessConfigs", ())[:1]:
            if address:
                config["natIP"] = address
            else:
                config.pop("natIP", None)
