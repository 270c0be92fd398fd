# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs on the CPU as real processes: to their end, interrupted, killed, and two at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import workloads

from tests.acceptance_runs import problems

DRIVER = Path(__file__).with_name("driver.py")
GOOD = """
from workload import begin, end, figure, parser, progress
options = parser("").parse_args()
begin("works", options, torch="2.13.0")
progress(0.5, "half")
figure("rate", 1.5, "TFLOPS")
end()
"""
HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
child.stdout.readline()
open(os.path.join(os.path.dirname(__file__), "pids"), "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
# As of every workload of ours, its children end with it. It says when it has told the kernel so: killed before, it would stay.
CHILD = "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); print(flush=True); time.sleep(600)"


class Tool:
    """gpu-acceptance with the checks of driver.py, in folders of its own."""

    def __init__(self, folder, script):
        self.folder = folder
        self.workloads = folder / ("hang" if script == HANGS else "good")
        self.workloads.mkdir()
        (self.workloads / "workload.py").symlink_to(workloads.path_of("workload"))
        (self.workloads / "works.py").write_text(f"CHILD = {CHILD!r}\n{script}")
        (folder / "profile.json").write_text('{"waived": {}}')
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"].split(":")[0],
            "GPUMESH_ACCEPTANCE_LOCK": str(folder / "lock"),
        }

    def start(self, *more, stream=subprocess.PIPE):
        return subprocess.Popen(
            [
                sys.executable,
                DRIVER,
                self.workloads,
                *(
                    "run",
                    "--device",
                    "cpu",
                    "--folder",
                    self.folder,
                    "--profile",
                    self.folder / "profile.json",
                ),
                *more,
            ],
            stdout=stream,
            stderr=stream,
            text=True,
            env=self.environment,
        )

    def run(self, *more):
        process = self.start(*more)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def in_the_workload(self, meanwhile=lambda: None):
        """Wait until it runs; the processes of it."""
        pids = self.workloads / "pids"
        for _ in range(1200):
            if pids.exists() and len(pids.read_text().split()) == 2:
                return [int(pid) for pid in pids.read_text().split()]
            meanwhile()
            time.sleep(0.05)
        raise AssertionError("the workload did not begin within a minute")

    def document(self, number=-1):
        paths = sorted(self.folder.glob("runs/*/run.json"))
        document = json.loads(paths[number].read_text())
        assert problems(document) == []
        return document


def gone(pid):
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def good(tmp_path):
    return Tool(tmp_path, GOOD)


@pytest.fixture
def hanging(tmp_path):
    return Tool(tmp_path, HANGS)


def test_a_run_on_the_cpu_to_its_end(good):
    status, out, err = good.run()
    document = good.document()
    lines = [line for line in out.splitlines() if line]

    # The check that needs a GPU was not made, so that the run is not green.
    assert status == 4, err
    assert document["state"] == "complete"
    assert document["verdict"]["checks"] == "UNKNOWN"
    assert document["verdict"]["hardware"] is None
    assert document["coverage"]["says"] == "3 of 4 checks ran"
    assert document["versions"]["torch"] == "2.13.0"
    assert [check["verdict"] for check in document["checks"]] == ["PASS", "SKIP", "PASS", "PASS"]
    assert {check["label"] for check in document["checks"]} == {"CPU"}
    # First and last.
    assert lines[0].startswith("UNKNOWN CPU: 1 check of 4 was not made (gpu); ")
    assert lines[0] in lines[-4:]
    assert "3 of 4 checks ran" in out
    assert "3/4 PASS    works" in err
    assert "\033" not in out + err
    assert (
        'tests="4" failures="0" errors="0" skipped="1"'
        in next(good.folder.glob("runs/*/junit.xml")).read_text()
    )


def test_a_run_without_a_gap_on_the_cpu_is_still_no_verdict_on_hardware(good):
    (good.folder / "profile.json").write_text('{"waived": {"gpu": "there is none here"}}')
    status, out, _ = good.run("--json")
    document = json.loads(out)

    assert status == 0
    assert document["verdict"] == good.document()["verdict"]
    assert document["verdict"]["checks"] == "PASS"
    assert document["verdict"]["hardware"] is None
    assert document["coverage"]["waived"] == 1


