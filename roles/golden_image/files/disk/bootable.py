# SPDX-License-Identifier: GPL-3.0-or-later
"""What a root file system has to have, or its disk would not boot."""

from __future__ import annotations

from .programs import DiskError
from .root import Root

SHIM = "usr/lib/shim/shimx64.efi.signed"
SIGNED_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"


def needed(root: Root) -> tuple[str, str]:
    """Refuse what would not boot, and answer the newest kernel and its initrd."""
    missing = []
    kernels = [
        (kernel, initrd)
        for kernel in root.find(r"boot/vmlinuz-[^/]+")
        if root.resolve(initrd := kernel.replace("boot/vmlinuz-", "boot/initrd.img-"))
    ]
    if not root.find(r"boot/vmlinuz-[^/]+"):
        missing.append("a kernel (boot/vmlinuz-*)")
    elif not kernels:
        missing.append("an initrd for its kernel (boot/initrd.img-*)")
    for name, what in (
        (SHIM, "shim"),
        (SIGNED_GRUB, "GRUB's signed image"),
        ("boot/grub/grub.cfg", "GRUB's menu"),
    ):
        if not root.resolve(name):
            missing.append(f"{what} ({name})")
    if missing:
        raise DiskError(
            f"{root.path} would not boot, it lacks {', '.join(missing)}. Its lowest layer installs the packages, and sealing "
            "writes the menu; see which of them a layer has removed"
        )
    return kernels[-1]
