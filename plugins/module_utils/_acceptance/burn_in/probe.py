# SPDX-License-Identifier: GPL-3.0-or-later
"""How responsive the machine is: by how much a thread that wanted to sleep for a moment slept too long.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import threading
import time

_STEP_S = 0.1


class Probe:
    """A thread that sleeps, and sees how late it wakes."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="probe", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(timeout=2)

    def take(self) -> float:
        """The latest awakening since this was last asked, in seconds."""
        with self._lock:
            worst, self._worst = self._worst, 0.0
        return worst

    def _work(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            # Not a wait for the event: that would measure the lock as well.
            time.sleep(_STEP_S)
            late = time.monotonic() - began - _STEP_S
            with self._lock:
                self._worst = max(self._worst, late)
