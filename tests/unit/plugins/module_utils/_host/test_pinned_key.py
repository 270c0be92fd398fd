# SPDX-License-Identifier: GPL-3.0-or-later
"""The key file of a repository is taken only if it holds exactly the pinned keys, and is read within limits."""

from __future__ import annotations

import base64
import http.client
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpumesh.fleet.plugins.filter.holds_keys import holds_keys
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import pinned_key
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.pinned_key import KeyRefused

from sandbox.openpgp import SigningKey, _armour, _packet
from tests.loopback import FakeClock

URL = "https://vendor.example/key.asc"
VARIABLE = "minerals_key_fingerprint"
OURS = SigningKey(b"a" * 32, "Agate <agate@vendor.example>")
STRANGER = SigningKey(b"b" * 32, "Beryl <beryl@vendor.example>")
HTML = b"<!DOCTYPE html><html><body>Please log in.</body></html>"

needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="there is no gpg here")


def take(key: bytes, *pinned: str) -> str:
    """The text of a key file, by the real gpg."""
    return pinned_key.accepted(key, pinned, URL, VARIABLE)


def packets(key: SigningKey) -> bytes:
    """A public key without its armour."""
    return base64.b64decode(key.public().split("\n\n")[1].split("\n=")[0])


def armoured(content: bytes, what: str = "PUBLIC") -> bytes:
    """A block of packets."""
    return _armour(f"{what} KEY BLOCK", content).encode()


OWNER = _packet(13, b"Cinnabar <cinnabar@vendor.example>")
MADE = (1_704_067_200).to_bytes(4, "big")
# The first packet is the key; its head is of three bytes.
BERYL = packets(STRANGER)[3 : 3 + int.from_bytes(packets(STRANGER)[1:3], "big")]
SECRET = _packet(5, BERYL + b"\0" + b"\0\1\1" + b"\0\2") + OWNER
"""A secret key of one bit, unprotected, with its sum."""
VERSION_3 = _packet(6, b"\3" + MADE + b"\0\0\1\4\0" + b"\xff" * 128 + b"\0\x11\1\0\1") + OWNER
VERSION_5 = _packet(6, b"\5" + MADE + BERYL[5:6] + (len(BERYL) - 6).to_bytes(4, "big") + BERYL[6:]) + OWNER
VERSION_6 = _packet(6, b"\6" + MADE + b"\x1b" + (32).to_bytes(4, "big") + b"k" * 32) + OWNER
PRIVATE = bytes([0xC0 | 60, 3]) + b"abc"
"""A packet of a kind that everybody may give a meaning of their own."""


@pytest.fixture(scope="module")
def gnupg() -> Iterator[Callable[..., bytes]]:
    """GnuPG with one key of its own that has two subkeys; its answer to a command."""
    if shutil.which("gpg-agent") is None:
        pytest.skip("there is no gpg-agent here, without which gpg makes no key")
    # Its agent listens on a socket in there, whose path may not be longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gnupg-") as home:
        environment = {**os.environ, "GNUPGHOME": home, "LC_ALL": "C"}

        def run(*words: str) -> bytes:
            command = ["gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase=", *words]
            return subprocess.run(command, check=True, capture_output=True, env=environment).stdout

        try:
            run("--quick-generate-key", "Garnet <garnet@vendor.example>", "ed25519", "cert", "never")
            (made,) = pinned_key.listed(run("--list-keys", "--with-colons").decode())
            for usage in ("sign", "encr"):
                run("--quick-add-key", made, "cv25519" if usage == "encr" else "ed25519", usage, "never")
            yield run
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=False, env=environment)


@needs_gpg
def test_the_pinned_key_is_taken_without_what_stands_around_it() -> None:
    plain = take(OURS.public().encode(), OURS.fingerprint)
    assert pinned_key.keys_in(plain.encode()) == pinned_key.Keys([OURS.fingerprint])
    assert plain.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    noted = "A note of the vendor's: Schlüssel\r\n" + OURS.public()
    assert take(noted.encode(), OURS.fingerprint) == plain
    # So a second run changes nothing.
    assert take(plain.encode(), OURS.fingerprint) == plain


@needs_gpg
@pytest.mark.parametrize("more", [VERSION_5, VERSION_6, SECRET], ids=["version_5", "version_6", "secret"])
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_what_gpg_does_not_list_as_a_key_is_refused_beside_the_pinned_one(more: bytes, first: bool) -> None:
    """gpg itself would take the pinned key out of these; another program might take the other one, too."""
    both = more + packets(OURS) if first else packets(OURS) + more
    with pytest.raises(KeyRefused, match=r"[Ss]o nothing was added"):
        take(armoured(both), OURS.fingerprint)


