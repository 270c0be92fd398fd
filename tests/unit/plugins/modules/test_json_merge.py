# SPDX-License-Identifier: GPL-3.0-or-later
"""A JSON file with more than one author."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import json_merge, layer_facts

from tests.module_runner import run_module

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the modules give their files to root")


def merge(folder: Path, declared: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run_module(
        json_merge.main,
        path=str(folder / "daemon.json"),
        memory=str(folder / "memory.json"),
        declared=declared,
        **more,
    )


def content(folder: Path) -> Any:
    return json.loads((folder / "daemon.json").read_text(encoding="utf-8"))


def test_foreign_keys_stay_and_ours_go_when_they_are_no_longer_declared(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"runtimes": {"nvidia": {}}}', encoding="utf-8")
    assert merge(tmp_path, {"live-restore": True, "dns": ["192.0.2.1"]})["changed"]
    assert not merge(tmp_path, {"live-restore": True, "dns": ["192.0.2.1"]})["changed"]
    assert merge(tmp_path, {"live-restore": True})["changed"]
    assert content(tmp_path) == {"runtimes": {"nvidia": {}}, "live-restore": True}


def test_a_file_that_says_the_same_is_not_written_anew(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"live-restore":true}', encoding="utf-8")
    assert not merge(tmp_path, {"live-restore": True})["changed"]
    assert (tmp_path / "daemon.json").read_text(encoding="utf-8") == '{"live-restore":true}'


def test_a_private_file_stays_private_and_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"proxies": {"http-proxy": "http://user:password@192.0.2.1"}}', encoding="utf-8")
    path.chmod(0o600)
    os.chown(path, 1234, 2345)
    assert merge(tmp_path, {"live-restore": True})["changed"]
    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o600, 1234, 2345)
    assert not merge(tmp_path, {"live-restore": True})["changed"]


def test_a_new_file_can_be_read_by_everybody_and_is_roots(tmp_path: Path) -> None:
    assert merge(tmp_path, {"live-restore": True})["changed"]
    found = (tmp_path / "daemon.json").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o644, 0, 0)


def test_a_link_stays_and_the_file_behind_it_stays_private(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    path = tmp_path / "kept" / "docker.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    path.chmod(0o600)
    (tmp_path / "daemon.json").symlink_to(path)
    result = merge(tmp_path, {"b": 2})
    assert result["changed"]
    assert len(result["diff"]) == 1
    assert (tmp_path / "daemon.json").is_symlink()
    assert path.stat().st_mode & 0o7777 == 0o600
    assert content(tmp_path) == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "daemon.json").write_text(text, encoding="utf-8")
    assert "left as it is" in merge(tmp_path, {"a": 1})["msg"]
    assert (tmp_path / "daemon.json").read_text(encoding="utf-8") == text


def test_a_refused_file_is_put_back_and_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"a": 1}', encoding="utf-8")
    assert merge(tmp_path, {"b": 2}, validate=[["false"]])["failed"]
    assert content(tmp_path) == {"a": 1}
    assert not (tmp_path / "memory.json").exists()


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    result = merge(tmp_path, {"a": 1}, check=True)
    assert (result["changed"], result["document"]) == (True, {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_facts_of_layers_are_kept_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "gpumesh.fact"
    for layer in ("base", "docker"):
        assert run_module(layer_facts.main, layer=layer, facts={"versions": {"x": "1"}}, path=str(path))[
            "changed"
        ]
    assert not run_module(layer_facts.main, layer="base", facts={"versions": {"x": "1"}}, path=str(path))[
        "changed"
    ]
    assert set(json.loads(path.read_text(encoding="utf-8"))["layers"]) == {"base", "docker"}
