# SPDX-License-Identifier: GPL-3.0-or-later
"""Readings of the sensors, from the stand-in of nvidia-smi; SIMULATED."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import telemetry
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import series
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.smi import parse

from tests.acceptance_bench import SimulatedMachine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return SimulatedMachine(tmp_path, monkeypatch)


def wait_for(condition):
    """The thread has a minute for what takes it a second."""
    ticker = threading.Event()
    for _ in range(600):
        if condition():
            return
        ticker.wait(0.1)
    raise AssertionError("it did not come about within a minute")


def test_a_reading_has_what_the_driver_says(machine):
    _, printed = machine.sandbox.smi("-q", "-x")
    found = telemetry.samples_of(parse(printed), 5.0)

    assert [(sample.gpu, sample.at) for sample in found] == [(gpu, 5.0) for gpu in range(4)]
    gpu = parse(printed).gpus[0]
    assert found[0].temperature_c == gpu["temperatures"]["gpu_c"] is not None
    assert found[0].margin_c == gpu["temperatures"]["margin_c"] is not None
    assert found[0].power_w == gpu["power"]["draw_w"] is not None
    assert found[0].link_width == 16
    assert found[0].reasons == tuple(gpu["throttle"])


def test_a_driver_that_does_not_tell_a_reason_is_no_driver_that_has_none(machine):
    _, printed = machine.sandbox.smi("-q", "-x")
    assert not any(telemetry.UNTOLD in one.reasons for one in telemetry.samples_of(parse(printed), 5.0))
    told = "<clocks_event_reason_hw_thermal_slowdown>Not Active<"
    assert printed.count(told) == 4
    found = telemetry.samples_of(parse(printed.replace(told, told.replace("Not Active", "N/A"), 1)), 5.0)
    assert [telemetry.UNTOLD in one.reasons for one in found] == [True, False, False, False]
    every = series.POWER | series.THERMAL | series.HARDWARE
    held = series.held_back([replace(found[0], reasons=(telemetry.UNTOLD,))], every, 2.0)
    assert held == [], "the report draws nothing for it"


def test_readings_are_kept_in_memory_and_in_the_file(machine, tmp_path):
    heard = []
    thread = telemetry.Telemetry(
        "nvidia-smi", tmp_path / "samples.jsonl", interval=0.1, durable=True, on_samples=heard.append
    )
    thread.start()
    wait_for(lambda: len(heard) >= 2)
    thread.stop()
    kept = thread.during(0, 1e12)
    read = telemetry.read((tmp_path / "samples.jsonl").read_text().splitlines())

    assert [sample.gpu for sample in read[:8]] == [0, 1, 2, 3] * 2
    assert [(one.gpu, one.temperature_c, one.reasons) for one in kept] == [
        (one.gpu, one.temperature_c, one.reasons) for one in read
    ]
    assert thread.during(kept[0].at, kept[0].at) == kept[:4]
    assert thread.problem == ""


def test_a_file_is_added_to(machine, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(telemetry.line_of(Sample(1.0, 0)) + '{"at": 2.0, "gpu": 0, "temp')
    thread = telemetry.Telemetry("nvidia-smi", path, interval=0.1)
    thread.start()
    wait_for(lambda: thread.during(2, 1e12))
    thread.stop()

    assert path.read_text().startswith('{"at":1.0,"gpu":0,')
    assert len(telemetry.read(path.read_text().splitlines())) > 3


def test_a_disk_that_is_full_stops_no_run(machine, tmp_path):
    heard = []
    thread = telemetry.Telemetry(
        "nvidia-smi", tmp_path / "no" / "folder", interval=0.1, on_samples=heard.append
    )
    thread.start()
    wait_for(lambda: heard)
    thread.stop()

    assert "cannot be written: No such file or directory" in thread.problem
    assert thread.during(0, 1e12)


def test_a_driver_that_does_not_answer_gives_no_reading(machine):
    assert machine.sandbox.rmmod("nvidia_uvm", "nvidia")[0] == 0

    assert telemetry.ask("nvidia-smi") == []
    assert telemetry.ask("/no/such/program") == []


def test_a_torn_line_is_left_out():
    sample = Sample(1.5, 1, temperature_c=60, reasons=("sw_power_cap",))
    line = telemetry.line_of(sample)

    assert telemetry.read([line, line[:20], "[]", "7", '{"at": 1}', '{"at": 1, "gpu": 0, "new": 1}', ""]) == [
        sample
    ]
