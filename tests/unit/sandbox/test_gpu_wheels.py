# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins for the frameworks' wheels: an index that pip takes, and what they say on simulated GPUs and elsewhere."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.filter.gpu_stack import gpu_stack
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import wheels as catalog

from sandbox.debian import write
from sandbox.gpu import wheels
from sandbox.gpu.machine.frameworks.standin import ANSWERS
from tests.unit.sandbox.gpu_machine import Sandbox

ROOT = Path(__file__).parents[3]
WORKLOADS = ROOT / "roles/validation/files/workloads"
RECORDED = ROOT / "tests/fixtures/acceptance/workloads"
DRIVER = "580.178.04"
FASTEST = "0.01"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The index, served."""
    folder = tmp_path_factory.mktemp("index")
    write(folder, wheels.files())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """Four simulated RTX 5090 with a driver; SIMULATED."""
    sandbox = Sandbox(tmp_path_factory.mktemp("machine"), "4x-rtx5090")
    sandbox.drive(DRIVER)
    sandbox.smi("-pm", "1")
    return sandbox


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has broken is mended, and the cards are the four again."""
    yield
    if "machine" in request.fixturenames:
        sandbox = request.getfixturevalue("machine")
        sandbox.control("mend")
        if len(sandbox.machine.profile().slots) != 4:
            sandbox.control("profile", "4x-rtx5090")
            sandbox.smi("-pm", "1")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with all of one set of stand-ins."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    names = {stem for stems in wheels.LOCKS.values() for stem in stems} - {"torch-2.13.0"}
    for wheel in wheels.WHEELS:
        if wheel.stem in names:
            zipfile.ZipFile(io.BytesIO(wheel.content())).extractall(site)
    return folder / "bin/python"


def run(python: Path, machine: Sandbox | None, *words: str) -> subprocess.CompletedProcess[str]:
    """A program under that Python, on that machine, whose standard input stays open and says nothing."""
    environment = {**os.environ, "GPUMESH_SIMULATED_PACE": FASTEST}
    environment |= {"GPUMESH_SIMULATED_PREFIX": str(machine.folder)} if machine else {}
    reading, writing = os.pipe()
    try:
        return subprocess.run(
            [python, *words],
            env=environment,
            cwd="/",
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)


ARGUMENTS = {
    "memory": ("--part", "bandwidth"),
    "transfers": ("--part", "rates", "--addresses", "0,1,2,3"),
    "llm": ("--shape", "llama-2-7b"),
    "burn": ("--gpu", "1", "--every", "0.01", "--seconds", "0.05"),
}


def answer(python: Path, machine: Sandbox, name: str, *words: str) -> list[dict[str, Any]]:
    """The lines of a workload."""
    ran = run(
        python,
        machine,
        str(WORKLOADS / f"{name}.py"),
        *("--device", "cuda", "--workers", "4", "--size", "small"),
        *(words or ARGUMENTS.get(name, ())),
    )
    assert ran.stdout, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def figures(lines: list[dict[str, Any]], name: str) -> list[Any]:
    return [line["value"] for line in lines if line["event"] == "figure" and line["name"] == name]


# The index


