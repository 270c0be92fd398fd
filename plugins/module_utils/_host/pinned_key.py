# SPDX-License-Identifier: GPL-3.0-or-later
"""The key file of a package repository: read within limits, and refused unless it holds exactly the pinned keys.

Nothing is written: gpg gets the file on its standard input, and neither reads nor makes a folder of its own.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable, Sequence

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
    "--show-keys",
    "--with-colons",
)


class KeyRefused(Exception):
    """What was fetched is not used; whole sentences for the user."""


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


def primary_fingerprints(key: bytes, gpg: str = "gpg") -> list[str]:
    """The fingerprints of the primary keys in a key file, upper case, in its order; empty for what is no key file.

    Args:
        gpg: the program, by name or path.

    Raises:
        KeyRefused: gpg does not answer.
    """
    try:
        done = subprocess.run(
            [gpg, *_GPG_OPTIONS], input=key, check=False, capture_output=True, timeout=_GPG_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise KeyRefused(
            f"gpg did not read the key within {_GPG_SECONDS:g} seconds, so nothing was added."
        ) from None
    except OSError as problem:
        raise KeyRefused(f"gpg cannot be run, so nothing was added: {problem}.") from problem
    # Its exit status says nothing that the list does not: what is no key file has an empty one.
    return listed(done.stdout.decode("utf-8", "replace"))


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


def normal(fingerprint: str) -> str:
    """A fingerprint as gpg prints it; people write it in groups, and in lower case."""
    return fingerprint.replace(" ", "").upper()


def accepted(key: bytes, found: Sequence[str], pinned: Sequence[str], url: str, variable: str) -> str:
    """The text of a key file that holds exactly the pinned keys.

    A further primary key in it would be trusted as well, so it is refused, too.

    Args:
        found: the fingerprints of the primary keys in it.
        pinned: the fingerprints as the user wrote them.
        variable: the name of the variable that holds them.

    Raises:
        KeyRefused: it holds other keys, or is no text.
    """
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
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyRefused(
            f"What is at {url} is a binary key file, and apt reads what is in a file .asc as ASCII armour, so nothing was "
            "added. Use the address of the vendor's armoured key file."
        ) from None
