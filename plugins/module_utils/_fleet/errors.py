# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of failure. Each says what happened, to which machine, and what to do next.

The engine raises these; only a module's ``main()`` and the inventory plugin's ``parse()`` turn them into text for
Ansible, once, with ``raise ... from exc``. No message ever contains a credential: whoever builds one passes what the
service said, never what we sent.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class FleetError(Exception):
    """Anything this collection reports to its user.

    Args:
        what: what we were doing and what came of it, one sentence without a final full stop.
        machine: the declared machine it happened to, if it was one.
        hint: the next step for the reader, an imperative sentence without a final full stop.
        code: the error code of the service, in its own spelling (``ZONE_RESOURCE_POOL_EXHAUSTED``, ``uniqueness_error``).
        details: what the service said beyond code and message; plain JSON data.
        request_id: what the service's support needs to find this request.
    """

    def __init__(
        self,
        what: str,
        *,
        machine: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        details: Any = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.machine = machine
        self.hint = hint
        self.code = code
        self.details = details
        self.request_id = request_id

    def __str__(self) -> str:
        text = f"{self.machine}: {self.what}" if self.machine else self.what
        if self.code and self.code not in text:
            text = f"{text} ({self.code})"
        return f"{text}. {self.hint}." if self.hint else f"{text}."

    def about(self, machine: str) -> FleetError:
        """Name the machine this happened to, where the code that raised it could not know."""
        self.machine = self.machine or machine
        return self

    def as_failure(self) -> dict[str, Any]:
        """The same as plain data, for a module's ``failure`` return value."""
        return {
            "kind": type(self).__name__,
            "text": str(self),
            "message": self.what,
            "machine": self.machine,
            "hint": self.hint,
            "code": self.code,
            "details": self.details,
            "request_id": self.request_id,
        }


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a fleet file, and where."""

    path: str
    line: int
    machine: str | None
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        subject = " ".join(part for part in (self.machine, self.field) if part)
        return f"{where}: {subject}: {self.message}" if subject else f"{where}: {self.message}"


class SpecError(FleetError):
    """The fleet file cannot be used. Carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        count = len(self.problems)
        head = f"the fleet file has {count} problem{'s' if count > 1 else ''}"
        super().__init__("\n".join([f"{head}:", *(f"  {problem}" for problem in self.problems)]))

    def __str__(self) -> str:
        return self.what


class MissingLibrary(FleetError):
    """A Python package that talks to a cloud is not installed on the control machine."""


class ProviderError(FleetError):
    """A cloud or a mesh control plane did not do what was asked."""


class AuthError(ProviderError):
    """No credential, or one that the service refuses (401). Never used for anything else."""


class Forbidden(ProviderError):
    """The credential is good, but not for this (403)."""


class NotFound(ProviderError):
    """The object is not there (404)."""


class Conflict(ProviderError):
    """The name is taken, the object is locked, or it changed while we were changing it (409, 412, 423)."""


class InvalidRequest(ProviderError):
    """The service understood and refuses (400, 422). Asking again gives the same answer."""


class QuotaExceeded(ProviderError):
    """The project may not have more of this. Another zone may help, unless the quota is global."""


class OutOfStock(ProviderError):
    """The cloud has none left of this shape in this zone. Another zone may have some."""


class RateLimited(ProviderError):
    """Too many requests, and still so after waiting as told (429)."""


class Unavailable(ProviderError):
    """The service did not answer, or answered 5xx, until the deadline."""


class Unreachable(Unavailable):
    """No connection to the service could be made: no network, no such name, nobody listens. It never saw a request."""


class OperationFailed(ProviderError):
    """The request was accepted; the work behind it failed later."""


class WaitTimeout(ProviderError):
    """The work behind an accepted request had not ended when we stopped waiting. It may still succeed."""


class ApprovalRequired(FleetError):
    """Applying would buy or destroy something nobody has approved. Nothing was touched."""


class BudgetExceeded(FleetError):
    """Applying would cost more than the fleet's budget allows, or nobody can tell. Nothing was touched."""


def no_access(error: FleetError) -> bool:
    """Whether we have nothing to ask a service with. A credential it refuses comes with the service's own code."""
    return isinstance(error, MissingLibrary) or (isinstance(error, AuthError) and not error.code)


def failure_of(error: Exception) -> FleetError:
    """Itself, if it is one of ours; else a defect of ours, told without its text, which might hold anything."""
    if isinstance(error, FleetError):
        return error
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""
    return FleetError(
        f"unexpected {type(error).__name__}{where}",
        hint="This is a defect of the collection: please report it",
    )


def failures(errors: Mapping[str, FleetError]) -> list[dict[str, Any]]:
    """Many failures as plain data, in the order of the machines' names."""
    return [errors[name].about(name).as_failure() for name in sorted(errors)]
