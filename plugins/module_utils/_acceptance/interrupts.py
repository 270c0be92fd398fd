# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C, and the signals of a terminal that is closed and of a service that is stopped: one of them ends the run, further ones wait.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The run is to end now. No `Exception`, so that nothing takes it for a failure of a check."""


@contextlib.contextmanager
def interruptible(again: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise `Interrupted` at the first signal. While what it ends is cleaned up, `again` is all that another one does."""
    raised = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        if raised:
            again()
            return
        raised = True
        raise Interrupted

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        # What a nohup or a background job ignores stays ignored.
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
