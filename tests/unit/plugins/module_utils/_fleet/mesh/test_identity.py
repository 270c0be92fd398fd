# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities are what ZeroTier's own code says they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import InvalidRequest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import (
    identity,
    identity_hash,
    identity_keys,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[5] / "fixtures" / "zerotier" / "identities"
RECORDED: dict[str, Any] = json.loads((FOLDER / "recorded.json").read_text())
MADE = {name: (FOLDER / f"{name}.secret").read_text() for name in ("controller", "node")}
ANY_HALF = st.binary(min_size=32, max_size=32)


def secret_key(text: str) -> bytes:
    return bytes.fromhex(text.split(":")[3])


def with_changed_digit(text: str, at: int) -> str:
    return text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]


def source(*parts: bytes) -> Iterator[bytes]:
    """A random source that says what it is told to, in this order."""
    yield from parts
    raise AssertionError("more randomness was asked for than expected")


# Proof


@pytest.mark.parametrize("text", RECORDED["public"], ids=lambda text: text[:10])
def test_the_identities_of_real_nodes_are_accepted(text: str) -> None:
    identity.verify(identity.parse(text))


def test_a_secret_made_by_zerotier_itself_is_accepted() -> None:
    identity.verify(identity.parse(RECORDED["secret"]))


@pytest.mark.parametrize("name", MADE)
def test_the_identities_of_the_fixtures_are_some_and_belong_together(name: str) -> None:
    made = identity.parse(MADE[name])
    identity.verify(made)
    assert (FOLDER / f"{name}.public").read_text() == made.public


@pytest.mark.parametrize(
    "at", [0, 9, 13, 76, 77, 140], ids=["id", "id end", "dh", "dh end", "sign", "sign end"]
)
def test_a_public_identity_with_one_digit_changed_is_refused(at: int) -> None:
    with pytest.raises(InvalidRequest, match="does not follow from its public key"):
        identity.verify(identity.parse(with_changed_digit(RECORDED["public"][0], at)))


@pytest.mark.parametrize("at", [145, 206, 269], ids=["agreeing", "signing", "end"])
def test_a_secret_with_one_digit_changed_is_refused(at: int) -> None:
    with pytest.raises(InvalidRequest, match="does not belong to its public key"):
        identity.verify(identity.parse(with_changed_digit(MADE["node"], at)))


def test_the_secret_of_another_node_is_refused() -> None:
    mixed = f"{identity.parse(MADE['node']).public}:{secret_key(MADE['controller']).hex()}"
    with pytest.raises(InvalidRequest, match="the secret key of a0c848c379 does not belong"):
        identity.verify(identity.parse(mixed))


def test_an_identity_put_together_of_two_is_refused() -> None:
    node, controller = identity.parse(MADE["node"]), identity.parse(MADE["controller"])
    for secret in (controller.secret, f"{controller.public}:{secret_key(MADE['node']).hex()}"):
        with pytest.raises(InvalidRequest, match="does not belong"):
            identity.verify(identity.Identity(node.node_id, node.public, secret))


@pytest.mark.parametrize("name", ["reserved", "beyond"])
def test_a_key_that_zerotier_would_not_take_is_refused(name: str) -> None:
    text = RECORDED[name]
    digest = identity_hash.memory_hard_hash(bytes.fromhex(text.split(":")[2]))
    assert digest[-5:].hex() == text[:10]
    assert (digest[0] < 17, digest[-5] == 0xFF) == ((True, True) if name == "reserved" else (False, False))
    with pytest.raises(InvalidRequest, match=f"{text[:10]} does not follow"):
        identity.verify(identity.parse(text))


# Texts


@pytest.mark.parametrize("around", ["{}", "{}\n", "\r\n {}\t\n"])
def test_white_space_and_case_do_not_matter(around: str) -> None:
    found = identity.parse(around.format(MADE["node"].upper()))
    assert found == identity.parse(MADE["node"])
    assert (found.node_id, found.secret) == ("a0c848c379", MADE["node"])


