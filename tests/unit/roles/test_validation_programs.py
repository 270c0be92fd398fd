# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of role validation: what is packed runs by itself, is switched without a gap, and a run is known again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FILES = ROOT / "roles/validation/files"


def load(name: str) -> ModuleType:
    """One of the programs as a module."""
    spec = importlib.util.spec_from_file_location(f"validation_{name}", FILES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bundle() -> ModuleType:
    return load("bundle")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that unpacks, below a folder."""
    module = load("unpack")
    monkeypatch.setattr(module, "HOME", tmp_path / "home")
    return module


@pytest.fixture
def last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that knows runs, below a folder."""
    module = load("last")
    monkeypatch.setattr(module, "STATE", tmp_path / "state")
    monkeypatch.setattr(module, "PROFILE", tmp_path / "acceptance.json")
    monkeypatch.setattr(module, "CURRENT", tmp_path / "current")
    monkeypatch.setattr(module, "MESSAGE", tmp_path / "motd.d/message")
    monkeypatch.setattr(module, "FACTS", tmp_path / "gpumesh.fact")
    monkeypatch.setattr(module, "FRAMEWORKS", tmp_path / "frameworks")
    monkeypatch.setattr(module, "LOG", tmp_path / "log")
    monkeypatch.setattr(module, "asked", lambda *command: "0 580.178.04, GPU-1\n")
    boot = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("first\n")
    return module


def run_of(last: ModuleType, name: str, **more: Any) -> Path:
    """A run on disk."""
    check = {"name": "matmul", "verdict": "PASS", "says": "", "advice": "", "applies": True, "waived": ""}
    document = {
        "id": name,
        "suite": "quick",
        "device": "cuda",
        "label": "",
        "state": "complete",
        "begin": "2026-11-27T10:00:00.000Z",
        "verdict": {"checks": "PASS", "hardware": "PASS", "says": "all"},
        "coverage": {"says": "1 of 1 checks ran"},
        "versions": {},
        "machine": {"driver": "580.178.04", "gpus": []},
        "checks": [{**check, "begin": "2026-11-27T10:00:00.000Z"}],
        **more,
    }
    folder: Path = last.STATE / "runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(document))
    return folder


# What is packed


def test_the_same_files_make_the_same_archive(bundle: ModuleType) -> None:
    files = bundle.collect(ROOT)
    assert bundle.archive(files) == bundle.archive(dict(reversed(files.items())))
    assert bundle.digest_of(files) == bundle.digest_of(bundle.collect(ROOT))
    changed = {**files, "galaxy.yml": b"version: 99.0.0\n"}
    assert bundle.digest_of(changed) != bundle.digest_of(files)


def test_it_takes_what_is_imported_and_nothing_else(bundle: ModuleType) -> None:
    files = bundle.collect(ROOT)
    assert "plugins/module_utils/_fleet/gpu/smi.py" in files
    assert "plugins/module_utils/_host/gpu.py" in files
    assert "plugins/module_utils/_acceptance/verdicts.py" in files
    assert "roles/validation/files/workloads/workload.py" in files
    assert "roles/validation/files/last.py" in files
    assert [path for path in files if "providers" in path or "__pycache__" in path or "mesh" in path] == []


def test_what_is_packed_runs_by_itself_with_the_standard_library(
    bundle: ModuleType, installed: ModuleType, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(bundle.archive(bundle.collect(ROOT)))
    installed.unpack(archive, tmp_path / "version")
    ran = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "module_utils._acceptance", "list", "--json"],
        env={"PYTHONPATH": str(tmp_path / "version/plugins"), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert isinstance(json.loads(ran.stdout), list)


# Versions


def install(installed: ModuleType, bundle: ModuleType, digest: str, seconds: int) -> None:
    """A version of that name, as old as is said."""
    installed.HOME.mkdir(parents=True, exist_ok=True)
    archive = installed.HOME / "archive.tar.gz"
    archive.write_bytes(bundle.archive({"galaxy.yml": digest.encode()}))
    installed.unpack(archive, installed.HOME / "versions" / digest)
    os.utime(installed.HOME / "versions" / digest, (seconds, seconds))
    installed.switch(digest)


def test_the_link_points_to_the_version_and_one_earlier_stays(
    installed: ModuleType, bundle: ModuleType
) -> None:
    for number, digest in enumerate(("one", "two", "three")):
        install(installed, bundle, digest, number)
    assert installed.prune("three") == ["one"]
    assert sorted(path.name for path in (installed.HOME / "versions").iterdir()) == ["three", "two"]
    assert (installed.HOME / "current/galaxy.yml").read_text() == "three"
    assert installed.switch("three") is False
    assert installed.switch("two") is True
    assert (installed.HOME / "current/galaxy.yml").read_text() == "two"


def test_an_archive_that_breaks_off_leaves_no_version(installed: ModuleType, bundle: ModuleType) -> None:
    install(installed, bundle, "one", 0)
    broken = installed.HOME / "broken.tar.gz"
    broken.write_bytes(bundle.archive({"a": os.urandom(9000)})[:4000])
    with pytest.raises((EOFError, OSError)):
        installed.unpack(broken, installed.HOME / "versions/two")
    assert [path.name for path in (installed.HOME / "versions").iterdir()] == ["one"]
    assert (installed.HOME / "current/galaxy.yml").read_text() == "one"


# Runs


def test_a_run_holds_until_something_changes(last: ModuleType, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    found = last.look(root)
    assert found["run"] is None
    run_of(last, "20261127T100000Z-quick")
    assert last.look(root)["run"] is None
    last.stamp("20261127T100000Z-quick", found["fingerprint"])
    assert last.look(root)["run"]["id"] == "20261127T100000Z-quick"
    for path, content in (
        (tmp_path / "root/proc/sys/kernel/random/boot_id", "second\n"),
        (tmp_path / "acceptance.json", "{}"),
    ):
        before = path.read_text() if path.exists() else ""
        path.write_text(content)
        assert last.look(root)["run"] is None
        path.write_text(before)
        assert last.look(root)["run"] is not None


@pytest.mark.parametrize("answer", ["9 NVIDIA-SMI has failed", "0 580.178.04, GPU-2\n"])
def test_a_run_does_not_hold_with_other_gpus(
    last: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    root = str(tmp_path / "root")
    run_of(last, "20261127T100000Z-quick")
    last.stamp("20261127T100000Z-quick", last.look(root)["fingerprint"])
    monkeypatch.setattr(last, "asked", lambda *command: answer)
    assert last.look(root)["run"] is None


def test_a_run_that_broke_off_does_not_hold(last: ModuleType, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    run_of(last, "20261127T100000Z-quick", state="interrupted")
    last.stamp("20261127T100000Z-quick", last.look(root)["fingerprint"])
    assert last.look(root)["run"] is None


def test_the_newest_run_is_one_that_began_since(last: ModuleType) -> None:
    run_of(last, "20261127T100000Z-quick")
    begun = last.newest(0)["begun"]
    assert last.newest(begun)["id"] == "20261127T100000Z-quick"
    assert last.newest(begun + 1) is None
    broken = last.STATE / "runs/20261127T110000Z-quick"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    assert last.newest(begun)["id"] == "20261127T100000Z-quick"


def test_a_gap_is_told_like_a_failure_and_a_waiver_is_not(last: ModuleType) -> None:
    check = {"begin": None, "says": "no Docker", "advice": "install it", "applies": True, "waived": ""}
    run_of(
        last,
        "20261127T100000Z-quick",
        checks=[
            {**check, "name": "container_gpus", "verdict": "SKIP"},
            {**check, "name": "waived", "verdict": "SKIP", "waived": "on purpose"},
            {**check, "name": "none", "verdict": "SKIP", "applies": False},
            {**check, "name": "broken", "verdict": "FAIL"},
        ],
    )
    assert [one["name"] for one in last.newest(0)["bad"]] == ["container_gpus", "broken"]


def test_a_run_is_packed_without_what_is_only_for_this_machine(last: ModuleType, tmp_path: Path) -> None:
    folder = run_of(last, "20261127T100000Z-quick")
    (folder / ".holds-for").write_text("x")
    (folder / "samples.jsonl").write_text("{}\n")
    packed = Path(last.pack("20261127T100000Z-quick")["path"])
    assert packed.stat().st_mode & 0o777 == 0o600
    listed = subprocess.run(
        [sys.executable, "-m", "tarfile", "-l", str(packed)], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["run.json", "samples.jsonl"]
