# SPDX-License-Identifier: GPL-3.0-or-later
"""The sealed file system as a tar. Nothing of this program is in it: it lies in /run, of which nothing is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .system import Seal

# Kernel file systems and what is made at boot. The container engine mounts its own three files over those of /etc.
LEFT_OUT = ("dev/*", "proc/*", "run/*", "sys/*", "tmp/*", "etc/hostname", "etc/hosts", "etc/resolv.conf")
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"


def archive(seal: Seal, side: Path = Path("/run/gpumesh-seal")) -> None:
    """All of it to standard output: sorted, and nothing newer than the image. The engine's own export could do neither, and it
    would have the engine's empty files in place of three of ours."""
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir(parents=True)
    (side / "hosts").write_text(HOSTS, encoding="utf-8")
    (side / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    subprocess.run(
        [
            "tar", "--create", "--file=-", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs",
            "--xattrs-include=security.capability", "--clamp-mtime", f"--mtime=@{seal.wanted['epoch']}",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--anchored",
            *(f"--exclude={name}" for name in LEFT_OUT), f"--transform=flags=r;s,^{side.name}/,etc/,",
            f"--directory={seal.root}", *sorted(set(os.listdir(seal.root)) - {".dockerenv"}),
            f"--directory={side.parent}", f"{side.name}/hosts", f"{side.name}/resolv.conf",
        ],
        check=True,
    )  # fmt: skip
