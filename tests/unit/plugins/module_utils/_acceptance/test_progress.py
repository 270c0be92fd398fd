# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run shows while it goes on."""

from __future__ import annotations

import errno
import io

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.progress import Progress
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import entry as entry_of
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import failed, passed

from tests.acceptance_runs import check


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


MATMUL = check("matmul", seconds=40)
HALF = {"event": "progress", "done": 0.5, "says": "bf16 on GPU 1"}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def eighty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("NO_COLOR", "1")


def last_line(stream):
    return stream.getvalue().rpartition("\033[K")[2]


def test_a_terminal_has_one_line_that_moves(clock):
    stream = Terminal()
    progress = Progress(stream, clock)
    progress.plan(12, 100)
    progress.begin(MATMUL, 3)
    clock.now += 10
    progress.tick()

    assert last_line(stream) == " 3/12 ━━━━────────────── matmul: 10 s of about 40 s  about 1 min 30 s to go"
    progress.hear(HALF)
    assert last_line(stream) == " 3/12 ━━━━━━━━━───────── matmul: 10 s of about 40 s 50%, bf16 on GPU 1"
    assert stream.getvalue().count("\n") == 1
    progress.end(entry_of(MATMUL, passed("254 TFLOPS on each GPU")))
    assert (
        stream.getvalue()
        .splitlines()[-1]
        .endswith(" 3/12 PASS    matmul                 254 TFLOPS on each GPU")
    )


def test_a_line_is_never_wider_than_the_terminal(clock):
    stream = Terminal()
    progress = Progress(stream, clock)
    progress.plan(12, 100)
    progress.begin(MATMUL, 3)
    progress.hear({**HALF, "says": "x" * 500})
    progress.end(entry_of(MATMUL, failed("y" * 500, "z")))
    for line in stream.getvalue().replace("\r\033[K", "\n").splitlines():
        assert len(line) <= 90


def test_an_estimate_is_never_at_its_end(clock):
    stream = Terminal()
    progress = Progress(stream, clock)
    progress.plan(1, 40)
    progress.begin(MATMUL, 1)
    clock.now += 1000
    progress.tick()

    assert "━━─ matmul: 16 min 40 s of about 16 min 40 s" in last_line(stream).replace("━" * 15, "")


def test_elsewhere_there_are_plain_lines(clock):
    stream = io.StringIO()
    progress = Progress(stream, clock)
    progress.plan(1, 40)
    progress.begin(MATMUL, 1)
    for _ in range(70):
        clock.now += 1
        progress.hear(HALF)
    progress.end(entry_of(MATMUL, passed("254 TFLOPS on each GPU")))

    assert stream.getvalue().splitlines() == [
        "1 check, about 40 s",
        "1/1      matmul: 30 s of about 40 s 50%, bf16 on GPU 1",
        "1/1      matmul: 1 min 00 s of about 1 min 00 s 50%, bf16 on GPU 1",
        "1/1 PASS    matmul                 254 TFLOPS on each GPU",
    ]


class Gone(io.StringIO):
    """A terminal that was closed."""

    def isatty(self):
        return True

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_was_closed_stops_nothing(clock):
    progress = Progress(Gone(), clock)
    progress.plan(1, 40)
    progress.begin(MATMUL, 1)
    progress.hear(HALF)
    progress.end(entry_of(MATMUL, passed("254 TFLOPS on each GPU")))
    progress.close()


@pytest.mark.parametrize(
    "event", [{"event": "figure"}, {"event": "progress"}, {"event": "progress", "done": "x", "says": 7}]
)
def test_whatever_a_workload_says_is_survived(event, clock):
    progress = Progress(Terminal(), clock)
    progress.plan(1, 1)
    progress.begin(MATMUL, 1)
    progress.hear(event)
