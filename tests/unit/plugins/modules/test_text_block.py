# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that keeps a block: links, permissions, files that cannot be replaced, check mode."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import text_block

from tests.module_runner import run_module

NAME = "gpumesh minerals"
BLOCK = "# gpumesh minerals begin\nInclude x\n# gpumesh minerals end\n"


def run(path: Path, /, **params: Any) -> dict[str, Any]:
    return run_module(text_block.main, path=str(path), name=NAME, content="Include x", **params)


def test_a_block_is_placed_once_and_taken_out_again(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"\xff foreign\r\nlast line without an end")
    file.chmod(0o640)
    assert run(file)["changed"]
    assert not run(file)["changed"]
    assert file.read_bytes().startswith(
        b"\xff foreign\r\nlast line without an end\n# gpumesh minerals begin\n"
    )
    assert file.stat().st_mode & 0o777 == 0o640
    assert run(file, state="absent")["changed"]
    assert file.read_bytes() == b"\xff foreign\r\nlast line without an end"
    assert not run(file, state="absent")["changed"]


def test_check_mode_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "config"
    predicted = run(file, check=True)
    assert not file.parent.exists()
    done = run(file)
    assert (predicted["changed"], predicted["diff"]) == (True, done["diff"])
    removal = run(file, state="absent", check=True)
    assert removal["changed"] and file.exists()


def test_a_file_that_is_made_is_private_and_goes_with_its_block(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "config"
    run(file, place="top", mode="0600", directory_mode="0700")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert run(file, state="absent")["changed"]
    assert not file.exists() and file.parent.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "config", tmp_path / "config"
    real.parent.mkdir()
    real.write_text("Host nas\n")
    link.symlink_to("dotfiles/config")
    assert run(link, place="top")["path"] == str(real)
    assert os.readlink(link) == "dotfiles/config"
    assert real.read_text() == BLOCK + "Host nas\n"


def test_a_file_that_is_mounted_by_itself_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker mounts /etc/hosts, so the kernel refuses to replace it."""
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n")
    inode = file.stat().st_ino

    def busy(*_paths: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    assert run(file)["changed"]
    assert file.read_text() == "127.0.0.1 localhost\n" + BLOCK
    assert file.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_block_is_told_with_its_file_and_left(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# gpumesh minerals begin\n10.0.0.1 nas\n")
    result = run(file)
    assert result["failed"]
    assert result["msg"].startswith(f"{file} was left as it is: '# gpumesh minerals begin' is on line 1 and")
    assert file.read_text() == "# gpumesh minerals begin\n10.0.0.1 nas\n"


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    assert "cannot be kept: Is a directory" in run(tmp_path)["msg"]
