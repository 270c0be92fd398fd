# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that the role monitoring hands to Prometheus, read from simulated cards (SIMULATED) and from odd answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance_bench import SimulatedMachine

PROGRAM = Path(__file__).parents[3] / "roles/monitoring/files/gpu_metrics.py"


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
