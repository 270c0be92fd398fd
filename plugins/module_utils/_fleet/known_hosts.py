# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's own known_hosts file: the SSH host key of each machine under a name that never means another machine.

The name (OpenSSH's ``HostKeyAlias``) holds the cloud's instance id and no address, so neither a rebuilt machine nor an
address that is used again is ever taken for the old one. Lines of ours end in a comment that says so; all others stay
as they are.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping

from .errors import FleetError

_KEY = re.compile(r"^(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]*={0,3}$")


def alias(fleet: str, machine: str, instance_id: str) -> str:
    """The name a machine's keys are filed under."""
    return f"gpumesh-{fleet}-{machine}-{instance_id}"


def aliases(text: str, fleet: str) -> dict[str, str]:
    """The aliases of this fleet in a file, each with the provider of its machine."""
    found = {}
    for line in text.splitlines():
        if owned := _owned(line, fleet):
            found[owned[0]] = owned[1]
    return found


def filed(text: str, fleet: str, name: str) -> tuple[str, ...]:
    """The keys on file under an alias of this fleet."""
    lines = [line for line in text.splitlines() if (owned := _owned(line, fleet)) and owned[0] == name]
    return tuple(" ".join(line.split(" ")[1:3]) for line in lines)


def merge(
    text: str,
    fleet: str,
    keys: Mapping[str, tuple[str, Collection[str]]],
    *,
    gone: Collection[str] = (),
) -> str:
    """The file with these keys in it.

    Args:
        text: the file as it is.
        keys: by alias, the provider of the machine and all its public keys; they take the place of those on file. An
            alias without keys keeps what it has.
        gone: aliases whose machines are no more.

    Returns:
        The file as it should be: the same text, if it is so already.

    Raises:
        ValueError: a key is not written as a public SSH key.
    """
    replaced = {name for name, (_dummy, its) in keys.items() if its}
    lines = text.splitlines()
    kept = [
        line
        for line in lines
        if not ((owned := _owned(line, fleet)) and (owned[0] in replaced or owned[0] in gone))
    ]
    fresh = [
        _line(name, key, fleet, provider)
        for name, (provider, its) in sorted(keys.items())
        for key in sorted(set(its))
        if name not in gone
    ]
    if sorted([*kept, *fresh]) == sorted(lines):
        return text
    return "".join(f"{line}\n" for line in [*kept, *fresh])


def update(path: str, change: Callable[[str], str], *, write: bool = True) -> bool:
    """Change the file under a lock, at once or not at all; readable for its owner only.

    Args:
        change: the new text from the old one.
        write: False only tells whether it would change.

    Returns:
        Whether the text changed.

    Raises:
        FleetError: the file cannot be read or written.
    """
    with _told(path):
        return _update(pathlib.Path(path), change, write=write)


def _update(file: pathlib.Path, change: Callable[[str], str], *, write: bool) -> bool:
    if not write:
        text = _text(file)
        return change(text) != text
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (file.parent / f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = _text(file)
        changed = change(text)
        if changed == text:
            return False
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as new:
                new.write(changed)
                new.flush()
                os.fsync(new.fileno())
            pathlib.Path(temporary).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                pathlib.Path(temporary).unlink()
            raise
    return True


def read(path: str) -> str:
    """The text of the file; empty if there is none.

    Raises:
        FleetError: it cannot be read.
    """
    with _told(path):
        return _text(pathlib.Path(path))


def probe(path: str, *, write: bool = True) -> str:
    """The text of the file, once it is clear that it can be changed.

    Args:
        write: try it, in a folder that is made if need be; False only asks for the permissions.

    Raises:
        FleetError: the file cannot be read or written.
    """
    file = pathlib.Path(path)
    with _told(path):
        text = _text(file)
        if write:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=file.parent):
                return text
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return text


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FleetError(
            f"the known_hosts file {path} cannot be kept: {error.strerror or type(error).__name__}",
            hint="Make it and its folder writable for you, or name another one as known_hosts in the fleet file",
        ) from error


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _comment(fleet: str, provider: str) -> str:
    return f"gpumesh:{fleet}/{provider}"


def _line(name: str, key: str, fleet: str, provider: str) -> str:
    words = " ".join(key.split()[:2])
    if not _KEY.match(words):
        raise ValueError(f"not a public SSH key: {key[:40]!r}")
    return f"{name} {words} {_comment(fleet, provider)}"


def _owned(line: str, fleet: str) -> tuple[str, str] | None:
    """Alias and provider, if the line is one of this fleet's."""
    words = line.split(" ")
    if len(words) != 4 or not words[3].startswith(_comment(fleet, "")):
        return None
    return words[0], words[3].removeprefix(_comment(fleet, ""))
