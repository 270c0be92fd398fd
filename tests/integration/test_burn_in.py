# SPDX-License-Identifier: GPL-3.0-or-later
"""A burn-in as a process of its own, killed in every way there is, and started again.

On the CPU with PyTorch, where there is one, and with a stand-in for the workload that computes nothing (SIMULATED). What is
tested is what watches, records and goes on; nothing here says anything about hardware.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import store
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import ledger
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.recorder import lines
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.interpreters import Interpreters

from tests.acceptance_bench import SimulatedMachine

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests/fixtures/acceptance/burn_in/worker.py"
SECONDS = 4.0


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Box:
    """A folder with runs in it, and the command."""

    def __init__(self, folder: Path, interpreter: str, **profile: Any) -> None:
        self.folder = folder
        self.profile = folder / "profile.json"
        self.profile.write_text(
            json.dumps({"machine": "box", "interpreters": {"pytorch": interpreter}, **profile})
        )
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "plugins"),
            "GPUMESH_ACCEPTANCE_LOCK": str(folder / "lock"),
            "NO_COLOR": "1",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "module_utils._acceptance",
            "burn-in",
            "--folder",
            str(self.folder),
            *words,
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*words),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def begin(self, *more: str, seconds: float = SECONDS, device: str = "cpu") -> subprocess.Popen[str]:
        return self.start(
            "--hours", str(seconds / 3600), "--interval", "1", "--device", device, "--profile", str(self.profile), *more
        )  # fmt: skip

    @property
    def run_folder(self) -> Path:
        [folder] = (self.folder / "runs").iterdir()
        return folder

    def records(self) -> list[dict[str, Any]]:
        runs = self.folder / "runs"
        return list(lines(self.run_folder / "burn_in.jsonl")) if runs.is_dir() and any(runs.iterdir()) else []

    def ticks(self) -> list[dict[str, Any]]:
        return [record for record in self.records() if record["event"] == "tick"]

    def document(self) -> dict[str, Any]:
        _, document = store.read(self.run_folder / "run.json")
        return dict(document)

    def verdicts(self) -> dict[str, str]:
        return {check["name"]: check["verdict"] for check in self.document()["checks"]}

    def status(self) -> dict[str, Any]:
        ran = self.run("--status", "--json")
        assert ran.returncode == 0, ran.stderr
        return dict(json.loads(ran.stdout))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def workers_of(pid: int) -> list[int]:
    """The workers that a process has started; it also runs other programs, for moments."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if b"--gpu" in Path(f"/proc/{child}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A Python that says it has PyTorch, and runs the stand-in whatever it is given."""
    (tmp_path / "stand-in").mkdir()
    worker = tmp_path / "stand-in/worker.py"
    worker.write_text(STAND_IN.read_text())
    program = tmp_path / "stand-in/python"
    program.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nexec {sys.executable} {worker} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def box(tmp_path: Path, stand_in: str) -> Iterator[Box]:
    made = Box(tmp_path, stand_in)
    yield made
    made.close()


@pytest.fixture(params=["stand-in", "pytorch"])
def either_box(request: pytest.FixtureRequest, tmp_path: Path, stand_in: str) -> Iterator[Box]:
    interpreter: str | None = stand_in
    if request.param == "pytorch":
        declared = os.environ.get("GPUMESH_TEST_TORCH", "")
        interpreter = Interpreters({"pytorch": declared} if declared else {}).find("pytorch")
    if interpreter is None:
        pytest.skip("no Python here has PyTorch; name one in GPUMESH_TEST_TORCH")
    made = Box(tmp_path, interpreter)
    yield made
    made.close()


def test_killed_and_started_again_it_goes_on_and_the_document_shows_the_gap(either_box: Box) -> None:
    box = either_box
    process = box.begin(seconds=5)
    assert eventually(lambda: len(box.ticks()) >= 2), process.communicate()[0]
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not any(alive(worker) for worker in workers)), "no worker outlives it"
    path = box.run_folder / "burn_in.jsonl"
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"event":"tick","from":17')
    burned = box.status()["burned_s"]
    assert not box.status()["going"]
    assert not box.status()["over"]
    assert box.document()["state"] == "running", "nobody was there to say anything else"

    again = box.start("--resume")
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 4, said
    assert path.read_bytes().startswith(before), "what was there is there"
    document = box.document()
    assert document["state"] == "complete"
    assert document["suite"] == "burn-in"
    done = document["burn_in"]
    assert done["done_s"] >= 5
    assert [gap["why"] for gap in done["gaps"]] == [ledger.STARTING, ledger.KILLED]
    assert done["stopped"] == ""
    assert box.verdicts()["hours_burned"] == "PASS"
    assert box.verdicts()["numbers"] == "PASS"
    assert document["verdict"]["hardware"] is None
    assert document["label"] in ("CPU", "SIMULATED")
    jsonschema.validate(document, json.loads((ROOT / "docs/acceptance.schema.json").read_text()))
    status = box.status()
    assert status["over"]
    assert 0 < burned < status["burned_s"]
    assert (box.run_folder / "junit.xml").exists()
    assert "no unfinished burn-in" in box.run("--resume").stderr


def test_a_worker_that_is_killed_is_not_started_again_and_fails_it(box: Box) -> None:
    process = box.begin(seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 1)
    workers = workers_of(process.pid)
    os.kill(workers[1], signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    assert "the worker of GPU 1 was killed by signal 9" in said
    assert not any(alive(worker) for worker in workers)
    assert box.verdicts()["workers_alive"] == "FAIL"
    assert box.verdicts()["hours_burned"] == "UNKNOWN"
    assert box.document()["burn_in"]["stopped"] == "the worker of GPU 1 was killed by signal 9"
    assert box.document()["state"] == "complete"
    assert box.run("--resume").returncode == 2, "it has ended for good"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_in_order_and_can_go_on_or_be_ended(box: Box, number: signal.Signals) -> None:
    process = box.begin(seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 1)
    workers = workers_of(process.pid)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not any(alive(worker) for worker in workers)
    assert box.records()[-1]["event"] == "end"
    assert box.document()["state"] == "interrupted"
    assert box.verdicts()["hours_burned"] == "UNKNOWN"
    again = box.start("--resume")
    assert eventually(lambda: len([one for one in box.records() if one["event"] == "burning"]) == 2)
    stopped = box.run("--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert again.wait(timeout=60) == 4
    done = box.document()["burn_in"]
    assert [gap["why"] for gap in done["gaps"]][:2] == [ledger.STARTING, ledger.INTERRUPTED]
    assert done["stopped"] == "it was asked to end before its time"
    assert "is over already" in box.run("--stop", box.run_folder.name).stdout


def test_one_that_nobody_is_at_can_be_ended(box: Box) -> None:
    process = box.begin(seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 1)
    process.kill()
    process.wait()
    stopped = box.run("--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert box.status()["over"]
    assert box.document()["burn_in"]["stopped"] == "it was asked to end before its time"


def disk(pid: int, *, full: bool) -> None:
    """A full disk, as a process sees it: no file takes a byte more."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 if full else unlimited, unlimited))


