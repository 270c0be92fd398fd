# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a trace of the builder or a secret is left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .system import Seal

# What may be in root's home: files of the package base-files, and the empty folders that others make.
AT_HOME = {".bashrc", ".profile", ".bash_logout"}
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
BUILD_MARK = b"gpumesh.image.build"
PROXY = re.compile(
    r"^\s*(?:Acquire::\S*Proxy|(?:export\s+)?(?:https?|all|ftp)_proxy\s*=)", re.IGNORECASE | re.MULTILINE
)
SMALL = 1 << 20


def look(seal: Seal) -> list[str]:
    """What must not be in an image, one sentence each."""
    found = []
    for name in ("etc", "home", "root", "var/lib", "usr/local/bin", "usr/local/lib/gpumesh", "opt/gpumesh"):
        for path in small_files(seal.root / name):
            content = path.read_bytes()
            shown = f"/{path.relative_to(seal.root)}"
            if PRIVATE_KEY.search(content) and path.suffix not in (".py", ".pyc", ".md"):
                found.append(
                    f"{shown} holds a private key, which every machine of the image would share. Remove it in the layer that puts it there"
                )
            if BUILD_MARK in content:
                found.append(
                    f"{shown} names the build ({BUILD_MARK.decode()}). Remove it in the layer that puts it there"
                )
    proxy = seal.wanted.get("proxy") or None
    for path in seal.find(
        "etc/apt/apt.conf",
        "etc/apt/apt.conf.d/*",
        "etc/environment",
        "etc/environment.d/*",
        "etc/profile.d/*",
        "etc/systemd/system/*.d/*.conf",
        "etc/default/docker",
        "root/.docker/config.json",
    ):
        if (
            path.is_file()
            and PROXY.search(text := path.read_text(encoding="utf-8", errors="replace"))
            and (proxy is None or proxy not in text)
        ):
            found.append(
                f"/{path.relative_to(seal.root)} names a proxy, which is the builder's and not the machine's. "
                "Give it to the build with golden_image_apt_proxy, or declare it for the machines with base_apt_proxy"
            )
    found += [
        f"/{path.relative_to(seal.root)} was left in root's home. Remove it in the layer that puts it there"
        for path in seal.find("root/*")
        if path.name not in AT_HOME
    ]
    found += [
        f"/{path.relative_to(seal.root)} lets a key in that is not the machine's own"
        for path in seal.find(
            "home/*/.ssh/authorized_keys*", "root/.ssh/authorized_keys*", "etc/ssh/authorized_keys.d/*"
        )
    ]
    for line in seal.text("etc/shadow").splitlines():
        words = line.split(":")
        if len(words) > 1 and words[1].startswith("$") and words[0] not in seal.wanted.get("passwords", []):
            found.append(
                f"The account {words[0]} has a password, which every machine of the image would share. "
                "Set it on the machines, not in the image"
            )
    return found


def small_files(top: Path) -> Iterator[Path]:
    """Regular files of which all can be read quickly."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and path.stat().st_size < SMALL:
                yield path
