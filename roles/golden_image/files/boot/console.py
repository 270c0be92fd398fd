# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says on its serial console."""

from __future__ import annotations

import re
from pathlib import Path

# What a console says when nothing more will come of it.
LOST = re.compile(
    r"Kernel panic|Gave up waiting for root|\(initramfs\) *$|grub rescue>|No bootable device|^Boot failed|"
    r"You are in emergency mode|BdsDxe: failed to load|error: no such (?:device|partition)",
    re.MULTILINE,
)
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])|\r")
HOST_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----\n(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
PUBLIC_KEY = re.compile(r"(?:ssh-|ecdsa-)\S+ [A-Za-z0-9+/=]{40,}")


def read_console(path: Path) -> str:
    """What the serial console has said, without its colours."""
    try:
        return ESCAPES.sub("", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def keys_on(console: str) -> list[str]:
    """The host keys that cloud-init prints on the console: all of them, or none while it is at it."""
    found = HOST_KEYS.search(console)
    return PUBLIC_KEY.findall(found[1]) if found else []
