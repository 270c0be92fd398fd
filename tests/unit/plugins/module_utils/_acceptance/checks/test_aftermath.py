# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves behind is told apart from what was there before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.telemetry import line_of
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Result, Verdict

from tests.acceptance_bench import Bench
from tests.unit.plugins.module_utils._acceptance.checks.hardware_machine import (
    BEGAN,
    BOOT,
    DECLARED,
    Facts,
    machine,
    made,
)
from tests.unit.plugins.module_utils._acceptance.checks.test_hardware_judgement import read, set_

CARD = "0000:41:00.0 (GPU 2, rtx5090)"
OLD_XID = f"{BEGAN - 60:.6f} machine kernel: NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus."
NEW_XID = f"{BEGAN + 30:.6f} machine kernel: NVRM: Xid (PCI:0000:41:00): 13, pid=7, name=python3, Graphics SM Warp Exception"


class Later(Bench):
    """Ten minutes after the run has begun."""

    def now(self) -> float:
        return self.began + 600


def samples(*of_gpu_2: Sample, margin: float | None = 20) -> list[Sample]:
    """Readings of four cards at work, and others of the third one."""
    calm = [
        Sample(
            at=BEGAN + 60 * minute,
            gpu=gpu,
            temperature_c=70,
            margin_c=margin,
            power_w=575,
            utilization_percent=99,
            reasons=("sw_power_cap",),
        )
        for minute in range(1, 9)
        for gpu in range(4)
    ]
    return [*calm, *of_gpu_2]


def after(
    folder: Path,
    change: Callable[[Facts], Any] | None = None,
    *,
    readings: Sequence[Sample] | None = None,
    log: Sequence[str] | None = (BOOT,),
    before: Facts | None = None,
    profile: Profile | None = None,
) -> Result:
    begun = before or read("610-rtx5090")
    later = copy.deepcopy(begun)
    if change:
        change(later)
    given = samples() if readings is None else readings
    if given:
        (folder / "samples.jsonl").write_text("".join(map(line_of, given)))
    return made(
        "aftermath",
        Later(
            folder=folder,
            facts=begun,
            later=later,
            profile=profile or DECLARED["4x-rtx5090"].profile(),
            kernel_log=log,
            began=BEGAN,
        ),
    )


def test_a_run_that_leaves_nothing_behind(tmp_path: Path) -> None:
    found = after(tmp_path, log=[BOOT, OLD_XID])
    assert found.verdict is Verdict.PASS
    assert "4 GPUs, 10 min: no new Xid" in found.says
    # What was there before is the business of other checks.
    assert "79" not in found.says
    assert {figure.name for figure in found.figures} >= {
        "smallest margin",
        "highest temperature",
        "new replays",
    }


@pytest.mark.parametrize(
    ("path", "value", "verdict", "says", "step"),
    [
        ("link/replay_counter", 80, Verdict.PASS, "no new Xid", ""),
        ("link/replay_counter", 81, Verdict.WARN, "81 replays in 10 min, more than 8 a minute", "riser"),
        ("aer/correctable", 200, Verdict.WARN, "200 corrected errors in 10 min", "riser"),
        ("port/aer/correctable", 200, Verdict.WARN, "200 corrected errors at the port", "riser"),
        ("link/replay_rollover_counter", 1, Verdict.FAIL, "1 x packet given up", "riser"),
        ("aer/nonfatal", 1, Verdict.FAIL, "1 x error of its link that could not be corrected", "riser"),
        ("aer/fatal", 1, Verdict.FAIL, "1 x fatal error of its link", "riser"),
        ("port/aer/fatal", 1, Verdict.FAIL, "1 x fatal error at its slot's port", "riser"),
        ("ecc/volatile/uncorrectable", 2, Verdict.FAIL, "2 x error of memory", "nvidia-smi -r -i 2"),
        ("remapped_rows/uncorrectable", 1, Verdict.FAIL, "1 x row of memory replaced", "nvidia-smi -r -i 2"),
        ("remapped_rows/pending", True, Verdict.FAIL, "a row of memory waits for repair", "nvidia-smi -r -i 2"),
        ("remapped_rows/failure", True, Verdict.FAIL, "no spare rows of memory left", "replaced"),
        ("retired_pages/pending", True, Verdict.FAIL, "a page of memory waits", "nvidia-smi -r -i 2"),
        ("recovery_action", "GPU Reset", Verdict.FAIL, "asks for an action since the run began: GPU Reset", "-r -i 2"),
        ("throttle_us", {"hw_therm_slowdown": 2_500_000}, Verdict.FAIL, "was slowed down for 2.5 s by the hardware", "fans"),
        ("throttle_us", {"hw_power_brake": 400_000}, Verdict.FAIL, "by the power supply", "power supply and its cables"),
        ("throttle_us", {"sw_power_cap": 400_000_000}, Verdict.PASS, "no throttling", ""),
        ("state", "lost", Verdict.FAIL, "answered when the run began, and does not any more", "off and on"),
    ],
)  # fmt: skip
def test_what_is_new_is_found(
    path: str, value: Any, verdict: Verdict, says: str, step: str, tmp_path: Path
) -> None:
    begun = read("610-rtx5090")
    for device in begun["devices"]:
        # A card that counts these, unlike GeForce.
        device["ecc"]["volatile"] = {"uncorrectable": 0}
        device["remapped_rows"] = {"uncorrectable": 0, "pending": False, "failure": False}
        device["retired_pages"] = {"double_bit": 0, "pending": False}
        device["throttle_us"] = {}
    found = after(tmp_path, set_(path, value), before=begun)
    assert found.verdict is verdict, found
    assert says in found.says
    assert step in found.advice
    if verdict is not Verdict.PASS:
        assert CARD in found.says


