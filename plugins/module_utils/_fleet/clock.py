# SPDX-License-Identifier: GPL-3.0-or-later
"""Time, as an argument: whoever waits or dates something is given a clock, so that tests never wait.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time as the engine sees it."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward; only differences mean something."""

    def utc(self) -> datetime:
        """The date and time of day, aware, in UTC."""

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""


class SystemClock:
    """The real one."""

    def now(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
