# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol a control plane of the mesh implements. Another one is one new file, and one line in the registry.

A control plane is whatever decides who is a member of a ZeroTier network: ZeroTier Central, or a controller of one's
own. Only what is used is asked of it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from typing import Protocol

from ..machines import Member


class ControlPlane(Protocol):
    """One network's control plane, connected."""

    def members(self) -> tuple[Member, ...]:
        """Every member it knows, authorised or not, in as few requests as it allows.

        Raises:
            ProviderError: it did not tell; never an empty answer instead.
        """
