# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack one of the programs that are folders into one file that Python runs, and print that as base64.

It is for a machine on which no folder can be mounted, and to which Ansible hands text alone.

usage: python3 zipped.py seal | ssh MACHINE 'base64 --decode > /run/seal.pyz; python3 /run/seal.pyz ...'
"""

from __future__ import annotations

import base64
import io
import sys
import zipapp
from pathlib import Path


def zipped(name: str) -> bytes:
    """The program of this name: its Python files, and an entry that calls its main.main."""
    packed = io.BytesIO()
    zipapp.create_archive(
        Path(__file__).parent,
        packed,
        main=f"{name}.main:main",
        filter=lambda path: path.parts[0] == name and path.suffix == ".py",
    )
    return packed.getvalue()


if __name__ == "__main__":
    print(base64.b64encode(zipped(sys.argv[1])).decode())
