# SPDX-License-Identifier: GPL-3.0-or-later
"""What a BIOS starts: GRUB in the first sector, and the rest of it in a partition of its own."""

from __future__ import annotations

import struct
from pathlib import Path

from .programs import DiskError, run
from .sizes import MIB, SECTOR

GRUB = Path("/usr/lib/grub/i386-pc")
# What finds the root file system and starts a kernel from it. All others are beside grub.cfg, for when it is generated anew.
GRUB_MODULES = (
    "biosdisk",
    "part_gpt",
    "ext2",
    "search",
    "search_fs_uuid",
    "search_fs_file",
    "search_label",
    "configfile",
    "normal",
    "linux",
    "boot",
    "echo",
    "test",
    "true",
    "loadenv",
    "minicmd",
    "sleep",
    "reboot",
    "halt",
    "serial",
    "terminal",
    "gzio",
    "all_video",
)


def write_bios(disk: Path, start: int, early: str, scratch: Path) -> None:
    """GRUB for BIOS: its boot sector, and its core in a partition of its own."""
    config = scratch / "early.cfg"
    config.write_text(early, encoding="utf-8")
    image = scratch / "core.img"
    run(
        "make GRUB's core", "grub-mkimage", "--format=i386-pc", "--prefix=/boot/grub", f"--config={config}",
        f"--output={image}", *GRUB_MODULES,
    )  # fmt: skip
    core = bytearray(image.read_bytes())
    if len(core) > MIB:
        raise DiskError(f"GRUB's core has {len(core)} bytes, and its partition has {MIB}")
    boot = bytearray((GRUB / "boot.img").read_bytes()[:440])
    # What grub-install does: where the core begins and goes on, and no trust in the BIOS about the drive it booted from.
    core[0x1F4:0x1FC] = struct.pack("<Q", start + 1)
    boot[0x5C:0x64] = struct.pack("<Q", start)
    boot[0x66:0x68] = b"\x90\x90"
    with disk.open("r+b") as file:
        file.write(boot)
        file.seek(start * SECTOR)
        file.write(core)
