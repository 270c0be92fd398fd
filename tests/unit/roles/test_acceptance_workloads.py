# SPDX-License-Identifier: GPL-3.0-or-later
"""The workloads that measure GPUs, run for real on the CPU where a PyTorch is at hand; and what they say where none is.

Set GPUMESH_TEST_TORCH to a Python that has PyTorch (and torchvision) if the one that runs the tests has not.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance_compute import RECORDINGS, WORKLOADS

PARTS = {
    "kernels": ("kernels",),
    "matmul": ("matmul",),
    "memory-bandwidth": ("memory", "--part", "bandwidth"),
    "memory-pattern": ("memory", "--part", "pattern"),
    "transfers-link": ("transfers", "--part", "link"),
    "transfers-rates": ("transfers", "--part", "rates"),
    "collectives": ("collectives",),
    "training": ("training",),
}
OURS = sorted({words[0] for words in PARTS.values()} | {"peers"})


def python(module: str) -> str:
    """A Python that has it; without, the test is skipped."""
    candidates = [os.environ.get("GPUMESH_TEST_TORCH", ""), sys.executable, "/usr/bin/python3"]
    for one in filter(None, candidates):
        tried = subprocess.run([one, "-c", f"import {module}"], capture_output=True, check=False)
        if tried.returncode == 0:
            return one
    pytest.skip(f"no Python at hand has {module}; name one in GPUMESH_TEST_TORCH")


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def run(interpreter: str, workload: str, *arguments: str, **environment: str) -> tuple[int, list[dict]]:
    command = [interpreter, str(WORKLOADS / f"{workload}.py"), "--device", "cpu", "--workers", "2"]
    ran = subprocess.run(
        [*command, "--size", "small", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )
    return ran.returncode, lines_of(ran.stdout)


def shape(lines: list[dict]) -> set[tuple]:
    """What is told, without the values: names, units and keys of figures, names of phases."""
    return {
        (
            line["event"],
            line["name"],
            line.get("unit"),
            line.get("gpu"),
            *sorted(set(line) - {"event", "value"}),
        )
        for line in lines
        if line["event"] in ("figure", "phase")
    }


@pytest.mark.parametrize("name", PARTS)
def test_a_real_run_tells_what_the_recording_tells(name):
    interpreter = python("torch, torchvision" if name == "training" else "torch")
    status, lines = run(interpreter, *PARTS[name])

    assert status == 0, lines[-1]
    assert lines[0]["event"] == "begin"
    assert lines[0]["simulated"] is False
    assert lines[-1] == {"event": "end"}
    assert shape(lines) == shape(lines_of((RECORDINGS / f"{name}-cpu.jsonl").read_text()))
    for line in lines:
        for key in ("wrong", "mismatches", "changed"):
            assert not (line.get("name") == key and line["value"])
            assert not line.get(key)


@pytest.mark.parametrize("name", PARTS)
def test_a_recording_is_whole(name):
    lines = lines_of((RECORDINGS / f"{name}-cpu.jsonl").read_text())

    assert lines[0]["event"] == "begin"
    assert lines[0]["device"] == "cpu"
    assert lines[-1] == {"event": "end"}
    for line in lines:
        if line["event"] == "phase":
            assert line["begin"] < line["end"]
        if line["event"] == "figure" and line["unit"] in ("GB/s", "TFLOPS", "samples/s"):
            assert line["value"] is None or line["value"] > 0


@pytest.mark.parametrize("workload", OURS)
def test_without_the_framework_it_says_what_is_missing(workload, tmp_path):
    """A module in front of all others that is not there to be loaded."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    part = PARTS.get(f"{workload}-rates" if workload == "transfers" else f"{workload}-pattern", ())[1:]
    status, lines = run(sys.executable, workload, *part, PYTHONPATH=str(tmp_path))

    assert status == 1
    (line,) = lines
    assert (line["event"], line["missing"]) == ("error", "torch")
    assert line["says"] == f"{sys.executable} has no torch"


def test_a_torchvision_of_another_torch_is_told_as_missing(tmp_path):
    """It ends in a RuntimeError, as pip installs it beside a CPU build."""
    (tmp_path / "torch.py").write_text("__version__ = '2.13.0+cpu'\nclass version:\n    cuda = None\n")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    _, lines = run(sys.executable, "training", PYTHONPATH=str(tmp_path))

    assert lines[-1]["missing"] == "torchvision"
    assert "operator torchvision::nms does not exist" in lines[-1]["says"]


def test_a_torch_without_cuda_cannot_look_at_gpus(tmp_path):
    (tmp_path / "torch.py").write_text("__version__ = '2.13.0+cpu'\nclass version:\n    cuda = None\n")
    _, lines = run(sys.executable, "kernels", "--device", "cuda", PYTHONPATH=str(tmp_path))

    (line,) = lines
    assert (line["says"], line["missing"]) == (
        "PyTorch 2.13.0+cpu is built without CUDA",
        "a PyTorch that is built with CUDA",
    )


@pytest.mark.parametrize("workload", [*OURS, "cards", "groups", "team", "workload"])
def test_nothing_but_the_standard_library_and_the_framework_is_loaded(workload):
    """The interpreter of a framework has nothing else for certain."""
    ours = {path.stem for path in Path(WORKLOADS).glob("*.py")}
    tree = ast.parse((WORKLOADS / f"{workload}.py").read_text())
    loaded = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert loaded <= set(sys.stdlib_module_names) | ours
