# SPDX-License-Identifier: GPL-3.0-or-later
"""The key file of a package repository: read within limits, and refused unless it holds exactly the pinned keys.

What apt gets is what gpg has read, written anew: apt may ask another program than gpg, which might find keys in a file that gpg
passes over.

Nothing is written: gpg gets the file on its standard input, and neither reads nor makes a folder of its own.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LIMIT_BYTES = 1024 * 1024
"""More than any vendor's keys take; whatever is longer is no key file."""
_CHUNK_BYTES = 64 * 1024
_GPG_SECONDS = 30.0
# Without a keyring and trust database of its own, it needs no home, and leaves none behind.
_GPG_OPTIONS = (
    "--batch",
    "--no-options",
    "--homedir=/nonexistent",
    "--no-keyring",
    "--trust-model=always",
    "--no-autostart",
)
_SHOW = ("--show-keys", "--with-colons")
# The keys go through all of an import, and to the standard output in the place of a keyring.
_REWRITE = ("--quiet", "--armor", "--import-options=import-export", "--import")


class KeyRefused(Exception):
    """What was fetched is not used; whole sentences for the user."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What gpg finds in a key file.

    Attributes:
        fingerprints: of the primary public keys, upper case, in their order; empty for what is no key file.
        problem: why these are not all that is in it, as the end of a sentence; empty: they are, as far as gpg knows.
    """

    fingerprints: list[str]
    problem: str = ""


def whole(
    read: Callable[[int], bytes],
    url: str,
    seconds: float,
    length: int | None = None,
    now: Callable[[], float] = time.monotonic,
) -> bytes:
    """All that a server sends.

    Args:
        read: the next bytes, at most so many; empty at the end.
        seconds: how long the whole of it may take.
        length: how many bytes the server has announced; `None` if it has not.

    Raises:
        KeyRefused: it is too long, too slow, or breaks off.
    """
    end = now() + seconds
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = read(_CHUNK_BYTES)
        except TimeoutError:
            raise KeyRefused(_too_slow(url, seconds)) from None
        except (OSError, http.client.HTTPException) as problem:
            raise KeyRefused(
                f"{url} broke off after {size} bytes, so nothing was added: {problem}."
            ) from problem
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > LIMIT_BYTES:
            raise KeyRefused(
                f"What is at {url} is longer than {LIMIT_BYTES} bytes, so it is no key file, and nothing was added."
            )
        if now() > end:
            raise KeyRefused(_too_slow(url, seconds))
    if length is not None and size < length:
        raise KeyRefused(f"{url} broke off after {size} bytes of {length}, so nothing was added.")
    return b"".join(parts)


def _too_slow(url: str, seconds: float) -> str:
    return f"{url} could not be fetched within {seconds:g} seconds, so nothing was added."


def _ask(gpg: str, words: Sequence[str], key: bytes) -> subprocess.CompletedProcess[bytes]:
    """What gpg makes of a key file.

    Raises:
        KeyRefused: gpg does not answer.
    """
    try:
        return subprocess.run(
            [gpg, *_GPG_OPTIONS, *words],
            input=key,
            check=False,
            capture_output=True,
            timeout=_GPG_SECONDS,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": ""},
        )
    except subprocess.TimeoutExpired:
        raise KeyRefused(
            f"gpg did not read the key within {_GPG_SECONDS:g} seconds, so nothing was added."
        ) from None
    except OSError as problem:
        raise KeyRefused(f"gpg cannot be run, so nothing was added: {problem}.") from problem


def _complaint(ran: subprocess.CompletedProcess[bytes]) -> str:
    """What gpg says of what it cannot read."""
    lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[0].removeprefix("gpg: ")[:300] if lines else f"it ended with status {ran.returncode}"


def keys_in(key: bytes, gpg: str = "gpg") -> Keys:
    """What is in a key file.

    Args:
        gpg: the program, by name or path.

    Raises:
        KeyRefused: gpg does not answer.
    """
    ran = _ask(gpg, _SHOW, key)
    listing = ran.stdout.decode("utf-8", "replace")
    if _has_secret_key(listing):
        problem = "there is a secret key in it"
    else:
        # A key of a version that it does not know is not in its list; it is told by the status alone.
        problem = f"gpg says '{_complaint(ran)}'" if ran.returncode else ""
    return Keys(listed(listing), problem)


def listed(listing: str) -> list[str]:
    """The fingerprints of the primary keys in what ``gpg --with-colons`` prints."""
    found = []
    primary = False
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] == "pub":
            primary = True
        elif fields[0] == "fpr" and primary:
            # Those that follow are the subkeys'.
            found.append(fields[9])
            primary = False
    return found


def _has_secret_key(listing: str) -> bool:
    return any(line.startswith("sec:") for line in listing.splitlines())


def holds(listing: str, pinned: Sequence[str]) -> bool:
    """Whether a key file needs no other in its place.

    Args:
        listing: what ``gpg --show-keys --with-colons`` prints of it; empty where there is none.
        pinned: the fingerprints as the user wrote them.
    """
    wanted = sorted(map(normal, pinned))
    return not _has_secret_key(listing) and sorted(listed(listing)) == wanted


def normal(fingerprint: str) -> str:
    """A fingerprint as gpg prints it; people write it in groups, and in lower case."""
    return fingerprint.replace(" ", "").upper()


def accepted(key: bytes, pinned: Sequence[str], url: str, variable: str, gpg: str = "gpg") -> str:
    """The text of a key file that holds exactly the pinned keys, as gpg writes it: the same for the same keys each time.

    A further primary key in it would be trusted as well, so it is refused, too.

    Args:
        pinned: the fingerprints as the user wrote them.
        variable: the name of the variable that holds them.
        gpg: the program, by name or path.

    Raises:
        KeyRefused: it holds other keys or more than keys, or is no text; or gpg does not answer.
    """
    there = keys_in(key, gpg)
    found = there.fingerprints
    if not pinned or sorted(found) != sorted(map(normal, pinned)):
        holds = f"the key {' and '.join(found)}" if found else "no key"
        pins = (
            f"{' and '.join(pinned)} {'is' if len(pinned) == 1 else 'are'} pinned"
            if pinned
            else "none is pinned"
        )
        raise KeyRefused(
            f"What is at {url} holds {holds}, and {pins}, so nothing was added. Change {variable} only after the vendor "
            "has announced a new key."
        )
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyRefused(
            f"What is at {url} is a binary key file, and apt reads what is in a file .asc as ASCII armour, so nothing was "
            "added. Use the address of the vendor's armoured key file."
        ) from None
    if there.problem:
        raise KeyRefused(_more(url, there.problem))
    ran = _ask(gpg, _REWRITE, key)
    if ran.returncode or keys_in(ran.stdout, gpg) != there:
        raise KeyRefused(_more(url, f"gpg does not write it anew: '{_complaint(ran)}'"))
    return ran.stdout.decode("ascii")


def _more(url: str, problem: str) -> str:
    return (
        f"What is at {url} holds the pinned key, but may hold others that apt would trust as well: {problem}. So nothing was "
        "added. Use the address of a file with nothing but the vendor's public key."
    )
