# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for nvidia-smi: what it prints is read by our own parser, what it sets has limits, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import facts, smi

from tests.unit.sandbox.gpu_machine import LIBRARIES, Sandbox

BRANCHES = {
    "470.256.02": "11.4",
    "515.105.01": "11.7",
    "525.147.05": "12.0",
    "535.309.01": "12.2",
    "550.163.01": "12.4",
    "570.211.01": "12.8",
    "580.178.04": "13.0",
    "590.48.01": "13.1",
    "595.91.07": "13.2",
    "610.57.04": "13.3",
}


def parsed(machine: Sandbox) -> list[dict]:
    code, printed = machine.smi("-q", "-x")
    assert code == 0, printed
    return list(smi.parse(printed).gpus)


# Dialects


@pytest.mark.parametrize(("version", "cuda"), BRANCHES.items())
def test_our_parser_reads_every_branch_alike(tmp_path: Path, version: str, cuda: str) -> None:
    """A T4 has been driven by all of them."""
    machine = Sandbox(tmp_path, "t4")
    machine.drive(version, "closed")
    machine.smi("-pm", "1")
    machine.smi("-pl", "65")
    log = smi.parse(machine.smi("-q", "-x")[1])
    assert (log.driver, log.cuda, log.attached, log.simulated, log.notes) == (version, cuda, 1, True, ())
    (gpu,) = log.gpus
    assert gpu["pci_address"] == "0000:00:1e.0"
    assert gpu["pci_id"] == "1eb8"
    assert gpu["name"] == "Tesla T4"
    assert gpu["serial"].startswith("SIMULATED")
    assert (gpu["memory_mib"], gpu["persistence"], gpu["compute_mode"]) == (15360, True, "Default")
    power = gpu["power"]
    assert {name: power[f"{name}_w"] for name in ("limit", "requested", "default", "min", "max")} == {
        "limit": 65,
        "requested": 65,
        "default": 70,
        "min": 60,
        "max": 70,
    }
    assert 8 < power["draw_w"] < 12
    assert gpu["throttle"] == ["idle"]
    assert gpu["temperatures"]["slowdown_c"] == 93
    assert gpu["temperatures"]["margin_c"] == 85 - gpu["temperatures"]["gpu_c"]
    assert (gpu["link"]["gen_max"], gpu["link"]["width_now"], gpu["link"]["width_max"]) == (3, 8, 16)
    assert gpu["ecc"]["current"] is True
    assert gpu["ecc"]["volatile"]["uncorrectable"] == 0
    assert gpu["retired_pages"]["pending"] is False


def test_the_dialects_differ_where_the_branches_do(tmp_path: Path) -> None:
    def tags(version: str) -> set[str]:
        folder = tmp_path / version
        machine = Sandbox(folder, "t4")
        machine.drive(version, "closed")
        return set(re.findall(r"<([a-z_]+)>", machine.smi("-q", "-x")[1], re.IGNORECASE))

    old, middle, lts, new, newest = (
        tags(version) for version in ("525.147.05", "535.309.01", "580.178.04", "595.91.07", "610.57.04")
    )
    assert {"clocks_throttle_reasons", "power_readings"} <= old - middle
    assert {"clocks_event_reasons", "gpu_power_readings", "module_power_readings"} <= middle - old
    assert {"gpu_recovery_action", "average_power_draw", "clocks_event_reasons_counters"} <= lts - middle
    assert {"gpu_reset_status", "voltage"} <= middle - lts
    assert "edpp_multiplier" in new - lts
    assert {"kmd_version", "cuda_umd_version"} <= newest - new


