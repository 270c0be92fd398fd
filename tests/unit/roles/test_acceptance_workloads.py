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
import textwrap
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


# What a GPU alone would show, with a PyTorch that is none.

HEAD = """
import sys, types
sys.path.insert(0, {workloads!r})
import cards, collectives, matmul, workload
"""


def play(body: str, *words: str) -> tuple[int, list[dict], str]:
    """Run a script that has the workloads at hand."""
    ran = subprocess.run(
        [sys.executable, "-c", HEAD.format(workloads=str(WORKLOADS)) + textwrap.dedent(body), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, lines_of(ran.stdout), ran.stderr


REFUSING = """
class Stand:
    __version__ = "2.6.0+cu124"
    float8_e4m3fn = _scaled_mm = None

    class cuda:
        device_count = staticmethod(lambda: 1)
        set_device = staticmethod(lambda device: None)
        get_device_capability = staticmethod(lambda device: (12, 0))
        get_device_properties = staticmethod(
            lambda device: types.SimpleNamespace(
                name="stand-in", major=12, minor=0, multi_processor_count=170, total_memory=1 << 35
            )
        )

    @staticmethod
    def device(kind, index=0):
        return kind

refused, problem = sys.argv[1:]

def measure(card, precision, size, seconds):
    if precision.name == refused:
        raise RuntimeError(problem)
    workload.figure(precision.name, 1.0, "TFLOPS", gpu=card.index)

matmul._measure = measure
matmul._work(Stand, "cuda", True, 0)
"""
CUBLAS = "CUDA error: {} when calling `cublasLtMatmulAlgoGetHeuristic( ltHandle, computeDesc.descriptor())`"


@pytest.mark.parametrize("status", ["CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_INVALID_VALUE"])
def test_fp8_that_cublas_refuses_is_what_pytorch_cannot(status):
    code, lines, _ = play(REFUSING, "fp8", CUBLAS.format(status))

    told = {line["name"]: line for line in lines if line["event"] == "figure"}
    assert code == 0
    assert [told[name]["value"] for name in ("fp32", "tf32", "fp16", "bf16", "fp8")] == [
        1.0,
        1.0,
        1.0,
        1.0,
        None,
    ]
    assert told["fp8"]["why"] == f"PyTorch 2.6.0+cu124 cannot: {CUBLAS.format(status)}"


@pytest.mark.parametrize(
    ("precision", "problem"),
    [
        ("bf16", CUBLAS.format("CUBLAS_STATUS_NOT_SUPPORTED")),
        ("fp8", CUBLAS.format("CUBLAS_STATUS_EXECUTION_FAILED")),
        ("fp8", "CUDA error: an illegal memory access was encountered"),
    ],
)
def test_any_other_error_of_cuda_ends_the_workload(precision, problem):
    code, _, said = play(REFUSING, precision, problem)
    assert code == 1
    assert f"RuntimeError: {problem}" in said


ROOM = """
class Cuda:
    empty_cache = staticmethod(lambda: None)
    mem_get_info = staticmethod(lambda device: (int(sys.argv[1]) << 30, 80 << 30))

class Group:
    def all_of(self, value):
        workload.say("mine", value=value)
        return [value, int(sys.argv[2]) << 30]

card = types.SimpleNamespace(cuda=sys.argv[3] == "cuda", device=0, torch=types.SimpleNamespace(cuda=Cuda))
workload.say("sizes", sizes=collectives._sizes(card, Group(), sys.argv[3], sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("mine", "other", "device", "size", "largest"),
    [
        (70, 60, "cuda", "full", 4096),
        (70, 5, "cuda", "full", 1024),
        (5, 70, "cuda", "full", 1024),
        (70, 70, "cuda", "small", 256),
        (70, 70, "cpu", "full", 64),
    ],
)
def test_the_largest_message_is_what_every_gpu_has_room_for(mine, other, device, size, largest):
    code, lines, said = play(ROOM, str(mine), str(other), device, size)

    assert code == 0, said
    assert lines[-1]["sizes"][-1] == largest << 20
    assert sorted(lines[-1]["sizes"]) == lines[-1]["sizes"]
    # All ask or none: an exchange that one leaves out would never end.
    assert (len(lines) == 2) == ((device, size) == ("cuda", "full"))
