# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier Central, its legacy API v1 (``https://api.zerotier.com/api/v1``).

One request answers with all members of a network. There is no flag that says who is online; a node asks its controller
for news about once a minute, so whoever did so in the last five minutes counts as online.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import errors
from ..machines import Member

if TYPE_CHECKING:
    from ..clock import Clock
    from ..http import RetryAdapter
    from ..spec import Mesh

ENDPOINT = "https://api.zerotier.com/api/v1"

ONLINE_WITHIN = 300.0
"""Seconds since a member was last seen in which it counts as online."""

_SERVICE = "ZeroTier Central"

_HINTS = {
    401: "Check that the token in `mesh: token:` is valid, and is one of Central's old kind (my.zerotier.com)",
    403: "Use the token of an account that may manage this network",
    404: "Check the network id, and that the token's account owns the network",
}


class ZeroTierCentralV1:
    """One network at ZeroTier Central."""

    def __init__(
        self, network: str, token: str, endpoint: str | None, clock: Clock, adapter: RetryAdapter
    ) -> None:
        self._network = network
        self._token = token
        self._endpoint = (endpoint or ENDPOINT).rstrip("/")
        self._clock = clock
        self._adapter = adapter

    def members(self) -> tuple[Member, ...]:
        """Every member of the network, in the order of their node ids."""
        from requests import RequestException

        from .. import http

        doing = f"listing the members of the network {self._network}"
        session = http.new_session(self._adapter, {"Authorization": f"token {self._token}"})
        try:
            response = session.get(f"{self._endpoint}/network/{self._network}/member")
        except RequestException as exc:
            raise http.no_answer(
                exc, _SERVICE, doing, [self._token]
            ) from None  # the original may carry the token
        if response.status_code != 200:
            raise http.kind_of(response.status_code)(
                f"{doing}: {_SERVICE} answered {response.status_code} {response.reason}",
                hint=_HINTS.get(response.status_code),
                code=str(response.status_code),
                details=http.scrub(response.text[:500], [self._token]) or None,
            )
        try:
            records = response.json()
            if not isinstance(records, list):
                raise TypeError("not a list")
            now = self._clock.utc()
            return tuple(
                sorted((to_member(record, now) for record in records), key=lambda member: member.node_id)
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise errors.Unavailable(
                f"{doing}: {self._endpoint} answered in a form that is not {_SERVICE}'s",
                hint="Check the endpoint",
            ) from exc


def to_member(record: Mapping[str, Any], now: datetime) -> Member:
    """A member as Central describes it, in our words. Pure.

    Args:
        now: the time, for records that do not carry Central's own.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has not the shape of a member.
    """
    config = record.get("config") or {}
    node_id = (record.get("nodeId") or record["id"].rpartition("-")[2]).lower()
    if not re.fullmatch(r"[0-9a-f]{10}", node_id):
        raise ValueError("not a node id")
    # 0 where Central does not know (any more): the figure is ephemeral.
    seen = record.get("lastSeen") or record.get("lastOnline") or 0
    clock = record.get("clock") or now.timestamp() * 1000
    version = (record.get("clientVersion") or "").removeprefix("v")
    return Member(
        node_id=node_id,
        name=record.get("name") or "",
        authorized=config.get("authorized") is True,
        online=(clock - seen) / 1000 <= ONLINE_WITHIN if seen > 0 else None,
        addresses=tuple(address.partition("/")[0] for address in config.get("ipAssignments") or ()),
        version=version if re.match(r"\d", version) else None,
        last_seen=_rfc3339(seen) if seen > 0 else None,
        physical_address=(record.get("physicalAddress") or "").partition("/")[0] or None,
    )


def _rfc3339(milliseconds: float) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def connect(mesh: Mesh, settings: Mapping[str, Any], clock: Clock) -> ZeroTierCentralV1:
    """Make ready to talk; nothing is sent yet.

    Args:
        mesh: the block of the fleet file.
        settings: ``token`` and ``endpoint`` that take the place of those in the block.
        clock: for waits and dates.

    Raises:
        AuthError: there is no token, or it is not one.
        MissingLibrary: requests is not installed.
    """
    token = (settings.get("token") or (mesh.token.get_secret_value() if mesh.token else "")).strip()
    if not token:
        raise errors.AuthError(
            "there is no token for ZeroTier Central",
            hint="Set ZEROTIER_TOKEN, and in the fleet file `mesh: {token: \"{{ lookup('env', 'ZEROTIER_TOKEN') }}\"}`",
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise errors.AuthError(
            "the token for ZeroTier Central has characters that no token has",
            hint="Check how ZEROTIER_TOKEN was set",
        )
    try:
        from ..http import RetryAdapter
    except ImportError as exc:
        raise errors.MissingLibrary(
            f"ZeroTier Central needs the Python library {exc.name or 'requests'} on the control machine",
            hint="Install it with: python3 -m pip install requests",
        ) from exc
    endpoint = settings.get("endpoint") or mesh.endpoint
    return ZeroTierCentralV1(mesh.network, token, endpoint, clock, RetryAdapter(clock))
