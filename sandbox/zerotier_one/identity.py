# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities of the right form. SIMULATED: the node id is drawn, not derived from the key by ZeroTier's slow hash.

A real identity is taken as it is, so a node keeps the id that was made for it elsewhere.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{10}):0:([0-9a-f]{128})(?::([0-9a-f]{128}))?")


@dataclass(frozen=True, slots=True)
class Identity:
    """A node id and its keys."""

    node: str
    public_key: str
    secret_key: str = ""

    @property
    def public(self) -> str:
        """The text of ``identity.public``."""
        return f"{self.node}:0:{self.public_key}"

    @property
    def secret(self) -> str:
        """The text of ``identity.secret``."""
        return f"{self.public}:{self.secret_key}"


def read(text: str) -> Identity | None:
    """An identity, secret or public, white space around it forgiven; None if it has not the form of one."""
    found = _FORM.fullmatch(text.strip())
    if not found or not valid_node(found[1]):
        return None
    return Identity(found[1], found[2], found[3] or "")


def valid_node(node: str) -> bool:
    """Whether a node can have this id."""
    return node != "0" * 10 and not node.startswith("ff")


def generate() -> Identity:
    """A new one, of random numbers."""
    node = secrets.token_hex(5)
    while not valid_node(node):
        node = secrets.token_hex(5)
    return Identity(node, secrets.token_hex(64), secrets.token_hex(64))
