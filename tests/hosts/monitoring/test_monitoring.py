# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporters as Prometheus sees them, and the machine from outside. The GPUs are SIMULATED."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.hosts.conftest import Machine, eventually

BREAK = "sudo gpumesh-simulated-gpus"


def scraped(machine: Machine) -> str:
    """What Prometheus would get."""
    with urllib.request.urlopen(f"http://{machine.address}:9100/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def values(text: str, name: str) -> dict[str, float]:
    """A metric by the index of its GPU."""
    found = re.findall(rf'^{name}\{{index="(\d+)"[^}}]*\}} (\S+)$', text, re.MULTILINE)
    return {index: float(value) for index, value in found}


@pytest.fixture(autouse=True)
def mended(machine: Machine):
    yield
    assert machine.ssh(f"{BREAK} mend && {BREAK} load 0").returncode == 0


def test_the_tools_are_there(host) -> None:
    for program in ("htop", "nvtop", "iotop-c"):
        assert host.run(f"PATH=/usr/sbin:/usr/bin:/bin command -v {program}").rc == 0, program


def test_prometheus_gets_the_machine_and_every_gpu(machine: Machine) -> None:
    text = scraped(machine)
    assert "node_memory_MemTotal_bytes" in text
    assert "node_textfile_scrape_error 0" in text
    assert set(values(text, "nvidia_smi_temperature_gpu")) == {"0", "1", "2", "3"}
    assert set(values(text, "nvidia_smi_power_limit_watts").values()) == {575.0}
    assert values(text, "nvidia_smi_memory_total_bytes")["0"] == 32607 * 1024 * 1024
    # This card has no ECC, and no sensor in its memory: nothing is made up.
    assert "nvidia_smi_temperature_memory" not in text
    assert 'simulated="true"' in text


def test_values_follow_the_hardware(machine: Machine) -> None:
    assert machine.ssh(f"{BREAK} load 100 --device 2").returncode == 0
    assert eventually(lambda: values(scraped(machine), "nvidia_smi_utilization_gpu_ratio")["2"] > 0.9, 30)
    power = values(scraped(machine), "nvidia_smi_power_draw_watts")
    assert power["2"] > 400 > power["1"]


def test_a_card_that_slows_down_is_told(machine: Machine) -> None:
    assert machine.ssh(f"{BREAK} break throttled --device 1").returncode == 0
    name = "nvidia_smi_clocks_event_reasons_hw_thermal_slowdown"
    assert eventually(lambda: values(scraped(machine), name) == {"0": 0, "1": 1, "2": 0, "3": 0}, 30)


def test_a_driver_that_does_not_answer_leaves_no_old_values(machine: Machine) -> None:
    assert machine.ssh(f"{BREAK} break mismatch").returncode == 0
    assert eventually(lambda: "nvidia_smi_up 0" in scraped(machine), 30)
    assert "nvidia_smi_temperature_gpu" not in scraped(machine)
    played = machine.play("--tags", "gate")
    assert played.returncode != 0
    assert "nvidia-smi does not answer the exporter" in played.said


def test_a_lost_card_fails_the_gate(machine: Machine) -> None:
    assert machine.ssh(f"{BREAK} break lost --device 3").returncode == 0
    assert eventually(lambda: len(values(scraped(machine), "nvidia_smi_temperature_gpu")) < 4, 30)
    played = machine.play("--tags", "gate")
    assert played.returncode != 0
    assert (
        "every GPU: the PCI bus has 4, and there are temperatures of" in played.said
        or "does not answer" in played.said
    )


def test_it_comes_back_after_it_was_killed(machine: Machine, host) -> None:
    before = host.service("gpumesh-gpu-metrics").systemd_properties["MainPID"]
    assert machine.ssh("sudo systemctl kill --signal=KILL gpumesh-gpu-metrics").returncode == 0
    assert eventually(
        lambda: host.service("gpumesh-gpu-metrics").systemd_properties["MainPID"] not in ("0", before), 30
    )


def test_only_the_declared_may_fetch(machine: Machine, host) -> None:
    assert machine.reaches(9100)
    with host.sudo():
        rules = host.check_output("ufw status")
    assert re.search(r"9100/tcp\s+ALLOW\s+172\.16\.0\.0/12", rules), rules
    assert machine.play(monitoring_sources=["192.0.2.0/24"]).returncode == 0
    assert not machine.reaches(9100)
    assert machine.play().returncode == 0
    assert machine.reaches(9100)


def test_prometheus_and_grafana_get_files_they_can_read(machine: Machine) -> None:
    folder = machine.folder / "monitoring"
    targets = json.loads((folder / "gpumesh-targets" / "machine.json").read_text())
    assert targets == [{"targets": ["0.0.0.0:9100"], "labels": {"job": "gpumesh", "machine": "machine"}}]
    dashboard = json.loads((folder / "gpumesh-dashboard.json").read_text())
    asked = set(re.findall(r"\b(?:nvidia_smi|node)_[a-z_]+", json.dumps(dashboard)))
    told = scraped(machine)
    # The memory's limit is told in degrees by cards that have such a sensor.
    unknown = {name for name in asked if name not in told}
    assert not unknown, unknown


def test_an_exporter_that_is_not_wanted_any_more_is_gone(machine: Machine, host) -> None:
    assert machine.play(monitoring_gpu_exporter="none").returncode == 0
    assert not host.service("gpumesh-gpu-metrics").is_running
    assert "nvidia_smi_" not in scraped(machine)
    assert machine.play(monitoring_exporters=False).returncode == 0
    assert not machine.reaches(9100)
    assert not host.service("prometheus-node-exporter").is_enabled
    assert machine.play().returncode == 0
    assert machine.reaches(9100)


def test_a_restart_that_was_missed_is_made_up_for(machine: Machine) -> None:
    """As after a run that was killed between the files and the restart: it listens where it did before."""
    undo = "sudo systemctl restart prometheus-node-exporter"
    lost = (
        "sudo sed -i s/:9100/:9109/ /etc/gpumesh/node-exporter.env && sudo systemctl restart prometheus-node-exporter"
        " && sudo sed -i s/:9109/:9100/ /etc/gpumesh/node-exporter.env"
    )
    assert machine.ssh(lost).returncode == 0
    try:
        assert "it runs with other settings" in machine.play("--tags", "gate").said
        assert machine.play().returncode == 0
        assert eventually(lambda: machine.reaches(9100))
    finally:
        assert machine.ssh(undo).returncode == 0


def test_a_program_that_is_newer_than_what_runs_is_taken_up(machine: Machine, host) -> None:
    """As after a run that wrote it, and failed before the restart."""
    before = host.service("gpumesh-gpu-metrics").systemd_properties["MainPID"]
    assert machine.ssh("sudo touch /usr/local/libexec/gpumesh-gpu-metrics").returncode == 0
    assert "it runs with other settings" in machine.play("--tags", "gate").said
    assert machine.play().returncode == 0
    assert host.service("gpumesh-gpu-metrics").systemd_properties["MainPID"] not in ("0", before)
    assert "changed=0" in machine.play().said


def test_it_can_be_taken_away(machine: Machine, host) -> None:
    assert machine.play(monitoring_state="absent").returncode == 0
    assert not machine.reaches(9100)
    assert not host.file("/etc/systemd/system/gpumesh-gpu-metrics.service").exists
    assert not host.package("prometheus-node-exporter").is_installed
    with host.sudo():
        assert "9100" not in host.check_output("ufw status")
    assert "changed=0" in machine.play(monitoring_state="absent").said
    assert machine.play().returncode == 0
    assert machine.reaches(9100)
