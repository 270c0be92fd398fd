# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page says of a run, before any HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import Run, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import figures, reading, view
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report.reading import Reading
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Figure, Label, Verdict

from tests import report_parts, report_results, report_runs


def shown(run: Run, **more: Any) -> Mapping[str, Any]:
    return view.page(Reading(run, (), "0" * 64, **more))


@pytest.mark.parametrize("label", [Label.CPU, Label.SIMULATED])
def test_a_run_without_hardware_has_its_label_where_the_verdict_would_stand(label: Label) -> None:
    band = shown(report_runs.run(report_results.good(), label))["band"]
    assert (band["word"], band["checks"]) == (str(label), "UNKNOWN")
    assert band["aside"]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [(report_results.good, "UNKNOWN"), (report_results.bad, "FAIL"), (report_results.burn_in, "WARN")],
)
def test_a_run_on_hardware_has_its_verdict(found: Any, verdict: str) -> None:
    band = shown(report_runs.run(found(), Label.HARDWARE))["band"]
    assert (band["word"], band["label"], band["aside"]) == (verdict, "", "")


def test_a_verdict_that_somebody_wrote_into_the_document_is_not_believed(tmp_path: Path) -> None:
    folder = report_runs.failing(tmp_path)
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    document["verdict"] = {"checks": "PASS", "hardware": "PASS", "says": "all is well"}
    document["coverage"] = {"checks": 1, "apply": 1, "ran": 1, "waived": 0, "says": "1 of 1 checks ran"}
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    page = view.page(reading.read(folder))
    assert (page["band"]["word"], page["band"]["checks"]) == ("SIMULATED", "FAIL")
    assert page["coverage"].ran == 35


@pytest.mark.parametrize(("state", "word"), [(State.INTERRUPTED, "interrupted"), (State.RUNNING, "killed")])
def test_a_run_without_its_end_says_so(state: State, word: str) -> None:
    [note] = shown(report_runs.run(report_results.good(), state=state))["band"]["notes"]
    assert word in note


def test_the_gravest_comes_first() -> None:
    found = shown(report_runs.run(report_results.bad()))["attention"]
    assert [row.verdict for row in found] == ["FAIL"] * 5 + ["UNKNOWN"] + ["WARN"] * 2
    assert all(row.advice for row in found)


def test_every_check_is_in_the_page_once() -> None:
    run = report_runs.run(report_results.bad(), waived={"jax": "not used here"})
    page = shown(run)
    made = [row.name for _, rows in page["groups"] for row in rows]
    apart = {kind: [row.name for _, _, rows in some for row in rows] for kind, some in page["apart"].items()}
    assert sorted(made + [name for some in apart.values() for name in some]) == sorted(
        entry.name for entry in run.entries
    )
    assert apart == {
        "gaps": ["tensorflow"],
        "waived": ["jax"],
        "nothing": ["ecc_mode", "mig_mode", "ecc_errors", "memory_rows"],
    }
    assert page["gaps"] == 1


def test_gaps_of_one_reason_stand_together() -> None:
    gaps = shown(report_runs.run(report_results.bare()))["apart"]["gaps"]
    assert [len(rows) for _, _, rows in gaps] == [1, 16, 3]


def test_groups_stand_in_the_order_of_a_run_and_unknown_ones_last() -> None:
    run = report_runs.run(report_results.good())
    odd = replace(run.entries[0], group="something new", name="new")
    names = [name for name, _ in shown(replace(run, entries=(odd, *run.entries)))["groups"]]
    assert names[:3] == ["inventory", "configuration", "health"]
    assert names[-1] == "something new"


def test_what_all_gpus_have_is_said_once() -> None:
    [line] = figures.lines(report_parts.each("width", [16] * 4, "", "16", "declared"))
    assert line.cells == (figures.Cell("all 4 GPUs", "16", "PASS"),)
    assert line.expected == (figures.Cell("", "16"),)


def test_the_gpu_that_differs_is_named_with_its_verdict() -> None:
    [line] = figures.lines(report_parts.each("width", [16, 16, 8, 16], "", "16", bad={2: Verdict.WARN}))
    assert [cell.verdict for cell in line.cells] == ["PASS", "PASS", "WARN", "PASS"]
    assert line.cells[2].gpu == "GPU 2"
    assert line.verdict == "WARN"


def test_processes_of_a_run_on_the_cpu_stand_in_one_line() -> None:
    [line] = figures.lines([Figure(f"bf16, process {number}", number + 0.5, "TFLOPS") for number in range(2)])
    assert (line.name, [cell.gpu for cell in line.cells]) == ("bf16", ["process 0", "process 1"])


def test_a_missing_reading_is_no_zero() -> None:
    [line] = figures.lines(
        [Figure("margin", None, "°C", 0, verdict=Verdict.UNKNOWN), Figure("margin", 3, "°C", 1)]
    )
    assert [cell.text for cell in line.cells] == ["no reading", "3"]


def test_a_figure_that_is_not_judged_has_no_verdict() -> None:
    [line] = figures.lines([Figure("tested", 29.1, "GiB", 0)])
    assert (line.verdict, line.expected) == ("", ())


def test_proposals_are_marked_as_not_settled() -> None:
    sources = {source: open_ for source, _, open_ in shown(report_runs.run(report_results.good()))["sources"]}
    assert sources[report_parts.PROPOSAL] and sources[report_parts.CLOCK_TRUE]
    assert not sources["declared"]


def test_a_run_that_knows_nothing_of_its_machine_still_has_a_page() -> None:
    run = replace(report_runs.run({}), machine={}, profile={}, versions={})
    page = shown(run)
    assert page["gpu_names"] == "no NVIDIA GPU"
    assert page["gpus"] == []
    assert page["band"]["checks"] == "UNKNOWN"


def test_odd_shapes_of_what_is_free_in_the_schema_are_left_out() -> None:
    run = replace(
        report_runs.run(report_results.good()),
        machine={
            "gpus": ["one", {"index": None, "memory_mib": "much", "power_limit_w": True}],
            "cores": "many",
        },
        profile={"targets": 3, "limits": ["a"], "gpus": 7},
        burn_in={"hours": "long", "gaps": [3, {"begin": "never", "end": 5}, {"begin": 9, "end": 4}]},
    )
    page = shown(run)
    assert page["burn_in"]["gaps"] == []
    assert len(page["gpus"]) == 1
    assert page["owner"] == []
