# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    image: Path
    folder: Path
    tools: str
    build: str
    # The folder of images that the build is for; what prunes after killed builds goes by it.
    store: str = ""
    engine: str = "docker"
    firmware: tuple[str, ...] = ("bios", "uefi")
    user: str = "admin"
    memory_mb: int = 1024
    timeout: float = 900
    # Run until it succeeds, before SSH is waited for: it gives an encrypted root its passphrase. Where to is in BOOT_ADDRESS,
    # BOOT_PORT, BOOT_FIRMWARE and BOOT_CONSOLE of its environment.
    unlock: tuple[str, ...] = ()


def order_of(given: dict[str, Any]) -> Order:
    """Read it; what is not one of ours is no order."""
    values = dict(given)
    for name in ("firmware", "unlock"):
        if name in values:
            values[name] = tuple(values[name])
    for name in ("image", "folder"):
        values[name] = Path(values[name]).absolute()
    return Order(**values)