def test_a_public_identity_has_no_secret() -> None:
    found = identity.parse(RECORDED["public"][0])
    assert found.secret is None
    assert found.public == RECORDED["public"][0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "in no form of ZeroTier's"),
        ("a0c848c379", "in no form"),
        (MADE["node"][:-1], "in no form"),
        (MADE["node"] + "0", "in no form"),
        (MADE["node"] + ":" + "0" * 128, "in no form"),
        (MADE["node"][1:], "in no form"),
        (MADE["node"].replace("b", "g"), "in no form"),
        (MADE["node"] + "\n" + MADE["controller"], "in no form"),
        (MADE["node"].replace(":0:", ":1:", 1), "of type 1, which this release does not know"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3030", "in no form"),
    ],
)
def test_what_is_no_identity_is_refused_without_repeating_it(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        identity.parse(text)
    told = f"{caught.value} {caught.value.as_failure()} {caught.value.__context__}"
    assert secret_key(MADE["node"]).hex()[:20] not in told


@given(st.text())
def test_whatever_the_text_is_nothing_else_goes_wrong(text: str) -> None:
    with pytest.raises(InvalidRequest):
        identity.parse(text)


def test_a_secret_is_in_no_representation() -> None:
    found = identity.parse(MADE["node"])
    for shown in (repr(found), str(found), f"{found}", repr([found]), repr({"x": found})):
        assert secret_key(MADE["node"]).hex()[:20] not in shown
        assert "a0c848c379" in shown


# Making


def test_keys_are_tried_until_one_makes_an_identity() -> None:
    secret = secret_key(MADE["node"])
    agreeing, signing = secret[:32], secret[32:]
    parts = source(signing, bytes(32), agreeing)
    assert identity.generate(lambda count: next(parts)).secret == MADE["node"]


@pytest.mark.parametrize("name", ["reserved", "beyond"])
def test_a_key_that_zerotier_would_not_take_is_not_made(name: str) -> None:
    secret = secret_key(RECORDED[name])
    parts = source(secret[32:], secret[:32])
    with pytest.raises(AssertionError, match="more randomness"):
        identity.generate(lambda count: next(parts))


def test_as_much_randomness_is_asked_for_as_a_key_has() -> None:
    asked: list[int] = []
    secret = secret_key(MADE["node"])
    parts = source(secret[32:], secret[:32])

    def random(count: int) -> bytes:
        asked.append(count)
        return next(parts)

    identity.verify(identity.generate(random))
    assert asked == [32, 32]


# The hash's stream


def salsa20(key: bytes, nonce: bytes, block: int) -> bytes:
    """One block of Salsa20/20, word after word as the specification describes it."""
    k, n = struct.unpack("<8I", key), struct.unpack("<2I", nonce)
    s = struct.unpack("<4I", b"expand 32-byte k")
    start = [s[0], *k[:4], s[1], *n, block & 0xFFFFFFFF, block >> 32, s[2], *k[4:], s[3]]
    x = start.copy()

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for to, one, other, by in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
            total = x[one] + x[other] & 0xFFFFFFFF
            x[to] ^= (total << by | total >> 32 - by) & 0xFFFFFFFF

    for _round in range(10):
        for column in range(4):
            quarter(*((5 * column + 4 * step) % 16 for step in range(4)))
        for row in range(4):
            quarter(*(4 * row + (row + step) % 4 for step in range(4)))
    return struct.pack("<16I", *(one + other & 0xFFFFFFFF for one, other in zip(x, start, strict=True)))


def test_the_stream_is_salsa20s() -> None:
    """Set 1, vector 0 of the published test vectors for 256-bit keys."""
    expected = (
        "e3be8fdd8beca2e3ea8ef9475b29a6e7003951e1097a5c38d23b7a5fad9f6844"
        "b22c97559e2723c7cbbd3fe4fc8d9a0744652a83e72a9c461876af4d7ef1a117"
    )
    key = b"\x80" + bytes(31)
    assert identity_hash.key_stream(key, bytes(8), 0)[:64].hex() == expected
    assert salsa20(key, bytes(8), 0).hex() == expected


@settings(max_examples=30)
@given(ANY_HALF, st.binary(min_size=8, max_size=8), st.integers(0, 163839))
def test_every_block_computed_at_once_is_the_one_computed_alone(key: bytes, nonce: bytes, block: int) -> None:
    first = block - block % 2048
    stream = identity_hash.key_stream(key, nonce, first)
    at = 64 * (block - first)
    assert stream[at : at + 64] == salsa20(key, nonce, block)


# The two halves


@settings(max_examples=30)
@given(ANY_HALF)
def test_plain_python_and_the_library_agree(secret: bytes) -> None:
    agree, sign = identity_keys.public_halves()
    assert agree is not identity_keys.x25519_public
    assert identity_keys.x25519_public(secret) == agree(secret)
    assert identity_keys.ed25519_public(secret) == sign(secret)
