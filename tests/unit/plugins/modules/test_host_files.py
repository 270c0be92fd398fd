# SPDX-License-Identifier: GPL-3.0-or-later
"""Several files are installed together, or none of them."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import host_files

from tests.module_runner import run_module

OWNER = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


def file(path: Path, content: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "content": content, **OWNER, **more}


def test_files_are_written_once(tmp_path: Path) -> None:
    wanted = [file(tmp_path / "deep" / "a", "one\n"), file(tmp_path / "b", "two\n", mode="0600")]
    first = run_module(host_files.main, files=wanted)
    assert first["changed_files"] == [str(tmp_path / "deep" / "a"), str(tmp_path / "b")]
    assert (tmp_path / "deep" / "a").read_text() == "one\n"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    second = run_module(host_files.main, files=wanted)
    assert (second["changed"], second["changed_files"], second["diff"]) == (False, [], [])


def test_folders_that_were_missing_are_open_to_readers_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        run_module(host_files.main, files=[file(tmp_path / "there" / "one" / "two" / "a", "text\n")])
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("there", "there/one", "there/one/two")]
    assert modes == [0o700, 0o755, 0o755]


def test_check_mode_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    wanted = [file(tmp_path / "a", "new\n")]
    predicted = run_module(host_files.main, check=True, files=wanted)
    assert not (tmp_path / "a").exists()
    done = run_module(host_files.main, files=wanted)
    assert predicted["diff"] == done["diff"]
    assert predicted["changed"] is done["changed"] is True


def test_a_failed_check_puts_every_file_back(tmp_path: Path) -> None:
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.write_text("before\n")
    old.chmod(0o640)
    link.symlink_to("somewhere")
    wanted = [file(old, "after\n"), file(new, "after\n"), file(link, "after\n")]
    result = run_module(
        host_files.main, files=wanted, validate=[["true"], ["sh", "-c", "echo no good >&2; exit 1"]]
    )
    assert result["failed"]
    assert "no good" in result["msg"]
    assert old.read_text() == "before\n"
    assert old.stat().st_mode & 0o777 == 0o640
    assert not new.exists()
    assert os.readlink(link) == "somewhere"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old"]


def test_the_check_sees_the_new_files_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    result = run_module(
        host_files.main, files=[file(path, "right\n")], validate=[["grep", "-q", "right", str(path)]]
    )
    assert result["changed"]


def test_a_link_replaces_a_file_and_a_file_a_link(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("file\n")
    assert run_module(host_files.main, files=[{"path": str(path), "link": "target"}])["changed"]
    assert os.readlink(path) == "target"
    assert not run_module(host_files.main, files=[{"path": str(path), "link": "target"}])["changed"]
    assert run_module(host_files.main, files=[file(path, "file\n")])["changed"]
    assert not path.is_symlink()


def test_absent_removes_a_file_and_never_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "directory").mkdir()
    assert run_module(host_files.main, files=[{"path": str(tmp_path / "a"), "state": "absent"}])["changed"]
    assert not (tmp_path / "a").exists()
    refused = run_module(host_files.main, files=[{"path": str(tmp_path / "directory"), "state": "absent"}])
    assert "directory" in refused["msg"]
    assert (tmp_path / "directory").is_dir()


@pytest.mark.parametrize("item", [{}, {"content": "x", "link": "y"}])
def test_a_file_is_either_content_or_a_link(tmp_path: Path, item: dict[str, str]) -> None:
    assert run_module(host_files.main, files=[{"path": str(tmp_path / "a"), **item}])["failed"]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd on which every timer that is asked for runs; what it was told to do is in this file."""
    programs, told = tmp_path / "bin", tmp_path / "told"
    programs.mkdir()
    told.touch()
    for name in ("systemctl", "systemd-run"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {told}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return told


def test_a_change_that_nobody_proved_is_changed_until_somebody_does(tmp_path: Path, systemd: Path) -> None:
    wanted, undo = [file(tmp_path / "a", "one\n")], {"name": "x", "after": 77, "command": ["true"]}
    run_module(host_files.main, files=wanted)
    predicted = run_module(host_files.main, check=True, files=wanted, undo=undo)
    assert (predicted["changed"], predicted["changed_files"]) == (True, [])
    assert "systemd-run" not in systemd.read_text()
    assert "stop" not in systemd.read_text()
    done = run_module(host_files.main, files=wanted, undo=undo)
    assert (done["changed"], done["changed_files"]) == (True, [])
    assert "systemctl stop gpumesh-undo-x.timer" in systemd.read_text()
    assert "--on-active=77" in systemd.read_text()


def test_nothing_is_undone_after_zero_seconds(tmp_path: Path, systemd: Path) -> None:
    undo = {"name": "x", "after": 0, "command": ["true"]}
    done = run_module(host_files.main, files=[file(tmp_path / "a", "one\n")], undo=undo)
    assert (done["changed"], (tmp_path / "a").read_text()) == (True, "one\n")
    assert "systemd-run" not in systemd.read_text()
