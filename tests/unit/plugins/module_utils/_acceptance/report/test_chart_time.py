# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page says of heat and slowdown over the time of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report import (
    chart_time,
    reading,
    tiles,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report.reading import Reading
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.telemetry import UNTOLD

from tests import report_results, report_runs


def of(*reasons: tuple[str, ...]) -> Reading:
    """Five readings each of GPU 0, GPU 1 and so on, with these reasons."""
    samples = [
        Sample(at=report_runs.BEGAN + 2.0 * step, gpu=gpu, temperature_c=70.0, reasons=told)
        for step in range(5)
        for gpu, told in enumerate(reasons)
    ]
    return Reading(report_runs.run(report_results.good()), tuple(samples), "0" * 64)


@pytest.mark.parametrize(
    ("reasons", "says"),
    [
        (((), ("sw_power_cap",)), "never held back by heat or hardware"),
        (((), ("hw_thermal",)), "held back by heat or hardware: GPU 1 for 10\u202fs"),
        (((), (UNTOLD,)), "the driver did not tell whether heat or hardware held back GPU 1"),
        (
            (("hw_thermal",), (UNTOLD,), ("sw_power_cap", UNTOLD)),
            "held back by heat or hardware: GPU 0 for 10\u202fs; the driver did not tell whether heat or hardware held back GPU 1, GPU 2",
        ),
    ],
)  # fmt: skip
def test_what_the_driver_did_not_tell_is_not_called_never(
    reasons: tuple[tuple[str, ...], ...], says: str
) -> None:
    assert chart_time.says(of(*reasons)).partition("; ")[2] == says


def burned(folder: Path, *reasons: str) -> tuple[str, str]:
    """The tile of a burn-in whose driver told these reasons all the time, and what stands beside it."""
    found = reading.read(report_runs.burned(folder))
    samples = [
        Sample(at=report_runs.BEGAN + 5.0 * step, gpu=gpu, reasons=reasons)
        for step in range(5)
        for gpu in range(4)
    ]
    shown = tiles.of(Reading(found.run, tuple(samples), found.digest))
    [tile] = [tile for tile in shown if tile.name == "Slowed by heat or hardware"]
    return tile.text, tile.beside


def test_a_tile_shows_no_zero_that_nobody_told(tmp_path: Path) -> None:
    assert burned(tmp_path, "sw_power_cap")[0].startswith("0")
    assert burned(tmp_path, "sw_power_cap", UNTOLD) == ("not told", "by the driver")
    assert burned(tmp_path, "sw_thermal", UNTOLD)[1] == "at least, all GPUs together"