def test_a_file_that_gpg_does_not_read_to_its_end_is_refused_with_the_reason(tmp_path: Path) -> None:
    # As gpg 2.2 does; later ones list nothing of such a file.
    gpg = tmp_path / "gpg"
    gpg.write_text(
        f"#!/bin/sh\necho pub:; echo fpr:::::::::{OURS.fingerprint}:\n"
        "echo 'gpg: packet(6) with unknown version 6' >&2\nexit 2\n"
    )
    gpg.chmod(0o755)
    with pytest.raises(KeyRefused) as refused:
        pinned_key.accepted(b"key", [OURS.fingerprint], URL, VARIABLE, str(gpg))
    assert str(refused.value) == (
        f"What is at {URL} holds the pinned key, but may hold others that apt would trust as well: gpg says 'packet(6) with "
        "unknown version 6'. So nothing was added. Use the address of a file with nothing but the vendor's public key."
    )


@needs_gpg
def test_a_secret_key_in_a_block_of_its_own_is_refused() -> None:
    file = OURS.public().encode() + armoured(SECRET, "PRIVATE")
    with pytest.raises(KeyRefused, match=f"at {URL} holds the pinned key, .*: there is a secret key in it"):
        take(file, OURS.fingerprint)


@needs_gpg
@pytest.mark.parametrize("more", [VERSION_3, PRIVATE], ids=["version_3", "private"])
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_what_gpg_passes_over_in_silence_is_not_in_what_apt_gets(more: bytes, first: bool) -> None:
    both = more + packets(OURS) if first else packets(OURS) + more
    plain = take(OURS.public().encode(), OURS.fingerprint)
    assert take(armoured(both), OURS.fingerprint) == plain
    assert take(OURS.public().encode() + armoured(more), OURS.fingerprint) == plain


def test_a_key_that_gpg_does_not_write_anew_is_refused(tmp_path: Path) -> None:
    gpg = tmp_path / "gpg"
    line = f"fpr:::::::::{OURS.fingerprint}:"
    gpg.write_text(
        f'#!/bin/sh\ncase "$*" in *--show-keys*) echo pub:; echo {line};; *) echo gpg: no valid user IDs >&2; exit 2;; esac\n'
    )
    gpg.chmod(0o755)
    with pytest.raises(KeyRefused, match="gpg does not write it anew: 'no valid user IDs'"):
        pinned_key.accepted(b"key", [OURS.fingerprint], URL, VARIABLE, str(gpg))
    # It says that all went well, and writes nothing: what it wrote is read again.
    gpg.write_text(
        f'#!/bin/sh\nif grep -q key; then case "$*" in *--show-keys*) echo pub:; echo {line};; esac; fi\n'
    )
    with pytest.raises(KeyRefused, match="gpg does not write it anew: 'it ended with status 0'"):
        pinned_key.accepted(b"key", [OURS.fingerprint], URL, VARIABLE, str(gpg))


@needs_gpg
def test_a_fingerprint_may_be_written_in_groups_and_in_small_letters() -> None:
    digits = OURS.fingerprint.lower()
    groups = " ".join(digits[start : start + 4] for start in range(0, 40, 4))
    assert take(OURS.public().encode(), groups) == take(OURS.public().encode(), OURS.fingerprint)


@needs_gpg
def test_a_wrong_key_is_refused_with_both_fingerprints() -> None:
    with pytest.raises(KeyRefused) as refused:
        take(STRANGER.public().encode(), OURS.fingerprint)
    assert str(refused.value) == (
        f"What is at {URL} holds the key {STRANGER.fingerprint}, and {OURS.fingerprint} is pinned, so nothing was added. "
        f"Change {VARIABLE} only after the vendor has announced a new key."
    )


@needs_gpg
@pytest.mark.parametrize("keys", [(OURS, STRANGER), (STRANGER, OURS), (OURS, OURS)])
def test_one_key_more_is_refused(keys: tuple[SigningKey, SigningKey]) -> None:
    both = "".join(key.public() for key in keys).encode()
    with pytest.raises(KeyRefused) as refused:
        take(both, OURS.fingerprint)
    assert f"holds the key {keys[0].fingerprint} and {keys[1].fingerprint}, and" in str(refused.value)


@needs_gpg
def test_two_pinned_keys_have_to_be_there_both() -> None:
    both = (OURS.public() + STRANGER.public()).encode()
    pinned = (STRANGER.fingerprint, OURS.fingerprint)
    assert pinned_key.keys_in(take(both, *pinned).encode()).fingerprints == list(reversed(pinned))
    with pytest.raises(KeyRefused, match=f"{pinned[0]} and {pinned[1]} are pinned"):
        take(OURS.public().encode(), *pinned)


@needs_gpg
@pytest.mark.parametrize("key", [b"", HTML, OURS.public().encode()[:80]])
def test_what_is_no_key_file_is_refused(key: bytes) -> None:
    with pytest.raises(KeyRefused, match="holds no key, and"):
        take(key, OURS.fingerprint)


@needs_gpg
def test_nothing_pinned_lets_nothing_in() -> None:
    for key in (HTML, OURS.public().encode()):
        with pytest.raises(KeyRefused, match="and none is pinned"):
            take(key)


