# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as Compute Engine words them.

Two kinds reach a client: an HTTP error, which is :class:`ApiError`, and the error of an operation that ends badly, which
is :class:`OperationError`. The texts are those the service is known to send, where we know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

Json = dict[str, Any]

HTTP_PHRASES = {
    400: "BAD REQUEST",
    403: "FORBIDDEN",
    404: "NOT FOUND",
    409: "CONFLICT",
    412: "PRECONDITION FAILED",
    500: "INTERNAL SERVER ERROR",
    503: "SERVICE UNAVAILABLE",
}
_GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_CREDENTIALS = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. "
    "See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


class ApiError(Exception):
    """A request that is refused.

    Args:
        code: HTTP status.
        reason: ``errors[0].reason``, the word clients decide by.
        extra: further members of ``errors[0]``, such as ``location``.
        front: the refusal comes from Google's front end, which adds the gRPC status, and not from Compute Engine itself.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        extra: Mapping[str, str] | None = None,
        front: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.extra = dict(extra or {})
        self.front = front
        self.headers = dict(headers or {})

    def body(self) -> Json:
        """The JSON of the answer."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason, **self.extra}
        error: Json = {"code": self.code, "message": self.message, "errors": [detail]}
        if self.front and self.code in _GRPC:
            error["status"] = _GRPC[self.code]
        return {"error": error}

    def response(self) -> Response:
        """The answer."""
        return JSONResponse(self.body(), self.code, self.headers)


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why an operation failed: what its ``error`` and ``httpError...`` members say."""

    code: str
    message: str
    http: int = 400
    details: tuple[Json, ...] = field(default=())

    def members(self) -> Json:
        """The members of the Operation."""
        error: Json = {"code": self.code, "message": self.message}
        if self.details:
            error["errorDetails"] = list(self.details)
        return {
            "error": {"errors": [error]},
            "httpErrorStatusCode": self.http,
            "httpErrorMessage": HTTP_PHRASES.get(self.http, "BAD REQUEST"),
        }


def invalid(name: str, value: object, why: str) -> ApiError:
    """A value that cannot be; ``name`` as in ``resource.machineType``."""
    return ApiError(400, "invalid", f"Invalid value for field '{name}': '{value}'. {why}")


def required(name: str) -> ApiError:
    """A field that must be given."""
    return ApiError(400, "required", f"Required field '{name}' not specified")


def bad_request(message: str) -> ApiError:
    """A combination that cannot be."""
    return ApiError(400, "badRequest", message)


def not_found(resource: str) -> ApiError:
    """No such thing; ``resource`` as in ``projects/p/zones/z/instances/i``."""
    return ApiError(404, "notFound", f"The resource '{resource}' was not found")


def already_exists(resource: str) -> ApiError:
    """The name is taken."""
    return ApiError(409, "alreadyExists", f"The resource '{resource}' already exists")


def not_ready(resource: str) -> ApiError:
    """Something else is being done to it."""
    return ApiError(400, "resourceNotReady", f"The resource '{resource}' is not ready")


def condition_not_met(message: str) -> ApiError:
    """A stale fingerprint."""
    return ApiError(412, "conditionNotMet", message, extra={"location": "If-Match", "locationType": "header"})


def forbidden(message: str) -> ApiError:
    """No permission."""
    return ApiError(403, "forbidden", message)


def unauthenticated(*, missing: bool) -> ApiError:
    """No token, or none that is good."""
    message = (
        f"Request is missing required authentication credential. {_CREDENTIALS}"
        if missing
        else f"Request had invalid authentication credentials. {_CREDENTIALS}"
    )
    challenge = 'Bearer realm="https://accounts.google.com/"'
    return ApiError(
        401,
        "required" if missing else "authError",
        message,
        extra={"location": "Authorization", "locationType": "header"},
        front=True,
        headers={"WWW-Authenticate": challenge if missing else f'{challenge}, error="invalid_token"'},
    )


def insufficient_scopes() -> ApiError:
    """A good token, but not for this API."""
    return ApiError(
        403,
        "insufficientPermissions",
        "Request had insufficient authentication scopes.",
        front=True,
        headers={
            "WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="insufficient_scope"'
        },
    )


def unknown_name(name: str, where: str = "", *, query: bool = False) -> ApiError:
    """A field, or a query parameter, that the API does not have."""
    problem = "Cannot bind query parameter. Field" if query else "Cannot find field."
    if query:
        problem += f" '{name}' could not be found in request message."
    at = f" at '{where}'" if where else ""
    return ApiError(
        400, "invalid", f'Invalid JSON payload received. Unknown name "{name}"{at}: {problem}', front=True
    )


def injected(code: int) -> Response:
    """An error of the service itself, for the faults a test asks for."""
    match code:
        case 429 | 403:
            error = ApiError(
                code, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.",
                front=True,
            )  # fmt: skip
        case 503:
            error = ApiError(503, "backendError", "The service is currently unavailable.", front=True)
        case 401:
            error = unauthenticated(missing=False)
        case _:
            error = ApiError(
                code,
                "backendError" if code >= 500 else "badRequest",
                "Internal error encountered.",
                front=True,
            )
    return error.response()


def stockout(project: str, zone: str, machine_type: str, accelerators: str) -> OperationError:
    """The zone has none of these left."""
    shape = f"{machine_type} VM instance" + (f" with {accelerators} accelerator(s)" if accelerators else "")
    return OperationError(
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request.  "
        "'(resource type:compute)'.",
        503,
        (
            {
                "help": {
                    "links": [
                        {
                            "description": "Troubleshooting documentation",
                            "url": "https://cloud.google.com/compute/docs/resource-error",
                        }
                    ]
                }
            },
            {
                "localizedMessage": {
                    "locale": "en-US",
                    "message": f"A {shape} is currently unavailable in the {zone} zone. Alternatively, you can try your "
                    "request again with a different VM hardware configuration or at a later time. For more information, "
                    "see the troubleshooting documentation.",
                }
            },
            {
                "errorInfo": {
                    "reason": "resource_availability",
                    "domain": "compute.googleapis.com",
                    "metadatas": {
                        "vmType": machine_type,
                        "zone": zone,
                        "attachment": accelerators,
                        "zonesAvailable": "",
                    },
                }
            },
        ),
    )


def quota_exceeded(metric: str, limit: float, region: str) -> OperationError:
    """A quota is used up; an empty region means the project's own, over all regions."""
    where = f"in region {region}" if region else "globally"
    scope = "per-project-region" if region else "per-project"
    return OperationError(
        "QUOTA_EXCEEDED",
        f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}.",
        403,
        (
            {
                "quotaInfo": {
                    "metricName": f"compute.googleapis.com/{metric.lower()}",
                    "limitName": f"{metric.replace('_', '-')}-{scope}",
                    "limit": limit,
                    "dimensions": {"region": region or "global"},
                }
            },
        ),
    )
