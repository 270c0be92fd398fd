# SPDX-License-Identifier: GPL-3.0-or-later
"""Back from a newer branch to the older one, from an interrupted run, to no driver, and the purge.

Run by 'molecule test -s nvidia_driver', after all other tests of the scenario: it ends on a machine with no driver. The order
of the tests is the story of one machine.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest

from tests.hosts.conftest import Machine, Played

HISTORY = "/var/lib/gpumesh/nvidia_driver/history.json"
DRIVER = "'nvidia|cuda|dkms|nvtop|linux-headers'"
KILLER = "#!/bin/sh\nrm -f $0\nkill -KILL $(sed -n 's/^PPid:\\t//p' /proc/$PPID/status) $PPID\n"
FILES = (
    "/etc/apt/sources.list.d/gpumesh-nvidia-driver.sources /etc/apt/keyrings/gpumesh-nvidia-driver.asc "
    "/etc/apt/preferences.d/* /etc/apt/apt.conf.d/* /etc/modprobe.d/* /etc/modules-load.d/* "
    "/etc/gpumesh/* /usr/local/sbin/gpumesh-gpu-tuning"
)


@dataclass(frozen=True)
class Found:
    """All that tells of a driver on the machine."""

    packages: str
    holds: str
    files: str
    modules: str
    limits: str

    @classmethod
    def on(cls, machine: Machine) -> Found:
        return cls(
            machine.ssh(
                f"dpkg-query -W -f '${{Package}} ${{Version}} ${{db:Status-Status}}\\n' | grep -E {DRIVER}"
            ).stdout,
            machine.ssh("apt-mark showhold").stdout,
            machine.ssh(f"sudo sha256sum {FILES} 2>/dev/null").stdout,
            machine.ssh("ls /usr/src; sudo dkms status; sudo find /lib/modules -name 'nvidia*.ko*'").stdout,
            machine.ssh("nvidia-smi --query-gpu=driver_version,power.limit --format=csv,noheader").stdout,
        )


def variables(machine: Machine) -> dict[str, object]:
    """What an inventory would say of this machine."""
    vendor = json.loads((machine.folder / "vendor.json").read_text(encoding="utf-8"))
    return {
        "rollback_hosts": "all",
        "layer": "nvidia_driver",
        "nvidia_driver_root": vendor["root"],
        "nvidia_driver_gpus": [{"model": "rtx5090", "count": 4}],
    }


def back(machine: Machine, *arguments: str, **more: object) -> Played:
    """The playbook as an operator runs it."""
    return machine.play(*arguments, playbook="../../playbooks/rollback.yml", **{**variables(machine), **more})


@pytest.fixture(scope="module")
def older(machine: Machine) -> Found:
    """The machine with branch 580, as the scenario made it."""
    assert machine.play().returncode == 0
    found = Found.on(machine)
    assert "nvidia-dkms-580-open 580." in found.packages
    assert "580." in found.limits
    return found


def test_a_layer_or_a_state_that_is_unknown_is_refused_by_name(machine: Machine) -> None:
    played = back(machine, layer="docker")
    assert played.returncode != 0
    assert "The layer 'docker' cannot be taken back" in played.said
    assert "-e layer=nvidia_driver" in played.said
    assert "'now' is nothing to go back to" in back(machine, to="now").said


def test_a_newer_branch_has_other_package_names(machine: Machine, older: Found) -> None:
    played = machine.play(nvidia_driver_branch="595")
    assert played.returncode == 0, played.said
    newer = Found.on(machine)
    assert "nvidia-dkms-open 595." in newer.packages
    assert "-580" not in newer.packages
    assert newer.limits.count("595.91.07, 450.00 W") == 4


def test_a_version_that_is_no_longer_offered_is_refused_before_anything_is_touched(
    machine: Machine, older: Found
) -> None:
    before = Found.on(machine)
    assert (
        machine.ssh(
            f"sudo cp -p {HISTORY} /root/; sudo sed -i s/580.178.04-1/580.178.99-1/ {HISTORY}"
        ).returncode
        == 0
    )
    try:
        played = back(machine)
    finally:
        assert (
            machine.ssh(f"sudo cp -p /root/history.json {HISTORY}; sudo rm /root/history.json").returncode
            == 0
        )
    assert played.returncode != 0
    assert "can no longer be had: no repository offers" in played.said
    assert "libnvidia-compute-580=580.178.99-1ubuntu1" in played.said
    assert "Nothing was changed" in played.said
    assert Found.on(machine) == before


def test_check_mode_shows_the_way_back_and_does_not_go_it(machine: Machine, older: Found) -> None:
    before = Found.on(machine)
    played = back(machine, "--check")
    assert played.returncode == 0, played.said
    assert "install libnvidia-compute-580 580.178.04-1ubuntu1" in played.said
    assert "remove libnvidia-compute 595.91.07-1ubuntu1" in played.said
    assert Found.on(machine) == before


def test_back_to_the_older_branch_everything_is_as_it_was(machine: Machine, older: Found) -> None:
    played = back(machine)
    assert played.returncode == 0, played.said
    assert Found.on(machine) == older
    assert machine.ssh("sudo dpkg --audit; systemctl --failed --no-legend").stdout == ""
    assert machine.ssh("systemctl is-active nvidia-persistenced gpumesh-gpu-tuning").stdout.split() == [
        "active",
        "active",
    ]


def test_a_second_time_nothing_is_changed(machine: Machine, older: Found) -> None:
    played = back(machine)
    assert played.returncode == 0, played.said
    assert "this machine went back to 580.178.04" in played.said
    assert "changed=0" in played.said


def test_a_run_that_is_killed_goes_on_when_it_is_run_again(machine: Machine, older: Found) -> None:
    # In the midst of the transaction, while dpkg removes one package of many: apt and dpkg are killed by its script.
    script = "/var/lib/dpkg/info/libnvidia-cfg1-580.prerm"
    written = base64.b64encode(KILLER.encode()).decode()
    assert (
        machine.ssh(f"echo {written} | base64 -d | sudo tee {script}; sudo chmod 755 {script}").returncode
        == 0
    )
    killed = back(machine, to="none")
    assert killed.returncode != 0
    assert "it goes on from there" in killed.said
    assert machine.ssh("sudo dpkg --audit").stdout != ""
    shown = back(machine, "--check", to="none")
    assert shown.returncode == 0, shown.said
    assert machine.ssh("sudo dpkg --audit").stdout != ""
    played = back(machine, to="none")
    assert played.returncode == 0, played.said


def nothing_left(machine: Machine) -> None:
    """Nothing of a driver, and nothing of ours but what was asked for."""
    found = Found.on(machine)
    assert (found.packages, found.holds, found.modules) == ("", "", "")
    ours = [line for line in found.files.splitlines() if "gpumesh" in line or "nvidia" in line]
    assert [line for line in ours if not line.endswith("gpumesh-simulated-archives")] == []
    assert machine.ssh("sudo dpkg --audit").stdout == ""
    assert machine.ssh("sudo apt-get --quiet=2 check").returncode == 0
    names = machine.ssh(
        "sudo find /etc /usr /var/lib /var/cache -xdev \\( -iname '*nvidia*' -o -name '*gpumesh*' \\) "
        "-not -path '*simulated*' -not -path '/var/lib/gpumesh*' -not -path '/var/lib/apt/*' -not -path '/var/cache/apt/*' "
        # cloud-init knows this machine by its name, which is the scenario's.
        "-not -path '/var/lib/cloud/*'"
    ).stdout.split()
    # The first two are of the image that stands for a cloud's.
    known = {"/etc/dpkg/dpkg.cfg.d/gpumesh-unsafe-io", "/etc/cloud/cloud.cfg.d/90-gpumesh.cfg"}
    assert set(names) - known == {"/etc/ansible/facts.d/gpumesh.fact"}
    root = variables(machine)["nvidia_driver_root"]
    assert "nvidia" not in machine.ssh(f"cat {root}/proc/modules").stdout


def test_none_leaves_nothing_of_a_driver(machine: Machine, older: Found) -> None:
    nothing_left(machine)
    played = back(machine, to="none")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said


def test_from_none_the_previous_is_the_driver_again(machine: Machine, older: Found) -> None:
    played = back(machine)
    assert played.returncode == 0, played.said
    found = Found.on(machine)
    assert (found.holds, found.limits) == (older.holds, older.limits)
    assert "nvidia-dkms-580-open 580.178.04" in found.packages


def test_absent_leaves_not_even_a_note(machine: Machine, older: Found) -> None:
    played = machine.play(nvidia_driver_state="absent")
    assert played.returncode == 0, played.said
    nothing_left(machine)
    assert machine.ssh("sudo ls /var/lib/gpumesh/nvidia_driver").returncode != 0
    again = machine.play(nvidia_driver_state="absent")
    assert again.returncode == 0, again.said
    assert "changed=0" in again.said
