# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver on a Debian 13 machine with a simulated T4, two kernels, and nouveau in the way. SIMULATED throughout."""

from __future__ import annotations

from tests.hosts.conftest import Machine

KERNELS = ("6.12.117+deb13-amd64", "6.12.120+deb13-amd64")
BOOTS = "systemctl show --property=SoftRebootsCount --value"


def root(machine: Machine, command: str) -> str:
    """What a command says to root."""
    done = machine.ssh(f"sudo sh -c '{command}'")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state(machine: Machine) -> str:
    """Everything that an installation could change."""
    return root(
        machine,
        "dpkg -l | sort; apt-mark showhold; dkms status; ls /usr/src /etc/dkms /var/lib/dkms /etc/apt/sources.list.d "
        "/etc/apt/preferences.d; dpkg --audit; systemctl is-enabled nvidia-persistenced",
    )


def test_the_machine_was_rebooted_once_into_the_newer_kernel(machine: Machine) -> None:
    assert root(machine, BOOTS).strip() == "1"
    assert "SIMULATED" in machine.ssh("nvidia-smi -L").stdout
    release = "/var/lib/gpumesh-simulated-gpus/root/proc/sys/kernel/osrelease"
    assert machine.ssh(f"cat {release}").stdout.strip() == KERNELS[1]


def test_every_kernel_has_its_module(machine: Machine) -> None:
    status = root(machine, "dkms status")
    for kernel in KERNELS:
        assert f"nvidia/595.91.07, {kernel}, x86_64: installed" in status


def test_the_cuda_toolkit_that_was_asked_for_is_there_and_held(machine: Machine) -> None:
    assert root(machine, "dpkg-query -W -f \\${db:Status-Status} cuda-toolkit-13-0") == "installed"
    assert "cuda-toolkit-13-0" in root(machine, "apt-mark showhold")


def test_a_known_broken_pair_is_refused_and_a_failing_trial_leaves_the_machine_as_it_was(
    machine: Machine,
) -> None:
    archives = "/etc/apt/sources.list.d/gpumesh-simulated"
    root(
        machine,
        f"sed s/^Suites:.*/Suites:\\ trixie-backports/ {archives}-archives.sources > {archives}-backports.sources; "
        "apt-get -qq update; apt-get -qq -y install linux-image-7.2.12+deb13-amd64",
    )
    before = state(machine)
    declared = {"nvidia_driver_branch": "590", "nvidia_driver_eol_allowed": ["590"]}
    try:
        refused = machine.play(**declared)
        tried = machine.play(nvidia_driver_build_allowed=True, **declared)
        after = state(machine)
    finally:
        root(
            machine,
            f"apt-get -qq -y autopurge linux-image-7.2.12+deb13-amd64; rm {archives}-backports.sources",
        )
    assert refused.returncode == 2
    assert "changed=0" in refused.said
    assert "7.2.12" in refused.said
    assert tried.returncode == 2
    assert "does not build for the kernel 7.2.12+deb13-amd64" in tried.said
    assert "implicit declaration of function" in tried.said
    assert "The machine was put back as it was." in tried.said
    assert after.splitlines() == before.splitlines()


def test_a_reboot_needs_consent_and_is_done_once(machine: Machine) -> None:
    blacklist = "/etc/modprobe.d/gpumesh-nvidia-driver.conf"
    root(
        machine,
        f"mv {blacklist} /root; rm -f /lib/modprobe.d/nvidia-graphics-drivers.conf; gpumesh-simulated-gpus break nouveau || true",
    )
    root(machine, "gpumesh-simulated-gpus reboot || true")
    boots = int(root(machine, BOOTS))
    without = machine.play(nvidia_driver_reboot_allowed=False)
    assert without.returncode == 2
    assert "nouveau is loaded and in use" in without.said
    assert "nvidia_driver_reboot_allowed" in without.said
    assert int(root(machine, BOOTS)) == boots
    played = machine.play()
    assert played.returncode == 0, played.said
    assert int(root(machine, BOOTS)) == boots + 1
    again = machine.play()
    assert again.returncode == 0, again.said
    assert "changed=0" in again.said
    assert int(root(machine, BOOTS)) == boots + 1
