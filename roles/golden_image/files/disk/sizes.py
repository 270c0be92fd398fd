# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes in bytes, where more than one file goes by them."""

from __future__ import annotations

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 4096
# One inode for so much of the disk.
INODE_RATIO = 16384
LUKS_HEADER_BYTES = 16 * MIB
