# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that are records only: nothing boots, but 10,000 of them cost nothing."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from typing import Any

from .base import Addresses, BackendError, Machine

_PUBLIC = int(ipaddress.IPv4Address("198.18.0.0"))  # RFC 2544: for benchmarks, never routed
_INTERNAL = int(ipaddress.IPv4Address("10.128.0.0"))
_SIZE = 2**17  # addresses of 198.18.0.0/15
_ED25519 = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"


class VirtualBackend:
    """Implements :class:`sandbox.backends.base.Backend`."""

    name = "virtual"

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._running: dict[str, bool] = {}
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._next = 1

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        self._machines.clear()
        self._running.clear()
        self._numbers.clear()
        self._taken.clear()

    def reserve(self, key: str) -> Addresses:
        number = self._numbers.get(key) or self._free_number()
        self._numbers[key] = number
        self._taken.add(number)
        return Addresses(
            ipv4=str(ipaddress.IPv4Address(_PUBLIC + number)),
            internal=str(ipaddress.IPv4Address(_INTERNAL + number)),
            ipv6=f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64",
        )

    def _free_number(self) -> int:
        for step in range(_SIZE):
            # The last two are left out: they would be broadcast addresses in somebody's validation.
            number = (self._next - 1 + step) % (_SIZE - 2) + 1
            if number not in self._taken:
                self._next = number + 1
                return number
        raise BackendError("the virtual back end has no free address left")

    async def create(self, machine: Machine) -> None:
        if machine.key not in self._numbers:
            raise BackendError(f"no addresses are reserved for {machine.key}")
        self._machines[machine.key] = machine
        self._running[machine.key] = True

    async def start(self, key: str) -> None:
        self._switch(key, True)

    async def rescue(self, key: str, public_keys: tuple[str, ...]) -> None:
        self._switch(key, True)

    async def stop(self, key: str) -> None:
        self._switch(key, False)

    def _switch(self, key: str, on: bool) -> None:
        if key not in self._machines:
            raise BackendError(f"there is no machine {key}")
        self._running[key] = on

    async def delete(self, key: str) -> None:
        self._machines.pop(key, None)
        self._running.pop(key, None)
        self._taken.discard(self._numbers.pop(key, 0))

    async def host_keys(self, key: str) -> tuple[tuple[str, str], ...]:
        if not self._running.get(key):
            return ()
        blob = _ED25519 + hashlib.sha256(key.encode()).digest()
        return (("ssh-ed25519", base64.b64encode(blob).decode()),)

    def running(self, key: str) -> bool | None:
        return self._running.get(key)

    async def inventory(self) -> list[dict[str, Any]]:
        return [
            {
                "key": key,
                "hostname": machine.hostname,
                "ipv4": str(ipaddress.IPv4Address(_PUBLIC + self._numbers[key])),
                "running": self._running[key],
            }
            for key, machine in self._machines.items()
        ]
