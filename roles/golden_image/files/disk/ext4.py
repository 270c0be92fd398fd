# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems for Linux, made out of files and not mounted."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from .programs import DiskError, last_words
from .root import Root
from .sizes import BLOCK, INODE_RATIO


def write_ext4(
    target: Path, offset: int, size: int, label: str, identity: str, root: Root, names: list[str], top: str
) -> None:
    """A file system with these files, and nothing in it that depends on the builder's kernel or configuration."""
    command = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", "256", "-i", str(INODE_RATIO), "-m", "1", "-L", label, "-U", identity,
        "-O", "^orphan_file,^metadata_csum_seed",
        "-E", f"offset={offset},hash_seed={identity},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        "-d", "-", str(target), str(size // BLOCK),
    ]  # fmt: skip
    # Names are not ASCII everywhere, and libarchive refuses to convert them in the locale C.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(root.epoch)}
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
        ) as made:
            try:
                if made.stdin is not None:
                    root.write(names, top, made.stdin)
                    made.stdin.close()
            except BrokenPipeError:
                # It has said why.
                pass
        log.seek(0)
        said = log.read()
    if made.returncode != 0:
        raise DiskError(f"Cannot fill the file system {label}: {last_words(said)}")
