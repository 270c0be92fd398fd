# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that images of Compute Engine are made from."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_archive
from ansible_collections.gpumesh.fleet.tests.gcp_archives import GIB, archive, plain


def test_an_archive_is_summed_up(tmp_path: Path) -> None:
    path = archive(tmp_path, grains=5)
    content = path.read_bytes()
    read = gcp_archive.read(path)
    assert (read.size, read.disk_gib) == (len(content), 1)
    assert read.sha256 == hashlib.sha256(content).hexdigest()
    assert base64.b64decode(read.md5) == hashlib.md5(content, usedforsecurity=False).digest()


def test_the_same_disk_gives_the_same_archive(tmp_path: Path) -> None:
    one, two = archive(tmp_path, "one.tar.gz"), archive(tmp_path, "two.tar.gz")
    assert gcp_archive.read(one).sha256 == gcp_archive.read(two).sha256


def test_an_archive_of_gnu_tar_is_read(tmp_path: Path) -> None:
    """As Google's page says to make it; the disk has more holes than the header of a sparse file has room for."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        for place in range(40):
            file.seek(place << 20)
            file.write(b"x" * 4096)
        file.truncate(2 * GIB)
    command = ["tar", "--format=oldgnu", "-Sczf", "disk.tar.gz", "disk.raw"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert gcp_archive.read(tmp_path / "disk.tar.gz").disk_gib == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"no archive at all", "is no tar archive"),
        (b"\x1f\x8b\x08\x00cut", "is no tar archive"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "disk.tar.gz"
    path.write_bytes(content)
    with pytest.raises(errors.InvalidRequest, match=said) as refused:
        gcp_archive.read(path)
    assert "tar --format=oldgnu -Sczf" in str(refused.value)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    for path, said in (
        (plain(tmp_path, "a.tar.gz", "./disk.raw", 1024), "begins with './disk.raw'"),
        (plain(tmp_path, "b.tar.gz", "disk.raw", 1024), "1024 bytes"),
        (plain(tmp_path, "c.tar.gz", "disk.raw", 0), "0 bytes"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(errors.InvalidRequest, match=said):
            gcp_archive.read(path)
