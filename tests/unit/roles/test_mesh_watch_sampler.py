# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of the role mesh_watch, with a ping and a clock of ours. On a real host: tests/hosts/mesh_watch."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import watch_log

FILES = Path(__file__).parents[3] / "roles" / "mesh_watch" / "files"
NOON = 1_800_000_000.0
ANSWER = "64 bytes from {0}: icmp_seq=1 ttl=64 time={1} ms\n"


def load(name: str) -> ModuleType:
    """A program, not run."""
    found = importlib.util.spec_from_file_location(f"mesh_watch_{name}", FILES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Machine:
    """Time that passes only when somebody waits, and addresses that answer or do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sampler: ModuleType) -> None:
        self.wall, self.up = NOON, 500.0
        self.answers: dict[str, str | None] = {"fd00::2": "12.5"}
        self.asked: list[list[str]] = []
        self.passed: list[Any] = []
        monkeypatch.setattr(sampler.time, "time", lambda: self.wall)
        monkeypatch.setattr(sampler.time, "clock_gettime", lambda _clock: self.up)
        monkeypatch.setattr(sampler.subprocess, "run", self.run)

    def run(self, command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        rtt = self.answers.get(command[-1])
        if rtt is None:
            return subprocess.CompletedProcess(command, 1, "", "")
        return subprocess.CompletedProcess(command, 0, ANSWER.format(command[-1], rtt), "")

    def wait(self, seconds: float) -> None:
        """Let time pass; then whatever is due at that second happens."""
        self.wall += seconds
        self.up += seconds
        for when, what in [event for event in self.passed if self.up >= event[0]]:
            self.passed.remove((when, what))
            what()


@pytest.fixture
def sampler() -> ModuleType:
    return load("sampler")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, sampler: ModuleType) -> Machine:
    return Machine(monkeypatch, sampler)


def configure(folder: Path, **fields: Any) -> Path:
    path = folder / "week.json"
    config = {
        "watch": "week", "host": "agate", "started": NOON, "until": NOON + 300, "interval": 30, "timeout": 2, "limit": 1 << 20,
        "peers": {"beryl": "fd00::2", "topaz": "fd00::3"}, "simulated": True, **fields,
    }  # fmt: skip
    path.write_text(json.dumps(config))
    return path


def run(sampler: ModuleType, machine: Machine, path: Path) -> str:
    made = sampler.Sampler(path)

    class Stop:
        """An event that lets the machine's time pass."""

        given = False

        def wait(self, seconds: float) -> None:
            machine.wait(seconds)

        def is_set(self) -> bool:
            return self.given

        def set(self) -> None:
            self.given = True

    made._stop = Stop()
    machine.sampler = made  # type: ignore[attr-defined]
    why: str = made.run()
    return why


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]


def test_it_samples_at_every_interval_until_the_end(
    tmp_path: Path, sampler: ModuleType, machine: Machine
) -> None:
    path = configure(tmp_path, until=NOON + 280)
    assert run(sampler, machine, path) == "finished"
    begin, *ticks, end = records(path)
    assert (begin["event"], begin["t"], begin["m"], begin["interval"], begin["simulated"]) == ("begin", NOON, 500, 30, True)  # fmt: skip
    assert begin["peers"] == {"beryl": "fd00::2", "topaz": "fd00::3"}
    assert [tick["t"] - NOON for tick in ticks] == [30 * n for n in range(10)]
    assert [tick["m"] for tick in ticks] == [500 + 30 * n for n in range(10)]
    assert all(tick["rtt"] == {"beryl": 12.5, "topaz": None} for tick in ticks)
    assert (end["event"], end["why"], end["t"]) == ("end", "finished", NOON + 280)
    assert machine.asked[0] == ["ping", "-n", "-c", "1", "-W", "2", "fd00::2"]