def test_a_stop_that_a_full_disk_does_not_take_is_still_its_end(box: Box) -> None:
    process = box.begin(seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 1)
    disk(process.pid, full=True)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2, said
    assert "the disk did not take the record of why: the worker of GPU 1 was killed by signal 9" in said
    assert "run.json cannot be written" in said
    assert "Traceback" not in said
    assert "stop" not in {record["event"] for record in box.records()}
    assert box.status()["over"], "or systemd would have it burn again"
    assert "no unfinished burn-in" in box.run("--resume").stderr


def test_what_a_full_disk_took_is_told_in_the_document(box: Box) -> None:
    process = box.begin(seconds=5)
    assert eventually(lambda: len(box.ticks()) >= 1)
    disk(process.pid, full=True)
    time.sleep(2)
    disk(process.pid, full=False)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 4, said
    [responsive] = [check for check in box.document()["checks"] if check["name"] == "responsive"]
    assert responsive["verdict"] == "WARN"
    [lost] = [figure["value"] for figure in responsive["figures"] if figure["name"] == "writes lost"]
    assert 1 <= box.ticks()[-1]["lost"] <= lost, "whoever goes on after a crash knows it, too"
    assert f"{lost} writes to the disk were lost" in responsive["says"]


def test_two_at_once_are_refused(box: Box) -> None:
    box.begin(seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 1)
    second = box.begin()
    assert "another run of gpu-acceptance is going on" in second.communicate(timeout=60)[0]
    assert second.returncode == 2
    assert len(list((box.folder / "runs").iterdir())) == 1


def test_wrong_numbers_fail_it_and_it_goes_on(box: Box, tmp_path: Path) -> None:
    (tmp_path / "stand-in/orders").write_text('{"gpu": 1, "do": "mismatch"}')
    process = box.begin(seconds=2)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    assert box.verdicts()["numbers"] == "FAIL"
    assert box.verdicts()["hours_burned"] == "PASS"
    assert "SIMULATED" in box.document()["verdict"]["says"]


