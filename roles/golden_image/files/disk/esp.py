# SPDX-License-Identifier: GPL-3.0-or-later
"""What UEFI starts: a FAT file system with shim and GRUB."""

from __future__ import annotations

import os
from pathlib import Path

from .bootable import SHIM, SIGNED_GRUB
from .ids import Ids
from .programs import run
from .root import Root
from .sizes import MIB, SECTOR
from .table import Partition

MOK_MANAGERS = ("usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi")


def write_esp(
    disk: Path, part: Partition, root: Root, ids: Ids, vendor: str, early: str, scratch: Path
) -> None:
    """The partition that UEFI starts from: shim and GRUB as signed by the distribution, where a removable disk has them."""
    image = scratch / "esp.img"
    with image.open("wb") as file:
        file.truncate(part.size)
    run(
        "make the EFI file system", "mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-S", str(SECTOR), "-i", ids.esp,
        "-n", "EFI", str(image),
    )  # fmt: skip
    files = {"BOOT/BOOTX64.EFI": root.read(SHIM), "BOOT/grubx64.efi": root.read(SIGNED_GRUB)}
    # It enrols the key that DKMS signs modules with.
    manager = next((name for name in MOK_MANAGERS if root.resolve(name)), None)
    if manager:
        files["BOOT/mmx64.efi"] = root.read(manager)
    files[f"{vendor}/grub.cfg"] = early.encode()
    times = {"SOURCE_DATE_EPOCH": str(root.epoch), "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
    run(
        "fill the EFI file system", "mmd", "-i", str(image), "::EFI", "::EFI/BOOT", f"::EFI/{vendor}", **times
    )
    for name, content in files.items():
        source = scratch / "file"
        source.write_bytes(content)
        os.utime(source, (root.epoch, root.epoch))
        run(
            "fill the EFI file system", "mcopy", "-m", "-i", str(image), str(source), f"::EFI/{name}", **times
        )
    with image.open("rb") as read, disk.open("r+b") as file:
        file.seek(part.offset)
        while chunk := read.read(MIB):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:
                file.seek(len(chunk), os.SEEK_CUR)
