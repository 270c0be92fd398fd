# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a trace of the builder or a secret is left."""

from __future__ import annotations

import base64
import hashlib
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
    r"(?:(?:https?|all|ftp)[_-]?proxy|Acquire::[\w:]*Proxy(?:::[\w.-]+)?(?![\w.:-])|(?<![\w-])Proxy(?=[ \t]+\"))"
    r"[\"']?[ \t]*[=:]?[ \t]*[\"']?([\w\[][^\s\"',;}]*[.:][^\s\"',;}]*)",
    re.IGNORECASE,
)
"""As the shell's variables, systemd, apt in both of its forms, and Docker's JSON have it; with its address."""
PROXY_FILES = (
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d/*",
    "etc/default/docker",
    "etc/docker/daemon.json",
    "etc/environment",
    "etc/environment.d/*",
    "etc/profile.d/*",
    "etc/systemd/system.conf.d/*",
    "etc/systemd/system/*.d/*.conf",
    "root/.docker/config.json",
)
SMALL = 1 << 20


def look(seal: Seal) -> list[str]:
    """What must not be in an image, one sentence each."""
    found = []
    for name in ("etc", "home", "root", "var/lib", "usr/local/bin", "usr/local/lib/gpumesh", "opt/gpumesh"):
        for path in small_files(seal.root / name):
            content = path.read_bytes()
            shown = f"/{path.relative_to(seal.root)}"
            if (
                PRIVATE_KEY.search(content)
                and path.suffix not in (".py", ".pyc", ".md")
                and not is_from_wheel(path, content)
            ):
                found.append(
                    f"{shown} holds a private key, which every machine of the image would share. Remove it in the layer that puts it there"
                )
            if BUILD_MARK in content:
                found.append(
                    f"{shown} names the build ({BUILD_MARK.decode()}). Remove it in the layer that puts it there"
                )
    declared = {(seal.wanted.get("proxy") or "").rstrip("/")}
    for path in seal.find(*PROXY_FILES):
        if path.is_file() and set(proxies(path.read_text(encoding="utf-8", errors="replace"))) - declared:
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


def is_from_wheel(path: Path, content: bytes) -> bool:
    """Whether a Python distribution brought this very file, so that everybody has it: some have keys for their own tests."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    for folder in path.parents:
        if folder.name in ("site-packages", "dist-packages"):
            line = f"{path.relative_to(folder).as_posix()},sha256={digest},"
            records = folder.glob("*.dist-info/RECORD")
            return any(line in record.read_text(encoding="utf-8", errors="replace") for record in records)
    return False


def proxies(text: str) -> list[str]:
    """The addresses of the proxies that a file names, but for its comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "//"))]
    return [found[1].rstrip("/") for line in lines for found in PROXY.finditer(line)]


def small_files(top: Path) -> Iterator[Path]:
    """Regular files of which all can be read quickly."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and path.stat().st_size < SMALL:
                yield path
