# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a disk that boots with BIOS and UEFI out of the tar of a root file system. Nothing is mounted, and root is not needed.

It runs in the image of tools. The same tar gives the same disk, bit for bit: all ids follow from the fingerprint, all times
are the epoch or older, and files are written in the order of their names.

usage: python3 disk '{"tar": "root.tar", "out": "disk.qcow2", "fingerprint": "0123", "epoch": 1764000000, ...}'
       python3 disk '{"image": "disk.qcow2", "gcp_tar": "disk.tar.gz"}'
       python3 disk '{"image": "disk.qcow2", "raw": "disk.raw.zst"}'
"""
