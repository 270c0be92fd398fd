# SPDX-License-Identifier: GPL-3.0-or-later
"""What a watch found, as JSON, as CSV and as tables."""

from __future__ import annotations

import csv
import io
import json

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import (
    watch_log,
    watch_report,
    watch_table,
)

NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z
BEGIN = {
    "event": "begin",
    "t": NOON,
    "m": 0,
    "boot": "b",
    "interval": 30,
    "until": NOON + 600,
    "simulated": False,
}


def log(
    name: str, peer: str, pattern: str, *, simulated: bool = False, end: str | None = "finished"
) -> watch_log.Log:
    lines = [json.dumps({**BEGIN, "simulated": simulated})]
    for number, sign in enumerate(pattern):
        if sign != " ":
            rtt = {peer: 12.5 + number if sign == "." else None}
            lines.append(json.dumps({"t": NOON + 30 * number, "m": 30 * number, "rtt": rtt}))
    if end:
        lines.append(json.dumps({"event": "end", "why": end}))
    return watch_log.read(name, lines)


def report(*, simulated: bool = False) -> watch_report.Report:
    return watch_report.report(
        "week", [log("beryl", "agate", "......", simulated=simulated), log("agate", "beryl", ".xxx.x")]
    )


def test_as_tables() -> None:
    assert watch_table.lines(report()) == [
        "Mesh watch week, 2027-01-15 08:00:00Z to 2027-01-15 08:02:30Z (2m30s).",
        "12 samples of 2 pairs between 2 machines, 33.33 % lost, 1 drop-out in 1 incident.",
        "",
        "Round trips in ms, the worst pair first. A drop-out is 3 lost samples in a row or more.",
        "from   to     samples     lost   min  median   p95   p99   max  drop-outs  longest  began                 gaps",
        "agate  beryl        6  66.67 %  12.5    14.5  16.3  16.5  16.5          1  1m30s    2027-01-15 08:00:30Z     0",
        "beryl  agate        6      0 %  12.5    15.0  17.2  17.4  17.5          0  -        -                        0",
        "",
        "What happened, the longest first:",
        "began                 lasted  pairs  what",
        "2027-01-15 08:00:30Z   1m30s      1  agate did not reach beryl",
        "",
        "Samplers:",
        "machine  ticks  first                 last                  state     every  gaps  without  notes",
        "agate        6  2027-01-15 08:00:00Z  2027-01-15 08:02:30Z  finished  30s       0        -",
        "beryl        6  2027-01-15 08:00:00Z  2027-01-15 08:02:30Z  finished  30s       0        -",
    ]


def test_as_json() -> None:
    data = json.loads(json.dumps(watch_report.to_json(report()), allow_nan=False))
    assert (data["watch"], data["simulated"], data["dropout_least_lost"]) == ("week", False, 3)
    assert (data["first_sample"], data["last_sample"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:02:30Z")
    assert "note" not in data
    pair = data["pairs"][0]
    assert (pair["from"], pair["to"], pair["samples"], pair["lost"], pair["loss_percent"]) == ("agate", "beryl", 6, 4, 66.6667)  # fmt: skip
    assert (pair["min_ms"], pair["median_ms"], pair["max_ms"], pair["dropouts"]) == (12.5, 14.5, 16.5, 1)
    assert (pair["longest_dropout_seconds"], pair["longest_dropout_start"]) == (90, "2027-01-15T08:00:30Z")
    assert data["incidents"] == [
        {
            "incident": 1, "kind": "pair", "what": "agate did not reach beryl", "machines": ["agate", "beryl"],
            "start": "2027-01-15T08:00:30Z", "end": "2027-01-15T08:02:00Z", "seconds": 90, "over": True,
            "dropouts": [{"from": "agate", "to": "beryl", "start": "2027-01-15T08:00:30Z", "end": "2027-01-15T08:02:00Z", "seconds": 90, "lost": 3, "over": True}],
        }
    ]  # fmt: skip


def test_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(watch_report.dropouts_csv(report()))))
    assert rows == [
        {
            "incident": "1", "what": "agate did not reach beryl", "from": "agate", "to": "beryl",
            "start": "2027-01-15T08:00:30Z", "end": "2027-01-15T08:02:00Z", "seconds": "90", "lost_samples": "3",
            "over": "yes", "simulated": "no",
        }
    ]  # fmt: skip


