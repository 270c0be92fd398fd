# SPDX-License-Identifier: GPL-3.0-or-later
"""How we talk HTTP: time-outs, retries with back-off and Retry-After, and no credential in any error.

:class:`RetryAdapter` is the one place where a request is repeated. It is mounted in every session that is used here:
our own, the one inside the hcloud library, google-auth's ``AuthorizedSession``.

Needs ``requests``, so it is imported where a connection is opened, never where a fleet is merely read.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests.auth
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NewConnectionError

from . import errors
from .clock import Clock

VERSION = "0.1.0"
"""Of the collection, as in galaxy.yml."""

USER_AGENT = f"gpumesh.fleet/{VERSION}"

SIMULATED_HEADER = "X-Gpumesh-Simulated"
"""What the sandbox puts on each of its answers."""

TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and seconds of silence while an answer is awaited."""

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request is repeated, and after how long.

    Attributes:
        base: seconds the first wait lasts at most; doubled each time.
        cap: seconds any wait of our own choosing lasts at most.
        deadline: seconds after the first try in which the last one must begin.
        connect_deadline: the same where no connection could be made: with no network there is little to wait for.
        refused: tells from an answer that the service did nothing and wants to be asked again (Hetzner's ``locked``).
            Such an answer is retried whatever the method.
        repeatable: tells that the service takes the second of two equal requests for what it is, though its method does not
            say so (a create whose name is unique: it answers that the name is taken).
        chance: a number from 0 to 1; full jitter is made of it.
    """

    base: float = 0.5
    cap: float = 30.0
    deadline: float = 120.0
    connect_deadline: float = 5.0
    refused: Callable[[requests.Response], bool] | None = None
    repeatable: Callable[[requests.PreparedRequest], bool] | None = None
    chance: Callable[[], float] = random.random

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait before the next try.

        Args:
            attempt: how many tries there were before the one that failed, from 0.
            retry_after: seconds the service asked for; spread by up to ``base``, so that not all come back at once.
        """
        if retry_after is not None:
            return retry_after + self.chance() * self.base
        return self.chance() * min(self.cap, self.base * 2.0 ** min(attempt, 32))

    def repeats_answer(self, request: requests.PreparedRequest, response: requests.Response) -> bool:
        """Whether to ask again after this answer."""
        if self.refused is not None and response.status_code >= 400 and self.refused(response):
            return True
        if response.status_code not in _TRANSIENT:
            return False
        if self._may_be_repeated(request) or response.status_code == 429:
            return True
        return response.status_code == 503 and "Retry-After" in response.headers

    def repeats_failure(self, request: requests.PreparedRequest, failure: requests.RequestException) -> bool:
        """Whether to ask again after no answer."""
        if isinstance(failure, requests.exceptions.SSLError):
            return False
        if not isinstance(
            failure,
            (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError),
        ):
            return False
        return self._may_be_repeated(request) or _never_sent(failure)

    def _may_be_repeated(self, request: requests.PreparedRequest) -> bool:
        if request.method in _REPEATABLE:
            return True
        if self.repeatable is not None and self.repeatable(request):
            return True
        # Google drops the repeat of a request that carries the same requestId.
        return "requestId" in parse_qs(urlsplit(request.url or "").query)


def _never_sent(failure: requests.RequestException) -> bool:
    if isinstance(failure, requests.ConnectTimeout):
        return True
    cause = failure.args[0] if failure.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the service asks us to wait, given as a number or a date; None where it does not say."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None


class RetryAdapter(HTTPAdapter):
    """Sends a request until it is answered for good or the deadline has come; then gives back the last outcome.

    Its pool of connections may be shared by many threads; give each thread a session of its own
    (:func:`new_session`), since a ``requests.Session`` is not made for sharing.

    Attributes:
        simulated: an answer came from a sandbox, by its own word.
    """

    def __init__(
        self,
        clock: Clock,
        policy: RetryPolicy | None = None,
        *,
        timeout: tuple[float, float] = TIMEOUT,
        connections: int = 32,
    ) -> None:
        super().__init__(pool_connections=8, pool_maxsize=connections)
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._timeout = timeout
        self.simulated = False

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """As the parent, with a time-out even where the caller names none."""
        started = self._clock.now()
        attempt = 0
        while True:
            wanted: float | None = None
            response: requests.Response | None = None
            try:
                response = super().send(request, stream, timeout or self._timeout, verify, cert, proxies)
                if not stream:
                    response.content  # noqa: B018 - read here, so that an answer cut short counts as no answer
            except requests.RequestException as failure:
                if not self._policy.repeats_failure(request, failure):
                    raise
                wait = self._policy.delay(attempt, None)
                patience = self._policy.connect_deadline if _never_sent(failure) else self._policy.deadline
                if self._clock.now() - started + wait > patience:
                    raise
            else:
                self.simulated = self.simulated or SIMULATED_HEADER in response.headers
                if not self._policy.repeats_answer(request, response):
                    return response
                wanted = retry_after(response.headers, self._clock.utc())
                wait = self._policy.delay(attempt, wanted)
                if self._clock.now() - started + wait > self._policy.deadline:
                    return response
                response.close()
            self._clock.sleep(wait)
            attempt += 1


class _KeepHeaders(requests.auth.AuthBase):
    """Leaves the Authorization header alone; without it requests would let ~/.netrc replace our token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def mount(session: requests.Session, adapter: RetryAdapter) -> None:
    """Make a session that someone else built (hcloud, google-auth) retry and time out as ours do."""
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def new_session(adapter: RetryAdapter, headers: Mapping[str, str] | None = None) -> requests.Session:
    """A session for one thread, over connections that all threads may share."""
    session = requests.Session()
    session.auth = _KeepHeaders()
    session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", **(headers or {})})
    mount(session, adapter)
    return session


_CREDENTIAL = re.compile(
    r"""(?ix) (\b(?:bearer|token|authorization:?)\s+ | \b(?:access_token|refresh_token|token|key|auth|assertion)["']?\s*[=:]\s*["']?)
    [A-Za-z0-9._~+/=-]{12,}"""
)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets, and without anything that looks like a credential."""
    for secret in sorted((secret for secret in secrets if secret), key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, "***")
    return _CREDENTIAL.sub(r"\1***", text)


def kind_of(status: int) -> type[errors.ProviderError]:
    """The kind of failure an HTTP status is, where the body says no more."""
    kinds: dict[int, type[errors.ProviderError]] = {
        401: errors.AuthError,
        403: errors.Forbidden,
        404: errors.NotFound,
        410: errors.NotFound,
        408: errors.Unavailable,
        409: errors.Conflict,
        412: errors.Conflict,
        423: errors.Conflict,
        429: errors.RateLimited,
    }
    if status in kinds:
        return kinds[status]
    return errors.InvalidRequest if 400 <= status < 500 else errors.Unavailable


def no_answer(
    failure: requests.RequestException, service: str, doing: str, secrets: Iterable[str] = ()
) -> errors.ProviderError:
    """What to report when a request was never answered.

    Args:
        failure: what requests raised, after all retries.
        service: name of the service, for the reader.
        doing: what we were doing, as in ``creating the server``.
        secrets: never to be shown.
    """
    host = (
        urlsplit(failure.request.url or "").netloc.rpartition("@")[2] if failure.request is not None else ""
    )
    where = f"{service} at {host}" if host else service
    if isinstance(failure, requests.exceptions.SSLError):
        return errors.Unavailable(
            f"{doing}: the certificate of {where} could not be verified",
            hint="Check the endpoint, the clock of this machine, and REQUESTS_CA_BUNDLE if a proxy is in the way",
        )
    if _never_sent(failure):
        return errors.Unreachable(
            f"{doing}: {where} could not be reached",
            hint="Check the network and the endpoint, then run the same command again",
            details=scrub(_root_cause(failure), secrets),
        )
    if isinstance(failure, requests.Timeout):
        return errors.Unavailable(
            f"{doing}: {where} did not answer in time", hint="Run the same command again later"
        )
    if isinstance(failure, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return errors.Unavailable(
            f"{doing}: {where} could not be reached or broke the connection",
            hint="Check the network and the endpoint, then run the same command again",
            details=scrub(_root_cause(failure), secrets),
        )
    return errors.InvalidRequest(
        f"{doing}: no request could be made to {where}",
        hint="Check the endpoint and the token",
        details=scrub(f"{type(failure).__name__}: {failure}", secrets),
    )


def _root_cause(failure: BaseException) -> str:
    cause: Any = failure
    while getattr(cause, "reason", None) or (cause.args and isinstance(cause.args[0], BaseException)):
        cause = getattr(cause, "reason", None) or cause.args[0]
        if not isinstance(cause, BaseException):
            return str(cause)
    return str(cause)
