# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive that an image of Compute Engine is made from: a gzipped tar with one file, ``disk.raw``.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .. import errors

DISK = "disk.raw"
_GIB = 1 << 30
_READ = 1 << 20
_HOW = "Make it with the disk in a file named disk.raw: tar --format=oldgnu -Sczf IMAGE.tar.gz disk.raw"


@dataclass(frozen=True, slots=True)
class Archive:
    """A local archive, as it was when it was read.

    Attributes:
        size: bytes of the archive.
        md5: as Cloud Storage writes it, in base64.
        sha256: in hexadecimal digits.
        disk_gib: size of the disk in it.
    """

    path: Path
    size: int
    md5: str
    sha256: str
    disk_gib: int


def read(path: Path) -> Archive:
    """Look into an archive and sum it up, in one pass of each.

    Raises:
        InvalidRequest: it is none, or not one that Compute Engine makes an image of.
    """
    try:
        disk = _disk(path)
        # Cloud Storage checks what arrives by MD5; against somebody who means harm there is the SHA-256.
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with path.open("rb") as file:
            while piece := file.read(_READ):
                md5.update(piece)
                sha256.update(piece)
                size += len(piece)
    except OSError as exc:
        raise errors.InvalidRequest(
            f"the archive {path} cannot be read: {exc.strerror or exc}",
            hint="Give the path of a .tar.gz on the machine where the module runs",
        ) from exc
    return Archive(path, size, base64.b64encode(md5.digest()).decode(), sha256.hexdigest(), disk // _GIB)


def _disk(path: Path) -> int:
    """Size of the disk in it."""
    if path.is_file() and os.stat(path).st_size == 0:
        raise errors.InvalidRequest(f"the archive {path} is empty", hint=_HOW)
    try:
        with tarfile.open(path, "r|gz") as tar:
            member = tar.next()
    except (tarfile.TarError, EOFError) as exc:
        raise errors.InvalidRequest(f"{path} is no tar archive compressed with gzip", hint=_HOW) from exc
    if member is None or member.name != DISK or not member.isreg():
        found = "nothing" if member is None else repr(member.name[:80])
        raise errors.InvalidRequest(
            f"{path} begins with {found}, and Compute Engine wants {DISK} and nothing else", hint=_HOW
        )
    if not member.size or member.size % _GIB:
        raise errors.InvalidRequest(
            f"the disk in {path} has {member.size} bytes, and Compute Engine wants a multiple of 1 GiB",
            hint="Enlarge the raw disk before it is packed, for example with qemu-img resize",
        )
    return member.size
