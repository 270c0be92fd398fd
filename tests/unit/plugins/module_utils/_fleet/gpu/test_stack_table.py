# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read, and the page made of it."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog, stack_table
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack import resolve
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_answer import plain
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import (
    Request,
    read_gpus,
    read_wishes,
)

ROOT = Path(__file__).parents[6]


def show(gpus: str, distribution: str = "ubuntu-24.04", **wishes: object) -> list[str]:
    groups, strangers = read_gpus(gpus)
    request = Request(
        groups, distribution, date(2026, 11, 27), wishes=read_wishes(wishes), strangers=strangers
    )
    return stack_table.lines(plain(resolve(request)))


def test_a_stack() -> None:
    lines = show("rtx5090x4", power_limit_w=450, cuda="13.0")
    assert lines[0] == "GPU stack for 4x GeForce RTX 5090 on Ubuntu 24.04."
    assert "  Driver       580.178.04 (long-term branch 580, supported until 2028-06)" in lines
    assert "  Modules      open, built on the machine by DKMS" in lines
    assert (
        "  CUDA         toolkit 13.0: cuda-toolkit-13-0 (12.8 to 13.3 can be used, 13.0 is the driver's own)"
        in lines
    )
    assert (
        "  PyTorch      pip install 'torch==2.13.0+cu130' --index-url https://download.pytorch.org/whl/cu130"
        in lines
    )
    assert any(line.startswith("  Power limit  rtx5090: 450 W; 400 to 600 W") for line in lines)
    assert "Why" in lines and "Not verified" in lines


def test_a_refusal_point_by_point() -> None:
    lines = show("rtx5090x4", driver="550.127.05", cuda="12.4", pytorch="2.1+cu124", power_limit_w=450)
    assert lines[0] == "GPU stack for 4x GeForce RTX 5090 on Ubuntu 24.04: not as it was asked for."
    at = lines.index(
        "  3. CUDA: CUDA 12.4 makes no code for compute capability 12.0 (the GeForce RTX 5090): 12.8 is the first that does."
    )
    assert lines[at + 1] == "     Instead: 12.8"
    text = "\n".join(lines)
    assert "As it was asked for\n  *  power limit: 450 W is within the range" in text
    assert (
        "The nearest stack that works (branch=580, cuda=12.8, pytorch=2.7.0+cu128, power_limit_w=450)" in text
    )


def test_a_refusal_without_any_way_out() -> None:
    text = "\n".join(show("rtx5090,v100"))
    assert "No stack works for these GPUs on this distribution" in text
    assert "nearest" not in text
    assert "perhaps rtx5090" in "\n".join(show("rtx5091"))


def test_a_framework_without_wheels() -> None:
    text = " ".join(" ".join(show("rtx5090", tensorflow="2.21")).split())
    assert "Instead: NVIDIA's TensorFlow container (nvcr.io/nvidia/tensorflow)" in text


@pytest.mark.parametrize("gpu", catalog.names())
def test_every_line_fits(gpu: str) -> None:
    for distribution in ("ubuntu-24.04", "debian-12", "debian-13"):
        for line in show(gpu, distribution, tensorflow="2.21", power_limit_w=5000):
            assert len(line) <= 120
            assert line == line.rstrip()


def check(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu-stack-docs", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_page_is_current() -> None:
    found = check("--check")
    assert found.returncode == 0, found.stderr


def test_a_page_that_is_not_current_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "gpu-stack.md"
    page.write_text((ROOT / "docs" / "gpu-stack.md").read_text().replace("580.178.04", "580.178.05"))
    found = check("--check", str(page))
    assert (found.returncode, found.stderr.strip()) == (
        1,
        "gpu-stack.md is out of date: run tools/gpu-stack-docs",
    )
