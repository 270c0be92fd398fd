# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a request to one of Google's services carries a token that allows it."""

from __future__ import annotations

from starlette.requests import Request

from .. import oauth
from ..world import World
from .errors import insufficient_scopes, unauthenticated

SCOPE = "https://www.googleapis.com/auth/"


def authorize(world: World, request: Request, scopes: frozenset[str]) -> None:
    """Refuse a request without a good token for one of these scopes.

    Raises:
        ApiError: it has none.
    """
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if not token or kind.lower() != "bearer":
        raise unauthenticated(missing=True)
    allowed = world.store(oauth.Issuer).scopes(token.strip())
    if allowed is None:
        raise unauthenticated(missing=False)
    if not allowed & scopes:
        raise insufficient_scopes()
