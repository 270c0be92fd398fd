# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of the NVIDIA Container Toolkit behaves as the real one does, where roles and users can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandbox.gpu.toolkit import PACKAGES, cdi, ctk, engines, machine, runtime, settings, toml

UUIDS = [f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(2)]
CRI = "io.containerd.grpc.v1.cri"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a driver that lists two GPUs; its nodes are null devices."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    lines = "\n".join(f"{index}, {uuid}" for index, uuid in enumerate(UUIDS))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    program.chmod(0o755)
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for name in ("libnvidia-ml.so.595.91.07", "libnvidia-ml.so.1", "libcuda.so.595.91.07", "libother.so.1"):
        (libraries / name).write_text("SIMULATED")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "LIBRARIES", libraries)
    monkeypatch.setattr(machine, "CONTROL", "/dev/zero")
    monkeypatch.setattr(machine.Gpu, "node", property(lambda self: "/dev/null"))
    return tmp_path


def test_docker_gets_the_runtime_and_keeps_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"log-driver": "local", "runtimes": {"other": {"path": "/usr/bin/runc"}}}))
    assert (
        ctk.main(["runtime", "configure", "--runtime=docker", f"--config={config}", "--set-as-default"]) == 0
    )
    assert json.loads(config.read_text()) == {
        "default-runtime": "nvidia",
        "log-driver": "local",
        "runtimes": {
            "nvidia": {"args": [], "path": "nvidia-container-runtime"},
            "other": {"path": "/usr/bin/runc"},
        },
    }
    assert "SIMULATED" in capsys.readouterr().err


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "missing.json"
    assert ctk.main(["runtime", "configure", f"--config={config}", "--dry-run", "--cdi.enabled"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "features": {"cdi": True},
        "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
    }
    assert not config.exists()


def test_other_features_are_lost_as_with_the_real_one(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text('{"features": {"containerd-snapshotter": true}}')
    assert ctk.main(["runtime", "configure", f"--config={config}", "--cdi.enabled"]) == 0
    assert json.loads(config.read_text())["features"] == {"cdi": True}


def test_containerd_gets_a_drop_in_that_repeats_the_plugin(tmp_path: Path) -> None:
    config, drop_in = tmp_path / "config.toml", tmp_path / "conf.d" / "99-nvidia.toml"
    config.write_text(f'version = 2\n[plugins."{CRI}".cni]\nbin_dir = "/usr/lib/cni"\n')
    command = ["runtime", "configure", "--runtime=containerd", f"--config={config}"]
    command += [f"--drop-in-config={drop_in}", "--cdi.enabled"]
    assert ctk.main(command) == 0
    first = config.read_text(), drop_in.read_text()
    assert tomllib.loads(first[0])["imports"] == [f"{drop_in.parent}/*.toml"]
    plugin = tomllib.loads(first[1])["plugins"][CRI]
    assert plugin["cni"] == {"bin_dir": "/usr/lib/cni"}
    assert plugin["enable_cdi"] is True
    assert plugin["containerd"]["runtimes"]["nvidia"]["options"] == {
        "BinaryName": "/usr/bin/nvidia-container-runtime"
    }
    assert ctk.main(command) == 0
    assert (config.read_text(), drop_in.read_text()) == first


def test_an_engine_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctk.main(["runtime", "configure", "--runtime=podman"]) == 1
    assert "unrecognized runtime 'podman'" in capsys.readouterr().err


def test_crio_gets_its_drop_in(tmp_path: Path) -> None:
    wish = engines.Wish(
        tmp_path / "crio.conf", None, "nvidia", "/usr/bin/nvidia-container-runtime", True, False
    )
    assert tomllib.loads(engines.crio(wish))["crio"]["runtime"]["default_runtime"] == "nvidia"


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"version": 2, "a": {"b": {"c": [1, 2], "d e": True}}, "f": 'quo"te'},
        {"plugins": {"x.y": {"z": {}}}, "imports": ["/a/*.toml"]},
    ],
)
def test_toml_says_what_was_meant(tree: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dump(tree)) == tree


