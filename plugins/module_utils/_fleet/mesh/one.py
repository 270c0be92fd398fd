# SPDX-License-Identifier: GPL-3.0-or-later
"""One network or one member made what is wished, for people who want just that and no fleet file.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import errors
from . import members, networks, zerotier_controller

if TYPE_CHECKING:
    from ..machines import Member
    from .base import ControlPlane
    from .members import MemberWish
    from .networks import Network, NetworkWish

ABSENT: dict[str, Any] = {"state": "absent"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: what can be told beforehand; the same in check mode.
        now: as it is now, in check mode as it was; None if there is none.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    now: Mapping[str, Any] | None

    @property
    def changed(self) -> bool:
        """Something was changed, or would be."""
        return self.before != self.after


def token_for(kind: str, token: str | None, token_file: str | None) -> str | None:
    """The token a module was given, or the one in the file it was given; a controller's is found in its usual place."""
    if token_file:
        return zerotier_controller.read_token(token_file)
    if token or kind != zerotier_controller.ZeroTierController.kind:
        return token
    return zerotier_controller.read_token(zerotier_controller.TOKEN_FILE)


def network(plane: ControlPlane, wish: NetworkWish | None, *, check: bool) -> Outcome:
    """Make the network what is wished, or away with it.

    Args:
        wish: None for a network that shall not be.
        check: find out only what would change.
    """
    current = plane.network()
    if wish is None:
        if current is not None and not check:
            plane.delete_network()
        return Outcome(_network(current), ABSENT, current.to_json() if check and current else None)
    plane.check_network(wish, current)
    found = current or networks.Network(plane.network_id)
    after = networks.applied(found, wish if current else wish.to_create())
    if current == after or check:
        return Outcome(_network(current), _network(after), current.to_json() if current else None)
    return Outcome(_network(current), _network(after), plane.save_network(wish).to_json())


def member(plane: ControlPlane, wish: MemberWish, *, absent: bool, check: bool) -> Outcome:
    """Make the member what is wished, or away with it.

    A node that has not left the network comes back by itself after it was deleted, as a member that may do nothing and of
    which nobody said anything. So such a member counts as one that is not there.

    Args:
        absent: it shall be no member; the wish only says which.
        check: find out only what would change.
    """
    current = plane.member(wish.node_id)
    shown = current.to_json() if current else None
    if absent:
        if current is None or members.is_blank(current):
            return Outcome(ABSENT, ABSENT, shown)
        if not check:
            plane.delete_member(wish.node_id)
        return Outcome(_member(current), ABSENT, shown if check else None)
    plane.check_member(wish)
    after = members.applied(current, wish)
    if current is None and check and plane.network() is None:
        raise errors.NotFound(
            f"there is no network {plane.network_id} for {wish.node_id} to be a member of",
            hint="Create it first, or check the network id",
        )
    if current == after or check:
        return Outcome(_member(current), _member(after), shown)
    saved = plane.save_member(wish)
    return Outcome(_member(current), _member(after), (plane.member(wish.node_id) or saved).to_json())


def _network(found: Network | None) -> dict[str, Any]:
    if found is None:
        return ABSENT
    fields = found.to_json()
    del fields["revision"]
    return {"state": "present", **fields}


_SAID = ("node_id", "name", "authorized", "addresses", "tags", "active_bridge", "no_auto_assign")


def _member(found: Member | None) -> dict[str, Any]:
    """What of a member is somebody's wish; the rest changes by itself."""
    if found is None:
        return ABSENT
    fields = found.to_json()
    return {"state": "present", **{name: fields[name] for name in _SAID}}
