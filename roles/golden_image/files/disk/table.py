# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk and its partitions: how large they are, and the table that says where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .ids import Ids
from .programs import DiskError, run
from .sizes import GIB, INODE_RATIO, LUKS_HEADER_BYTES, MIB, SECTOR

ROOM = 768 * MIB
ESP_BYTES = 128 * MIB
BOOT_BYTES = GIB
BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"


@dataclass(frozen=True)
class Partition:
    """One partition; numbers are in sectors."""

    name: str
    type: str
    start: int
    sectors: int
    uuid: str

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.start * SECTOR

    @property
    def size(self) -> int:
        """How large it is, in bytes."""
        return self.sectors * SECTOR


def plan(used: int, files: int, ids: Ids, wanted_bytes: int, luks: bool) -> tuple[int, dict[str, Partition]]:
    """How large the disk is, and its partitions. The last one can grow."""
    fixed = 2 * MIB + ESP_BYTES + (BOOT_BYTES + LUKS_HEADER_BYTES if luks else 0)
    least = max(int(used * 1.25) + ROOM, int(files * INODE_RATIO * 1.25)) + (fixed if luks else 0)
    total = wanted_bytes or -(-least // GIB) * GIB
    if total % GIB:
        raise DiskError(
            f"The disk is to have {total} bytes, which are no whole GiB. Some clouds take nothing else"
        )
    if total < least:
        raise DiskError(
            f"The disk is to have {total // GIB} GiB, and its content and some room need {-(-least // GIB)}. "
            "Raise golden_image_size_gb, or leave it 0"
        )
    sizes = [("bios", BIOS_TYPE, MIB), ("esp", ESP_TYPE, ESP_BYTES)]
    if luks:
        sizes.append(("boot", LINUX_TYPE, BOOT_BYTES))
    start = MIB
    partitions = {}
    # The last MiB holds the second copy of the table.
    sizes.append(("root", ROOT_TYPE, total - 2 * MIB - sum(size for _name, _type, size in sizes)))
    for number, (name, kind, size) in enumerate(sizes, 1):
        partitions[name] = Partition(name, kind, start // SECTOR, size // SECTOR, ids.of(f"part{number}"))
        start += size
    return total, partitions


def write_table(disk: Path, total: int, ids: Ids, partitions: dict[str, Partition]) -> None:
    """An empty disk with its table of partitions."""
    with disk.open("wb") as file:
        file.truncate(total)
    rows = [
        f"start={part.start}, size={part.sectors}, type={part.type}, uuid={part.uuid}, name={part.name}"
        for part in partitions.values()
    ]
    head = ["label: gpt", f"label-id: {ids.of('disk')}", "first-lba: 34"]
    run("write the table of partitions", "sfdisk", "--quiet", str(disk), stdin="\n".join([*head, *rows, ""]))
