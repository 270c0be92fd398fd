# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that checks are given: its GPUs (SIMULATED), its workloads (real programs), its log, what it is."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import machine_words, workloads
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook, Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.interpreters import (
    Interpreters,
    has,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.machine import Machine
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests.acceptance_bench import SimulatedMachine
from tests.acceptance_runs import problems, run


class Sensors:
    """One reading, at whatever time."""

    def during(self, begin, end):
        return [Sample((begin + end) / 2, 0, temperature_c=50)]


@pytest.fixture
def scripts(tmp_path):
    """A folder of workloads that a test writes."""
    folder = tmp_path / "workloads"
    folder.mkdir()
    (folder / "workload.py").symlink_to(workloads.path_of("workload"))
    return folder


@pytest.fixture
def here(tmp_path, scripts):
    """This machine, on the CPU."""
    return Machine(
        Profile(),
        "cpu",
        "quick",
        tmp_path,
        interpreters=Interpreters({}, environments=_environment(tmp_path, "pytorch")),
        telemetry=Sensors(),
        path_of=lambda name: scripts / f"{name}.py",
    )


def _environment(folder, framework):
    """An environment whose Python has a module torch."""
    home = folder / "frameworks" / framework
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "lib" / "torch.py").write_text("raise ImportError('it must not be loaded to be found')")
    python = home / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={home / "lib"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder / "frameworks"


def write(folder, name, script):
    (folder / f"{name}.py").write_text(textwrap.dedent(script))


def test_a_workload_is_told_device_and_number_of_workers(here, scripts):
    write(
        scripts,
        "tells",
        """
        from workload import begin, end, figure, parser
        options = parser("").parse_args()
        begin("tells", options, torch="2.13.0")
        figure("options", f"{options.device} {options.workers} {options.size}")
        end()
        """,
    )
    here.check = "kernels"
    first = here.workload("tells", "pytorch", "--size", "small", seconds=30)
    second = here.workload("tells", "pytorch", "--workers", "1", seconds=30)

    assert first.figures[0]["value"] == "cpu 2 small"
    assert second.figures[0]["value"] == "cpu 1 full"
    assert first.samples[0].temperature_c == 50
    assert here.versions["torch"] == "2.13.0"
    assert here.simulated_workload is False
    assert [path.name for path in sorted(here.folder.glob("*.log"))] == [
        "kernels-tells-2.log",
        "kernels-tells.log",
    ]


def test_a_simulated_workload_is_noticed(here, scripts):
    write(
        scripts,
        "fake",
        """print('{"event": "begin", "simulated": true}\\n{"event": "end"}')""",
    )
    here.workload("fake", "pytorch", seconds=30)

    assert here.simulated_workload is True


def test_without_a_framework_there_is_nothing_to_look_with(here):
    with pytest.raises(CannotLook, match="JAX is not installed") as caught:
        here.workload("tells", "jax", seconds=30)
    assert "interpreters.jax" in caught.value.advice


def test_without_a_part_of_a_framework_neither(here, scripts):
    write(scripts, "needs", "from workload import framework\nframework('no_such_part')")
    with pytest.raises(CannotLook, match="has no no_such_part") as caught:
        here.workload("needs", "pytorch", seconds=30)
    assert caught.value.advice.startswith("install no_such_part there")


def test_what_workloads_say_is_passed_on(tmp_path, scripts):
    write(
        scripts, "half", """print('{"event": "progress", "done": 0.5, "says": "half"}\\n{"event": "end"}')"""
    )
    heard = []
    machine = Machine(
        Profile(),
        "cpu",
        "quick",
        tmp_path,
        interpreters=Interpreters({}, environments=_environment(tmp_path, "pytorch")),
        on_event=heard.append,
        path_of=lambda name: scripts / f"{name}.py",
    )
    machine.workload("half", "pytorch", seconds=30)

    assert heard[0] == {"event": "progress", "done": 0.5, "says": "half"}


def test_the_kernels_log_since_a_moment(tmp_path):
    (tmp_path / "kernel.log").write_text("100.5 box kernel: old\n200.5 box kernel: new\n")
    machine = Machine(Profile(kernel_log=str(tmp_path / "kernel.log")), "cpu", "quick", tmp_path)

    assert len(machine.kernel_log()) == 2
    assert machine.kernel_log(since=200.0) == ["200.5 box kernel: new"]


def test_the_gpus_of_a_simulated_machine(tmp_path, monkeypatch):
    simulated = SimulatedMachine(tmp_path, monkeypatch)
    profile = Profile(root=str(simulated.sandbox.root), machine="demo")
    machine = Machine(profile, "cuda", "quick", tmp_path)
    found = machine_words.machine(profile, machine.facts)

    assert machine.workers == 4
    assert machine.facts["simulated"] is True
    assert found["name"] == "demo"
    assert found["driver"] == "580.178.04"
    assert [gpu["model"] for gpu in found["gpus"]] == ["rtx5090"] * 4
    assert found["gpus"][0]["power_limit_w"] > 0


def test_a_declared_python_is_the_only_one(tmp_path):
    other = _environment(tmp_path, "pytorch")
    found = Interpreters({"pytorch": "/no/python"}, environments=other)

    assert found.find("pytorch") is None
    assert found.missing("pytorch")[0].startswith(
        "the Python that the profile names for PyTorch, /no/python,"
    )


def test_a_framework_is_found_in_its_environment_without_being_loaded(tmp_path):
    found = Interpreters({}, environments=_environment(tmp_path, "pytorch"), system=())

    assert found.find("pytorch") == str(tmp_path / "frameworks/pytorch/bin/python")
    assert found.find("vllm") is None
    assert found.find("no_such_framework") is None
    assert found.missing("vllm")[0].startswith("vLLM is not installed (looked for in ")


def test_a_folder_with_the_name_of_a_module_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "surely_no_module").mkdir()
    monkeypatch.chdir(tmp_path)

    assert not has(sys.executable, "surely_no_module")
    assert has(sys.executable, "json")


