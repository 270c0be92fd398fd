# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that sums a watch up: what it writes, and what it does with samples it cannot read."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import mesh_watch_report
from ansible_collections.gpumesh.fleet.tests import watch_samples
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

TABLES = ["dropouts.csv", "report.json", "report.txt"]
PICTURES = ["latency.png", "latency.svg", "overview.png", "overview.svg"]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, lines in watch_samples.logs(["agate", "beryl"], 0.2, interval=120, simulated=True).items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.write("\n".join([*lines, '{"t": 17']))
    return folder


def report(samples: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    folder = samples.parent / "results"
    return run_module(mesh_watch_report.main, check=check, name="week", samples=str(samples), folder=str(folder), **options)  # fmt: skip


def test_what_it_writes(samples: Path) -> None:
    result = report(samples, plot=False)
    assert result["changed"] is True
    assert result["simulated"] is True
    folder = samples.parent / "results"
    assert sorted(path.name for path in folder.iterdir()) == TABLES
    assert sorted(result["files"]) == [str(folder / name) for name in TABLES]
    data = json.loads((folder / "report.json").read_text())
    assert (data["watch"], data["simulated"], len(data["pairs"])) == ("week", True, 2)
    assert [sampler["unreadable_lines"] for sampler in data["samplers"]] == [1, 1]
    assert (folder / "report.txt").read_text().startswith("Mesh watch week, 2026-11-17 00:0")
    assert "SIMULATED" in (folder / "report.txt").read_text()
    assert result["table"][0].startswith("Mesh watch week")
    assert result["loss_percent"] > 0
    assert result["incidents"] == data["incidents"]


def test_a_second_time_nothing_changes(samples: Path) -> None:
    assert report(samples, plot=False)["changed"] is True
    assert report(samples, plot=False)["changed"] is False
    assert report(samples, plot=False, dropout_samples=1)["changed"] is True


def test_check_mode_writes_nothing(samples: Path) -> None:
    result = report(samples, check=True)
    assert result["changed"] is True
    assert not (samples.parent / "results").exists()
    assert "would be in" in result["notes"][0]


def test_pictures_where_there_is_matplotlib(samples: Path) -> None:
    pytest.importorskip("matplotlib")
    result = report(samples)
    assert sorted(path.name for path in (samples.parent / "results").iterdir()) == sorted(
        [*TABLES, *PICTURES]
    )
    assert len(result["notes"]) == 1
    assert report(samples)["changed"] is False


def test_without_matplotlib_tables_are_written_and_one_line_says_how_to_get_it(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = report(samples)
    assert not result.get("failed")
    assert sorted(path.name for path in (samples.parent / "results").iterdir()) == TABLES
    assert result["notes"][1].startswith("No pictures: ")
    assert "python3 -m pip install matplotlib" in result["notes"][1]


def test_samples_that_are_not_packed_are_read_as_well(samples: Path) -> None:
    packed = report(samples, plot=False)["table"]
    for path in samples.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert report(samples, plot=False)["table"] == packed


def test_what_cannot_be_read_is_told(samples: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there are no samples in" in report(empty)["msg"]
    path = samples / "agate.jsonl.gz"
    path.write_bytes(path.read_bytes()[:200])
    assert "agate.jsonl.gz cannot be read" in report(samples)["msg"]
    path.write_bytes(b"no gzip")
    assert "collect it once more" in report(samples)["msg"]
    path.unlink()
    assert "at least one lost sample" in report(samples, dropout_samples=0)["msg"]


def test_a_file_that_no_sampler_writes_is_not_unpacked_for_ever(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_watch_report, "MOST_BYTES", 1000)
    assert "which no sampler writes" in report(samples)["msg"]
