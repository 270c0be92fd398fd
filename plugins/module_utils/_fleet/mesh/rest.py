# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clients of all control planes have in common: a request, its answer, and every way that goes wrong.

Needs ``requests`` when something is sent, not before.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from .networks import Changes, plain

if TYPE_CHECKING:
    from ..clock import Clock
    from ..http import RetryAdapter, RetryPolicy

PATIENCE = 30.0
"""Seconds until a control plane must show what it was asked for. A node is admitted within 5 s, as a rule."""

_SHAPE = (KeyError, TypeError, ValueError, AttributeError, IndexError)

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Rest:
    """One control plane's HTTP API. Safe to use from many threads.

    Attributes:
        endpoint: base URL.
        headers: what authenticates a request.
        adapter: carries requests, and repeats them.
        service: name of the service, for the reader.
        hints: by HTTP status, the next step for the reader.
        down: the next step where nobody listens, if it is not the usual one.
        secrets: never to be shown.
    """

    endpoint: str
    headers: Mapping[str, str]
    adapter: RetryAdapter
    service: str
    hints: Mapping[int, str]
    down: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def find(self, path: str, doing: str) -> Any:
        """What a GET is answered with; None if nothing is there."""
        return self._ask("GET", path, doing, None, absent=True)

    def get(self, path: str, doing: str) -> Any:
        """What a GET is answered with, where something must be there."""
        return self._ask("GET", path, doing, None, absent=False)

    def post(self, path: str, body: Any, doing: str) -> Any:
        """What a POST is answered with."""
        return self._ask("POST", path, doing, body, absent=False)

    def delete(self, path: str, doing: str, body: Any = None) -> bool:
        """Delete; False if nothing was there.

        What a service answers besides is the record as it was, a word, or nothing. All the same it is looked at: a page that
        asks to log in to a network answers 200, too.
        """
        response = self._send("DELETE", path, doing, body, absent=True)
        if response is None:
            return False
        with self.shape(doing):
            said = response.json() if response.content else {}
            if not all(isinstance(record, dict) for record in (said if isinstance(said, list) else [said])):
                raise TypeError("not a record")
        return True

    def _ask(self, method: str, path: str, doing: str, body: Any, *, absent: bool) -> Any:
        response = self._send(method, path, doing, body, absent=absent)
        if response is None:
            return None
        with self.shape(doing):
            return response.json()

    def _send(self, method: str, path: str, doing: str, body: Any, *, absent: bool) -> Any:
        from requests import RequestException

        from .. import http

        session = http.new_session(self.adapter, self.headers)
        try:
            response = session.request(method, f"{self.endpoint}{path}", json=body)
        except RequestException as exc:
            error = http.no_answer(exc, self.service, doing, self.secrets)
            if isinstance(error, errors.Unreachable):
                error.hint = self.down or error.hint
            raise error from None  # the original may carry the token
        if response.status_code == 404 and absent:
            return None
        if 200 <= response.status_code < 300:
            return response
        raise http.kind_of(response.status_code)(
            f"{doing}: {self.service} answered {response.status_code} {response.reason}",
            hint=self.hints.get(response.status_code),
            code=str(response.status_code),
            # Not always the JSON it says it is.
            details=http.scrub(response.text[:500], self.secrets) or None,
        )

    @contextmanager
    def shape(self, doing: str) -> Iterator[None]:
        """Read an answer in here: one that has not the shape of this service's becomes an error that says so."""
        try:
            yield
        except _SHAPE as exc:
            raise errors.Unavailable(
                f"{doing}: {self.endpoint} answered in a form that is not {self.service}'s",
                hint="Check the endpoint",
            ) from exc


def policy(**given: Any) -> RetryPolicy:
    """When to repeat a request.

    Each request that is sent here names the network or the member it means, so the second of two equal ones finds the
    work done: a POST to an id creates or updates, and adding a member that is there is answered as such.
    """
    from ..http import RetryPolicy

    return RetryPolicy(repeatable=lambda request: True, **given)


def adapter(clock: Clock, service: str, **given: Any) -> RetryAdapter:
    """What carries the requests.

    Raises:
        MissingLibrary: requests is not installed.
    """
    try:
        from ..http import RetryAdapter
    except ImportError as exc:
        raise missing_library(service, exc) from exc
    return RetryAdapter(clock, policy(**given))


def missing_library(service: str, problem: ImportError) -> errors.MissingLibrary:
    """What to report where requests is not installed."""
    return errors.MissingLibrary(
        f"{service} needs the Python library {problem.name or 'requests'} on the machine that asks it",
        hint="Install it with: python3 -m pip install requests",
    )


def converge(
    clock: Clock, doing: str, act: Callable[[], tuple[State, Changes]], patience: float = PATIENCE
) -> State:
    """Ask for something until the answer shows it.

    Args:
        act: asks, and says what is there now and what still differs.

    Raises:
        WaitTimeout: something still differs; which, the message says.
    """
    end = clock.now() + patience
    pause = 0.25
    while True:
        state, left = act()
        if not left:
            return state
        if clock.now() + pause > end:
            raise errors.WaitTimeout(
                f"{doing}: after {patience:.0f} s the control plane still does not show what it was asked for: {told(left)}",
                hint="Look whether somebody else changes it at the same time, then run the same command again",
                details={name: [plain(before), plain(after)] for name, (before, after) in left.items()},
            )
        clock.sleep(pause)
        pause = min(pause * 2, 4.0)


def told(left: Changes) -> str:
    """What differs, for people."""
    return "; ".join(
        f"{name} is {plain(before)!r} instead of {plain(after)!r}" for name, (before, after) in left.items()
    )
