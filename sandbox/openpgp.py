# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of OpenPGP as a package repository needs: one Ed25519 key, its public half, and a signed text (RFC 4880, RFC 6637).

GnuPG would start an agent for it that outlives the sandbox.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CREATED = 1_704_067_200
"""When every key says it was made. Any moment before the first signature will do, on a clock that may be wrong."""
_EDDSA, _SHA512 = 22, 10
_ED25519_OID = bytes.fromhex("2b06010401da470f01")
_PUBLIC_KEY, _USER_ID, _SIGNATURE = 6, 13, 2
_POSITIVE_CERTIFICATION, _TEXT = 0x13, 0x01
_MAY_CERTIFY_AND_SIGN = b"\x03"


class SigningKey:
    """A key that certifies itself and signs.

    Args:
        seed: its 32 secret bytes.
        owner: its user id, ``Name <address>``.
    """

    def __init__(self, seed: bytes, owner: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._owner = owner.encode()
        point = b"\x40" + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._body = (
            bytes([4])
            + _CREATED.to_bytes(4, "big")
            + bytes([_EDDSA, len(_ED25519_OID)])
            + _ED25519_OID
            + _number(point)
        )
        # The format's own fingerprint, not a choice.
        self._fingerprint = hashlib.sha1(self._framed_body, usedforsecurity=False).digest()

    @property
    def _framed_body(self) -> bytes:
        return b"\x99" + len(self._body).to_bytes(2, "big") + self._body

    @property
    def fingerprint(self) -> str:
        """40 hexadecimal digits, upper case."""
        return self._fingerprint.hex().upper()

    def public(self) -> str:
        """The armoured public key."""
        owner = b"\xb4" + len(self._owner).to_bytes(4, "big") + self._owner
        certificate = self._signature(
            _POSITIVE_CERTIFICATION,
            self._framed_body + owner,
            _CREATED,
            _subpacket(27, _MAY_CERTIFY_AND_SIGN),
        )
        packets = _packet(_PUBLIC_KEY, self._body) + _packet(_USER_ID, self._owner) + certificate
        return _armour("PUBLIC KEY BLOCK", packets)

    def clearsign(self, text: str, now: int) -> str:
        """The text with a signature made at that time, in seconds since 1970."""
        lines = text.rstrip("\n").split("\n")
        signed = "\r\n".join(line.rstrip() for line in lines).encode()
        signature = _armour("SIGNATURE", self._signature(_TEXT, signed, now))
        escaped = "\n".join(f"- {line}" if line.startswith("-") else line for line in lines)
        return f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{escaped}\n{signature}"

    def _signature(self, kind: int, content: bytes, now: int, more: bytes = b"") -> bytes:
        hashed = _subpacket(2, now.to_bytes(4, "big")) + more + _subpacket(33, b"\x04" + self._fingerprint)
        head = bytes([4, kind, _EDDSA, _SHA512]) + len(hashed).to_bytes(2, "big") + hashed
        trailer = b"\x04\xff" + len(head).to_bytes(4, "big")
        digest = hashlib.sha512(content + head + trailer).digest()
        issuer = _subpacket(16, self._fingerprint[-8:])
        values = self._key.sign(digest)
        return _packet(
            _SIGNATURE,
            head
            + len(issuer).to_bytes(2, "big")
            + issuer
            + digest[:2]
            + _number(values[:32])
            + _number(values[32:]),
        )


def _number(value: bytes) -> bytes:
    """A multi-precision integer: its length in bits, then its bytes."""
    number = int.from_bytes(value, "big")
    return number.bit_length().to_bytes(2, "big") + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _subpacket(kind: int, content: bytes) -> bytes:
    return bytes([len(content) + 1, kind]) + content


def _packet(kind: int, content: bytes) -> bytes:
    return bytes([0x80 | kind << 2 | 1]) + len(content).to_bytes(2, "big") + content


def _armour(what: str, content: bytes) -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    check = base64.b64encode(_checksum(content).to_bytes(3, "big")).decode()
    return f"-----BEGIN PGP {what}-----\n\n{lines}\n={check}\n-----END PGP {what}-----\n"


def _checksum(content: bytes) -> int:
    """The CRC-24 of the armour; GnuPG complains where it is missing."""
    value = 0xB704CE
    for octet in content:
        value ^= octet << 16
        for _ in range(8):
            value = value << 1 ^ (0x1864CFB if value & 0x800000 else 0)
    return value
