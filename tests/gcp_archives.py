# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives with a disk for tests of images: small files, though the disk in them has whole gibibytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from pathlib import Path

GIB = 1 << 30
GRAIN = 256 * 1024


def archive(folder: Path, name: str = "disk.tar.gz", *, grains: int = 0, seed: int = 1) -> Path:
    """An archive of a sparse disk of 1 GiB.

    Args:
        grains: how many times 256 KiB it is large at least, with content that does not compress.
        seed: of that content; other seeds give other archives of the same size.
    """
    noise = random.Random(seed).randbytes(max(grains * GRAIN, 16))
    member = tarfile.TarInfo("disk.raw")
    # The form GNU tar gives a sparse file: one piece of data at its beginning, and a hole up to 1 GiB.
    size = len(noise) + -len(noise) % 512
    member.type, member.size = tarfile.GNUTYPE_SPARSE, size
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % size
    header[483:495] = b"%011o\0" % GIB
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    body = bytes(header) + noise.ljust(size, b"\0") + bytes(1024)
    path = folder / name
    with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        packed.write(body)
    return path


def plain(folder: Path, name: str, member: str = "disk.raw", size: int = 1024) -> Path:
    """An archive with a file of that name and size, which need be no disk."""
    path, info = folder / name, tarfile.TarInfo(member)
    info.size = size
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(info, io.BytesIO(bytes(size)))
    return path


def sha256(path: Path) -> str:
    """Its sum."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
