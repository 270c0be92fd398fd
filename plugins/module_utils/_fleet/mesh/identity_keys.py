# SPDX-License-Identifier: GPL-3.0-or-later
"""The two halves of a ZeroTier key, from secret to public: X25519 for key agreement, Ed25519 for signatures.

`cryptography` does it where it is installed, as on every control machine. A managed host need not have it; there the
curve's arithmetic is done with Python's integers. That takes no constant time, which only matters to who can watch the
processor of the very machine that keeps the secret, for the milliseconds of making it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

HALF = 32
"""Bytes of either half, secret or public."""

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 4 * pow(5, -1, _P) % _P

_Point = tuple[int, int, int, int]
"""X, Y, Z and T of extended coordinates: x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, 5.1.4)."""


def public_halves() -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    """How a public X25519 and a public Ed25519 half follow from the secret one here."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError:
        return x25519_public, ed25519_public
    # Not public_bytes_raw, which a host's own cryptography may be too old for (Debian 12 has 38).
    raw = Encoding.Raw, PublicFormat.Raw
    return (
        lambda secret: X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(*raw),
        lambda secret: Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(*raw),
    )


def x25519_public(secret: bytes) -> bytes:
    """The same in plain Python. X25519's curve is that of Ed25519 in other coordinates, in which u = (1 + y) / (1 - y)."""
    _x, y, z, _t = _base_times(_clamped(secret))
    return ((z + y) * pow(z - y, -1, _P) % _P).to_bytes(HALF, "little")


def ed25519_public(secret: bytes) -> bytes:
    """The same in plain Python: y, and the lowest bit of x on top (RFC 8032, 5.1.5)."""
    x, y, z, _t = _base_times(_clamped(hashlib.sha512(secret).digest()[:HALF]))
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(HALF, "little")


def _clamped(scalar: bytes) -> int:
    return int.from_bytes(scalar, "little") & (2**255 - 8) | 2**254


def _base_times(scalar: int) -> _Point:
    total, power = (0, 1, 1, 0), (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    return total


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P
