# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether machines can be run by KVM. luks.py goes by it, too."""

from __future__ import annotations

import fcntl
import os

from .engine import BootError, engine

KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01
# A nested virtual machine may have a /dev/kvm that makes machines which then stand still: the firmware has to come up with it.
TRIAL = r"""
timeout 20 qemu-system-x86_64 -accel "$1" -machine q35 -cpu max -m 256 -display none -monitor none -nic none \
    -serial file:/tmp/said -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd 2>/tmp/failed &
while kill -0 $! 2>/dev/null; do
    ! grep -q BdsDxe /tmp/said 2>/dev/null || { echo BdsDxe; break; }
    [ ! -s /tmp/failed ] || break
    sleep 0.2
done
"""


def kvm_group() -> int | None:
    """The group that may use /dev/kvm, if that works: a device file alone says nothing."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if fcntl.ioctl(device, KVM_GET_API_VERSION, 0) != 12:
            return None
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
        return os.fstat(device).st_gid
    except OSError:
        return None
    finally:
        os.close(device)


def accelerator(name: str, tools: str) -> tuple[str, int | None]:
    """kvm and the group of its device where a firmware comes up with it, else tcg."""
    group = kvm_group()
    if group is None:
        return "tcg", None
    options = ("--rm", "--pull=never", "--network=none", "--device=/dev/kvm")
    try:
        said = engine(name, "run", *options, tools, "sh", "-c", TRIAL, "sh", "kvm", check=False)
    except BootError:
        # Should the engine be unwell, whoever asks it next tells that.
        return "tcg", None
    return ("kvm", group) if "BdsDxe" in said else ("tcg", None)
