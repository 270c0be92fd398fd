# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system that is sealed, and how it is changed."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Refusal(Exception):
    """It cannot be sealed; one sentence."""


@dataclass
class Seal:
    """One file system that is sealed."""

    root: Path
    wanted: dict[str, Any]
    removed: int = 0
    # The public half of the key that the initramfs of an encrypted root shows at the first boot.
    unlock_host_key: str = ""

    def find(self, *patterns: str) -> Iterator[Path]:
        """Paths by patterns, in order; hidden ones, too, and links that lead nowhere."""
        for pattern in patterns:
            for name in sorted(glob.glob(pattern, root_dir=self.root, include_hidden=True)):
                yield self.root / name

    def remove(self, *patterns: str) -> None:
        """Remove files and folders."""
        for path in self.find(*patterns):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            self.removed += 1

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write one file, with its folders."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def link(self, name: str, target: str) -> None:
        """Make one link."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def text(self, name: str) -> str:
        """What is in a file; nothing where there is none."""
        try:
            return (self.root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def homes(self) -> list[Path]:
        """The home folders that are there."""
        return [path for path in self.find("root", "home/*") if path.is_dir() and not path.is_symlink()]
