# SPDX-License-Identifier: GPL-3.0-or-later
"""How we talk to Compute Engine: credentials, one request, and what its many errors mean.

Needs ``requests`` and ``google-auth``, so it is imported where a connection is opened, never where a fleet is merely read.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import google.auth.exceptions
import google.auth.transport
import google.auth.transport.requests
import google.oauth2.credentials
import google.oauth2.service_account
import requests
from google.auth import compute_engine

from .. import errors, http
from ..clock import Clock

ENDPOINT = "https://compute.googleapis.com/compute/v1"
SCOPE = "https://www.googleapis.com/auth/compute"
SERVICE = "Compute Engine"

_GCE_PRODUCT = Path("/sys/class/dmi/id/product_name")
_SIGN_IN = (
    "Run `gcloud auth application-default login`, or set `credentials_file` to the key of a service account"
)
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_ASK_AGAIN = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "resourceNotReady"})

_KINDS: Mapping[str, type[errors.ProviderError]] = {
    "alreadyExists": errors.Conflict,
    "RESOURCE_ALREADY_EXISTS": errors.Conflict,
    "conditionNotMet": errors.Conflict,
    "CONDITION_NOT_MET": errors.Conflict,
    "resourceNotReady": errors.Conflict,
    "RESOURCE_NOT_READY": errors.Conflict,
    "resourceInUseByAnotherResource": errors.Conflict,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": errors.Conflict,
    "notFound": errors.NotFound,
    "RESOURCE_NOT_FOUND": errors.NotFound,
    "QUOTA_EXCEEDED": errors.QuotaExceeded,
    "quotaExceeded": errors.QuotaExceeded,
    "ZONE_RESOURCE_POOL_EXHAUSTED": errors.OutOfStock,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": errors.OutOfStock,
    "zoneResourcePoolExhausted": errors.OutOfStock,
    "zoneResourcePoolExhaustedWithDetails": errors.OutOfStock,
    "insufficientCapacity": errors.OutOfStock,
    "INSUFFICIENT_CAPACITY": errors.OutOfStock,
    # What a spot machine that was preempted while it was being made ends with.
    "UNSUPPORTED_OPERATION": errors.OutOfStock,
    "rateLimitExceeded": errors.RateLimited,
    "userRateLimitExceeded": errors.RateLimited,
    "RESOURCE_OPERATION_RATE_EXCEEDED": errors.RateLimited,
    "accessNotConfigured": errors.Forbidden,
    "SERVICE_DISABLED": errors.Forbidden,
}
"""What the codes mean that say more than the HTTP status; those in capitals come in operations."""


class _TokenRequest(google.auth.transport.Request):  # type: ignore[misc]
    """Fetches tokens for google-auth, and takes the place of its own retries, which cannot be given a clock."""

    def __init__(self, session: requests.Session) -> None:
        self._request = google.auth.transport.requests.Request(session)

    def __deepcopy__(self, memo: object) -> _TokenRequest:
        """Refuse, so that google-auth does not ask iamcredentials.googleapis.com for a region hint.

        It does so in a thread of its own with a copy of this, wherever the token came from, a proxy or a sandbox.
        """
        raise TypeError("a connection to the token service is not for copying")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._request(*args, **kwargs)
        if answer.status in _TRANSIENT:
            raise errors.Unavailable(
                f"Google's token service answered {answer.status}", hint="Run the same command again later"
            )
        return answer


def _asks_again(response: requests.Response) -> bool:
    """Whether the answer is one of those by which Google refuses for now and has done nothing."""
    return response.status_code in (400, 403) and _reason(body_of(response)) in _ASK_AGAIN


def body_of(response: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty where it is none."""
    try:
        data = response.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _reason(body: Mapping[str, Any]) -> str:
    """The code of an error answer: the first reason, else the status."""
    error = body.get("error")
    if not isinstance(error, dict):
        return ""
    reasons = [entry.get("reason") for entry in error.get("errors") or () if isinstance(entry, dict)]
    return str(next(filter(None, reasons), error.get("status") or ""))


