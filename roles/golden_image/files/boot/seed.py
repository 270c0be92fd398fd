# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is told at its first boot: whom to let in, and which host key to show (NoCloud)."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .engine import BootError

# The validation layer's first run is for real machines: its unit is told that this one is where the image was made.
NO_ACCEPTANCE = (
    "test ! -e /var/lib/gpumesh/first-acceptance || cp /etc/machine-id /var/lib/gpumesh/first-acceptance"
)


def make_key(path: Path, comment: str) -> str:
    """A key pair of this one boot; its public half."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.pub").unlink(missing_ok=True)
    ran = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BootError(f"ssh-keygen made no key {path}: {ran.stderr.strip()}")
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii").strip()


def write_seed(folder: Path, firmware: str, keys: list[str], host_key: Path | None) -> None:
    """The two files of NoCloud. The host key is a secret, so the folder is its owner's alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    user: dict[str, Any] = {"ssh_authorized_keys": keys, "bootcmd": [["sh", "-c", NO_ACCEPTANCE]]}
    if host_key:
        user["ssh_keys"] = {
            "ed25519_private": host_key.read_text(encoding="ascii"),
            "ed25519_public": host_key.with_name(f"{host_key.name}.pub").read_text(encoding="ascii").strip(),
        }
    meta = {"instance-id": f"gate-{secrets.token_hex(4)}", "local-hostname": f"gate-{firmware}"}
    for name, text in (
        ("meta-data", json.dumps(meta)),
        ("user-data", f"#cloud-config\n{json.dumps(user, indent=1)}\n"),
    ):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
