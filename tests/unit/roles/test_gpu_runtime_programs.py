# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs of the role gpu_runtime make of specifications and containerd's files."""

from __future__ import annotations

import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILES = Path(__file__).parents[3] / "roles" / "gpu_runtime" / "files"
COLLECTION = Path(__file__).parents[3]
UUIDS = {f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(4)}


def load(name: str) -> ModuleType:
    """A program, not run."""
    found = importlib.util.spec_from_file_location(f"gpu_runtime_{name}", FILES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Data classes look their module up.
    sys.modules[module.__name__] = module
    found.loader.exec_module(module)
    return module


def spec(uuids: set[str], version: str) -> str:
    """A specification, cut to what is read of it, in the form of the real toolkit."""
    names = "".join(f"    - name: {uuid}\n" for uuid in sorted(uuids))
    mounts = f"        - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n"
    return f"---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{names}containerEdits:\n    mounts:\n{mounts}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (spec(UUIDS, "595.91.07"), ""),
        (spec(UUIDS, "590.48.01"), "made for driver 590.48.01, and 595.91.07 is there"),
        (spec(set(sorted(UUIDS)[:3]), "595.91.07"), "names 3 devices, and the driver has 4"),
        ("devices: []\n", "names 0 devices, and the driver has 4"),
    ],
)
def test_a_specification_is_stale_if_the_driver_says_otherwise(text: str, says: str) -> None:
    found = load("stale").why(text, UUIDS, "595.91.07")
    assert says in found
    assert bool(found) is bool(says)


@pytest.fixture
def containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with its files in a folder, the toolkit's stand-in, and a containerd that tells its version."""
    programs = tmp_path / "bin"
    programs.mkdir()
    code = f"import sys; sys.path.insert(0, {str(COLLECTION)!r}); from sandbox.gpu.toolkit.ctk import main; sys.exit(main())"
    (programs / "nvidia-ctk").write_text(f"#!{sys.executable}\n{code}\n")
    (programs / "containerd").write_text(
        "#!/bin/sh\necho containerd github.com/containerd/containerd 1.7.24\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    module = load("containerd")
    monkeypatch.setattr(module, "MAIN", tmp_path / "etc" / "config.toml")
    monkeypatch.setattr(module, "DROP_IN", tmp_path / "etc" / "conf.d" / "99-nvidia.toml")
    (tmp_path / "etc").mkdir()
    return module


def written(files: list[dict[str, Any]]) -> None:
    """What the module host_files does with them."""
    for file in files:
        path = Path(file["path"])
        if file.get("state") == "absent":
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"])


BEFORE = '# ours\nversion = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n'


def test_containerd_is_configured_once_and_put_back(containerd: ModuleType, tmp_path: Path) -> None:
    containerd.MAIN.write_text(BEFORE)
    wanted = {"default": False, "memory": str(tmp_path / "memory.json")}
    written(containerd.configure(wanted))
    main = tomllib.loads(containerd.MAIN.read_text())
    assert main["imports"] == [f"{containerd.DROP_IN.parent}/*.toml"]
    assert str(tmp_path / "etc") in containerd.MAIN.read_text()
    plugin = tomllib.loads(containerd.DROP_IN.read_text())["plugins"]["io.containerd.grpc.v1.cri"]
    assert plugin["cni"] == {"bin_dir": "/usr/lib/cni"}
    assert plugin["enable_cdi"] is True
    for file in containerd.configure(wanted):
        assert Path(file["path"]).read_text() == file["content"]
    written(containerd.restore(wanted))
    assert containerd.MAIN.read_text() == BEFORE
    assert not containerd.DROP_IN.exists()


def test_comments_in_a_main_file_that_needs_no_change_stay(containerd: ModuleType, tmp_path: Path) -> None:
    imports = f'imports = ["{containerd.DROP_IN.parent}/*.toml"]\n'
    containerd.MAIN.write_text(imports + BEFORE)
    wanted = {"default": False, "memory": str(tmp_path / "memory.json")}
    written(containerd.configure(wanted))
    assert containerd.MAIN.read_text() == imports + BEFORE


def test_a_main_file_that_others_changed_only_loses_our_import(
    containerd: ModuleType, tmp_path: Path
) -> None:
    containerd.MAIN.write_text(BEFORE)
    wanted = {"default": False, "memory": str(tmp_path / "memory.json")}
    written(containerd.configure(wanted))
    containerd.MAIN.write_text(containerd.MAIN.read_text() + "[debug]\nlevel = 'debug'\n")
    written(containerd.restore(wanted))
    main = tomllib.loads(containerd.MAIN.read_text())
    assert main["debug"] == {"level": "debug"}
    assert main["imports"] == []


def test_a_main_file_that_was_not_there_goes_again(containerd: ModuleType, tmp_path: Path) -> None:
    wanted = {"default": True, "memory": str(tmp_path / "memory.json")}
    written(containerd.configure(wanted))
    assert "default_runtime_name" in containerd.DROP_IN.read_text()
    written(containerd.restore(wanted))
    assert not containerd.MAIN.exists()
