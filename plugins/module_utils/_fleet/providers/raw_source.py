# SPDX-License-Identifier: GPL-3.0-or-later
"""A packed raw disk image on the control machine: what it holds, and its bytes in the packing somebody else can read.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from ..errors import FleetError, InvalidRequest, MissingLibrary

_MAGIC = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gzip",
}
_CHUNK = 4 * 2**20
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Measured:
    """An unpacked disk image: its checksum and its bytes."""

    sha256: str
    size: int


class RawSource:
    """A file with a packed disk image.

    Raises:
        InvalidRequest: there is no such file, or it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                begin = file.read(8)
        except OSError as exc:
            raise InvalidRequest(
                f"the disk image {path} cannot be read: {(exc.strerror or type(exc).__name__).lower()}",
                hint="Give the path of a raw disk image packed by zstd, xz or gzip, on the control machine",
            ) from exc
        found = next((program for magic, program in _MAGIC.items() if begin.startswith(magic)), None)
        if found is None:
            raise InvalidRequest(
                f"{path} is not packed by zstd, xz or gzip",
                hint=f"Convert it with: qemu-img convert -O raw, and pack it with: zstd {path.name}",
            )
        self.program = found

    @cached_property
    def measured(self) -> Measured:
        """What is in it; reads all of it.

        Raises:
            InvalidRequest: it is damaged, or no disk image.
        """
        digest, size = hashlib.sha256(), 0
        with self.path.open("rb") as file, _running([self.program, "-dc"], file) as process:
            stream = _output(process)
            while part := stream.read(_CHUNK):
                digest.update(part)
                size += len(part)
            if process.wait():
                raise InvalidRequest(
                    f"{self.path} is damaged: {self.program} cannot unpack it", hint="Make it anew"
                )
        if not size or size % _SECTOR:
            raise InvalidRequest(
                f"{self.path} holds no disk image: {size} bytes are no whole sectors",
                hint="Give a raw disk image; convert others with: qemu-img convert -O raw",
            )
        return Measured(digest.hexdigest(), size)

    @contextmanager
    def packed_for(self, program: str) -> Iterator[IO[bytes]]:
        """A stream of it that this program can unpack."""
        with ExitStack() as stack:
            stream: IO[bytes] = stack.enter_context(self.path.open("rb"))
            if program != self.program:
                unpacked = stack.enter_context(_running([self.program, "-dc"], stream))
                stream = _output(stack.enter_context(_running([program, "-1"], _output(unpacked))))
            yield stream


@contextmanager
def _running(words: list[str], stdin: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(  # noqa: S603
            words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as exc:
        raise MissingLibrary(
            f"{words[0]} cannot be started here, and the disk image is packed by it",
            hint=f"Install {words[0]} on the control machine",
        ) from exc
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise FleetError("a program without output")
    return process.stdout
