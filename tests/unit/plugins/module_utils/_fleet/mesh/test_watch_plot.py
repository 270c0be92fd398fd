# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures: which pairs are drawn, how coarse, and that they say what they must."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import MissingLibrary
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import (
    watch_log,
    watch_overview,
    watch_panels,
    watch_plot,
    watch_report,
    watch_style,
)
from ansible_collections.gpumesh.fleet.tests import watch_samples
from hypothesis import given
from hypothesis import strategies as st


def found(count: int, days: float = 0.5, **options: Any) -> watch_report.Report:
    names = watch_samples.NAMES[:count]
    lines = watch_samples.logs(names, days, interval=120, **options)
    return watch_report.report("week", [watch_log.read(name, its) for name, its in lines.items()])


def words(path: Path) -> str:
    """The text of an SVG, whose letters are drawn; matplotlib leaves each string in a comment."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def silenced(line: str) -> str:
    """A line of samples, all of them lost."""
    record = json.loads(line)
    if "rtt" in record:
        record["rtt"] = dict.fromkeys(record["rtt"])
    return json.dumps(record)


@given(st.floats(1, 400 * 86400), st.integers(3, 86400))
def test_a_point_stands_for_enough_samples_and_there_are_not_too_many(seconds: float, interval: int) -> None:
    width = watch_panels.bucket_width(seconds, interval)
    assert seconds / width <= 180
    # Four samples at least, unless they are too few for a curve then.
    assert width >= min(interval, 86400)
    assert width >= min(4 * interval, 86400) or seconds / (4 * interval) < 24 * 3


@pytest.mark.parametrize(
    ("seconds", "interval", "width"),
    [(40, 4, 5), (120, 5, 5), (600, 5, 5), (3600, 30, 120), (86400, 30, 600), (7 * 86400, 30, 3600), (365 * 86400, 60, 3 * 86400)],
)  # fmt: skip
def test_how_much_time_a_point_stands_for(seconds: float, interval: float, width: float) -> None:
    assert watch_panels.bucket_width(seconds, interval) == width


def test_of_few_pairs_all_are_drawn_and_of_many_those_with_trouble_of_their_own() -> None:
    assert [(one.one, one.other) for one in watch_panels.worst(found(3))] == [
        ("agate", "beryl"), ("agate", "cinnabar"), ("beryl", "cinnabar"),
    ]  # fmt: skip
    many = found(9, seed=9)
    drawn = {(one.one, one.other) for one in watch_panels.worst(many)}
    assert len(drawn) == watch_panels.MOST_PANELS
    assert {one.machines for one in many.incidents if one.kind == "pair"} <= drawn


def test_when_a_machine_took_no_samples() -> None:
    report = found(2)
    log = report.logs["agate"]
    assert log.last is not None
    assert watch_style.quiet(log, report) == [(gap.start, gap.end) for gap in log.gaps]
    early = watch_report.report("x", [log, watch_log.read("ghost", [])])
    assert watch_style.quiet(early.logs["ghost"], early) == [watch_style.whole(early)]


def test_a_scale_has_a_few_round_figures() -> None:
    colors = pytest.importorskip("matplotlib.colors")
    assert watch_overview._ticks(colors.LogNorm(0.6, 160)) == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert watch_overview._ticks(colors.Normalize(0, 17.8)) == pytest.approx([0, 5, 10, 15])
    assert watch_overview._ticks(colors.Normalize(0, 1)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert watch_overview._ticks(colors.Normalize(0, 100)) == pytest.approx([0, 20, 40, 60, 80, 100])


def test_both_pictures_name_what_they_show(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = watch_plot.draw(found(4), tmp_path)
    assert [path.name for path in files] == ["latency.svg", "latency.png", "overview.svg", "overview.png"]
    assert all(path.stat().st_size > 10_000 for path in files)
    latency, overview = words(tmp_path / "latency.svg"), words(tmp_path / "overview.svg")
    for text in ("Mesh latency: watch week", "round trip (ms)", "time (UTC)", "agate – beryl", "5th to 95th percentile"):  # fmt: skip
        assert text in latency
    for text in ("Mesh at a glance: watch week", "demo-box", "Median round trip", "Lost samples", "per cent", "machine down or asleep"):  # fmt: skip
        assert text in overview
    assert "SIMULATED" not in latency + overview


def test_a_simulated_picture_cannot_pass_for_a_real_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    watch_plot.draw(found(2, simulated=True), tmp_path, ["svg"])
    for name in ("latency.svg", "overview.svg"):
        assert "SIMULATED: measured in a sandbox" in words(tmp_path / name)


def test_the_same_samples_give_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = [path.read_bytes() for path in watch_plot.draw(found(3), tmp_path)]
    assert [path.read_bytes() for path in watch_plot.draw(found(3), tmp_path)] == first


@pytest.mark.parametrize("case", ["nothing answered", "one sampler", "one sample", "50 machines"])
def test_odd_watches_can_be_drawn(case: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = [f"m{number:02}" for number in range(50 if case == "50 machines" else 3)]
    lines = watch_samples.logs(names, 0.1, interval=600)
    if case == "nothing answered":
        lines = {name: [silenced(line) for line in its] for name, its in lines.items()}
    if case == "one sampler":
        lines = {"m00": lines["m00"]}
    if case == "one sample":
        lines = {"m00": lines["m00"][:2]}
    report = watch_report.report("odd", [watch_log.read(name, its) for name, its in lines.items()])
    assert report.first is not None
    if case == "nothing answered":
        assert all(pair.median is None for pair in report.pairs)
    assert len(watch_plot.draw(report, tmp_path, ["png"])) == 2


def test_without_a_sample_there_is_nothing_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert watch_plot.draw(watch_report.report("week", []), tmp_path) == []


def test_without_matplotlib_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibrary, match=r"pip install matplotlib"):
        watch_plot.draw(found(2), tmp_path)
