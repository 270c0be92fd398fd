# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated GPU machine: its archive, what its kernel shows, what loads, what a reboot forgets, what breaks."""

from __future__ import annotations

import ast
import io
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog

from sandbox.gpu.hardware import CODE, DISTRIBUTIONS, archive
from sandbox.gpu.machine.hardware import AT_WORK, KINDS, LOGGED, MARK, Profile
from sandbox.gpu.profiles import CARDS, PROFILES, find
from tests.unit.sandbox.gpu_machine import KERNEL, Sandbox

PCI = "sys/bus/pci/devices"


def pci(machine: Sandbox, name: str) -> dict[str, str]:
    """One file of every NVIDIA display device on the bus."""
    found = {}
    for device in sorted((machine.root / PCI).iterdir()):
        if (device / "vendor").read_text() == "0x10de\n" and (device / "class").read_text().startswith(
            "0x03"
        ):
            found[device.name] = (device / name).read_text().strip()
    return found


def drivers(machine: Sandbox) -> set[str]:
    return {link.resolve().name for link in (machine.root / PCI).glob("*/driver")}


# What is put on a machine


def unpacked(distribution: str) -> dict[str, bytes]:
    content = archive(find("t4", distribution=distribution, kernel="k"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {(entry.uid, entry.gid) for entry in tar} == {(0, 0)}
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}


@pytest.mark.parametrize("distribution", sorted(DISTRIBUTIONS))
def test_only_ubuntu_is_a_disguise_and_it_says_that_it_is_one(distribution: str) -> None:
    files = unpacked(distribution)
    assert ("etc/os-release" in files) == distribution.startswith("ubuntu")
    for name in ("etc/os-release", "etc/lsb-release"):
        text = files.get(name, f"Ubuntu {MARK}".encode()).decode()
        assert MARK in text
        # Ansible takes every system whose file has this word for it.
        assert "Debian" not in text
    assert MARK in files["etc/systemd/system/gpumesh-simulated-gpus.service"].decode()


def test_what_runs_on_a_machine_needs_python_alone() -> None:
    for path in CODE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert all(name.split(".")[0] in sys.stdlib_module_names for name in names), (path.name, names)


def test_the_command_writes_an_archive_and_knows_its_profiles(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sandbox.gpu", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    output = tmp_path / "f.tar"
    assert run("hardware", "--profile", "t4", "--kernel", "6.12.120", "--output", str(output)).returncode == 0
    assert tarfile.is_tarfile(output)
    failed = run("hardware", "--profile", "t5", "--output", str(output))
    assert failed.returncode == 1
    assert "unknown profile 't5'" in failed.stderr
    listed = run("profiles").stdout
    assert all(MARK in line for line in listed.splitlines())
    assert {line.split(":")[0] for line in listed.splitlines()} == set(PROFILES)


def test_a_profile_is_the_same_after_json() -> None:
    for profile in PROFILES.values():
        assert Profile.from_json(profile.as_json()) == profile


# What the kernel shows


def test_a_cold_machine_has_cards_and_no_driver(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    assert pci(machine, "device") == {f"0000:{bus}:00.0": "0x2b85" for bus in ("01", "21", "41", "61")}
    assert set(pci(machine, "current_link_width").values()) == {"16"}
    assert drivers(machine) == set()
    assert machine.show("proc/sys/kernel/osrelease") == f"{KERNEL}\n"
    assert MARK in machine.show(MARK)
    # Whoever counts GPUs by their vendor counts sound cards, too.
    vendors = [path.read_text().strip() for path in (machine.root / PCI).glob("*/vendor")]
    assert vendors.count("0x10de") == 8
    assert len(vendors) > 8
    assert machine.smi()[0] == 12
    machine.library("580.178.04")
    assert machine.smi()[0] == 9


def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "none")
    machine.install("580.178.04")
    assert pci(machine, "device") == {}
    code, said = machine.modprobe("nvidia")
    assert code == 1
    assert "No such device" in said
    assert machine.smi()[0] == 9


@pytest.mark.parametrize(("secure_boot", "last"), [(None, None), (True, 1), (False, 0)])
def test_secure_boot_is_told_where_there_is_uefi(
    tmp_path: Path, secure_boot: bool | None, last: int | None
) -> None:
    machine = Sandbox(tmp_path, secure_boot=secure_boot)
    found = list((machine.root / "sys").glob("firmware/efi/efivars/SecureBoot-*"))
    assert [path.read_bytes()[4] for path in found] == ([] if last is None else [last])


# What loads


def test_a_loaded_driver_shows_itself(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    (tmp_path / "etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/ours.conf").write_text(
        "options nvidia NVreg_PreserveVideoMemoryAllocations=1\n"
    )
    machine.drive("580.178.04")
    version = machine.show("proc/driver/nvidia/version")
    assert "580.178.04" in version
    assert "Open Kernel Module" in version
    assert MARK in version
    assert machine.show("sys/module/nvidia/version") == "580.178.04\n"
    assert "PreserveVideoMemoryAllocations: 1\n" in machine.show("proc/driver/nvidia/params")
    assert drivers(machine) == {"nvidia"}
    assert len(list((machine.root / "proc/driver/nvidia/gpus").iterdir())) == 4
    assert machine.show("proc/modules").splitlines()[-1].startswith("nvidia 1048576 1 nvidia_uvm, Live")
    nodes = {path.name for path in (tmp_path / "dev").iterdir()}
    assert nodes == {
        "nvidiactl",
        "nvidia0",
        "nvidia1",
        "nvidia2",
        "nvidia3",
        "nvidia-uvm",
        "nvidia-uvm-tools",
    }


@pytest.mark.parametrize(
    ("profile", "version", "flavour", "names"),
    [
        ("4x-rtx5090", "580.178.04", "open", ["NVIDIA GeForce RTX 5090"] * 4),
        # NVIDIA/open-gpu-kernel-modules issue 872: the closed flavour says that there is no device.
        ("4x-rtx5090", "580.178.04", "closed", []),
        # 570.86.16 is the first driver that lists it.
        ("4x-rtx5090", "550.163.01", "open", []),
        ("4x-rtx5090", "570.86.16", "open", ["NVIDIA GeForce RTX 5090"] * 4),
        ("mixed", "580.178.04", "open", ["NVIDIA GeForce RTX 5090"]),
        ("mixed", "580.178.04", "closed", ["Tesla V100-SXM2-16GB"]),
        ("mixed", "595.91.07", "closed", []),
        ("t4", "550.163.01", "closed", ["Tesla T4"]),
        ("t4", "595.91.07", "open", ["Tesla T4"]),
    ],
)
def test_a_driver_drives_the_cards_it_knows(
    tmp_path: Path, profile: str, version: str, flavour: str, names: list[str]
) -> None:
    machine = Sandbox(tmp_path, profile)
    machine.drive(version, flavour)
    if names:
        assert machine.ask("name") == names
    else:
        assert machine.smi() == (6, "No devices were found\n")
        assert "NVRM: The NVIDIA GPU" in machine.show("kernel.log")


def test_what_was_added_goes_before_what_came_with_the_kernel(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.install("595.91.07", place="kernel/nvidia-595")
    machine.install("580.178.04")
    module = tmp_path / "lib/modules" / KERNEL / "updates/dkms/nvidia.ko"
    module.with_name("nvidia.ko.xz").write_bytes(lzma.compress(module.read_bytes()))
    module.unlink()
    assert machine.modprobe("nvidia")[0] == 0
    assert machine.show("sys/module/nvidia/version") == "580.178.04\n"


def test_a_module_of_another_kernel_is_none(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.install("580.178.04", kernel="6.8.0-94-generic")
    assert machine.modprobe("nvidia") == (
        1,
        f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{KERNEL}\n",
    )


@pytest.mark.parametrize(
    ("place", "signed", "enrolled", "loads"),
    [
        ("kernel/nvidia-580", True, False, True),
        ("kernel/nvidia-580", False, False, False),
        ("updates/dkms", True, False, False),
        ("updates/dkms", True, True, True),
    ],
)
def test_secure_boot_takes_signed_modules_only(
    tmp_path: Path, place: str, signed: bool, enrolled: bool, loads: bool
) -> None:
    machine = Sandbox(tmp_path, secure_boot=True, mok_enrolled=enrolled)
    machine.install("580.178.04", place=place, signed=signed)
    code, said = machine.modprobe("nvidia")
    assert (code == 0) == loads
    assert ("Key was rejected by service" in said) == (not loads)


def test_a_used_module_stays(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    assert "in use by: nvidia_uvm" in machine.modprobe("-r", "nvidia")[1]
    # Somebody who runs holds it, as nvidia-persistenced would.
    note = machine.root / "persistenced.pid"
    note.write_text(f"{os.getpid()}\n")
    assert machine.rmmod("nvidia_uvm")[0] == 0
    assert "nvidia-persistenced" in machine.rmmod("nvidia")[1]
    note.unlink()
    assert machine.rmmod("nvidia")[0] == 0
    assert machine.smi()[0] == 9
    assert drivers(machine) == set()
    assert list((tmp_path / "dev").iterdir()) == []


def test_the_free_driver_is_in_the_way(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "t4-nouveau")
    machine.install("595.91.07")
    assert drivers(machine) == {"nouveau"}
    assert "No such device" in machine.modprobe("nvidia")[1]
    (tmp_path / "etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/x.conf").write_text("blacklist nouveau\n")
    machine.control("reboot")
    assert drivers(machine) == {"nvidia"}


# What a reboot does


def test_a_reboot_forgets_what_was_set(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "a100")
    machine.drive("580.178.04")
    before = machine.show("proc/sys/kernel/random/boot_id")
    for setting in (
        ("-pm", "1"),
        ("-pl", "250"),
        ("-c", "EXCLUSIVE_PROCESS"),
        ("-ac", "1215,1200"),
        ("-e", "0"),
    ):
        assert machine.smi(*setting)[0] == 0, setting
    assert machine.ask("power.limit,compute_mode,clocks.applications.graphics,persistence_mode") == [
        "250.00, Exclusive_Process, 1200, Enabled"
    ]
    # A card keeps by itself whether it is to have ECC, and does so from the next start on.
    assert machine.ask("ecc.mode.current,ecc.mode.pending") == ["Enabled, Disabled"]
    machine.control("reboot")
    assert machine.show("proc/sys/kernel/random/boot_id") != before
    assert machine.ask("power.limit,compute_mode,clocks.applications.graphics,persistence_mode") == [
        "400.00, Default, 1410, Disabled"
    ]
    assert machine.ask("ecc.mode.current,ecc.mode.pending") == ["Disabled, Disabled"]


def test_a_boot_takes_the_newest_kernel(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    (tmp_path / "boot").mkdir()
    for kernel in ("6.8.0-9-generic", "6.8.0-101-generic"):
        (tmp_path / f"boot/vmlinuz-{kernel}").touch()
    machine.control("reboot")
    assert machine.show("proc/sys/kernel/osrelease") == "6.8.0-101-generic\n"
    assert machine.smi()[0] == 9
    machine.install("580.178.04", kernel="6.8.0-101-generic")
    machine.control("reboot")
    assert machine.smi()[0] == 0


# What breaks


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"nouveau", *AT_WORK, *LOGGED}))
def test_what_is_broken_is_seen_outlives_a_reboot_and_can_be_mended(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUMESH_SIMULATED_TIME", "1790000000")
    machine = Sandbox(tmp_path, "a100")
    machine.drive("580.178.04")
    machine.smi("-pm", "1")

    def look() -> list[object]:
        return [machine.smi("-q", "-x"), pci(machine, "current_link_width"), pci(machine, "revision")]

    whole = look()
    code, said = machine.control("break", kind)
    assert code == 0
    assert MARK in said
    assert look() != whole
    machine.control("reboot")
    machine.smi("-pm", "1")
    assert (look() == whole) == (kind == "mismatch")
    machine.control("mend")
    machine.control("reboot")
    machine.smi("-pm", "1")
    assert look() == whole


def test_a_broken_profile_is_broken_from_the_start_and_can_be_mended(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path, "4x-rtx5090-lost")
    machine.drive("580.178.04")
    assert machine.smi()[0] == 15
    machine.control("mend")
    assert machine.smi()[0] == 0


def test_cards_can_be_exchanged(tmp_path: Path) -> None:
    machine = Sandbox(tmp_path)
    machine.drive("580.178.04")
    assert machine.control("profile", "t4")[0] == 0
    assert machine.ask("name") == ["Tesla T4"]
    assert machine.show("proc/sys/kernel/osrelease") == f"{KERNEL}\n"
    code, said = machine.control("profile", "t5")
    assert code == 1
    assert "unknown profile 't5'" in said
    assert machine.control("profile")[1].split() == sorted(PROFILES)


@pytest.mark.parametrize(
    ("words", "says"),
    [(("ecc",), "has no ECC"), (("lost", "--device", "4"), "there is no device 4")],
)
def test_what_cannot_break_is_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    code, said = Sandbox(tmp_path).control("break", *words)
    assert code == 1
    assert says in said


@pytest.mark.parametrize("pci_id", sorted(CARDS))
def test_a_simulated_card_is_the_one_of_the_catalogue(pci_id: str) -> None:
    """Where the catalogue knows a figure; a board may have less power than the most of its kind."""
    simulated, known = CARDS[pci_id], catalog.by_pci_id(pci_id)
    assert known is not None
    model = catalog.model_of(known)
    assert simulated.architecture.split()[0] == model.architecture
    assert simulated.compute_capability == model.compute_capability
    assert (simulated.ecc == "none") == (model.ecc == "no")
    assert simulated.mig == model.mig
    assert known.memory_mib in (None, simulated.memory_mib)
    least, default, most = simulated.power
    assert known.power.minimum in (None, least)
    assert known.power.default in (None, default)
    assert most <= (known.power.maximum or most)
