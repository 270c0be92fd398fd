# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole disk, step by step, and the image file that it becomes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from .bios import GRUB, write_bios
from .bootable import needed
from .esp import write_esp
from .ext4 import write_ext4
from .ids import Ids
from .programs import run
from .root import Root
from .sizes import LUKS_HEADER_BYTES, SECTOR
from .table import plan, write_table


def convert(disk: Path, out: Path, compress: bool) -> None:
    """The image file, under its name only when it is whole. Clusters are written in order, else no two would be equal."""
    part = out.with_name(f"{out.name}.part")
    options = ["-c", "-o", "compression_type=zstd"] if compress else []
    run(
        "write the image",
        "qemu-img",
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-m",
        "8",
        *options,
        str(disk),
        str(part),
    )
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    part.replace(out)


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Watch:
    """How long each step takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        """A step is done."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now


def make(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make the image; with LUKS, what it is encrypted from."""
    watch = Watch()
    ids = Ids(wanted["fingerprint"])
    luks = bool(wanted.get("luks"))
    root = Root(wanted["tar"], int(wanted["epoch"]))
    kernel, initrd = needed(root)
    root.add_folder("boot/efi")
    for module in sorted(GRUB.glob("*.mod")) + sorted(GRUB.glob("*.lst")):
        root.add(f"boot/grub/i386-pc/{module.name}", module.read_bytes())
    total, partitions = plan(
        root.used(list(root.members)), len(root.members), ids, int(wanted.get("size_bytes") or 0), luks
    )
    out = Path(wanted["out"])
    disk = out.with_name("disk.raw")
    watch.lap("read")
    early = (
        f"search.fs_uuid {ids.of('boot' if luks else 'root')} root\n"
        f"set prefix=($root){'' if luks else '/boot'}/grub\nconfigfile $prefix/grub.cfg\n"
    )
    with tempfile.TemporaryDirectory(dir=out.parent or ".", prefix=".disk-") as folder:
        scratch = Path(folder)
        write_table(disk, total, ids, partitions)
        write_bios(disk, partitions["bios"].start, early, scratch)
        write_esp(disk, partitions["esp"], root, ids, wanted.get("vendor") or "debian", early, scratch)
        watch.lap("boot")
    answer: dict[str, Any] = {}
    below = root.below("boot") if luks else []
    names = sorted(set(root.members) - set(below))
    part = partitions["root"]
    if luks:
        boot = partitions["boot"]
        write_ext4(disk, boot.offset, boot.size, "boot", ids.of("boot"), root, below, "boot/")
        plain = out.with_name("root.img")
        with plain.open("wb") as file:
            file.truncate(part.size - LUKS_HEADER_BYTES)
        write_ext4(plain, 0, part.size - LUKS_HEADER_BYTES, "root", ids.of("root"), root, names, "")
        out.with_name("vmlinuz").write_bytes(root.read(kernel))
        out.with_name("initrd.img").write_bytes(root.read(initrd))
        watch.lap("root")
        answer["luks"] = {
            "partition": len(partitions),
            "offset": part.offset,
            "root_bytes": part.size - LUKS_HEADER_BYTES,
            "compress": bool(wanted.get("compress", True)),
        }
    else:
        write_ext4(disk, part.offset, part.size, "root", ids.of("root"), root, names, "")
        watch.lap("root")
        if wanted.get("raw_checksum"):
            answer["raw_sha256"] = sha256(disk)
        convert(disk, out, bool(wanted.get("compress", True)))
        disk.unlink()
        watch.lap("convert")
        answer |= {"sha256": sha256(out), "size_bytes": out.stat().st_size}
        watch.lap("checksum")
    return answer | {
        "virtual_size_bytes": total,
        "sectors": total // SECTOR,
        "used_bytes": root.used(list(root.members)),
        "kernel": kernel.removeprefix("boot/vmlinuz-"),
        "ids": {"disk": ids.of("disk"), "root": ids.of("root"), "boot": ids.of("boot"), "esp": ids.esp},
        "partitions": [
            {
                "number": number,
                "name": one.name,
                "type": one.type,
                "uuid": one.uuid,
                "start": one.start,
                "sectors": one.sectors,
            }
            for number, one in enumerate(partitions.values(), 1)
        ],
        "seconds": watch.seconds,
    }
