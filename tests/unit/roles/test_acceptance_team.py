# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a workload: what they say is passed on, the one that fails is named, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.acceptance_compute import WORKLOADS

HEAD = """
import os, signal, sys, time
sys.path.insert(0, {workloads!r})
import team, workload
"""


def script(folder: Path, body: str) -> Path:
    path = folder / "some_workload.py"
    path.write_text(HEAD.format(workloads=str(WORKLOADS)) + textwrap.dedent(body))
    return path


def run(folder: Path, body: str) -> tuple[int, list[dict], str]:
    ran = subprocess.run(
        [sys.executable, str(script(folder, body))], capture_output=True, text=True, timeout=60, check=False
    )
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pids: list[int]) -> bool:
    """Whether they end; not at once, the kernel takes a moment."""
    for _ in range(200):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


def test_what_each_says_is_passed_on(tmp_path):
    status, lines, _ = run(
        tmp_path,
        """
        def work(index):
            print("a library that talks")
            workload.figure("rate", index * 10, "GB/s", gpu=index, spread=0.1)
        team.run(3, "cuda", work)
        workload.end()
        """,
    )

    assert status == 0
    assert lines[-1] == {"event": "end"}
    assert sorted((line["gpu"], line["value"], line["spread"]) for line in lines[:-1]) == [
        (0, 0, 0.1),
        (1, 10, 0.1),
        (2, 20, 0.1),
    ]


def test_progress_is_that_of_all(tmp_path):
    _, lines, _ = run(
        tmp_path,
        """
        barrier = team.barrier(2)
        def work(index):
            for done in (0.5, 1.0):
                barrier.wait()
                workload.progress(done, "at it")
        team.run(2, "cuda", work)
        """,
    )

    done = [line["done"] for line in lines]
    assert done == sorted(done)
    assert done[0] == 0.25
    assert done[-1] == 1.0


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise RuntimeError('CUDA error: an illegal memory access\\nCUDA kernel errors might be ...')", "GPU 1: CUDA error: an illegal memory access"),
        ("raise ValueError('no such thing')", "GPU 1: ValueError: no such thing"),
        ("workload.fail('GPU 1: is too small', gpu=1)", "GPU 1: is too small"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process of GPU 1 was ended by SIGSEGV"),
        ("os._exit(3)", "the process of GPU 1 ended with status 3 and did not say why"),
    ],
)  # fmt: skip
def test_the_one_that_fails_is_named_and_the_others_end(tmp_path, what, says):
    pids = tmp_path / "pids"
    status, lines, _ = run(
        tmp_path,
        f"""
        def work(index):
            with open({str(pids)!r}, "a") as file:
                file.write(f"{{os.getpid()}}\\n")
            if index == 1:
                {what}
            time.sleep(300)
        team.run(3, "cuda", work)
        workload.end()
        """,
    )

    assert status == 1
    assert lines == [{"event": "error", "says": says, "gpu": 1}]
    assert gone([int(pid) for pid in pids.read_text().split()])


def test_the_cause_is_told_and_not_its_consequence(tmp_path):
    """The others notice that their peer is gone, and may be heard first."""
    status, lines, _ = run(
        tmp_path,
        """
        def work(index):
            if index == 2:
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            if index == 0:
                raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
            os.abort()
        team.run(3, "cuda", work)
        """,
    )

    assert status == 1
    assert lines[-1] == {"event": "error", "says": "the process of GPU 2 was ended by SIGKILL", "gpu": 2}


def test_on_a_cpu_they_are_called_processes(tmp_path):
    _, lines, _ = run(tmp_path, "team.run(1, 'cpu', lambda index: 1 / 0)")
    assert lines[0]["says"] == "process 0: ZeroDivisionError: division by zero"


def test_what_is_missing_is_told_as_missing(tmp_path):
    _, lines, _ = run(
        tmp_path, "team.run(2, 'cuda', lambda index: workload.fail('there is no nccl', missing='nccl'))"
    )
    assert (lines[0]["says"], lines[0]["missing"]) == ("there is no nccl", "nccl")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nobody_outlives_the_first_process(tmp_path, number):
    path = script(
        tmp_path,
        """
        def work(index):
            workload.say("here", pid=os.getpid())
            time.sleep(300)
        team.run(2, "cuda", work)
        """,
    )
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        pids = [json.loads(process.stdout.readline())["pid"] for _ in range(2)]
        assert all(map(alive, pids))
        os.kill(process.pid, number)
        process.wait(timeout=30)

        assert gone(pids)


def test_the_meeting_place_is_cleared_away(tmp_path):
    _, lines, _ = run(
        tmp_path,
        """
        with team.meeting_place() as meet:
            workload.say("met", at=meet)
        """,
    )
    place = Path(lines[0]["at"].removeprefix("file://"))
    assert place.is_absolute()
    assert not place.parent.exists()


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-1", {0, 1}), ("0,1\n", {0, 1}), ("", set()), ("900-901", set())]
)
def test_the_cpus_beside_a_card(tmp_path, text, cpus):
    folder = tmp_path / "0000:0a:00.0"
    folder.mkdir()
    (folder / "local_cpulist").write_text(text)

    _, lines, _ = run(
        tmp_path,
        f"""
        import pathlib
        team.DEVICES = pathlib.Path({str(tmp_path)!r})
        os.sched_getaffinity = lambda pid: set(range(8))
        for address in ("0000:0A:00.0", "0000:99:00.0"):
            workload.say("cpus", cpus=sorted(team.local_cpus(address)))
        """,
    )

    assert [set(line["cpus"]) for line in lines] == [cpus, set()]
