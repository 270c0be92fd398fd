# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels go from build to build, whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = (Path(__file__).parents[4] / "roles/golden_image/files/uv_cache.sh").read_text(encoding="utf-8")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


def cache(tmp_path: Path, name: str, wheel: str) -> Path:
    """What uv has after a build: wheels, how they are found, and answers of an index."""
    folder = tmp_path / name / "cache"
    for path in (f"archive-v0/{wheel}/a.py", f"wheels-v5/pypi/{wheel}/1.http", "simple-v16/pypi/a.rkyv", "CACHEDIR.TAG"):  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(wheel)
    return folder


def run(direction: str, mounted: Path, folder: Path) -> str:
    command = ["sh", "-euc", SCRIPT, "uv-cache", direction, str(mounted), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {"CACHEDIR.TAG", "archive-v0/one/a.py", "wheels-v5/pypi/one/1.http"}


def test_what_one_build_has_fetched_the_next_one_has(tmp_path: Path, mounted: Path) -> None:
    assert run("keep", mounted, cache(tmp_path, "first", "one")) == "kept"
    second = tmp_path / "second" / "cache"
    assert run("bring", mounted, second) == "brought"
    assert files(second) == WHOLE
    assert second.stat().st_mode & 0o777 == 0o700


def test_the_last_build_counts_and_nothing_is_left_over(tmp_path: Path, mounted: Path) -> None:
    run("keep", mounted, cache(tmp_path, "first", "two"))
    run("keep", mounted, cache(tmp_path, "second", "one"))
    assert files(mounted / "current") == WHOLE
    assert os.listdir(mounted) == ["current"]


def test_a_layer_that_has_a_cache_keeps_it(tmp_path: Path, mounted: Path) -> None:
    run("keep", mounted, cache(tmp_path, "first", "one"))
    there = cache(tmp_path, "second", "two")
    before = files(there)
    assert run("bring", mounted, there) == ""
    assert files(there) == before


def test_where_there_is_nothing_nothing_is_made(tmp_path: Path, mounted: Path) -> None:
    assert run("bring", mounted, tmp_path / "cache") == ""
    assert run("keep", mounted, tmp_path / "cache") == ""
    assert not (tmp_path / "cache").exists()
    assert os.listdir(mounted) == []


def test_what_killed_builds_left_goes_after_a_day(tmp_path: Path, mounted: Path) -> None:
    for name in (".new-old", ".gone-old", ".new-young"):
        (mounted / name).mkdir()
    for name in (".new-old", ".gone-old"):
        os.utime(mounted / name, (1, 1))
    run("keep", mounted, cache(tmp_path, "first", "one"))
    assert sorted(os.listdir(mounted)) == [".new-young", "current"]
    assert files(mounted / "current") == WHOLE
