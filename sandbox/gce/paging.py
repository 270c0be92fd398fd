# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists in pages: ``filter``, ``orderBy``, ``maxResults``, ``pageToken``.

A page token names the place where the last page ended, so that what is added or removed meanwhile shifts nothing: what
was there all the time is listed exactly once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .description import description
from .errors import Json, invalid
from .filters import compile_filter

MOST_RESULTS = 500
_ORDERS = ("name", "creationTimestamp desc", "creationTimestamp asc", "creationTimestamp")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of (scope, resource) pairs.

    Attributes:
        token: for the next page; empty on the last one.
        first: nothing came before it.
    """

    entries: tuple[tuple[str, Json], ...]
    token: str
    first: bool


def page(entries: Iterable[tuple[str, Json]], query: Mapping[str, str], schema: str) -> Page:
    """The page a query asks for.

    Args:
        schema: of the resources, ``Instance``.
        entries: all resources with their scope (``zones/us-central1-a``); an empty scope for lists of one scope.

    Raises:
        ApiError: a filter, order or token that is not understood.
    """
    passes = compile_filter(query.get("filter", ""), lambda path: description().can_filter(schema, path))
    order = query.get("orderBy", "")
    if order and order not in _ORDERS:
        raise invalid("orderBy", order, "Sorting is supported by name or by creationTimestamp.")
    newest_first = order == "creationTimestamp desc"
    by_time = order.startswith("creationTimestamp")

    def key(entry: tuple[str, Json]) -> list[str]:
        scope, resource = entry
        if not by_time:
            return [scope, resource["name"]]
        # Operations have been inserted, everything else created.
        return [resource.get("creationTimestamp") or resource["insertTime"], scope, resource["name"]]

    after = _read(query)
    found = sorted(((key(entry), entry) for entry in entries if passes(entry[1])), reverse=newest_first,
                   key=lambda pair: pair[0])  # fmt: skip
    if after is not None:
        found = [pair for pair in found if (pair[0] < after if newest_first else pair[0] > after)]
    size = int(query.get("maxResults", MOST_RESULTS))
    if size > MOST_RESULTS:
        raise invalid("maxResults", size, f"Value must be in the range of 0 to {MOST_RESULTS}.")
    size = size or MOST_RESULTS
    shown, rest = found[:size], found[size:]
    return Page(
        tuple(entry for _, entry in shown), _write(query, shown[-1][0]) if rest else "", first=after is None
    )


def _fingerprint(query: Mapping[str, str]) -> str:
    """A token is good for the same filter and order only."""
    return hashlib.sha256(f"{query.get('filter', '')}\n{query.get('orderBy', '')}".encode()).hexdigest()[:8]


def _write(query: Mapping[str, str], last: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([_fingerprint(query), *last]).encode()).decode().rstrip("=")


def _read(query: Mapping[str, str]) -> list[str] | None:
    token = query.get("pageToken", "")
    if not token:
        return None
    try:
        read = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        fingerprint, *last = read
    except (ValueError, TypeError):
        fingerprint, last = "", []
    if fingerprint != _fingerprint(query) or not last or not all(isinstance(part, str) for part in last):
        raise invalid("pageToken", token, "The page token is not valid for this request.")
    return [str(part) for part in last]
