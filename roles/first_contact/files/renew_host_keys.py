# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a machine's further SSH host keys anew, each of a kind it has: they are as old as the one that was replaced.

Prints the kinds as a JSON list. Each key is in its place before the next one is made. The public half goes first: a
server that finds the halves of a key not to match leaves that key out, and has the others still.

usage: python3 - DIRECTORY < renew_host_keys.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KINDS = ("rsa", "ecdsa")


def renew(directory: Path, kind: str) -> None:
    """Replace one key."""
    key = directory / f"ssh_host_{kind}_key"
    fresh = directory / f"gpumesh_next_host_{kind}_key"
    for left in (fresh, fresh.with_suffix(".pub")):
        left.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(fresh)], check=True, timeout=120
    )
    fresh.with_suffix(".pub").replace(key.with_suffix(".pub"))
    fresh.replace(key)


def main() -> None:
    """Renew those that are there."""
    directory = Path(sys.argv[1])
    kinds = [kind for kind in KINDS if (directory / f"ssh_host_{kind}_key").exists()]
    for kind in kinds:
        renew(directory, kind)
    print(json.dumps(kinds))


if __name__ == "__main__":
    main()