def test_what_was_so_at_the_beginning_is_not_new(tmp_path: Path) -> None:
    begun = read("580-h100")
    for path, value in (
        ("link/replay_counter", 5000),
        ("ecc/volatile/uncorrectable", 3),
        ("remapped_rows/pending", True),
        ("recovery_action", "GPU Reset"),
        ("throttle_us", {"hw_therm_slowdown": 9_000_000}),
    ):
        set_(path, value, 0)(begun)
    found = after(tmp_path, before=begun, profile=Profile(), readings=samples())
    assert found.verdict is Verdict.PASS, found


def test_a_counter_that_began_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    begun = read("610-rtx5090")
    set_("aer/fatal", 7)(begun)
    assert after(tmp_path, set_("aer/fatal", 0), before=begun).verdict is Verdict.PASS
    assert "2 x fatal error" in after(tmp_path, set_("aer/fatal", 2), before=begun).says


def test_a_new_xid_is_found(tmp_path: Path) -> None:
    found = after(tmp_path, log=[BOOT, OLD_XID, NEW_XID])
    assert found.verdict is Verdict.WARN
    assert f"Xid 13 on {CARD}" in found.says
    assert "79" not in found.says


def test_heat_at_work_is_found_in_the_readings(tmp_path: Path) -> None:
    hot = Sample(
        at=BEGAN + 300,
        gpu=2,
        temperature_c=92,
        margin_c=-2,
        reasons=("hw_slowdown", "hw_thermal", "sw_power_cap"),
    )
    found = after(tmp_path, readings=samples(hot))
    assert found.verdict is Verdict.FAIL
    assert f"{CARD} was slowed down in 1 of 9 readings, first at 2025-11-27 10:45:00 UTC" in found.says
    assert "too hot" in found.says
    assert f"{CARD} reached its own temperature limit" in found.says
    assert "fans" in found.advice
    margin = next(figure for figure in found.figures if figure.name == "smallest margin" and figure.gpu == 2)
    assert (margin.value, margin.verdict) == (-2, Verdict.FAIL)


def test_a_margin_that_was_not_kept_is_a_warning(tmp_path: Path) -> None:
    near = Sample(at=BEGAN + 300, gpu=2, temperature_c=89, margin_c=1)
    found = after(tmp_path, readings=samples(near))
    assert found.verdict is Verdict.WARN
    assert f"{CARD} came within 1 degrees of its own temperature limit" in found.says
    assert "lower power limit" in found.advice


def test_a_power_brake_at_work_is_the_power_supplys(tmp_path: Path) -> None:
    brake = Sample(
        at=BEGAN + 300, gpu=2, temperature_c=60, margin_c=30, reasons=("hw_slowdown", "power_brake")
    )
    found = after(tmp_path, readings=samples(brake))
    assert found.verdict is Verdict.FAIL
    assert "the power supply has told it to slow down" in found.says
    assert "power supply and its cables" in found.advice


