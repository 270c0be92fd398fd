# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's own driver, for real: what DKMS builds, what dpkg has and what the library says are one version.

There is no GPU and nothing is loaded. The tests go on from each other: the driver as declared, then a flavour that does not
compile on today's kernel, then the purge, then the same flavour on a machine without any driver.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.hosts.conftest import Machine, Played

pytestmark = pytest.mark.docker

BRANCH = "550."
CUDNN = os.environ.get("GPUMESH_REAL_CUDNN") == "1"
CUDA = CUDNN or os.environ.get("GPUMESH_REAL_CUDA") == "1"
# Debian's packages of this source are the driver; nvidia-modprobe and others beside it have versions of their own.
SOURCE = "nvidia-graphics-drivers"
# The compiler's quotation marks around the name depend on the locale.
BROKEN = "nv-pci.c:237:9: error: too few arguments to function"
# All that a driver leaves on a machine, wherever it may be.
TRACES = """
dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n'
apt-mark showhold
find /usr/src /var/lib/dkms /lib/modules/*/updates /etc/modprobe.d /etc/modules-load.d /etc/apt /etc/dkms | sort
cat /etc/apt/sources.list.d/*
find /etc/systemd/system -type l | sort
sudo systemctl --failed --no-legend --plain
"""


def say(machine: Machine, command: str) -> str:
    """What a command prints on the machine."""
    done = machine.ssh(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def traces(machine: Machine) -> list[str]:
    """Packages, holds, sources, modules and configuration."""
    return machine.ssh(TRACES).stdout.splitlines()


def apt_works(machine: Machine) -> bool:
    """Whether apt does its work, and dpkg has left nothing half-way."""
    return (
        machine.ssh("sudo apt-get check").returncode == 0
        and machine.ssh("sudo dpkg --audit").stdout == ""
        and machine.ssh("sudo apt-get install -y -q hello && sudo apt-get purge -y -q hello").returncode == 0
    )


@pytest.fixture(scope="module")
def kernel(machine: Machine) -> str:
    """The only kernel there is a module to be for; the running one is that of the machine which runs the container."""
    (only,) = say(machine, "ls /lib/modules").split()
    return only


@pytest.fixture(scope="module")
def version(machine: Machine) -> str:
    """The version of the driver's packages, which is one."""
    listed = say(machine, "dpkg-query -W -f '${source:Package} ${source:Upstream-Version}\\n'").splitlines()
    (only,) = {line.split()[1] for line in listed if line.split()[0] == SOURCE}
    return only


@pytest.fixture(scope="module")
def tried(machine: Machine) -> tuple[Played, list[str], list[str]]:
    """What came of trying the flavour that does not compile, and the machine before and after."""
    before = traces(machine)
    played = machine.play(nvidia_driver_flavour="open", nvidia_driver_build_allowed=True)
    return played, before, traces(machine)


@pytest.fixture(scope="module")
def purged(machine: Machine, tried: tuple[Played, list[str], list[str]]) -> Played:
    """What came of purging the driver."""
    return machine.play(nvidia_driver_state="absent")


@pytest.fixture(scope="module")
def tried_blank(machine: Machine, purged: Played) -> tuple[Played, list[str], list[str]]:
    """The same as ``tried`` on a machine that has no driver."""
    before = traces(machine)
    played = machine.play(nvidia_driver_flavour="open", nvidia_driver_build_allowed=True)
    return played, before, traces(machine)


def test_module_library_and_packages_are_one_version(machine: Machine, kernel: str, version: str) -> None:
    assert version.startswith(BRANCH)
    # Debian's name for the module of the closed flavour.
    module = f"sudo modinfo -k {kernel} -F"
    assert say(machine, f"{module} version nvidia-current") == version
    assert say(machine, f"{module} version nvidia-current-uvm") == version
    assert say(machine, f"{module} license nvidia-current") == "NVIDIA"
    assert say(machine, f"{module} vermagic nvidia-current").split()[0] == kernel
    for library in ("libnvidia-ml", "libcuda"):
        found = say(machine, f"readlink -f /usr/lib/x86_64-linux-gnu/{library}.so.1")
        assert found.endswith(f"/{library}.so.{version}")
    assert say(machine, "sudo dkms status") == f"nvidia-current/{version}, {kernel}, x86_64: installed"


def test_what_modprobe_would_load_is_what_was_built(machine: Machine, kernel: str) -> None:
    would = say(machine, f"sudo modprobe -S {kernel} --show-depends nvidia-current")
    assert (
        would.splitlines()[-1].split()[1].startswith(f"/lib/modules/{kernel}/updates/dkms/nvidia-current.ko")
    )


def test_dpkg_is_sound_and_the_next_kernel_gets_a_module_too(machine: Machine) -> None:
    assert machine.ssh("sudo dpkg --audit").stdout == ""
    assert machine.ssh("sudo apt-get check").returncode == 0
    # With this file dkms builds nothing for a new kernel.
    assert machine.ssh("ls /etc/dkms/no-autoinstall").returncode != 0


def test_nothing_is_failed_or_running_before_the_reboot(machine: Machine) -> None:
    assert say(machine, "systemctl is-system-running") == "running"
    assert say(machine, "systemctl is-enabled nvidia-persistenced") == "enabled"
    smi = machine.ssh("nvidia-smi")
    assert smi.returncode == 9
    assert "couldn't communicate with the NVIDIA driver" in smi.stdout


def test_every_package_of_the_driver_is_held(machine: Machine, kernel: str) -> None:
    held = set(say(machine, "apt-mark showhold").split())
    listed = say(machine, "dpkg-query -W -f '${source:Package} ${Package}\\n'").splitlines()
    driver = {line.split()[1] for line in listed if line.split()[0] == SOURCE}
    assert {"nvidia-kernel-dkms", "libcuda1", "firmware-nvidia-gsp", "nvidia-alternative"} <= driver <= held
    assert {"nvidia-persistenced", "linux-image-amd64"} <= held
    changes = say(machine, "sudo apt-get --simulate dist-upgrade")
    assert not [
        line for line in changes.splitlines() if line.startswith(("Inst", "Remv")) and "nvidia" in line
    ]


def test_nouveau_is_kept_off_from_the_first_moment_on(machine: Machine, kernel: str) -> None:
    say(
        machine,
        "grep -rhs '' /etc/modprobe.d | grep -Eqx 'blacklist nouveau'"
        f" && sudo lsinitramfs /boot/initrd.img-{kernel} | grep -q etc/modprobe.d/gpumesh-nvidia-driver.conf",
    )


def test_the_layer_says_what_it_has_proved(machine: Machine, version: str) -> None:
    layer = json.loads(say(machine, "cat /etc/ansible/facts.d/gpumesh.fact"))["layers"]["nvidia_driver"]
    assert layer["simulated"] is False
    assert version in json.dumps(layer)
    assert layer["checks"]


def test_the_gate_alone_changes_nothing(machine: Machine) -> None:
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said


@pytest.mark.skipif(not CUDA, reason="GPUMESH_REAL_CUDA=1 fetches 2 GB")
def test_cuda_compiles_for_the_card(machine: Machine) -> None:
    assert "release 12.4" in say(machine, "nvcc --version")
    say(
        machine,
        "printf '%s\\n' '__global__ void twice(float *x) { x[threadIdx.x] *= 2; }' >/tmp/twice.cu"
        " && nvcc -arch=sm_75 -cubin -o /tmp/twice.cubin /tmp/twice.cu && test -s /tmp/twice.cubin",
    )


@pytest.mark.skipif(not CUDNN, reason="GPUMESH_REAL_CUDNN=1 fetches cuDNN from NVIDIA's server")
def test_cudnn_is_there(machine: Machine) -> None:
    assert say(machine, "dpkg-query -W -f '${Version}' nvidia-cudnn").startswith("9.0.")
    say(machine, "test -e $(readlink -f /usr/lib/x86_64-linux-gnu/libcudnn.so.9)")


def test_the_flavour_that_does_not_compile_is_refused(machine: Machine, kernel: str) -> None:
    played = machine.play(nvidia_driver_flavour="open")
    assert played.returncode == 2
    assert "changed=0" in played.said
    assert "does not compile" in played.said or "does not build" in played.said
    assert "closed" in played.said


def test_tried_all_the_same_it_is_found_out_before_the_driver_is_touched(
    machine: Machine, kernel: str, tried: tuple[Played, list[str], list[str]]
) -> None:
    played, before, after = tried
    assert played.returncode == 2
    assert BROKEN in played.said
    assert kernel in played.said
    assert after == before
    assert apt_works(machine)


def test_the_purge_leaves_nothing_of_the_driver(machine: Machine, purged: Played) -> None:
    assert purged.returncode == 0, purged.said
    left = [line for line in traces(machine) if "nvidia" in line or "libcuda" in line or "gpumesh-" in line]
    assert left == []
    assert machine.ssh("apt-mark showhold").stdout == ""
    assert say(machine, "systemctl is-system-running") == "running"
    assert apt_works(machine)


def test_a_machine_without_driver_has_none_after_the_failure(
    machine: Machine, tried_blank: tuple[Played, list[str], list[str]]
) -> None:
    played, before, after = tried_blank
    assert played.returncode == 2
    assert BROKEN in played.said
    assert after == before
    assert apt_works(machine)
