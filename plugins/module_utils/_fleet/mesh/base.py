# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol a control plane of the mesh implements. Another one is one new file, and one line in the registry.

A control plane is whatever decides who is a member of a ZeroTier network: ZeroTier Central, in its two generations, or a
controller of one's own. All take the same arguments and answer in the same words; what one of them cannot do it refuses
in a sentence, and never leaves undone in silence.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..machines import Member
    from .members import MemberWish
    from .networks import Network, NetworkWish


class ControlPlane(Protocol):
    """One network's control plane. May be used by many threads, as long as no two write the same member at once.

    Every method may raise :class:`~..errors.ProviderError`: the plane did not answer, or refused. What was not answered
    never passes for empty.
    """

    @property
    def kind(self) -> str:
        """``central_v1``, ``central_v2`` or ``controller``."""

    @property
    def network_id(self) -> str:
        """The network it was connected for: 16 hexadecimal digits, lower case."""

    @property
    def simulated(self) -> bool:
        """An answer came from a sandbox, by its own word."""

    def network(self) -> Network | None:
        """The network; None if it does not exist."""

    def save_network(self, wish: NetworkWish) -> Network:
        """Make the network what is wished, and leave alone what the wish does not name.

        Creates it where the plane lets us choose the id (a controller of one's own does). Looks again until the answer
        shows what was asked, for a bounded time.

        Raises:
            NotFound: it does not exist, and cannot be created under this id.
            WaitTimeout: something still differs, and the message says what.
        """

    def check_network(self, wish: NetworkWish, current: Network | None) -> None:
        """Refuse what this plane cannot make of the network, as saving would; for a plan, and nobody is asked.

        Raises:
            NotFound: it does not exist, and cannot be created under this id.
            InvalidRequest: one of the fields cannot be set.
        """

    def delete_network(self) -> bool:
        """Delete the network, and with it every membership. False: it was not there."""

    def members(self) -> tuple[Member, ...]:
        """Every member, authorised or not, in the order of the node ids, in as few requests as the plane allows.

        Raises:
            NotFound: the network does not exist.
        """

    def member(self, node_id: str) -> Member | None:
        """One member; None if the plane has no record of it."""

    def save_member(self, wish: MemberWish) -> Member:
        """Make the member what is wished, creating it if need be, and leave alone what the wish does not name.

        It sends everything in one request where the plane allows, and no request to look first unless it needs to: who
        must not write for nothing compares with :func:`.members.changes` before. Looks again until the answer shows what
        was asked, for a bounded time.

        Raises:
            NotFound: the network does not exist.
            WaitTimeout: something still differs, and the message says what.
        """

    def check_member(self, wish: MemberWish) -> None:
        """Refuse what this plane cannot make of a member, as saving would; for a plan, and nobody is asked.

        Raises:
            InvalidRequest: one of the fields cannot be set.
        """

    def delete_member(self, node_id: str) -> bool:
        """Deauthorise the member, then delete it. False: it was not there.

        A node that has not left the network comes back by itself as a member that is not authorised and that nobody
        said anything about: see :func:`.members.is_blank`.
        """

    def close(self) -> None:
        """Let go of what is held open (the ssh process behind a controller on another machine). Harmless twice."""