def test_a_relative_limit_has_a_margin_and_no_degrees(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    temperatures = parsed(machine)[0]["temperatures"]
    printed = machine.smi("-q", "-x")[1]
    # As real ones have it: they may go beyond their limit by so much.
    assert "<gpu_temp_slow_tlimit_threshold>-2 C<" in printed
    assert "<gpu_temp_max_tlimit_threshold>-5 C<" in printed
    assert "gpu_temp_slow_threshold" not in printed
    assert temperatures["margin_c"] == 90 - temperatures["gpu_c"]
    assert temperatures["slowdown_c"] == 92


def test_the_banner_is_renamed_in_610(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("595.91.07")
    assert "Driver Version: 595.91.07" in machine.smi()[1]
    machine.install("610.57.04")
    machine.control("reboot")
    table = machine.smi()[1]
    assert "KMD Version: 610.57.04" in table
    assert "CUDA UMD Version: 13.3" in table
    assert "Driver Version" not in table
    assert "SIMULATED" in table
    # A table is one: all its lines are as wide as the first, but the date and the empty one.
    assert {len(line) for line in table.splitlines()[1:] if line} == {91}


@pytest.mark.parametrize(
    ("profile", "kind", "field", "value"),
    [
        ("a100", "ecc", ("ecc", "volatile", "uncorrectable"), 2),
        ("a100", "ecc", ("remapped_rows", "pending"), True),
        ("a100", "remap-failure", ("remapped_rows", "failure"), True),
        ("t4", "ecc", ("retired_pages", "pending"), True),
        ("4x-rtx5090", "x8", ("link", "width_now"), 8),
        (
            "4x-rtx5090",
            "throttled",
            ("throttle",),
            ["sw_power_cap", "hw_slowdown", "sw_thermal", "hw_thermal"],
        ),
        ("4x-rtx5090", "power-brake", ("throttle",), ["idle", "sw_power_cap", "hw_slowdown", "power_brake"]),
        ("4x-rtx5090", "persistence-off", ("persistence",), False),
        ("4x-rtx5090", "memory", ("memory_mib",), 30559),
    ],
)
def test_a_fault_is_in_the_reading(
    tmp_path: Path, profile: str, kind: str, field: tuple[str, ...], value: object
) -> None:
    machine = Sandbox(tmp_path, profile)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    machine.control("break", kind)
    reading = parsed(machine)[-1]
    for part in field:
        reading = reading[part]
    assert sorted(reading) == sorted(value) if isinstance(value, list) else reading == value


def test_a_lost_gpu_is_told_and_the_others_answer(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    machine.control("break", "lost", "--device", "1")
    code, printed = machine.smi("-q", "-x")
    assert code == 15
    assert set(smi.lost(printed)) == {"0000:21:00.0"}
    assert [gpu["pci_address"] for gpu in smi.parse(printed).gpus] == [
        "0000:01:00.0",
        "0000:41:00.0",
        "0000:61:00.0",
    ]
    machine.control("mend")
    machine.control("break", "lost-values", "--device", "1")
    assert parsed(machine)[1]["missing"]["power.draw_w"] == "lost"
    assert machine.ask("power.draw")[1] == "[GPU is lost]"


def test_the_matrices_are_read_by_our_facts(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    links = facts.pairs(machine.smi("topo", "-m")[1], "link")
    assert len(links) == 6
    assert {(pair["from"], pair["to"]): pair["link"] for pair in links}[(0, 1)] == "NODE"
    reads = facts.pairs(machine.smi("topo", "-p2p", "r")[1], "read")
    assert {pair["read"] for pair in reads} == {"CNS"}


# Settings


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("-pl", "450"), 0, "was set to 450.00 W from 575.00 W"),
        (("-pl", "400"), 0, "was set to 400.00 W"),
        (("-pl", "399"), 2, "should be between 400.00 W and 575.00 W for GPU 00000000:01:00.0"),
        (("-pl", "600"), 2, "should be between"),
        (("-pl", "much"), 2, "Invalid power limit"),
        (("-pl",), 2, "missing its value"),
        (("-e", "1"), 3, "not supported"),
        (("-mig", "1"), 3, "not supported"),
        (("-ac", "14001,2000"), 3, "not supported"),
        (("-c", "SOMETIMES"), 2, "Invalid compute mode"),
        (("-lgc", "2000,1000"), 2, "not supported"),
        (("-i", "7", "-L"), 6, "No devices were found"),
        (("--frobnicate",), 2, "not recognized"),
        (("--query-gpu=index,frobs", "--format=csv"), 2, 'Field "frobs" is not a valid field to query'),
        (("--query-gpu=index",), 2, "--format="),
        (("topo", "-x"), 2, "Invalid combination"),
    ],
)
def test_settings_have_limits_and_endings(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    ended, printed = machine.smi(*words)
    assert says in printed
    assert ended == code


def test_one_gpu_is_set_by_any_of_its_names(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    uuid = machine.ask("uuid")[2]
    for watts, name in enumerate(("1", "0000:21:00.0", "00000000:21:00.0"), 401):
        assert machine.smi("-i", name, "-pl", str(watts))[0] == 0
        assert machine.ask("power.limit") == ["575.00", f"{watts}.00", "575.00", "575.00"]
    assert machine.smi("-i", uuid, "-c", "3")[0] == 0
    assert machine.ask("compute_mode") == ["Default", "Default", "Exclusive_Process", "Default"]


def test_without_persistence_nothing_stays_set(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "t4")
    machine.drive("580.178.04")
    code, printed = machine.smi("-pl", "60")
    assert code == 0
    assert "persistence mode is disabled" in printed
    assert machine.ask("power.limit") == ["70.00"]
    # The daemon holds it, and lets go of it when it is stopped.
    note = machine.root / "persistenced.pid"
    note.write_text(f"{os.getpid()}\n")
    assert machine.ask("power.limit,persistence_mode") == ["70.00, Enabled"]
    machine.smi("-pl", "60")
    assert machine.ask("power.limit,persistence_mode") == ["60.00, Enabled"]
    note.write_text(f"{os.getppid()}\n")
    assert machine.ask("power.limit,persistence_mode") == ["70.00, Enabled"]
    note.unlink()
    assert machine.ask("power.limit,persistence_mode") == ["70.00, Disabled"]


def test_clocks_stay_between_locks(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    assert machine.smi("-i", "0", "-lgc", "1500,1800")[0] == 0
    assert [int(value) for value in machine.ask("clocks.current.graphics")] == [1500, 180, 180, 180]
    machine.control("load", "100")
    assert 1500 <= int(machine.ask("clocks.current.graphics")[0]) <= 1800
    machine.control("load", "0")
    assert machine.smi("-rgc")[0] == 0
    assert machine.ask("clocks.current.graphics") == ["180"] * 4


def test_a_card_is_cut(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "a100")
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    assert machine.smi("mig", "-cgi", "3g.20gb", "-C")[0] == 6
    assert machine.smi("-mig", "1")[0] == 0
    # Its memory would do for these, its seven parts do not.
    assert machine.smi("mig", "-cgi", "4g.20gb,2g.10gb,2g.10gb", "-C")[0] == 19
    assert machine.smi("mig", "-i", "0", "-cgi", "3g.20gb,9", "-C")[0] == 0
    assert machine.smi("-L")[1].count("  MIG 3g.20gb     Device ") == 2
    assert [device["memory_mib"] for device in parsed(machine)[0]["mig"]["devices"]] == [19968, 19968]
    code, printed = machine.smi("mig", "-cgi", "1g.5gb", "-C")
    assert code == 19
    assert "Insufficient Resources" in printed
    assert machine.smi("mig", "-dci")[0] == 0
    assert machine.smi("mig", "-dgi")[0] == 0
    assert "MIG" not in machine.smi("-L")[1]


# Readings


def test_readings_live_and_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")

    def at(second: int) -> list[str]:
        monkeypatch.setenv("GPUMESH_SIMULATED_TIME", str(1_790_000_000 + second))
        return machine.ask("power.draw,temperature.gpu,utilization.gpu,clocks.sm")

    assert at(0) == at(0)
    assert at(0) != at(5)
    assert len(set(at(0))) > 1, "four cards that agree to the watt are one card"
    machine.control("load", "100")
    for second in range(0, 600, 50):
        for line in at(second):
            power, heat, work, clock = (float(value) for value in line.split(", "))
            assert 560 < power <= 575
            assert 70 < heat < 85
            assert 95 <= work <= 100
            assert 2800 < clock <= 3090
    machine.smi("-pl", "450")
    assert all(float(line.split(", ")[0]) <= 450 for line in at(0))
    assert set(machine.ask("clocks_event_reasons.sw_power_cap")) == {"Active"}


# What is missing


def test_a_mismatch_is_told(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.173.02")
    machine.library("580.178.04")
    assert machine.smi() == (
        18,
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.178\n",
    )
    shutil.rmtree(tmp_path / LIBRARIES)
    assert machine.smi()[0] == 12


def test_a_container_sees_the_gpus_it_was_given(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    for name in ("nvidia0", "nvidia2"):
        (tmp_path / "dev" / name).unlink()
    # Nothing of the machine is there but what is shown to a container.
    shutil.rmtree(tmp_path / "etc")
    assert machine.ask("index,pci.bus_id") == ["0, 00000000:21:00.0", "1, 00000000:61:00.0"]
    (tmp_path / "dev/nvidiactl").unlink()
    assert machine.smi() == (255, "Failed to initialize NVML: Unknown Error\n")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_others_may_look_and_not_touch(open_folder: Path) -> None:
    machine = Sandbox(open_folder)
    machine.drive("580.178.04")
    machine.smi("-pm", "1")
    os.seteuid(65534)
    try:
        code, printed = machine.smi("-pl", "450")
        looked = machine.smi("-L")[0]
    finally:
        os.seteuid(0)
    assert (code, looked) == (4, 0)
    assert "Insufficient Permissions" in printed
    assert machine.ask("power.limit") == ["575.00"] * 4
