# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload burn.py, run for real on the CPU where a PyTorch is at hand (GPUMESH_TEST_TORCH names one)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
WORKLOADS = ROOT / "roles/validation/files/workloads"
RECORDING = ROOT / "tests/fixtures/acceptance/workloads/burn-cpu.jsonl"
STAND_IN = ROOT / "tests/fixtures/acceptance/burn_in/worker.py"

# Fills a little memory, spoils one bit of one value, and counts.
SPOIL = """
import threading, types
import torch
import burn
options = types.SimpleNamespace(gpu=0, device="cpu", every=99.0, size="small")
one = burn.Burn(torch, options, threading.Event())
one.prepare(0.9, "small")
kind = one._kinds[0]
places = one.places(kind)
one._multiply(kind, places)
one._copy(kind, places)
before = one.count(kind, places)
places[3].view(torch.int32)[5, 7] ^= 1
after = one.count(kind, places)
one._copy(kind, places)
moved = one.count(kind, places)
kind.right[0, 0] *= 2
burn.workload.say("result", before=before, after=after, moved=moved, far=kind.difference() > kind.allowed)
"""


@pytest.fixture(scope="module")
def pytorch() -> str:
    for one in filter(None, [os.environ.get("GPUMESH_TEST_TORCH", ""), sys.executable, "/usr/bin/python3"]):
        if subprocess.run([one, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
            return one
    pytest.skip("no Python at hand has torch; name one in GPUMESH_TEST_TORCH")


@pytest.fixture
def burning(pytorch: str) -> Iterator[subprocess.Popen[str]]:
    """One that burns."""
    process = subprocess.Popen(
        [pytorch, str(WORKLOADS / "burn.py"), "--device", "cpu", "--size", "small", "--gpu", "1", "--every", "0.5"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def until(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """Its next figure of a name."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("name") == name:
            return dict(event)
    raise AssertionError(f"it ended without a figure {name}")


def test_a_single_bit_is_found_and_is_not_lost_when_it_is_moved(pytorch: str) -> None:
    ran = subprocess.run(
        [pytorch, "-c", SPOIL], capture_output=True, text=True, check=False, cwd=WORKLOADS, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["before"], found["after"]) == (0, 1)
    assert found["moved"] == 1, "it moves along, and no copy hides it"
    assert found["far"], "a reference that is not what the CPU makes of it is found"


def test_it_ends_in_order_when_it_is_told(burning: subprocess.Popen[str]) -> None:
    rate = until(burning, "rate")
    assert rate["gpu"] == 1
    assert rate["mismatches"] == 0
    assert burning.stdin is not None
    burning.stdin.write("stop\n")
    burning.stdin.flush()
    assert burning.stdout is not None
    last = [json.loads(line) for line in burning.stdout]
    assert last[-1] == {"event": "end"}
    assert burning.wait(timeout=30) == 0


def test_a_signal_ends_it_in_order_too(burning: subprocess.Popen[str]) -> None:
    until(burning, "rate")
    burning.send_signal(signal.SIGTERM)
    assert burning.stdout is not None
    assert [json.loads(line) for line in burning.stdout][-1] == {"event": "end"}
    assert burning.wait(timeout=30) == 0


def test_it_goes_when_whoever_started_it_is_gone(burning: subprocess.Popen[str]) -> None:
    until(burning, "rate")
    assert burning.stdin is not None
    burning.stdin.close()
    assert burning.wait(timeout=30) == 1


def shape(lines: list[str]) -> set[tuple[str, ...]]:
    """What is told, without the values."""
    events = [json.loads(line) for line in lines]
    return {
        (event["event"], str(event.get("name")), *sorted(set(event) - {"value"}))
        for event in events
        if event.get("name") != "mismatch"
    }


def test_the_recording_and_the_stand_in_tell_what_it_tells(pytorch: str) -> None:
    command = ["--device", "cpu", "--size", "small", "--workers", "2", "--gpu", "1", "--every", "0.5"]
    real = subprocess.run(
        [pytorch, str(WORKLOADS / "burn.py"), *command, "--seconds", "2"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    said = shape(real.stdout.splitlines())
    assert said == shape(RECORDING.read_text().splitlines())
    stand_in = subprocess.run(
        [sys.executable, str(STAND_IN), "burn.py", *command],
        input="stop\n", capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert shape(stand_in.stdout.splitlines()) == said
