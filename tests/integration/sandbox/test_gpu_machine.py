# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated GPUs on a container with systemd: their unit at a boot, their programs in the path, their device nodes."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest

from sandbox.gpu.hardware import ROOT, archive
from sandbox.gpu.profiles import find
from sandbox.gpu.sources.elf import kernel_module

pytestmark = [pytest.mark.integration, pytest.mark.docker]
IMAGE, KERNEL, VERSION = "gpumesh/host:debian-13", "6.12.117+deb13-amd64", "595.91.07"
PATIENCE = 60
"""Seconds until a machine that does not start has failed; it takes about 2."""
OPTIONS = (
    "--cgroupns=host", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined", "--tmpfs=/run", "--tmpfs=/run/lock",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--stop-signal=SIGRTMIN+3",
)  # fmt: skip


def docker(*words: str, stdin: bytes = b"") -> str:
    return (
        subprocess.run(["docker", *words], input=stdin, capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )


def driver() -> bytes:
    """What a driver's packages leave behind, as far as the machine looks at it."""
    files = {
        f"usr/lib/modules/{KERNEL}/updates/dkms/nvidia.ko": kernel_module(
            [("license", "Dual MIT/GPL"), ("version", VERSION), ("vermagic", KERNEL)]
        ),
        f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}": b"",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Machine:
    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, command: str) -> str:
        return docker("exec", self.name, "sh", "-c", command)

    def smi(self, words: str) -> str:
        # Of the hardware's own code: the packages bring a copy of it as a program.
        return self.run(
            f"PYTHONPATH=/usr/lib/gpumesh-simulated-gpus python3 -B -m machine.nvidia_smi {words}"
        )

    def boot_id(self) -> str:
        return self.run(f"cat {ROOT}/proc/sys/kernel/random/boot_id")

    def wait(self) -> None:
        """Until it has started, whatever state that is."""
        limit = time.monotonic() + PATIENCE
        while self._state() not in ("running", "degraded"):
            assert time.monotonic() < limit, f"{self.name} does not start"
            time.sleep(0.2)

    def next_boot(self, before: str) -> str:
        """The id of the boot after that one, once it has come about."""
        limit = time.monotonic() + PATIENCE
        while True:
            self.wait()
            with contextlib.suppress(subprocess.CalledProcessError):
                if (found := self.boot_id()) != before:
                    return found
            assert time.monotonic() < limit, f"{self.name} has not booted"
            time.sleep(0.2)

    def _state(self) -> str:
        done = subprocess.run(
            ["docker", "exec", self.name, "systemctl", "is-system-running"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()


@pytest.fixture
def machine() -> Iterator[Machine]:
    try:
        docker("image", "inspect", IMAGE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"needs a Docker engine and the image {IMAGE}: tools/host-image")
    name = docker("run", "--detach", *OPTIONS, IMAGE, "/sbin/init")
    try:
        made = Machine(name)
        profile = find("t4", distribution="debian-13", kernel=KERNEL)
        docker("cp", "-", f"{name}:/", stdin=archive(profile))
        made.wait()
        made.run("systemctl daemon-reload && systemctl start gpumesh-simulated-gpus")
        yield made
    finally:
        docker("rm", "--force", "--volumes", name)


def test_a_container_is_a_machine_with_gpus_and_boots_as_one(machine: Machine) -> None:
    assert machine.run(f"cat {ROOT}/sys/bus/pci/devices/0000:00:1e.0/device") == "0x1eb8"
    docker("cp", "-", f"{machine.name}:/", stdin=driver())
    machine.run("modprobe nvidia")
    assert machine.run("stat -c '%t %T %a' /dev/nvidia0 /dev/nvidiactl") == "1 3 666\n1 3 666"
    machine.smi("-pm 1")
    machine.smi("-pl 65")
    query = "--query-gpu=name,power.limit,persistence_mode --format=csv,noheader"
    assert machine.smi(query) == "Tesla T4, 65.00 W, Enabled"
    boots = [machine.boot_id()]
    # As whoever replaces the one by the other in tests may rely on: user space alone starts anew, or all of it does.
    for restart in (("exec", machine.name, "systemctl", "soft-reboot"), ("restart", machine.name)):
        docker(*restart)
        boots.append(machine.next_boot(boots[-1]))
        assert machine.run("systemctl is-active gpumesh-simulated-gpus") == "active"
        assert machine.smi(query) == "Tesla T4, 70.00 W, Disabled"
    assert len(set(boots)) == 3
    # Nobody finds modules of theirs swallowed: what is not the driver's goes to the real program, or is not there.
    with pytest.raises(subprocess.CalledProcessError):
        machine.run("modprobe no-such-module")