def test_without_a_gpu_it_says_what_to_do(box: Box) -> None:
    process = box.begin(device="cuda")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "the driver answers for no GPU" in said
    assert "Traceback" not in said


@pytest.fixture
def simulated(
    tmp_path: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Box, SimulatedMachine]]:
    """Four simulated RTX 5090 under full load. SIMULATED."""
    machine = SimulatedMachine(tmp_path, monkeypatch)
    assert machine.sandbox.control("load", "100")[0] == 0
    log = tmp_path / "kernel.log"
    log.write_text("")
    made = Box(tmp_path, stand_in, root=str(machine.sandbox.root), kernel_log=str(log))
    yield made, machine
    made.close()


def test_on_simulated_gpus_it_passes_and_says_that_they_are_simulated(
    simulated: tuple[Box, SimulatedMachine],
) -> None:
    box, _ = simulated
    process = box.begin(device="cuda")
    said = process.communicate(timeout=90)[0]
    assert process.returncode == 0, said
    document = box.document()
    assert document["label"] == "SIMULATED"
    assert document["verdict"]["hardware"] is None
    assert set(box.verdicts().values()) == {"PASS"}
    assert len(document["machine"]["gpus"]) == 4
    samples = list(lines(box.run_folder / "samples.jsonl"))
    assert {sample["gpu"] for sample in samples} == {0, 1, 2, 3}
    assert min(sample["margin_c"] for sample in samples) >= 2


def test_it_stops_where_a_gpu_gets_too_hot(simulated: tuple[Box, SimulatedMachine]) -> None:
    box, machine = simulated
    process = box.begin(device="cuda", seconds=600)
    assert eventually(lambda: len(box.ticks()) >= 2)
    workers = workers_of(process.pid)
    machine.break_("throttled", "--device", "2")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    assert not any(alive(worker) for worker in workers)
    [stop] = [record for record in box.records() if record["event"] == "stop"]
    assert stop["kind"] == "margin"
    assert stop["reading"]["gpu"] == 2
    assert stop["reading"]["margin_c"] < 2
    hot = next(sample for sample in lines(box.run_folder / "samples.jsonl") if sample["margin_c"] < 2)
    assert stop["reading"]["at"] == hot["at"], "the first reading that was too hot is the one that stopped it"
    assert box.verdicts()["margin"] == "FAIL"
    assert box.verdicts()["throttling"] == "FAIL"
    assert box.document()["burn_in"]["stopped"].startswith("GPU 2 was at ")


def test_it_stops_at_a_declared_temperature(simulated: tuple[Box, SimulatedMachine]) -> None:
    box, _ = simulated
    process = box.begin("--stop-temperature", "40", device="cuda", seconds=600)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    [stop] = [record for record in box.records() if record["event"] == "stop"]
    assert stop["kind"] == "temperature"
    assert "burning" not in {record["event"] for record in box.records()}, "it was too hot before it began"


def test_what_the_kernel_says_while_nobody_is_there_is_read_afterwards(
    simulated: tuple[Box, SimulatedMachine], tmp_path: Path
) -> None:
    box, _ = simulated
    process = box.begin(device="cuda", seconds=6)
    assert eventually(lambda: len(box.ticks()) >= 1)
    process.kill()
    process.wait()
    address = box.document()["machine"]["gpus"][1]["pci_address"].rpartition(".")[0]
    with (tmp_path / "kernel.log").open("a") as file:
        file.write(
            f"{time.time():.6f} box kernel: NVRM: Xid (PCI:{address}): 79, GPU has fallen off the bus.\n"
        )
    said = box.run("--resume").stdout
    assert "Xid 79" in said
    assert box.verdicts()["kernel_errors"] == "FAIL"
    assert box.verdicts()["hours_burned"] == "PASS"


def crash(box: Box, **more: Any) -> None:
    """It burns, and then nobody is at it any more."""
    process = box.begin(device="cuda", **more)
    assert eventually(lambda: len(box.ticks()) >= 2), process.communicate()[0]
    process.kill()
    process.wait()


