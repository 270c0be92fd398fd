# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed disk images: measured, packed anew, and refused where they are none."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import InvalidRequest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.raw_source import (
    Measured,
    RawSource,
)

CONTENT = bytes(range(256)) * 4096
MEASURED = Measured(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def packed(folder: Path, program: str, content: bytes = CONTENT) -> Path:
    path = folder / f"disk.raw.{program}"
    path.write_bytes(subprocess.run([program, "-c"], input=content, capture_output=True, check=True).stdout)
    return path


@pytest.mark.parametrize("program", ["zstd", "xz", "gzip"])
def test_every_packing_is_read(tmp_path: Path, program: str) -> None:
    source = RawSource(packed(tmp_path, program))
    assert (source.program, source.measured) == (program, MEASURED)
    with source.packed_for(program) as stream:
        assert stream.read() == source.path.read_bytes()
    with source.packed_for("gzip") as stream:
        assert gzip.decompress(stream.read()) == CONTENT


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, "zstd")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidRequest, match="is damaged"):
        assert RawSource(path).measured


@pytest.mark.parametrize(("content", "said"), [(b"QFI\xfb", "is not packed by"), (b"", "is not packed by")])
def test_what_is_packed_otherwise_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said):
        RawSource(path)


@pytest.mark.parametrize("content", [b"", b"x" * 513])
def test_what_is_no_disk_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no whole sectors"):
        assert RawSource(packed(tmp_path, "gzip", content)).measured


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: no such file"):
        RawSource(tmp_path / "none")