def test_what_it_writes_is_what_is_read(tmp_path: Path, sampler: ModuleType, machine: Machine) -> None:
    path = configure(tmp_path)
    run(sampler, machine, path)
    log = watch_log.read("agate", path.with_suffix(".jsonl").read_text().splitlines())
    assert (log.ticks, log.broken, log.gaps, log.end, log.simulated) == (10, 0, (), "finished", True)


def test_after_its_end_it_does_nothing(tmp_path: Path, sampler: ModuleType, machine: Machine) -> None:
    path = configure(tmp_path, until=NOON - 1)
    assert run(sampler, machine, path) == "finished before"
    assert not path.with_suffix(".jsonl").exists()


def test_ticks_that_were_slept_through_are_not_made_up_for(
    tmp_path: Path, sampler: ModuleType, machine: Machine
) -> None:
    path = configure(tmp_path)
    machine.passed = [(545.0, lambda: machine.wait(100.0))]
    run(sampler, machine, path)
    times = [record["t"] - NOON for record in records(path) if "rtt" in record]
    assert times == [0, 30, 145, 150, 180, 210, 240, 270]


def test_a_clock_that_is_set_does_not_change_the_rhythm(
    tmp_path: Path, sampler: ModuleType, machine: Machine
) -> None:
    path = configure(tmp_path)

    def set_back() -> None:
        machine.wall -= 60

    machine.passed = [(540.0, set_back)]
    run(sampler, machine, path)
    ticks = [record for record in records(path) if "rtt" in record]
    assert [tick["m"] for tick in ticks] == [500 + 30 * n for n in range(12)]
    assert ticks[2]["t"] == NOON


def test_it_goes_on_after_a_crash_on_a_line_of_its_own(
    tmp_path: Path, sampler: ModuleType, machine: Machine
) -> None:
    path = configure(tmp_path)
    path.with_suffix(".jsonl").write_text('{"t": 17')
    run(sampler, machine, path)
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert lines[0] == '{"t": 17'
    assert json.loads(lines[1])["event"] == "begin"


def test_it_takes_up_other_peers_without_being_started_again(
    tmp_path: Path, sampler: ModuleType, machine: Machine
) -> None:
    path = configure(tmp_path)
    machine.passed = [(545.0, lambda: configure(tmp_path, peers={"onyx": "fd00::4"}))]
    run(sampler, machine, path)
    found = records(path)
    assert [record["event"] for record in found if "event" in record] == ["begin", "begin", "end"]
    assert [list(record["rtt"]) for record in found if "rtt" in record] == [["beryl", "topaz"]] * 2 + [
        ["onyx"]
    ] * 8


@pytest.mark.parametrize(("told", "why"), [(True, "stopped"), (False, "terminated")])
def test_who_asked_it_to_end_is_written_down(
    tmp_path: Path, sampler: ModuleType, machine: Machine, told: bool, why: str
) -> None:
    path = configure(tmp_path)

    def end() -> None:
        if told:
            configure(tmp_path, stopped=True)
        machine.sampler.interrupt(15, None)  # type: ignore[attr-defined]

    machine.passed = [(545.0, end)]
    assert run(sampler, machine, path) == why
    assert records(path)[-1]["why"] == why
    assert sum("rtt" in record for record in records(path)) == 2


def test_the_file_does_not_grow_past_its_limit(tmp_path: Path, sampler: ModuleType, machine: Machine) -> None:
    path = configure(tmp_path, limit=700)
    assert run(sampler, machine, path) == "full"
    assert path.with_suffix(".jsonl").stat().st_size < 900
    assert records(path)[-1]["why"] == "full"