def test_the_specification_names_every_gpu_by_index_and_uuid(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = host / "cdi" / "nvidia.yaml"
    assert ctk.main(["cdi", "generate", f"--output={place}"]) == 0
    assert place.read_text().startswith("# SIMULATED")
    assert ctk.main(["cdi", "list", f"--spec-dir={place.parent}"]) == 0
    names = capsys.readouterr().out.split()
    assert names == [f"nvidia.com/gpu={name}" for name in ["0", "1", *UUIDS, "all"]]
    spec = cdi.load(place)
    mounted = [mount["containerPath"] for mount in spec["containerEdits"]["mounts"]]
    assert str(host / "lib" / "libcuda.so.595.91.07") in mounted
    assert str(host / "lib" / "libother.so.1") not in mounted


def test_without_a_driver_there_is_no_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    place = tmp_path / "nvidia.yaml"
    assert ctk.main(["cdi", "generate", f"--output={place}"]) == 1
    assert not place.exists()


@pytest.mark.parametrize(
    ("mode", "asked", "nodes"),
    [
        ("auto", "all", 2),
        ("auto", "nvidia.com/gpu=all", 2),
        ("cdi", "all", 2),
        ("jit-cdi", UUIDS[1], 2),
        ("auto", "void", 0),
        ("auto", "", 0),
    ],
)
def test_a_container_gets_what_its_environment_asks_for(
    host: Path, mode: str, asked: str, nodes: int
) -> None:
    cdi.save(cdi.generate(), host / "cdi" / "nvidia.yaml")
    bundle: dict[str, Any] = {"process": {"env": ["PATH=/bin", f"NVIDIA_VISIBLE_DEVICES={asked}"]}}
    runtime.change(bundle, mode, (str(host / "cdi"),), "nvidia.com/gpu")
    assert len(bundle.get("linux", {}).get("devices", [])) == nodes
    if nodes:
        assert "NVIDIA_VISIBLE_DEVICES=void" in bundle["process"]["env"]
        rule = bundle["linux"]["resources"]["devices"][-1]
        assert (rule["allow"], rule["major"], rule["minor"]) == (True, 1, 3)


def test_what_cannot_be_had_is_said_where_containerd_looks(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    assert runtime.fail(["--log", str(log), "create"], "unresolvable CDI devices nvidia.com/gpu=9") == 1
    assert "nvidia.com/gpu=9" in json.loads(log.read_text())["msg"]


def test_the_mode_legacy_is_not_played(tmp_path: Path) -> None:
    bundle = {"process": {"env": ["NVIDIA_VISIBLE_DEVICES=all"]}}
    with pytest.raises(cdi.CdiError, match="legacy"):
        runtime.change(bundle, "legacy", (), "nvidia.com/gpu")


def test_settings_are_kept_and_set(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert ctk.main(["config", f"--config-file={file}", "--in-place"]) == 0
    assert (
        ctk.main(["config", f"--config-file={file}", "-i", "--set", "nvidia-container-runtime.mode=cdi"]) == 0
    )
    assert settings.load(file)["nvidia-container-runtime"]["mode"] == "cdi"
    assert settings.load(file)["nvidia-container-runtime"]["runtimes"] == ["runc", "crun"]


def test_the_packages_are_the_vendors_and_run_by_themselves(tmp_path: Path) -> None:
    assert {package.name for package in PACKAGES} == {
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    }
    base = next(package for package in PACKAGES if package.name.endswith("-base"))
    for path, (text, _mode) in base.filled("1.19.0-1").items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    program = "from nvidia_toolkit_simulated.ctk import main; main(['--version'])"
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path / 'usr/lib/nvidia-toolkit-simulated')!r}); {program}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "version 1.19.0" in done.stdout
    assert "SIMULATED" in done.stdout
