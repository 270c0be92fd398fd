# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as the Hetzner Cloud API words them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

STATUS = {
    "json_error": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "token_readonly": 403,
    "resource_limit_exceeded": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "uniqueness_error": 409,
    "resource_in_use": 409,
    "firewall_already_applied": 409,
    "firewall_already_removed": 409,
    "server_already_attached": 409,
    "deprecated_api_endpoint": 410,
    "resource_unavailable": 412,
    "placement_error": 412,
    "invalid_input": 422,
    "invalid_server_type": 422,
    "server_not_stopped": 422,
    "unsupported_error": 422,
    "locked": 423,
    "resource_locked": 423,
    "protected": 423,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "maintenance": 503,
    "service_error": 503,
    "timeout": 504,
}
_CODE = {
    429: "rate_limit_exceeded",
    500: "server_error",
    502: "bad_gateway",
    503: "unavailable",
    504: "timeout",
}
_MESSAGE = {
    "rate_limit_exceeded": "limit of 3600 requests per hour reached",
    "server_error": "internal server error",
    "bad_gateway": "bad gateway",
    "unavailable": "the service is currently unavailable",
    "timeout": "the request could not be answered in time",
}


class ApiError(Exception):
    """A refusal; becomes ``{"error": {"code", "message", "details"}}``."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, Any] | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or STATUS[code]

    def response(self) -> JSONResponse:
        """The answer, without the headers every answer has."""
        error = {"code": self.code, "message": self.message, "details": self.details}
        return JSONResponse({"error": error}, self.status)


def invalid(field: str, message: str) -> ApiError:
    """A field of the body or query has a value that will not do."""
    return ApiError(
        "invalid_input",
        f"invalid input in field '{field}'",
        {"fields": [{"name": field, "messages": [message]}]},
    )


def not_found(what: str, which: object) -> ApiError:
    """There is no such object."""
    return ApiError("not_found", f"{what} with ID '{which}' not found")


def taken(what: str) -> ApiError:
    """An object of that name exists."""
    return ApiError("uniqueness_error", f"{what} name is already used", {"fields": [{"name": "name"}]})


def injected(status: int) -> JSONResponse:
    """The answer of a transport fault."""
    code = _CODE.get(status, "server_error")
    response = ApiError(code, _MESSAGE[code], status=status).response()
    response.headers["X-Correlation-Id"] = uuid.uuid4().hex[:16]
    if status == 429:
        response.headers["RateLimit-Limit"] = "3600"
        response.headers["RateLimit-Remaining"] = "0"
    return response