def test_a_full_disk_costs_samples_and_not_the_watch(
    tmp_path: Path,
    sampler: ModuleType,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = configure(tmp_path)
    write, calls = sampler.os.write, [0]

    def full(file: int, line: bytes) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(28, "No space left on device")
        if calls[0] == 4:
            return int(write(file, line[:9]))
        return int(write(file, line))

    monkeypatch.setattr(sampler.os, "write", full)
    assert run(sampler, machine, path) == "finished"
    log = watch_log.read("agate", path.with_suffix(".jsonl").read_text().splitlines())
    assert (log.ticks, log.broken) == (8, 1)
    assert "No space left on device" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("rc", "said", "rtt"),
    [
        (0, ANSWER.format("fd00::2", "0.043"), 0.043),
        (0, ANSWER.format("fd00::2", "1204"), 1204.0),
        (0, "64 bytes from 1: seq=1 time<1 ms", 1.0),
        (0, "nothing of the kind", None),
        (1, "", None),
        (1, ANSWER.format("fd00::2", "2100"), None),
        (2, "ping: connect: Network is unreachable", None),
    ],
)
def test_what_ping_says(
    sampler: ModuleType, monkeypatch: pytest.MonkeyPatch, rc: int, said: str, rtt: float | None
) -> None:
    monkeypatch.setattr(
        sampler.subprocess, "run", lambda *args, **_: subprocess.CompletedProcess(args, rc, said, "")
    )
    assert sampler.ping("fd00::2", 2.0) == rtt


def test_a_ping_that_hangs_is_a_lost_sample(sampler: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, **_options: Any) -> None:
        raise subprocess.TimeoutExpired(args, 7)

    monkeypatch.setattr(sampler.subprocess, "run", hang)
    assert sampler.ping("fd00::2", 2.0) is None


def test_looking_counts_what_was_measured(tmp_path: Path) -> None:
    look = load("look")
    path = tmp_path / "week.jsonl"
    assert look.samples(path) is None
    path.write_text('{"event": "begin"}\n{"t": 5, "m": 1, "rtt": {"a": 1.5, "b": null}}\n{"t": 6, "m"\n[]\n{"t": 7, "m": 3, "rtt": {"a": null}}')  # fmt: skip
    assert look.samples(path) == {"bytes": path.stat().st_size, "ticks": 2, "asked": 3, "lost": 2, "last": 7}
    assert look.config(tmp_path / "none.json") is None
    (tmp_path / "week.json").write_text("[1]")
    assert look.config(tmp_path / "week.json") is None


def test_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pack = load("pack")
    monkeypatch.setattr(pack, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["-", "week"])
    (tmp_path / "week.jsonl").write_text("a line\n" * 100)
    pack.main()
    packed = Path(capsys.readouterr().out.strip())
    assert packed == tmp_path / ".week.jsonl.gz"
    assert gzip.decompress(packed.read_bytes()) == b"a line\n" * 100
    assert packed.stat().st_mode & 0o077 == 0
    # No time in it: the same samples are the same file, so that fetching them twice changes nothing.
    assert packed.read_bytes()[4:8] == bytes(4)


def measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any
) -> dict[str, Any]:
    measure = load("measure")
    monkeypatch.setattr(measure.subprocess, "run", answer)
    wanted = {"peers": {"beryl": "fd00::2", "topaz": "fd00::3"}, "count": 3, "seconds": 2}
    monkeypatch.setattr(sys, "argv", ["-", json.dumps(wanted)])
    measure.main()
    return dict(json.loads(capsys.readouterr().out))


def test_measuring_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        if command[-1] == "fd00::3":
            return subprocess.CompletedProcess(command, 2, "", "ping: connect: Network is unreachable\n")
        rtts = ("310", "12.5", "12.9")
        return subprocess.CompletedProcess(command, 0, "".join(ANSWER.format(command[-1], rtt) for rtt in rtts), "")  # fmt: skip

    assert measured(monkeypatch, capsys, answer) == {
        "peers": {
            # The first one had to find the way.
            "beryl": {"answers": 3, "median": 12.9, "min": 12.5, "max": 310.0},
            "topaz": {"answers": 0, "says": "ping: connect: Network is unreachable"},
        }
    }


def test_measuring_without_ping(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(*_args: Any, **_options: Any) -> None:
        raise FileNotFoundError("ping")

    assert "install iputils-ping" in measured(monkeypatch, capsys, absent)["problem"]