@pytest.mark.parametrize("framework", sorted(wheels.LOCKS))
def test_pip_installs_an_environment_from_its_lock_with_hashes(
    index: str, tmp_path: Path, framework: str
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(wheels.lock(framework))
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
         "--isolated", "--require-hashes", f"--index-url={index}/simple", f"--extra-index-url={index}/whl/cu130",
         f"--target={tmp_path / 'site'}", f"--requirement={lock}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    installed = {path.name.removesuffix(".dist-info") for path in (tmp_path / "site").glob("*.dist-info")}
    assert installed == set(wheels.LOCKS[framework])


def test_pip_refuses_a_wheel_that_is_not_the_locked_one(index: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"jaxlib==0.10.2 --hash=sha256:{'0' * 64}\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--isolated", "--require-hashes",
         f"--index-url={index}/simple", f"--target={tmp_path / 'site'}", f"--requirement={lock}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "DO NOT MATCH THE HASHES" in ran.stderr


def test_the_same_wheel_is_the_same_file() -> None:
    assert [wheel.content() for wheel in wheels.WHEELS] == [wheel.content() for wheel in wheels.WHEELS]


@pytest.mark.parametrize("gpus", [["rtx5090"] * 4, ["t4"], ["a100"]])
def test_what_the_resolver_answers_is_there(gpus: list[str]) -> None:
    answered = gpu_stack(gpus, "debian-13", today="2026-11-27")["frameworks"]
    there = {f"{wheel.name}=={wheel.version}" for wheel in wheels.WHEELS}
    for name in ("pytorch", "vllm"):
        assert answered[name]["package"] in there


def test_chips_are_those_of_the_catalog() -> None:
    for wheel in wheels.WHEELS:
        minor = ".".join(wheel.version.split("+")[0].split(".")[:2])
        if wheel.name == "torch":
            known = catalog.TORCH[minor]
            assert wheel.architectures == known.indexes[wheel.index or known.default]
        if wheel.name == "tensorflow":
            assert wheel.architectures == catalog.TENSORFLOW[minor].architectures


# What they say


@pytest.mark.parametrize("module", ["torch", "tensorflow", "jax", "vllm"])
def test_anywhere_else_one_says_that_it_is_simulated(python: Path, machine: Sandbox, module: str) -> None:
    ran = run(python, machine, "-c", f"import {module}; print({module}.__simulated__)")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "True\n"
    assert "SIMULATED" in ran.stderr
    assert "computes nothing" in ran.stderr


def test_a_stand_in_shows_the_gpus_that_the_driver_shows(python: Path, machine: Sandbox) -> None:
    machine.control("break", "lost")
    ran = run(
        python, machine, "-c", "import torch; print(torch.cuda.device_count(), torch.cuda.get_device_name(2))"
    )
    assert ran.stdout == "3 NVIDIA GeForce RTX 5090\n"


def test_without_simulated_gpus_it_does_not_load(python: Path) -> None:
    ran = run(python, None, "-c", "import torch")
    assert ran.returncode == 1
    assert "stand-in of the gpumesh.fleet sandbox (SIMULATED)" in ran.stderr


def test_on_the_cpu_it_has_nothing_to_say(python: Path, machine: Sandbox) -> None:
    ran = run(python, machine, str(WORKLOADS / "torch_step.py"), "--device", "cpu", "--workers", "2")
    assert ran.returncode == 1
    assert "knows nothing but simulated GPUs" in json.loads(ran.stdout.splitlines()[-1])["says"]


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_every_answer_is_labelled_and_comes_to_its_end(python: Path, machine: Sandbox, name: str) -> None:
    lines = answer(python, machine, name)
    assert lines[0]["event"] == "begin"
    assert lines[0]["workload"] == name
    assert lines[0]["simulated"] is True
    assert lines[-1] == {"event": "end"}
    assert any(line["event"] == "progress" for line in lines)
    assert any(line["event"] == "figure" for line in lines)


@pytest.mark.parametrize("recorded", sorted(RECORDED.glob("*-cpu.jsonl")), ids=lambda path: path.stem)
def test_the_figures_are_those_of_the_real_workload(python: Path, machine: Sandbox, recorded: Path) -> None:
    name, _, part = recorded.stem.removesuffix("-cpu").partition("-")
    if name not in ANSWERS:
        pytest.skip(f"{name} is not answered by a stand-in")
    if name == "tensorflow_step":
        # Its wheels have kernels for this card, and none for the other.
        machine.control("profile", "t4")
    real = [json.loads(line) for line in recorded.read_text().splitlines() if line.startswith("{")]
    words = ("--part", part) if part else ARGUMENTS.get(name, ())
    said = answer(python, machine, name, *words)

    def units(lines: list[dict[str, Any]]) -> dict[str, str]:
        return {line["name"]: line["unit"] for line in lines if line["event"] == "figure"}

    missing = {key: unit for key, unit in units(real).items() if units(said).get(key) != unit}
    assert missing == {}


def test_work_is_seen_by_nvidia_smi_and_ends_with_the_program(python: Path, machine: Sandbox) -> None:
    burning = subprocess.Popen(
        [python, str(WORKLOADS / "burn.py"), "--device", "cuda", "--workers", "4", "--size", "full", "--gpu", "2",
         "--every", "0.05"],
        env={**os.environ, "GPUMESH_SIMULATED_PREFIX": str(machine.folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert burning.stdout
    next(line for line in burning.stdout if '"rate"' in line)
    used = [int(value) for value in machine.ask("utilization.gpu")]
    assert used[2] > 90
    assert used[:2] + used[3:] == [0, 0, 0]
    assert float(machine.ask("power.draw")[2]) > 500
    burning.kill()
    burning.communicate()
    assert machine.ask("utilization.gpu") == ["0"] * 4


# What is broken


def test_a_slow_card_is_slower_than_its_siblings(python: Path, machine: Sandbox) -> None:
    machine.control("break", "slow", "--device", "2")
    rates = figures(answer(python, machine, "matmul"), "bf16")
    others = [rate for index, rate in enumerate(rates) if index != 2]
    assert rates[2] < 0.87 * min(others)
    assert min(others) > 0.98 * max(others)


def test_a_weak_link_is_slower_and_of_a_lower_generation_at_work(python: Path, machine: Sandbox) -> None:
    whole = figures(answer(python, machine, "transfers"), "host to device")
    machine.control("break", "weak-link", "--device", "1")
    weak = figures(answer(python, machine, "transfers"), "host to device")
    assert weak[1] < 0.6 * whole[1]
    assert weak[0] == whole[0]
    machine.control("load", "100")
    assert machine.ask("pcie.link.gen.current") == ["5", "4", "5", "5"]
    machine.control("load", "0")
    assert machine.ask("pcie.link.gen.current") == ["1"] * 4


def test_a_card_that_computes_wrongly_is_wrong_everywhere(python: Path, machine: Sandbox) -> None:
    machine.control("break", "wrong", "--device", "3")
    assert figures(answer(python, machine, "torch_step"), "wrong elements") == [0, 0, 0, 17]
    assert figures(answer(python, machine, "memory", "--part", "pattern"), "mismatches") == [0, 0, 0, 1]


def test_a_hot_card_has_no_margin_left_at_work(machine: Sandbox) -> None:
    machine.control("break", "hot", "--device", "1")
    assert int(machine.ask("temperature.gpu")[1]) < 40
    machine.control("load", "100")
    temperatures = [int(value) for value in machine.ask("temperature.gpu")]
    machine.control("load", "0")
    assert temperatures[1] >= 90
    assert max(temperatures[:1] + temperatures[2:]) < 85


def test_a_slow_exchange_is_seen_in_the_collectives_and_in_training(python: Path, machine: Sandbox) -> None:
    whole = figures(answer(python, machine, "training"), "ddp")[0]
    machine.control("break", "slow-all-reduce")
    assert max(figures(answer(python, machine, "collectives"), "all_reduce")) < 10
    assert figures(answer(python, machine, "training"), "ddp")[0] < 0.9 * whole


def test_without_kernels_the_first_operation_fails(python: Path, machine: Sandbox) -> None:
    machine.control("break", "no-kernels")
    assert figures(answer(python, machine, "torch_step"), "wrong elements") == [None] * 4
    assert figures(answer(python, machine, "kernels"), "launch") == [False] * 4
    last = answer(python, machine, "matmul")[-1]
    assert last["event"] == "error"
    assert "no kernel image is available" in last["says"]


def test_published_tensorflow_has_no_kernels_for_blackwell(python: Path, machine: Sandbox) -> None:
    lines = answer(python, machine, "tensorflow_step")
    assert figures(lines, "wrong elements") == [None] * 4


def test_an_xid_is_in_the_log_of_the_kernel_with_its_time(machine: Sandbox) -> None:
    machine.control("break", "xid", "--device", "0")
    last = machine.show("kern.log").splitlines()[-1]
    assert float(last.split()[0]) > 1_700_000_000
    assert "NVRM: Xid (PCI:0000:01:00.0): 119" in last
