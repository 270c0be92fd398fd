# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack what `gpu-acceptance` consists of into one archive: the same files make the same archive, byte for byte.

Runs on the control machine. Of the engine it takes what the suite imports, and nothing else.

usage: python3 bundle.py COLLECTION [FILE]     prints {"digest": ..., "version": ..., "files": ...}
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

UTILS = Path("plugins/module_utils")
WHOLE = (
    UTILS / "_acceptance",
    Path("roles/validation/files/workloads"),
    Path("roles/validation/files/report"),
)
BESIDE = (Path("roles/validation/files/last.py"),)


def main() -> None:
    """Pack, and print what it is."""
    root = Path(sys.argv[1])
    files = collect(root)
    digest = digest_of(files)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_bytes(archive(files))
    print(json.dumps({"digest": digest, "version": version(root), "files": len(files)}))


def collect(root: Path) -> dict[str, bytes]:
    """Every file, by its path in the collection."""
    paths = set(BESIDE)
    for folder in WHOLE:
        paths |= {
            path.relative_to(root)
            for path in (root / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        }
    paths |= imported(root, [path for path in paths if path.suffix == ".py" and UTILS in path.parents])
    found = {path.as_posix(): (root / path).read_bytes() for path in sorted(paths)}
    # Where the suite looks for the version that it tells in its documents.
    return found | {"galaxy.yml": f"version: {version(root)}\n".encode()}


def imported(root: Path, start: list[Path]) -> set[Path]:
    """The files that these import, and those import, with the packages that they are in."""
    found: set[Path] = set()
    left = list(start)
    while left:
        path = left.pop()
        for other in _imports(root, path):
            if other not in found:
                found.add(other)
                left.append(other)
    return found


def _imports(root: Path, path: Path) -> Iterator[Path]:
    """What one file imports by relative names; nothing else of the collection can be imported on a machine."""
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1]
        target = base.joinpath(*node.module.split(".")) if node.module else base
        for candidate in (target, *(target / name.name for name in node.names)):
            if (root / candidate.with_suffix(".py")).is_file():
                yield candidate.with_suffix(".py")
                yield from _packages(root, candidate)
            elif (root / candidate / "__init__.py").is_file():
                yield candidate / "__init__.py"
                yield from _packages(root, candidate)


def _packages(root: Path, path: Path) -> Iterator[Path]:
    """The files that make the folders above a module packages."""
    for folder in path.parents:
        if folder == UTILS:
            return
        if (root / folder / "__init__.py").is_file():
            yield folder / "__init__.py"


def version(root: Path) -> str:
    """That of the collection, in a clone and where it is installed."""
    for name, pattern in (("MANIFEST.json", r'"version": "([^"]+)"'), ("galaxy.yml", r"(?m)^version: (\S+)")):
        path = root / name
        if path.is_file() and (found := re.search(pattern, path.read_text(encoding="utf-8"))):
            return found[1]
    return ""


def digest_of(files: dict[str, bytes]) -> str:
    """A name for these contents."""
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        total.update(f"{path}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def archive(files: dict[str, bytes]) -> bytes:
    """A tar without anything that depends on when and where it was made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)


if __name__ == "__main__":
    main()
