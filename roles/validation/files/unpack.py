# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a version of `gpu-acceptance` into its folder, let the link point to it, and take older ones away but one.

At no moment is there half a version, nor none: a run that is going on keeps the files it was started from.

usage: python3 - DIGEST [ARCHIVE] < unpack.py     prints {"changed": ..., "removed": [...]}
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

HOME = Path("/opt/gpumesh/acceptance")
KEPT = 2


def main() -> None:
    """Install, switch, prune."""
    digest, archive = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    os.umask(0o022)
    changed = False
    if archive:
        unpack(archive, HOME / "versions" / digest)
        archive.unlink()
        changed = True
    if not (HOME / "versions" / digest).is_dir():
        sys.exit(f"{HOME}/versions/{digest} is not there")
    changed |= switch(digest)
    removed = prune(digest)
    print(json.dumps({"changed": changed or bool(removed), "removed": removed}))


def unpack(archive: Path, folder: Path) -> None:
    """Next to its place first, so that its name stands for a whole version."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        # There is nothing but files in it; the filters of extractall are not in the Python of every distribution.
        with tarfile.open(archive) as tar:
            for entry in tar:
                content, path = tar.extractfile(entry), new / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read() if content else b"")
        new.chmod(0o755)
        os.sync()
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def switch(digest: str) -> bool:
    """Let `current` point to a version; whether it did not before."""
    link, target = HOME / "current", f"versions/{digest}"
    if link.is_symlink() and os.readlink(link) == target:
        return False
    new = HOME / f".current.{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    return True


def prune(digest: str) -> list[str]:
    """Keep this one and the newest of the others, which is the way back."""
    others = [
        path
        for path in (HOME / "versions").iterdir()
        if path.is_dir() and path.name != digest and not path.name.startswith(".")
    ]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT - 1 :]:
        shutil.rmtree(path)
    return sorted(path.name for path in others[KEPT - 1 :])


if __name__ == "__main__":
    main()