class Credentials:
    """One identity for all threads, whose token one thread at a time renews."""

    def __init__(self, google_credentials: Any, request: _TokenRequest) -> None:
        self.google = google_credentials
        self.request = request
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Get a token where there is none that is still good."""
        with self._lock:
            if not self.google.valid:
                self.google.refresh(self.request)


def find_credentials(
    credentials_file: str | None,
    environ: Mapping[str, Any],
    clock: Clock,
    scopes: Sequence[str] = (SCOPE,),
) -> Credentials:
    """Who we are: the file given, or application default credentials in Google's order, without its slow guesses.

    Args:
        credentials_file: a key of a service account, or any other file google-auth reads.
        environ: environment of the user; GOOGLE_APPLICATION_CREDENTIALS, CLOUDSDK_CONFIG and HOME are read.
        clock: for waits between tries.
        scopes: what the token is to be good for, where the credentials leave that open.

    Raises:
        AuthError: there are none, or the file is no such file.
    """
    # A grant does nothing but give a token, so it may be repeated although it is a POST.
    policy = http.RetryPolicy(refused=lambda response: response.status_code in _TRANSIENT)
    request = _TokenRequest(http.new_session(http.RetryAdapter(clock, policy)))
    path = credentials_file or environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if path:
        return Credentials(_read(Path(str(path)).expanduser(), scopes), request)
    config = (
        environ.get("CLOUDSDK_CONFIG") or Path(str(environ.get("HOME") or Path.home())) / ".config" / "gcloud"
    )
    well_known = Path(str(config)) / "application_default_credentials.json"
    if well_known.is_file():
        return Credentials(_read(well_known, scopes), request)
    # Asking the metadata server takes many seconds where there is none; the firmware knows at once.
    if _GCE_PRODUCT.is_file() and _GCE_PRODUCT.read_text().startswith("Google"):
        return Credentials(compute_engine.Credentials(scopes=[*scopes]), request)
    raise errors.AuthError("no credentials for Google Cloud", hint=_SIGN_IN)


def _read(path: Path, scopes: Sequence[str]) -> Any:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        kind = info["type"]
        if kind == "service_account":
            return google.oauth2.service_account.Credentials.from_service_account_info(info, scopes=[*scopes])
        if kind == "authorized_user":
            return google.oauth2.credentials.Credentials.from_authorized_user_info(info)
    except OSError as exc:
        raise errors.AuthError(
            f"the credentials file {path} cannot be read: {exc.strerror}", hint=_SIGN_IN
        ) from exc
    except (ValueError, KeyError, TypeError, AttributeError, google.auth.exceptions.GoogleAuthError) as exc:
        # What the parser says of a broken key may quote the key, so it is not passed on.
        raise errors.AuthError(f"{path} is not a credentials file of Google Cloud", hint=_SIGN_IN) from exc
    raise errors.AuthError(
        f"{path} holds credentials of type {kind!r}, which are not supported",
        hint="Use the key of a service account, or `gcloud auth application-default login`",
    )


class Signed:
    """Requests to one of Google's services under one identity. Any number of threads may use it.

    Args:
        credentials: who we are.
        clock: for waits between tries.
        service: name of the service, for the reader of an error.
        repeatable: tells which requests may be repeated though their method does not say so.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        service: str,
        repeatable: Callable[[requests.PreparedRequest], bool] | None = None,
    ) -> None:
        self._credentials = credentials
        self._service = service
        self._adapter = http.RetryAdapter(clock, http.RetryPolicy(refused=_asks_again, repeatable=repeatable))
        self._threads = threading.local()

    @property
    def simulated(self) -> bool:
        """Whether a sandbox has answered, and no real cloud."""
        return self._adapter.simulated

    def send(
        self,
        method: str,
        url: str,
        doing: str,
        query: Mapping[str, str],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request, and its answer whatever it is.

        Raises:
            ProviderError: there was none.
        """
        try:
            self._credentials.renew()
            return self._session().request(
                method, url, params=dict(query), json=body, headers=dict(headers or {}), timeout=http.TIMEOUT
            )
        except google.auth.exceptions.TransportError as exc:
            failure = exc.args[0] if exc.args else None
            if isinstance(failure, requests.RequestException):
                raise http.no_answer(failure, "Google's token service", doing) from exc
            raise errors.Unavailable(f"{doing}: Google's token service could not be reached") from exc
        except google.auth.exceptions.GoogleAuthError as exc:
            raise _refused_grant(exc, doing) from exc
        except requests.RequestException as exc:
            raise http.no_answer(exc, self._service, doing) from exc

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = google.auth.transport.requests.AuthorizedSession(
                self._credentials.google, max_refresh_attempts=1, auth_request=self._credentials.request
            )
            session = cast(requests.Session, session)
            # Without this requests would let ~/.netrc replace the token.
            session.auth = lambda request: request
            session.headers["User-Agent"] = http.USER_AGENT
            http.mount(session, self._adapter)
            self._threads.session = session
        return session


class Compute:
    """Compute Engine v1 of one project: one method for one request. Any number of threads may use it.

    Args:
        credentials: who we are.
        project: project id.
        clock: for waits between tries.
        endpoint: base URL, without project.
    """

    def __init__(
        self, credentials: Credentials, project: str, clock: Clock, endpoint: str = ENDPOINT
    ) -> None:
        self.project = project
        self._base = f"{endpoint.rstrip('/')}/projects/{quote(project, safe=':')}"
        self._signed = Signed(credentials, clock, SERVICE)

    @property
    def simulated(self) -> bool:
        """Whether a sandbox has answered, and no real cloud."""
        return self._signed.simulated

    def get(self, path: str, doing: str, **query: str) -> dict[str, Any]:
        """Read something."""
        return self._ask("GET", path, doing, query)

    def write(
        self,
        method: str,
        path: str,
        doing: str,
        body: Any = None,
        *,
        request_id: uuid.UUID | None = None,
        **query: str,
    ) -> dict[str, Any]:
        """Ask for a change, exactly once however often the request has to be sent; the operation Google makes of it.

        Args:
            request_id: by which Google knows a repeat, also by another run of ours, and answers it with what came of the
                first; a new one if not given.
        """
        return self._ask(method, path, doing, {**query, "requestId": str(request_id or uuid.uuid4())}, body)

    def change(self, method: str, path: str, doing: str, body: Any) -> dict[str, Any]:
        """As :meth:`write`, for the methods that take no request id; not repeated where an answer was lost."""
        return self._ask(method, path, doing, {}, body)

    def _ask(
        self, method: str, path: str, doing: str, query: Mapping[str, str], body: Any = None
    ) -> dict[str, Any]:
        response = self._signed.send(method, f"{self._base}/{path}", doing, query, body)
        if response.ok:
            return body_of(response)
        raise error_of(response.status_code, body_of(response), doing)


def _refused_grant(exc: google.auth.exceptions.GoogleAuthError, doing: str) -> errors.AuthError:
    """What to report when no token was given."""
    answer = exc.args[1] if len(exc.args) > 1 else None
    said = answer if isinstance(answer, dict) else {}
    code = str(said.get("error") or "") or None
    text = http.scrub(str(said.get("error_description") or ""))
    return errors.AuthError(
        f"{doing}: Google refuses the credentials{f': {text}' if text else ''}",
        hint="Sign in again with `gcloud auth application-default login`, or use a key that is still valid",
        code=code,
    )


def error_of(status: int, body: Mapping[str, Any], doing: str) -> errors.ProviderError:
    """What an error answer means."""
    error = body.get("error")
    said = error if isinstance(error, dict) else {}
    code = _reason(body) or None
    message = http.scrub(str(said.get("message") or f"HTTP {status}"))
    details = said.get("details") or said.get("errors") or None
    return _failure(code, message, doing, status=status, details=details)


def operation_error(operation: Mapping[str, Any], doing: str) -> errors.ProviderError | None:
    """Why an operation failed, or None if it did not. ``DONE`` alone does not mean success."""
    listed: Sequence[Mapping[str, Any]] = (operation.get("error") or {}).get("errors") or ()
    if not listed and not operation.get("httpErrorStatusCode"):
        return None
    first = next((entry for entry in listed if entry.get("code") in _KINDS), listed[0] if listed else {})
    message = str(first.get("message") or operation.get("httpErrorMessage") or "no reason given")
    return _failure(first.get("code"), http.scrub(message), doing, details=list(listed) or None)


def _failure(
    code: str | None, message: str, doing: str, *, status: int | None = None, details: Any = None
) -> errors.ProviderError:
    kind = _KINDS.get(code or "") or (http.kind_of(status) if status else errors.OperationFailed)
    hint = None
    if kind is errors.QuotaExceeded:
        message, hint = _quota(message, details)
    elif kind is errors.OutOfStock:
        hint = "Try another zone: declare `fallback_zones`"
    elif code in ("accessNotConfigured", "SERVICE_DISABLED"):
        hint = "Enable the API: gcloud services enable compute.googleapis.com"
    elif kind is errors.AuthError:
        hint = "Sign in again with `gcloud auth application-default login`, or use a key that is still valid"
    elif kind is errors.Forbidden:
        hint = "Give the identity the role roles/compute.instanceAdmin.v1, and roles/compute.securityAdmin for firewall rules"
    elif kind is errors.RateLimited:
        hint = "Wait a minute: the quota of requests refills every minute"
    elif code in ("resourceNotReady", "RESOURCE_NOT_READY"):
        hint = "Run the same command again when the instance has come to rest"
    elif kind is errors.InvalidRequest:
        hint = "Correct what the message names in the fleet file"
    return kind(f"{doing}: {message.rstrip('.')}", code=code, hint=hint, details=details)


def _quota(message: str, details: Any) -> tuple[str, str]:
    """Message and hint for a quota: which, how much, and whether another region would help."""
    found = _find(details, "quotaInfo") or _find(details, "metadatas") or {}
    metric = str(found.get("metricName") or found.get("metric_name") or "")
    name = str(found.get("limitName") or found.get("limit_name") or metric or message)
    limit = found.get("limit")
    said = message if limit is None else f"{message.rstrip('.')} (quota {name}, limit {limit})"
    where = _global_quota(f"{name} {metric} {message}")
    hint = (
        "This quota counts all regions, so another zone does not help: ask for more at IAM & Admin > Quotas"
        if where
        else "Ask for more at IAM & Admin > Quotas, or declare `fallback_zones` in another region"
    )
    return said, hint


def _global_quota(text: str) -> bool:
    return re.search(r"ALL[_-]REGIONS", text) is not None


def _find(data: Any, key: str) -> Mapping[str, Any] | None:
    """The first object under that key anywhere in the details."""
    if isinstance(data, Mapping):
        if isinstance(data.get(key), Mapping):
            return cast(Mapping[str, Any], data[key])
        data = list(data.values())
    if isinstance(data, list):
        return next((found for found in (_find(entry, key) for entry in data) if found), None)
    return None
