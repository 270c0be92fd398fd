# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a watch's samples into a file of their own, to be fetched and removed again: a tenth of the size to carry.

The sampler may be writing meanwhile; half a line at the end is left to whoever reads it.

usage: python3 - NAME < pack.py
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path("/var/lib/gpumesh/mesh-watch")


def main() -> None:
    """Pack, and print the path."""
    source = FOLDER / f"{sys.argv[1]}.jsonl"
    packed = source.with_name(f".{source.name}.gz")
    os.umask(0o077)
    with source.open("rb") as samples, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as archive:
        shutil.copyfileobj(samples, archive)
    print(packed)


if __name__ == "__main__":
    main()
