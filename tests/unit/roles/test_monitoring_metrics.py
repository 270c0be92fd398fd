# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that the role monitoring hands to Prometheus, read from simulated cards (SIMULATED) and from odd answers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.acceptance_bench import SimulatedMachine

PROGRAM = Path(__file__).parents[3] / "roles/monitoring/files/gpu_metrics.py"
DASHBOARD = PROGRAM.with_name("grafana-dashboard.json")


def once(folder: Path) -> tuple[int, str, str]:
    """Exit status, the file, and what the journal gets."""
    file = folder / "gpu.prom"
    done = subprocess.run(
        [sys.executable, PROGRAM, "--once", file], check=False, capture_output=True, text=True, timeout=60
    )
    return done.returncode, file.read_text(), done.stderr


def speaks(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A nvidia-smi that does what the script says."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")


@pytest.mark.parametrize(("profile", "cards"), [("4x-rtx5090", 4), ("t4", 1), ("h100", 1)])
def test_every_card_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, cards: int
) -> None:
    SimulatedMachine(tmp_path, monkeypatch, profile)
    status, text, _said = once(tmp_path)
    assert status == 0
    assert text.count("\nnvidia_smi_temperature_gpu{") == cards
    assert text.count('simulated="true"') == len(re.findall(r"^nvidia_smi_\w+\{", text, re.MULTILINE))
    # ECC is something that the GeForce does not have.
    assert ("nvidia_smi_ecc_errors" in text) == (profile != "4x-rtx5090")


def test_the_text_is_what_prometheus_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedMachine(tmp_path, monkeypatch)
    _status, text, _said = once(tmp_path)
    described: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in described, "a family may be there once"
            described.add(name)
        elif not line.startswith("# TYPE "):
            found = re.fullmatch(r'(\w+)(\{(?:\w+="[^"\\]*",?)+\})? -?[0-9.e+]+', line)
            assert found and found[1] in described, line


def test_a_field_that_the_branch_does_not_know_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(
        tmp_path,
        monkeypatch,
        """
case "$1" in
*temperature.gpu.tlimit*) echo 'Field "temperature.gpu.tlimit" is not a valid field to query.'; exit 2 ;;
*clocks_event_reasons.hw_thermal_slowdown*)
  echo 'Field "clocks_event_reasons.hw_thermal_slowdown" is not a valid field to query.'; exit 2 ;;
esac
fields="${1#--query-gpu=}"; IFS=,; line=
for field in $fields; do
  case "$field" in
  uuid) value=GPU-1 ;;
  index) value=0 ;;
  clocks_throttle_reasons.hw_thermal_slowdown) value=Active ;;
  temperature.gpu) value=71 ;;
  *) value='[N/A]' ;;
  esac
  line="$line, $value"
done
echo "${line#, }"
""",
    )
    status, text, said = once(tmp_path)
    assert (status, said) == (0, "")
    assert 'nvidia_smi_temperature_gpu{uuid="GPU-1",index="0"} 71' in text
    assert 'nvidia_smi_clocks_event_reasons_hw_thermal_slowdown{uuid="GPU-1",index="0"} 1' in text
    assert "tlimit" not in text
    assert "simulated" not in text


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9",
            "could not",
        ),
        ("exit 0", "it said nothing"),
        ("echo 'GPU-1, 0'", "status 0"),
    ],
)
def test_no_answer_is_told_and_leaves_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    speaks(tmp_path, monkeypatch, script)
    status, text, said = once(tmp_path)
    assert status == 1
    assert says in said
    assert text.splitlines()[-1] == "nvidia_smi_up 0"
    assert "temperature" not in text


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, with a nvidia-smi that neither answers nor ends, whatever signal it gets: as one in a driver that hangs."""
    found = importlib.util.spec_from_file_location("gpu_metrics", PROGRAM)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    started = tmp_path / "started"
    speaks(tmp_path, monkeypatch, f"echo $$ >>{started}\nexec sleep 20")
    monkeypatch.setattr(module, "SECONDS", 0.5, raising=False)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _process: None)
    yield module
    for process in started.read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def test_a_nvidia_smi_that_cannot_be_killed_leaves_no_old_values(
    hung: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpu.prom"
    file.write_text("nvidia_smi_up 1\n")
    monkeypatch.setattr(sys, "argv", ["gpumesh-gpu-metrics", "--once", str(file)])
    began = time.monotonic()
    assert hung.main() == 1
    assert time.monotonic() - began < 10
    assert file.read_text().splitlines()[-1] == "nvidia_smi_up 0"
    assert "the driver hangs" in capsys.readouterr().err


def test_no_second_nvidia_smi_is_started_while_the_first_hangs(
    hung: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = hung.NvidiaSmi()
    for _round in range(3):
        with pytest.raises(hung.Silent, match="the driver hangs"):
            program.run("--query-gpu=uuid")
    started = (tmp_path / "started").read_text().split()
    assert len(started) == 1
    # The driver came to itself again.
    os.kill(int(started[0]), signal.SIGKILL)
    program.hung.wait(timeout=10)
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho GPU-1\n")
    (tmp_path / "started").write_text("")
    assert program.run("--query-gpu=uuid") == (0, "GPU-1\n", "")


def test_a_full_disk_leaves_no_old_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedMachine(tmp_path, monkeypatch)
    file = tmp_path / "gpu.prom"
    assert once(tmp_path)[0] == 0
    (tmp_path / ".gpu.prom.new").symlink_to("/dev/full")
    done = subprocess.run(
        [sys.executable, PROGRAM, "--once", file], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"{file} cannot be written, so there are no values: No space left on device\n"
    assert not file.exists()
    assert once(tmp_path)[0] == 0


def test_the_dashboard_counts_a_machine_with_old_values_among_the_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SimulatedMachine(tmp_path, monkeypatch)
    _status, text, _said = once(tmp_path)
    assert "\nnvidia_smi_read_interval_seconds 15\n" in text
    (panel,) = (one for one in json.loads(DASHBOARD.read_text())["panels"] if "is silent" in one["title"])
    expression = panel["targets"][0]["expr"].replace('{machine=~"$machine"}', "")
    assert expression == (
        "count(nvidia_smi_up == 0 or time() - nvidia_smi_read_timestamp_seconds > 2 * nvidia_smi_read_interval_seconds + 120)"
    )