def test_a_gpu_that_is_lost_over_a_restart_fails_it(simulated: tuple[Box, SimulatedMachine]) -> None:
    box, machine = simulated
    crash(box, seconds=600)
    uuids = [gpu["uuid"] for gpu in box.document()["machine"]["gpus"]]
    machine.break_("unplugged", "--device", "1")
    assert machine.sandbox.control("reboot")[0] == 0
    ticks = len(box.ticks())
    ran = box.run("--resume")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    says = f"GPU 1 ({uuids[1]}) burned before, and the driver does not answer for it any more"
    assert says in ran.stdout
    assert box.verdicts()["workers_alive"] == "FAIL"
    assert box.document()["burn_in"]["stopped"] == says
    assert len(box.ticks()) == ticks, "those that are left do not go on under other numbers"
    [numbers] = [check for check in box.document()["checks"] if check["name"] == "numbers"]
    assert [figure["gpu"] for figure in numbers["figures"]] == [0, 1, 2, 3], "judged are those that began"
    assert box.status()["over"]


def test_without_any_gpu_it_is_left_to_be_gone_on_with(simulated: tuple[Box, SimulatedMachine]) -> None:
    box, machine = simulated
    crash(box, seconds=3)
    assert machine.sandbox.rmmod("nvidia_uvm", "nvidia")[0] == 0
    assert "the driver answers for no GPU" in box.run("--resume").stderr
    assert not box.status()["over"]
    assert machine.sandbox.modprobe("nvidia")[0] == 0
    assert box.run("--resume").returncode == 0
    assert box.verdicts()["hours_burned"] == "PASS"


def test_under_systemd_gpus_that_have_not_answered_for_minutes_fail_it(
    simulated: tuple[Box, SimulatedMachine],
) -> None:
    box, machine = simulated
    crash(box, seconds=600)
    path = box.run_folder / "burn_in.jsonl"
    path.write_text(
        "".join(f"{json.dumps({**record, 't': record['t'] - 1000})}\n" for record in box.records())
    )
    assert machine.sandbox.rmmod("nvidia_uvm", "nvidia")[0] == 0
    assert "the driver answers for no GPU" in box.run("--resume").stderr, (
        "by hand there is somebody to see to it"
    )
    ran = box.run("--resume", "--service")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert box.status()["over"]
    assert box.verdicts()["workers_alive"] == "FAIL"
    assert (
        "burned before, and the driver does not answer for it any more"
        in box.document()["burn_in"]["stopped"]
    )


def test_with_more_gpus_than_at_the_beginning_it_ends_and_blames_none(
    simulated: tuple[Box, SimulatedMachine],
) -> None:
    box, _ = simulated
    crash(box, seconds=600)
    path = box.run_folder / "burn_in.jsonl"
    begin, *rest = path.read_text().splitlines()
    record = json.loads(begin)
    record["gpus"].pop()
    path.write_text("\n".join([json.dumps(record), *rest, ""]))
    ran = box.run("--resume")
    assert ran.returncode == 4, ran.stdout + ran.stderr
    assert box.verdicts()["hours_burned"] == "UNKNOWN"
    assert "FAIL" not in box.verdicts().values()
    assert box.document()["burn_in"]["stopped"].startswith("the machine has other GPUs than when it began")


@pytest.mark.parametrize(
    ("declared", "broken", "says"),
    [
        (False, "unseen", "the driver answers for 3 GPUs, and there are 4"),
        (False, "lost", "the driver answers for 3 GPUs, and there are 4"),
        (True, "unplugged", "the driver answers for 3 GPUs, and 4 are declared"),
    ],
)
def test_it_does_not_begin_without_all_gpus(
    simulated: tuple[Box, SimulatedMachine], declared: bool, broken: str, says: str
) -> None:
    box, machine = simulated
    if declared:
        profile = json.loads(box.profile.read_text())
        box.profile.write_text(json.dumps({**profile, "gpus": {"rtx-5090": 4}}))
    machine.break_(broken, "--device", "1")
    said = box.begin(device="cuda", seconds=2).communicate(timeout=60)[0]
    assert says in said
    assert "gpu-acceptance run --suite quick" in said
    assert box.records() == []


@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_a_wrong_number_after_the_last_look_counts(box: Box, tmp_path: Path, number: int) -> None:
    worker = tmp_path / "stand-in/worker.py"
    last = '                say("figure", name="mismatch", gpu=gpu, value=1)\n                break\n'
    assert worker.read_text().count("                break\n") == 1
    worker.write_text(worker.read_text().replace("                break\n", last))
    process = box.begin(seconds=600 if number else 2)
    if number:
        assert eventually(lambda: len(box.ticks()) >= 1)
        process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == (130 if number else 1), said
    assert [one["mismatches"] for one in box.records() if one["event"] == "counts"] == [{"0": 1, "1": 1}]
    assert box.verdicts()["numbers"] == "FAIL"
