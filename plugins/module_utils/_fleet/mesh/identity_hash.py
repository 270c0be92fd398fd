# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash that a ZeroTier node id is taken from: SHA-512 and Salsa20/20 over 2 MiB of memory.

It is slow on purpose, so that nobody makes keys until one has another node's id. Of Salsa20 only the key stream is
used, whose blocks differ by a counter alone. So many blocks are computed at once, as lanes of big integers, and one
hash takes a fraction of a second, many times less than word after word.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable

_BLOCK = 64
_MEMORY = 2 << 20
_WORDS = _MEMORY // 8
_FILLING = _MEMORY // _BLOCK
_SWAPS = _WORDS // 2
_BLOCKS = _FILLING + _SWAPS

# Blocks computed at once: few enough that the integers stay in the processor's cache. Divides _FILLING and _BLOCKS.
_LANES = 2048
# A 32-bit word in five bytes: room for the carry of an addition, and whole bytes, which are cheap to take out again.
_LANE_BYTES = 5


def _lanes(words: Iterable[int]) -> int:
    return int.from_bytes(b"".join(word.to_bytes(_LANE_BYTES, "little") for word in words), "little")


_EVERY = _lanes([1] * _LANES)
_COUNT = _lanes(range(_LANES))

# Salsa20's double round, from its specification: word a ^= (word b + word c) <<< n.
_DOUBLE_ROUND = (
    *((4, 0, 12, 7), (8, 4, 0, 9), (12, 8, 4, 13), (0, 12, 8, 18)),
    *((9, 5, 1, 7), (13, 9, 5, 9), (1, 13, 9, 13), (5, 1, 13, 18)),
    *((14, 10, 6, 7), (2, 14, 10, 9), (6, 2, 14, 13), (10, 6, 2, 18)),
    *((3, 15, 11, 7), (7, 3, 15, 9), (11, 7, 3, 13), (15, 11, 7, 18)),
    *((1, 0, 3, 7), (2, 1, 0, 9), (3, 2, 1, 13), (0, 3, 2, 18)),
    *((6, 5, 4, 7), (7, 6, 5, 9), (4, 7, 6, 13), (5, 4, 7, 18)),
    *((11, 10, 9, 7), (8, 11, 10, 9), (9, 8, 11, 13), (10, 9, 8, 18)),
    *((12, 15, 14, 7), (13, 12, 15, 9), (14, 13, 12, 13), (15, 14, 13, 18)),
)
# With both shifts, and the masks that cut each lane's rotated word out of them.
_STEPS = tuple(
    (a, b, c, left, 32 - left, ((1 << 32) - (1 << left)) * _EVERY, ((1 << left) - 1) * _EVERY)
    for a, b, c, left in _DOUBLE_ROUND
)


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def key_stream(key: bytes, nonce: bytes, first: int) -> bytes:
    """The blocks of Salsa20/20 from the `first` on, as many as are computed at once."""
    sigma, half = _words(b"expand 32-byte k"), _words(key)
    state = [sigma[0], *half[:4], sigma[1], *_words(nonce), 0, 0, sigma[2], *half[4:], sigma[3]]
    start = [word * _EVERY for word in state]
    start[8] = first * _EVERY + _COUNT
    x = start.copy()
    for _round in range(10):
        for a, b, c, left, right, high, low in _STEPS:
            total = x[b] + x[c]
            x[a] ^= (total << left) & high | (total >> right) & low
    stream = bytearray(_LANES * _BLOCK)
    for word in range(16):
        lanes = (x[word] + start[word]).to_bytes(_LANES * _LANE_BYTES, "little")
        for byte in range(4):
            stream[4 * word + byte :: _BLOCK] = lanes[byte::_LANE_BYTES]
    return bytes(stream)


def _running_xor(stream: bytes, carried: int) -> bytes:
    """Every block XORed with all blocks before it, of which `carried` is the XOR so far."""
    bits = 8 * len(stream)
    value, shift = int.from_bytes(stream, "little") ^ carried, 8 * _BLOCK
    while shift < bits:
        value ^= value << shift & (1 << bits) - 1
        shift *= 2
    return value.to_bytes(len(stream), "little")


def _big_endian(data: bytes) -> array[int]:
    words = array("Q", data)
    if sys.byteorder == "little":
        words.byteswap()
    return words


def memory_hard_hash(public_key: bytes) -> bytes:
    """The 64 bytes that decide whether a public key makes an identity, and which node id it has.

    The memory is filled with a stream of blocks, each XORed with the one before it. Then two words of the memory in
    turn choose a word of the digest and a word of the memory; they are swapped, and the digest is encrypted.
    """
    digest = hashlib.sha512(public_key).digest()
    key, nonce = digest[:32], digest[32:40]
    chunks, carried = [], 0
    for first in range(0, _BLOCKS, _LANES):
        chunk = _running_xor(key_stream(key, nonce, first), carried)
        carried = int.from_bytes(chunk[-_BLOCK:], "little")
        chunks.append(chunk)
    pads = _big_endian(b"".join(chunks))
    memory = pads[:_WORDS]

    # Encrypting is XOR with the next block of the stream. So instead of all eight words of the digest in each step,
    # those not looked at are kept as they are without any encryption since the beginning of the stream.
    at = _WORDS - 8
    bare = [word ^ pad for word, pad in zip(_big_endian(digest), pads[at : at + 8], strict=True)]
    for step in range(0, _WORDS, 2):
        chosen, place = memory[step] & 7, memory[step + 1] & _WORDS - 1
        pad = pads[at + chosen]
        memory[place], bare[chosen] = bare[chosen] ^ pad, memory[place] ^ pad
        at += 8
    return b"".join((word ^ pad).to_bytes(8, "big") for word, pad in zip(bare, pads[at:], strict=True))
