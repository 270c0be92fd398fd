# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that only grows: half a line at its end, from a crash, takes nothing else with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.recorder import (
    Recorder,
    lines,
)

ROOT = Path(__file__).parents[6]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.jsonl")
    recorder.write({"a": 1}, {"b": "°"})
    recorder.write({"c": 3})
    assert recorder.sync() >= 0
    recorder.close()
    assert list(lines(tmp_path / "a.jsonl")) == [{"a": 1}, {"b": "°"}, {"c": 3}]


@pytest.mark.parametrize("torn", [b'{"event":"tick","t":17', b'{"a":"\xc2', b"\x00\x00\x00"])
def test_the_next_line_begins_on_a_line_of_its_own_after_half_a_one(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + torn)
    recorder = Recorder(path)
    recorder.write({"b": 2})
    recorder.close()
    assert list(lines(path)) == [{"a": 1}, {"b": 2}]
    assert path.read_bytes().startswith(b'{"a":1}\n' + torn + b"\n")


def test_there_is_nothing_where_there_is_no_file(tmp_path: Path) -> None:
    assert list(lines(tmp_path / "none")) == []


def test_a_full_disk_is_counted_and_does_not_end_it() -> None:
    recorder = Recorder(Path("/dev/full"))
    recorder.write({"a": 1})
    assert recorder.lost == 1


def test_a_killed_process_loses_no_line_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    program = (
        "import sys; from pathlib import Path\n"
        "from module_utils._acceptance.burn_in.recorder import Recorder\n"
        "recorder = Recorder(Path(sys.argv[1]))\n"
        "for number in range(10**9):\n"
        "    recorder.write({'n': number})\n"
        "    if number == 99: print('there', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)
    found = [record["n"] for record in lines(path)]
    assert found == list(range(len(found)))
    assert len(found) >= 100
