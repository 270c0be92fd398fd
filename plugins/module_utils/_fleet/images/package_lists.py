# SPDX-License-Identifier: GPL-3.0-or-later
"""The package lists that a layer was built from, and whether an archive still has the same.

An archive's signed ``InRelease`` names the digest of each of its lists. A digest over those for x86-64 changes exactly when a
package does; the dates in the file, which change whenever it is signed again, do not count. Whether the signature is good is not
asked: nothing is installed from here, and apt asks it in the container.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ..errors import FleetError

if TYPE_CHECKING:
    from ..http import RetryAdapter

GONE = "gone"
"""In the place of a digest: the archive no longer has this list."""

_LINE = re.compile(r" ([0-9a-f]{64})\s+\d+\s+(\S+)")
_OURS = re.compile(r"(?:(?:^|.*/)binary-(?:amd64|all)/|(?:\./)?)Packages(?:\.\w+)?")
"""The lists of an archive with components, and the one of an archive without any."""

_UNSIGNED = "Packages"
"""What the address of an unsigned archive's list ends in; any other ends in InRelease or Release."""

_IGNORE = "take what is cached for new enough: golden_image_package_lists: ignore"

_TARGETS = ("apt-get", "indextargets", "--format", "$(BASE_URI) $(FILENAME)", "Created-By: Packages")


def parse(text: str) -> str:
    """The digest over what an InRelease says of its lists.

    Raises:
        FleetError: it is none.
    """
    entries, inside = set(), False
    for line in text.splitlines():
        if not line.startswith(" "):
            inside = line.strip() == "SHA256:"
        elif inside and (found := _LINE.fullmatch(line.rstrip())):
            entries.add((found[2], found[1]))
    if not entries:
        raise FleetError("it names no list with its SHA256, so it is no InRelease file")
    ours = {entry for entry in entries if _OURS.fullmatch(entry[0])} or entries
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in sorted(ours)).encode()).hexdigest()


def can_be_asked(url: str) -> bool:
    """Whether this list can be read from elsewhere than in the container: not so an archive on a disk, and not an unsigned one."""
    return urlsplit(url).scheme in ("http", "https") and not url.endswith(_UNSIGNED)


def seen(ask: Callable[[Sequence[str]], str]) -> dict[str, str]:
    """The lists a machine has fetched, by the address of their InRelease.

    Args:
        ask: runs a command on the machine and gives back what it prints.

    Raises:
        FleetError: it has none, or one that is not what apt fetches.
    """
    targets = [line.split(" ", 1) for line in ask(_TARGETS).splitlines() if " " in line]
    if not targets:
        raise FleetError(
            "there are no package lists in it, so nobody could tell when it is out of date",
            hint="Keep them until the image is sealed: mmdebstrap --skip=cleanup/apt/lists, and no apt-get clean of lists",
        )
    lists: dict[str, str] = {}
    files: dict[str, list[str]] = {}
    for base, path in targets:
        folder, _slash, name = path.rpartition("/")
        if folder not in files:
            files[folder] = ask(("ls", folder)).splitlines()
        release, base = _release_of(name, files[folder]), _without_password(base)
        if release is None:
            # Nobody vouches for this list, so it counts by itself.
            lists[f"{base}{_UNSIGNED}"] = ask(("sha256sum", path)).split(" ")[0]
            continue
        url = f"{base}{'InRelease' if release.endswith('InRelease') else 'Release'}"
        if url not in lists:
            lists[url] = _parsed(url, ask(("cat", f"{folder}/{release}")))
    return dict(sorted(lists.items()))


def fetch(urls: Iterable[str], adapter: RetryAdapter, proxy: str = "") -> dict[str, str]:
    """The digest of each list as it is now, or :data:`GONE`; all at the same time.

    Args:
        urls: addresses that can be asked.
        adapter: how to talk to the archives.
        proxy: address of the one that packages come through, if not that of the environment.

    Raises:
        FleetError: one could not be read.
    """
    # Needs requests, so it is loaded where a connection is opened.
    import requests

    from .. import http

    def one(url: str) -> str:
        doing = f"reading the package list {url}"
        with http.new_session(adapter, {"Accept": "*/*"}) as session:
            if proxy:
                session.proxies = {"http": proxy, "https": proxy}
            try:
                answer = session.get(url)
            except requests.RequestException as failure:
                told = http.no_answer(failure, "the archive", doing)
                told.hint = f"Check the network, or {_IGNORE}"
                raise told from failure
        if answer.status_code in (404, 410):
            return GONE
        if answer.status_code != 200:
            raise http.kind_of(answer.status_code)(
                f"{doing}: the archive answers {answer.status_code} {answer.reason}",
                hint=f"Try again later, or {_IGNORE}",
            )
        return _parsed(url, answer.content.decode("utf-8", errors="replace"))

    wanted = sorted(set(urls))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def _release_of(name: str, files: Iterable[str]) -> str | None:
    """The file that vouches for a list: of the same archive and release, which is how both names begin."""
    found = [
        file
        for file in files
        for ending in ("InRelease", "Release")
        if file.endswith(f"_{ending}") and name.startswith(file.removesuffix(ending))
    ]
    # The longest is the nearest, and InRelease, which sorts before Release, is what apt prefers.
    return min(found, key=lambda file: (-file.rindex("_"), file), default=None)


def _parsed(url: str, text: str) -> str:
    try:
        return parse(text)
    except FleetError as problem:
        raise FleetError(
            f"the package list {url} cannot be used: {problem.what}",
            hint="Open it in a browser: a proxy or a login page may answer in the archive's place",
        ) from problem


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
