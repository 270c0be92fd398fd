# SPDX-License-Identifier: GPL-3.0-or-later
"""An image in the form that a cloud takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .image import sha256
from .programs import DiskError, last_words, run
from .sizes import GIB


def pack(wanted: dict[str, Any]) -> dict[str, Any]:
    """The image in the form that a cloud takes: a raw disk in a tar for Google, a packed raw disk for others."""
    image, out = Path(wanted["image"]), Path(wanted.get("gcp_tar") or wanted["raw"])
    size = json.loads(run("read the image", "qemu-img", "info", "--output=json", str(image)))["virtual-size"]
    if wanted.get("gcp_tar") and size % GIB:
        raise DiskError(f"{image} has {size} bytes, and Google takes whole GiB")
    with tempfile.TemporaryDirectory(dir=out.parent or ".", prefix=".pack-") as folder:
        # Another run may be packing the same; whichever ends last, the file is whole.
        disk, part = Path(folder) / "disk.raw", Path(folder) / f"{out.name}.part"
        run("unpack the image", "qemu-img", "convert", "-O", "raw", str(image), str(disk))
        if wanted.get("gcp_tar"):
            # https://cloud.google.com/compute/docs/import/import-existing-image: the format, the name, and sparse.
            run(
                "pack the disk", "tar", "--format=oldgnu", "--sparse", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644",
                "--mtime=@0", f"--directory={folder}", "--use-compress-program=pigz --no-name", "--create", f"--file={part}", "disk.raw",
            )  # fmt: skip
        elif out.suffix in (".zst", ".xz"):
            packer = {".zst": "zstd", ".xz": "xz"}[out.suffix]
            with part.open("wb") as file:
                done = subprocess.run(
                    [packer, "-T0", "-c", str(disk)], stdout=file, stderr=subprocess.PIPE, check=False
                )
            if done.returncode != 0:
                raise DiskError(f"Cannot pack the disk: {last_words(done.stderr.decode(errors='replace'))}")
        else:
            shutil.move(disk, part)
        part.replace(out)
    return {
        "out": str(out),
        "virtual_size_bytes": size,
        "size_bytes": out.stat().st_size,
        "sha256": sha256(out),
    }