def test_this_machine_as_the_schema_wants_it(tmp_path):
    machine = Machine(Profile(), "cpu", "quick", tmp_path)
    found = machine_words.machine(Profile(), machine.facts)
    schema_says = problems(__import__("json").loads("{}") | {"machine": found})

    assert found["kernel"] and found["cores"] and found["memory_gib"]
    assert not [problem for problem in schema_says if problem.startswith("$.machine")]
    assert run().machine.keys() == found.keys()


@pytest.mark.parametrize(
    ("declared", "ran", "expected"),
    [
        (True, Ran(0, "kvm\n", ""), True),
        (False, Ran(1, "none\n", ""), False),
        (None, Ran(1, "none\n", ""), True),
        (None, Ran(0, "kvm\n", ""), False),
        (None, Ran(127, "", "systemd-detect-virt is not installed"), None),
    ],
)
def test_bare_metal_is_as_declared_or_as_detected(declared, ran, expected):
    assert machine_words.bare_metal(declared, machine_words.virtualisation(ran)) is expected


def test_words_of_files():
    assert machine_words.system('NAME="x"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n') == (
        "Debian GNU/Linux 13 (trixie)"
    )
    assert machine_words.system("PRETTY_NAME=Alpine\n") == "Alpine"
    assert machine_words.system("") is None
    assert machine_words.cpu("model name\t: AMD  EPYC 9354\nmodel name\t: x\n") == "AMD EPYC 9354"
    assert machine_words.cpu("processor : 0\n") is None
    assert machine_words.memory_gib("MemTotal:       263712345 kB\n") == 251.5
    assert machine_words.board("ASRockRack\n", "GENOAD8X\n") == "ASRockRack GENOAD8X"
    assert machine_words.board("", "") is None


def test_the_release_is_that_of_the_collection():
    galaxy = (Path(__file__).parents[5] / "galaxy.yml").read_text()

    assert machine_words.release()
    assert f"version: {machine_words.release()}\n" in galaxy