def test_a_run_in_which_nothing_worked_says_so(tmp_path: Path) -> None:
    idle = [Sample(at=BEGAN + 1, gpu=gpu, temperature_c=30, margin_c=60) for gpu in range(4)]
    found = after(tmp_path, readings=idle)
    assert found.verdict is Verdict.PASS
    assert "no GPU had anything to do in this run" in found.says
    assert "anything to do" not in after(tmp_path, readings=samples()).says


def test_readings_of_an_earlier_run_do_not_count(tmp_path: Path) -> None:
    old = Sample(at=BEGAN - 300, gpu=2, temperature_c=92, margin_c=-2, reasons=("hw_thermal",))
    assert after(tmp_path, readings=samples(old)).verdict is Verdict.PASS


def test_without_readings_heat_is_not_judged(tmp_path: Path) -> None:
    for readings, says in (
        ([], f"no reading of {CARD} was kept"),
        (samples(margin=None), f"{CARD} does not tell how far"),
    ):
        found = after(tmp_path, readings=readings)
        assert found.verdict is Verdict.UNKNOWN
        assert says in found.says
        assert found.advice


def test_readings_that_do_not_tell_of_a_slowdown_are_no_green(tmp_path: Path) -> None:
    silent = Sample(at=BEGAN + 300, gpu=2, temperature_c=70, margin_c=20, reasons=("sw_power_cap", "untold"))
    found = after(tmp_path, readings=samples(silent))
    assert found.verdict is Verdict.UNKNOWN
    assert f"{CARD} did not tell in 1 of 9 readings whether it was slowed down" in found.says
    assert "no throttling" not in found.says
    assert found.advice == "see `nvidia-smi -q -d PERFORMANCE`"
    # One that tells of a slowdown elsewhere has failed.
    slow = Sample(at=BEGAN + 310, gpu=2, temperature_c=70, margin_c=20, reasons=("hw_thermal",))
    assert after(tmp_path, readings=samples(silent, slow)).verdict is Verdict.FAIL


def test_a_file_that_is_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("".join(map(line_of, samples())) + '{"at": 17642403')
    assert after(tmp_path, readings=[]).verdict is Verdict.PASS


def test_a_log_that_cannot_be_read_is_no_green(tmp_path: Path) -> None:
    for log in (None, []):
        found = after(tmp_path, log=log)
        assert found.verdict is Verdict.SKIP
        assert "cannot be read" in found.says
        assert found.advice
        # What is bad without it is bad.
        assert after(tmp_path, set_("aer/fatal", 1), log=log).verdict is Verdict.FAIL


def test_a_log_that_cannot_be_read_is_told_beside_a_warning(tmp_path: Path) -> None:
    warm = Sample(at=BEGAN + 300, gpu=2, temperature_c=89, margin_c=1, reasons=("sw_power_cap",))
    for log in (None, []):
        found = after(tmp_path, readings=samples(warm), log=log)
        assert found.verdict is Verdict.UNKNOWN
        assert "what the kernel has said since the run began cannot be read" in found.says
        assert f"{CARD} came within 1 degrees of its own temperature limit" in found.says
        assert "run" in found.advice and "see fans" in found.advice
        # A failure stays one, and the log is told there, too.
        bad = after(tmp_path, set_("aer/fatal", 1), log=log)
        assert bad.verdict is Verdict.FAIL
        assert "what the kernel has said since the run began cannot be read" in bad.says


def test_a_simulated_card_that_is_lost_while_the_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = machine(tmp_path / "before", monkeypatch, "4x-rtx5090")
    lost = machine(tmp_path / "after", monkeypatch, "4x-rtx5090", ("lost",))
    given = Later(
        folder=tmp_path,
        facts=before.facts,
        later=lost.facts,
        profile=DECLARED["4x-rtx5090"].profile(),
        kernel_log=lost.log,
        began=BEGAN,
    )
    found = made("aftermath", given)
    assert found.verdict is Verdict.FAIL
    assert "0000:61:00.0 (GPU 3, rtx5090) answered when the run began" in found.says
    assert "Xid 79 on 0000:61:00.0" in found.says
