# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled Python, which has to go with the time that its source gets."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from .system import Seal


def bytecode(seal: Seal) -> None:
    """Compiled Python names the time of its source. That becomes the image's, so the compiled file has to say the same."""
    epoch = seal.wanted["epoch"]
    for top in ("usr/lib/python3", "usr/local", "opt", "usr/share"):
        for folder, _folders, files in os.walk(seal.root / top):
            if not folder.endswith("/__pycache__"):
                continue
            for name in files:
                source = Path(folder).parent / f"{name.partition('.')[0]}.py"
                if not name.endswith(".pyc") or not source.is_file():
                    continue
                if source.stat().st_mtime <= epoch:
                    continue
                with open(os.path.join(folder, name), "r+b") as compiled:
                    head = compiled.read(12)
                    # Flags other than 0: the file goes by the content of its source.
                    if len(head) == 12 and head[4:8] == bytes(4) and head[8:12] != struct.pack("<I", epoch):
                        compiled.seek(8)
                        compiled.write(struct.pack("<I", epoch & 0xFFFFFFFF))