def test_what_was_simulated_is_marked_everywhere() -> None:
    found = report(simulated=True)
    assert "SIMULATED: measured in a sandbox" in watch_table.lines(found)[2]
    assert any(line.startswith("beryl (SIMULATED) ") for line in watch_table.lines(found))
    assert not any(line.startswith("agate (SIMULATED) ") for line in watch_table.lines(found))
    data = watch_report.to_json(found)
    assert data["simulated"] and data["note"].startswith("SIMULATED")
    assert [sampler["simulated"] for sampler in data["samplers"]] == [False, True]
    assert watch_report.dropouts_csv(found).splitlines()[1].endswith(",SIMULATED")


def test_how_the_samplers_fared_is_told() -> None:
    odd = watch_log.read(
        "agate",
        [
            json.dumps(BEGIN),
            json.dumps({"t": NOON, "m": 0, "rtt": {"beryl": 1}}),
            "{",
            json.dumps({"t": NOON + 3630, "m": 30, "rtt": {"beryl": 1}}),
            json.dumps({"t": NOON + 4230, "m": 630, "rtt": {"beryl": 1}}),
            *(json.dumps({"t": NOON + n * 1e4, "m": 630 + n * 30, "rtt": {"beryl": 1}}) for n in (1, 2, 3)),
            json.dumps({"event": "end", "why": "full"}),
        ],
    )
    text = "\n".join(watch_table.lines(watch_report.report("week", [odd])))
    assert " 1      10m  clock set forward by 1h at " in text
    assert (
        "; 2 clock jumps more; 1 unreadable line skipped; ended early, its file had reached the limit" in text
    )
    sampler = watch_report.to_json(watch_report.report("week", [odd]))["samplers"][0]
    assert (sampler["end"], sampler["unreadable_lines"], len(sampler["clock_jumps"])) == ("full", 1, 4)
    assert [gap["seconds"] for gap in sampler["gaps"]] == [600]


@pytest.mark.parametrize(
    ("end", "ticks", "state"),
    [(None, 20, "running"), ("terminated", 20, "running"), (None, 5, "silent"), ("terminated", 5, "silent"), ("stopped", 5, "stopped"), ("finished", 20, "finished")],
)  # fmt: skip
def test_the_state_of_a_sampler(end: str | None, ticks: int, state: str) -> None:
    found = watch_report.report("week", [log("agate", "beryl", "." * ticks, end=end), log("beryl", "agate", "." * 20)])  # fmt: skip
    [line] = [line for line in watch_table.lines(found)[-2:] if line.startswith("agate")]
    assert f" {state} " in line


def test_without_a_sample_it_says_so() -> None:
    for logs in ([], [watch_log.read("agate", [])]):
        found = watch_report.report("week", logs)
        assert watch_table.lines(found) == ["Mesh watch week: no machine has taken a sample yet."]
        assert json.dumps(watch_report.to_json(found), allow_nan=False)
        assert len(watch_report.dropouts_csv(found).splitlines()) == 1


def test_a_screen_shows_the_worst_and_the_file_all() -> None:
    logs = [log(f"m{number:02}", "hub", "." * (number + 1) + "xxx.") for number in range(40)]
    found = watch_report.report("week", logs)
    short, whole = watch_table.lines(found, 5), watch_table.lines(found, None)
    assert "  and 35 pairs more, in the files." in short
    assert sum(line.startswith("m") and " hub " in line for line in whole) == 40
    assert not any("in the files" in line for line in whole)


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 10, "0 %"), (0, 0, "0 %"), (10, 10, "100 %"), (1, 100_000, "<0.01 %"), (99_999, 100_000, "99.99 %"), (1, 8, "12.50 %")],
)  # fmt: skip
def test_a_share_never_looks_like_nothing_or_all_when_it_is_not(part: int, whole: int, said: str) -> None:
    assert watch_table.share(part, whole) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.0612, "0.06"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1234")],
)  # fmt: skip
def test_a_round_trip_in_three_digits(value: float | None, said: str) -> None:
    assert watch_table.milliseconds(value) == said
