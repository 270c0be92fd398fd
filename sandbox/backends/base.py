# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol of a machine back end.

A cloud module calls :meth:`Backend.reserve` while it answers the create request (the answer carries the address), and
:meth:`Backend.create` in a background task, whose end ends the cloud's operation. All calls come from the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class BackendError(Exception):
    """The back end could not do it. The text is one sentence, without secrets."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a machine is reached; kept over stop and start.

    Attributes:
        ipv4: the address to reach it by. The container back end has only this one, so it is also the internal one.
        internal: the address inside the cloud's network.
        ipv6: its /64, as ``2001:db8:...::/64``. Never routed.
    """

    ipv4: str
    internal: str
    ipv6: str


@dataclass(slots=True)
class Machine:
    """What a back end must know to make a machine.

    Attributes:
        key: unique in the sandbox, ``<service>-<id>``, of ``[a-z0-9-]``.
        hostname: its host name.
        image: the cloud's name of the image, ``debian-13``; the back end chooses what comes nearest.
        user_data: for cloud-init, as the user gave it.
        public_keys: SSH keys the cloud's metadata offers to cloud-init for its default user (Hetzner's ``ssh_keys``).
        startup_script: run as root at each boot, as the Google guest agent does.
        ssh_users: accounts with sudo and their keys, made at boot as the Google guest agent does from ``ssh-keys``.
        guest_agent: the image has the Google guest agent (so the two above are honoured).
        gpu_model: the cloud's name of its GPUs, ``nvidia-tesla-t4``; empty for none. They are SIMULATED.
        gpu_count: how many of them.
    """

    key: str
    hostname: str
    image: str
    user_data: str = field(default="", repr=False)
    public_keys: tuple[str, ...] = ()
    startup_script: str = field(default="", repr=False)
    ssh_users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    guest_agent: bool = False
    gpu_model: str = ""
    gpu_count: int = 0


class Backend(Protocol):
    """Makes machines and removes them. Every method raises :class:`BackendError` and nothing else."""

    name: str

    async def open(self) -> None:
        """Get ready: remove what an earlier run of the same sandbox left behind."""

    async def close(self) -> None:
        """Remove every machine."""

    def reserve(self, key: str) -> Addresses:
        """Set addresses aside for a machine that will be created; :meth:`delete` frees them again."""

    async def create(self, machine: Machine) -> None:
        """Make the machine with the addresses reserved for its key, and boot it."""

    async def start(self, key: str) -> None:
        """Boot a stopped machine from its disk. Does nothing where it runs."""

    async def rescue(self, key: str, public_keys: tuple[str, ...]) -> None:
        """Boot a stopped machine into a system of the cloud's own, with new host keys, that has its disk before it.

        Args:
            public_keys: SSH keys of root there.
        """

    async def stop(self, key: str) -> None:
        """Shut it down. Does nothing where it is stopped."""

    async def delete(self, key: str) -> None:
        """Remove the machine with its disks, and free its addresses. Does nothing where it is gone."""

    async def host_keys(self, key: str) -> tuple[tuple[str, str], ...]:
        """Its public SSH host keys as (type, base64) pairs; empty until the machine has made its final ones."""

    def running(self, key: str) -> bool | None:
        """Whether it is on, as far as is known; None if there is no such machine. It may switch itself off."""

    async def inventory(self) -> list[dict[str, Any]]:
        """What really exists: ``key``, ``hostname``, ``ipv4``, ``running`` of each machine."""