@needs_gpg
def test_a_key_that_gnupg_made_is_known_by_its_primary_key_alone(gnupg: Callable[..., bytes]) -> None:
    key = gnupg("--export", "--armor")
    listing = gnupg("--list-keys", "--with-colons").decode()
    primary, *subkeys = [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")]
    assert len(subkeys) == 2
    assert take(key, primary) == key.decode()
    with pytest.raises(KeyRefused, match=f"holds the key {primary}, and"):
        take(key, subkeys[0])


@needs_gpg
def test_a_binary_key_file_is_refused_with_what_to_do(gnupg: Callable[..., bytes]) -> None:
    key = gnupg("--export")
    (primary,) = pinned_key.keys_in(key).fingerprints
    with pytest.raises(KeyRefused, match=r"is a binary key file, .* armoured key file"):
        take(key, primary)


@needs_gpg
def test_gpg_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("GNUPGHOME", raising=False)
    take(OURS.public().encode(), OURS.fingerprint)
    with pytest.raises(KeyRefused):
        take(OURS.public().encode() + armoured(SECRET, "PRIVATE"), OURS.fingerprint)
    assert list(tmp_path.iterdir()) == []
    assert not Path("/nonexistent").exists()


def test_a_gpg_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="gpg cannot be run, so nothing was added"):
        pinned_key.keys_in(OURS.public().encode(), str(tmp_path / "gpg"))


def test_a_role_fetches_the_key_where_another_or_a_secret_one_is_in_its_place() -> None:
    """A role asks for what it has to hold against what gpg lists of the file that is there."""
    public = "pub:-:255:22:A:1:::-:::scSC::::::23::0:\nfpr:::::::::AAAA:\nuid:-::::1::X::Y::::::::::0:\n"
    subkey = "sub:-:255:18:B:1::::::e::::::23:\nfpr:::::::::BBBB:\n"
    secret = "sec:-:255:22:C:1:::-:::scSC:::+:::23::0:\nfpr:::::::::CCCC:\ngrp:::::::::DDDD:\n"
    other = public.replace("AAAA", "EEEE")
    assert holds_keys(public + subkey, ["AAAA"])
    assert holds_keys(public, ["aa aa"])
    assert holds_keys(public + other, ["EEEE", "AAAA"])
    for listing in (
        "",
        subkey,
        other,
        public + other,
        secret + public,
        public + subkey + secret,
        secret.replace("CCCC", "AAAA"),
    ):
        assert not holds_keys(listing, ["AAAA"])
    with pytest.raises(AnsibleFilterError, match="the fingerprints are a list"):
        holds_keys(public, "AAAA")
    with pytest.raises(AnsibleFilterError, match="what gpg --show-keys --with-colons prints"):
        holds_keys(None, ["AAAA"])


def test_a_fingerprint_of_a_subkey_is_not_taken_for_a_key() -> None:
    listing = "tru::1:1:0:3:1:5\npub:-:255:22:A:1:::-:::scSC::::::23::0:\nfpr:::::::::AAAA:\nuid:-::::1::X::Y::::::::::0:\n"
    listing += (
        "sub:-:255:18:B:1::::::e::::::23:\nfpr:::::::::BBBB:\npub:-:255:22:C:1:::-:::scSC::::::23::0:\n"
    )
    listing += "grp:::::::::CCCC:\nfpr:::::::::DDDD:\n"
    assert pinned_key.listed(listing) == ["AAAA", "DDDD"]


def test_a_file_comes_whole_in_pieces() -> None:
    content = os.urandom(300_000)
    assert pinned_key.whole(io.BytesIO(content).read1, URL, 30, len(content)) == content
    assert pinned_key.whole(io.BytesIO(content).read1, URL, 30) == content


def test_what_is_longer_than_any_key_file_is_not_read_to_its_end() -> None:
    asked = []

    def endless(size: int) -> bytes:
        asked.append(size)
        return b"x" * size

    with pytest.raises(KeyRefused, match="is longer than 1048576 bytes"):
        pinned_key.whole(endless, URL, 30)
    assert sum(asked) <= 2 * pinned_key.LIMIT_BYTES


def test_a_file_that_breaks_off_is_refused_even_if_what_came_is_a_key() -> None:
    with pytest.raises(KeyRefused, match="broke off after 5 bytes of 9"):
        pinned_key.whole(io.BytesIO(b"12345").read1, URL, 30, 9)


def test_a_server_that_drips_is_given_up() -> None:
    clock = FakeClock()

    def drip(_size: int) -> bytes:
        assert len(clock.slept) < 9, "nobody gives up"
        clock.sleep(20)
        return b"x"

    with pytest.raises(
        KeyRefused, match=f"{URL} could not be fetched within 30 seconds, so nothing was added"
    ):
        pinned_key.whole(drip, URL, 30, now=clock.now)
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (TimeoutError("timed out"), "could not be fetched within 30 seconds"),
        (
            ConnectionResetError("reset by peer"),
            "broke off after 0 bytes, so nothing was added: reset by peer",
        ),
        (http.client.IncompleteRead(b""), "broke off after 0 bytes"),
    ],
)
def test_a_connection_that_fails_is_told(problem: Exception, says: str) -> None:
    def fail(_size: int) -> bytes:
        raise problem

    with pytest.raises(KeyRefused, match=says):
        pinned_key.whole(fail, URL, 30)
