# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads that behave, and workloads that hang, crash, lie and leave children behind: real processes, all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import workloads

GOOD = """\
from workload import begin, end, figure, framework, parser, phase, progress

options = parser("multiplies").parse_args()
begin("multiply", options, json=framework("json").__version__)
with phase("product", gpu=0):
    progress(0.5, "half of it")
    print("a library prints where it likes")
    figure("product", 6 * 7, "units", gpu=0, spread=0.1)
end()
"""

PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), sys.executable, sys.argv[2]])
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """Runs a script as a workload, beside the real workload.py."""
    (tmp_path / "workload.py").symlink_to(workloads.path_of("workload"))

    def run(script, *, seconds=20.0, **more):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        command = [sys.executable, str(path), "--device", "cpu", "--workers", "1"]
        return workloads.run(command, name="script", seconds=seconds, log=tmp_path / "log", **more)

    return run


def gone(pid):
    """Whether a process is no more, or only waits for its parent to take note."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_what_it_measured(start, tmp_path):
    heard = []
    outcome = start(GOOD, on_event=heard.append)
    run = outcome.run

    assert (run.error, run.crashed, outcome.missing) == ("", False, "")
    assert run.begin["device"] == "cpu"
    assert run.values("product") == [
        {"name": "product", "value": 42, "unit": "units", "gpu": 0, "spread": 0.1}
    ]
    assert [phase["name"] for phase in run.phases] == ["product"]
    assert [event["event"] for event in heard] == ["begin", "progress", "figure", "phase", "end"]
    assert "a library prints where it likes" in (tmp_path / "log").read_text()


def test_a_log_keeps_the_command_and_all_that_it_said(start, tmp_path):
    start("import sys; sys.stderr.write('a warning\\n'); print('no JSON'); print('{\"event\": \"end\"}')")

    log = (tmp_path / "log").read_text()
    assert log.startswith(f"$ {sys.executable} ")
    assert "a warning" in log
    assert "no JSON" in log


def test_an_error_in_its_own_words(start):
    outcome = start("from workload import fail\nfail('GPU 1 computes 3 instead of 4', gpu=1)")

    assert (outcome.run.error, outcome.run.crashed) == ("GPU 1 computes 3 instead of 4", False)


def test_a_framework_that_is_not_there(start):
    outcome = start("from workload import framework\nframework('no_such_framework')")

    assert outcome.missing == "no_such_framework"
    assert "has no no_such_framework" in outcome.run.error


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("1 / 0", "script ended with status 1 before it had said that it is done: ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 11)", "script was killed by SIGSEGV"),
        ("pass", "script ended halfway"),
        ('print(\'{"event": "end"}\'); raise SystemExit(3)', "script ended with status 3"),
    ],
    ids=["exception", "signal", "silence", "status"],
)
def test_a_crash_is_told(start, script, says):
    run = start(script).run

    assert run.crashed
    assert run.error.startswith(says)


def test_a_python_that_is_not_there(tmp_path):
    outcome = workloads.run(
        ["/no/such/python", "x.py"], name="x", seconds=5, log=tmp_path / "log", environment={}
    )

    assert outcome.run.crashed
    assert "/no/such/python cannot be run: No such file or directory" in outcome.run.error


def test_figures_before_a_crash_are_kept(start):
    run = start("from workload import figure\nfigure('done', 1)\nimport os\nos.abort()").run

    assert run.crashed
    assert run.values("done")


def test_one_that_hangs_is_ended_with_its_children(start, tmp_path):
    outcome = start(
        f"""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
        open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(600)
        """,
        seconds=2.0,
    )
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]

    assert outcome.run.error == "script did not end within 2 seconds"
    assert not outcome.run.crashed
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_children_of_one_that_ended_are_ended(start, tmp_path):
    start(
        f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        print('{{"event": "end"}}', flush=True)
        """
    )

    assert gone(int((tmp_path / "pid").read_text()))


def test_whoever_watches_can_end_it(start):
    outcome = start("import time; time.sleep(600)", stop=lambda: "GPU 2 is too hot")

    assert outcome.run.error == "GPU 2 is too hot"


def test_an_interrupt_ends_it(start, tmp_path):
    class Interrupt(BaseException):
        pass

    def interrupt(event):
        raise Interrupt

    script = f"""
        import os, time
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        print('{{"event": "progress", "done": 0, "says": ""}}', flush=True)
        time.sleep(600)
    """
    with pytest.raises(Interrupt):
        start(script, on_event=interrupt)

    assert gone(int((tmp_path / "pid").read_text()))


def test_it_dies_with_whoever_started_it(tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text(
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    leash = Path(workloads.__file__).with_name("leash.py")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            leash,
            script,
        ]
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    parent.kill()
    parent.wait()

    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        '{"event": "figure"}',
        '{"event": "figure", "name": 3, "value": 1}',
        '{"event": "figure", "name": "x"}',
        '{"event": "phase", "name": "x", "begin": "now", "end": 2}',
        '{"event": "surprise"}',
        "[" * 100_000,
        '{"event": "figure", "name": "x", "value": "' + "x" * (2 << 20) + '"}',
    ],
    ids=["list", "broken", "nameless", "number", "worthless", "timeless", "unknown", "deep", "long"],
)
def test_a_line_that_is_none_of_the_protocol_is_left_in_the_log(start, tmp_path, line):
    (tmp_path / "line").write_text(line)
    run = start(
        f"print(open({str(tmp_path / 'line')!r}).read())\n"
        'print(\'{"event": "figure", "name": "y", "value": 1}\')\nprint(\'{"event": "end"}\')'
    ).run

    assert [figure["name"] for figure in run.figures] == ["y"]
    assert run.phases == []
    assert run.error == ""


def test_our_own_python_path_is_not_the_workloads(start, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    run = start(
        "import os\nfrom workload import figure, end\n"
        "figure('path', os.environ.get('PYTHONPATH')); figure('given', os.environ['GIVEN']); end()",
        environment={"GIVEN": "yes"},
    ).run

    assert [figure["value"] for figure in run.figures] == [None, "yes"]


def test_one_that_writes_without_end_is_ended(start):
    outcome = start("import sys\nwhile True: sys.stdout.write('x' * 65536)", seconds=1.0)

    assert outcome.run.error == "script did not end within 1 seconds"


def test_ticks_come_while_it_is_silent(start):
    ticks = []
    start('import time; time.sleep(1.2); print(\'{"event": "end"}\')', on_tick=lambda: ticks.append(1))

    assert len(ticks) > 1


def test_the_environment_of_this_test_is_as_it_was():
    assert "GIVEN" not in os.environ
