# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a run's folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import reading

from tests import report_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return report_runs.whole(tmp_path)


def test_a_run_and_its_samples_are_read(folder: Path) -> None:
    found = reading.read(folder)
    assert found.run.label == "SIMULATED"
    assert {sample.gpu for sample in found.samples} == {0, 1, 2, 3}
    assert found.unread == 0
    assert len(found.digest) == 64


def test_the_torn_line_of_a_crash_is_counted_and_left_out(folder: Path) -> None:
    whole = len(reading.read(folder).samples)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"at": 1, "gpu": 0, "temp')
    found = reading.read(folder)
    assert (len(found.samples), found.unread) == (whole, 1)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"gpu": 0}',
        '{"at": NaN, "gpu": 0}',
        '{"at": 1, "gpu": true}',
        '{"at": 1, "gpu": -1}',
        "[" * 100000,
    ],
)
def test_a_line_that_is_no_reading_is_none(folder: Path, line: str) -> None:
    (folder / "samples.jsonl").write_text(f"{line}\n", encoding="utf-8")
    assert (reading.read(folder).samples, reading.read(folder).unread) == ((), 1)


def test_a_reading_of_the_wrong_kind_is_missing_and_not_drawn(folder: Path) -> None:
    line = {"at": 5.0, "gpu": 1, "power_w": "a lot", "temperature_c": None, "reasons": "none"}
    (folder / "samples.jsonl").write_text(json.dumps(line), encoding="utf-8")
    [sample] = reading.read(folder).samples
    assert (sample.power_w, sample.temperature_c, sample.reasons) == (None, None, ())


def test_a_folder_without_a_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(reading.ReportError, match=r"run\.json cannot be read .*Name the folder of a run"):
        reading.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "[]", '{"schema": 2}', '{"schema": 1}', "\x00"])
def test_what_is_no_document_is_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(reading.ReportError, match=r"run\.json"):
        reading.read(tmp_path)


def test_what_is_no_text_is_replaced_wherever_it_stands() -> None:
    given = {"a\x00": ["\ud800", "ab\u202ecd", {"b": float("inf")}], "long": "x" * 9000}
    found = reading.cleaned(given)
    assert found["a\ufffd"] == ["\ufffd", "ab\ufffdcd", {"b": None}]
    assert len(found["long"]) < 4100
    json.dumps(found).encode()
