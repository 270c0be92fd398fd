# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier identities: read, made, and proved. With one made beforehand, a node's id and addresses are known before it exists.

An identity is a pair of keys and the node id that follows from the public one. Its texts are those of the daemon's
files: ``identity.public`` is ``<node id>:0:<public key>``, ``identity.secret`` the same with ``:<secret key>`` behind.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InvalidRequest
from .identity_hash import memory_hard_hash
from .identity_keys import HALF, public_halves

_TEXT = re.compile(
    r"(?P<public>(?P<node_id>[0-9a-f]{10}):0:(?P<key>[0-9a-f]{128}))(?::(?P<secret>[0-9a-f]{128}))?"
)
_NODE_ID_BYTES = 5
# One public key in 15 makes an identity: the price of making many of them.
_FIRST_BYTE_BELOW = 17


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who a node is. Has no ``repr`` with the secret, so that it cannot end up in a log.

    Attributes:
        node_id: 10 hexadecimal digits, lower case.
        public: the text of ``identity.public``, without a line end.
        secret: the text of ``identity.secret``; None where only the public half is known.
    """

    node_id: str
    public: str
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Identity(public={self.public!r}, secret={'known' if self.secret else None})"


def parse(text: str) -> Identity:
    """An identity from the text of either file. That it is one is for :func:`verify` to say.

    Raises:
        InvalidRequest: it has not the form of one. The message never holds the text, which may be a secret.
    """
    text = text.strip().lower()
    match = _TEXT.fullmatch(text)
    if match is None:
        other = re.match(r"[0-9a-f]{10}:([1-9][0-9]*):", text)
        what = (
            f"of type {other[1]}, which this release does not know" if other else "in no form of ZeroTier's"
        )
        raise InvalidRequest(
            f"the identity is {what}",
            hint="Give the content of an identity.public or identity.secret: <10 digits>:0:<128 digits>[:<128 digits>]",
        )
    return Identity(match["node_id"], match["public"], text if match["secret"] else None)


def verify(identity: Identity) -> None:
    """Make sure that the node id follows from the public key, and the public key from the secret one.

    Takes a fraction of a second, on purpose: see :func:`memory_hard_hash`.

    Raises:
        InvalidRequest: one of them does not. A node with such an identity does not start, and nobody talks to it.
    """
    key = bytes.fromhex(identity.public.split(":")[2])
    hint = "Make a new identity, or get the right one from where this was copied"
    if identity.secret:
        public, _dummy, secret = identity.secret.rpartition(":")
        if public != identity.public or _public_key(bytes.fromhex(secret)) != key:
            raise InvalidRequest(
                f"the secret key of {identity.node_id} does not belong to its public key", hint=hint
            )
    if _node_id(key) != identity.node_id:
        raise InvalidRequest(f"the node id {identity.node_id} does not follow from its public key", hint=hint)


def generate(random: Callable[[int], bytes]) -> Identity:
    """A new identity. About 15 keys are tried, each for a fraction of a second.

    Args:
        random: gives so many bytes that nobody can guess: ``os.urandom``.
    """
    agree, sign = public_halves()
    signing = random(HALF)
    verifying = sign(signing)
    while True:
        agreeing = random(HALF)
        key = agree(agreeing) + verifying
        node_id = _node_id(key)
        if node_id:
            public = f"{node_id}:0:{key.hex()}"
            return Identity(node_id, public, f"{public}:{(agreeing + signing).hex()}")


def _public_key(secret: bytes) -> bytes:
    agree, sign = public_halves()
    return agree(secret[:HALF]) + sign(secret[HALF:])


def _node_id(key: bytes) -> str | None:
    """The node id a public key has, or None if it makes no identity."""
    digest = memory_hard_hash(key)
    node_id = digest[-_NODE_ID_BYTES:]
    reserved = node_id[0] == 0xFF or not any(node_id)
    return None if digest[0] >= _FIRST_BYTE_BELOW or reserved else node_id.hex()
