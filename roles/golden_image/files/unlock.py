# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a machine with an encrypted root its passphrase over SSH, as its owner does it, for the gate that boots the image.

It is run again and again until the initramfs answers. The key to log in with is the operator's own: one of
golden_image_luks_unlock_keys, from the file named by `key`, the SSH agent or ~/.ssh. The passphrase goes through standard input.

usage: BOOT_ADDRESS=127.0.0.1 BOOT_PORT=2222 python3 unlock.py '{"passphrase_file": "~/passphrase", "host_key": "ssh-ed25519 AAAA"}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "unlock"


def main() -> int:
    """Give it."""
    wanted = json.loads(sys.argv[1])
    passphrase = (
        Path(wanted["passphrase_file"]).expanduser().read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    )
    with tempfile.NamedTemporaryFile("w", prefix="gpumesh-unlock-") as known:
        known.write(f"{NAME} {' '.join(wanted['host_key'].split()[:2])}\n")
        known.flush()
        options = [
            f"UserKnownHostsFile={known.name}",
            f"HostKeyAlias={NAME}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
        ]
        if wanted.get("key"):
            options += [f"IdentityFile={Path(wanted['key']).expanduser()}", "IdentitiesOnly=yes"]
        done = subprocess.run(
            [
                *("ssh", "-p", os.environ["BOOT_PORT"]),
                *(word for option in options for word in ("-o", option)),
                f"root@{os.environ['BOOT_ADDRESS']}",
            ],
            input=passphrase,
            check=False,
            timeout=300,
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