def test_ctrl_c_ends_the_workload_and_leaves_what_there_is(hanging):
    process = hanging.start()
    pids = hanging.in_the_workload()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    document = hanging.document()

    assert process.returncode == 130, err
    assert all(gone(pid) for pid in pids)
    assert document["state"] == "interrupted"
    assert document["end"]
    assert [check["says"] for check in document["checks"]] == [
        "it was looked at",
        "it needs a GPU, and the run is on the CPU",
        "the run was interrupted before its end",
        "the run was interrupted before its end",
    ]
    assert document["verdict"]["checks"] == "UNKNOWN"
    assert "The run was interrupted" in out
    assert "Traceback" not in err
    assert next(hanging.folder.glob("runs/*/junit.xml"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_that_is_stopped_leaves_what_there_is(hanging, number):
    process = hanging.start()
    pids = hanging.in_the_workload()
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert all(gone(pid) for pid in pids)
    assert hanging.document()["state"] == "interrupted"


def test_a_terminal_that_is_closed_does_not_take_the_end_of_the_run_with_it(hanging):
    master, slave = os.openpty()
    os.set_blocking(master, False)
    shown = []

    def read():
        # A terminal that nobody reads from would hold the run up.
        with contextlib.suppress(BlockingIOError):
            shown.append(os.read(master, 1 << 16))

    process = hanging.start(stream=slave)
    os.close(slave)
    pids = hanging.in_the_workload(read)
    # From here on whatever is written ends in EIO.
    os.close(master)
    process.send_signal(signal.SIGHUP)
    status = process.wait(timeout=60)
    document = hanging.document()

    assert b"\033[K" in b"".join(shown)
    assert status == 130
    assert all(gone(pid) for pid in pids)
    assert document["state"] == "interrupted"
    assert document["end"]
    assert next(hanging.folder.glob("runs/*/junit.xml"))


def test_an_impatient_user_breaks_nothing(hanging):
    (hanging.workloads / "works.py").write_text(
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); CHILD = {CHILD!r}\n{HANGS}"
    )
    process = hanging.start()
    pids = hanging.in_the_workload()
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "ending what is running, please wait" in err
    assert all(gone(pid) for pid in pids)
    assert hanging.document()["state"] == "interrupted"


def test_kill_9_leaves_a_run_that_can_be_read_and_blocks_nobody(hanging):
    process = hanging.start()
    pids = hanging.in_the_workload()
    process.kill()
    process.communicate(timeout=60)
    document = hanging.document()

    assert document["state"] == "running"
    assert document["end"] is None
    assert document["verdict"]["checks"] == "UNKNOWN"
    assert [check["verdict"] for check in document["checks"]] == ["PASS", "SKIP", "SKIP", "SKIP"]
    assert document["checks"][2]["says"] == "the run has not come to this check"
    assert all(gone(pid) for pid in pids)

    (hanging.workloads / "works.py").write_text(GOOD)
    status, _, err = hanging.run("--only", "first,works")
    assert status == 4, err
    assert hanging.document()["state"] == "complete"


def test_two_runs_at_once_are_refused(hanging):
    process = hanging.start()
    hanging.in_the_workload()
    status, out, err = hanging.run()

    assert (status, out) == (2, "")
    assert f"another run of gpu-acceptance is going on on this machine (process {process.pid})" in err
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert len(list(hanging.folder.glob("runs/*"))) == 1


def test_a_workload_that_crashes_fails_its_check_alone(good):
    (good.workloads / "works.py").write_text("import os; os.abort()")
    status, out, _ = good.run()

    assert status == 1
    assert good.document()["checks"][2]["says"] == "works was killed by SIGABRT"
    assert "→ see its log" in out


def test_a_profile_with_problems_tells_all_of_them(good):
    (good.folder / "profile.json").write_text('{"machin": "x", "waived": {"first": ""}}')
    status, out, err = good.run()

    assert (status, out) == (2, "")
    assert "has 2 problems:\n  machin: there is no such key, machine perhaps" in err
    assert "  waived.first: a waiver has a reason" in err
    assert not (good.folder / "runs").exists()


def test_a_check_that_is_not_there(good):
    assert good.run("--only", "matmul")[0] == 2
