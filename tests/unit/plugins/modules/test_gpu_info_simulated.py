# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of the sandbox's simulated machines: what the stand-in for nvidia-smi says is read as it is meant."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.filter.gpu_checks import gpu_checks
from ansible_collections.gpumesh.fleet.plugins.modules import gpu_info

from sandbox.gpu import hardware, profiles
from sandbox.gpu.machine import driver
from sandbox.gpu.machine.places import Machine
from sandbox.gpu.sources import elf, make
from tests.module_runner import run_module

ROOT = Path(__file__).parents[4]
BRANCHES = {
    "470": "470.256.02", "515": "515.105.01", "525": "525.147.05", "535": "535.309.01", "550": "550.163.01",
    "570": "570.211.01", "580": "580.178.04", "595": "595.91.07", "610": "610.57.04",
}  # fmt: skip

# modinfo, for a machine on which kmod may be missing.
MODINFO = """\
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sandbox.gpu.machine import modules
from sandbox.gpu.machine.places import Machine
module = modules.on_disk(Machine({prefix!r}), sys.argv[sys.argv.index("-k") + 1])
if module is None or sys.argv[-1] != "nvidia":
    sys.exit("modinfo: ERROR: Module not found.")
print(f"filename: {{module.path}}\\nversion: {{module.version}}")
print("license: " + ("Dual MIT/GPL" if module.flavour == "open" else "NVIDIA"))
"""
SMI = """\
import sys
sys.path.insert(0, {root!r})
from sandbox.gpu.machine import nvidia_smi
from sandbox.gpu.machine.places import Machine
sys.exit(nvidia_smi.main(sys.argv[1:], Machine({prefix!r})))
"""


class Simulated:
    """A simulated machine in a folder."""

    def __init__(self, folder: Path, profile: str, version: str, flavour: str = "open") -> None:
        self.prefix = folder / "machine"
        wanted = profiles.find(profile, distribution="ubuntu-24.04", kernel="6.8.0-90-generic")
        with tarfile.open(fileobj=io.BytesIO(hardware.archive(wanted))) as tar:
            for entry in tar:
                if entry.isfile():
                    tar.extract(entry, self.prefix, filter="data")
        self.machine = Machine(self.prefix)
        self.kernel = wanted.kernel
        (self.prefix / "dev").mkdir()
        module = self.prefix / f"lib/modules/{self.kernel}/updates/dkms/nvidia.ko"
        module.parent.mkdir(parents=True)
        module.write_bytes(elf.kernel_module(make.information("nvidia", version, flavour, self.kernel)))
        library = self.prefix / f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}"
        library.parent.mkdir(parents=True)
        library.write_bytes(b"")
        image = self.prefix / f"boot/vmlinuz-{self.kernel}"
        image.parent.mkdir()
        image.write_bytes(b"")
        driver.boot(self.machine)
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.program(
            "nvidia-smi", f"#!{sys.executable} -IS\n" + SMI.format(root=str(ROOT), prefix=str(self.prefix))
        )
        self.program(
            "modinfo", f"#!{sys.executable} -IS\n" + MODINFO.format(root=str(ROOT), prefix=str(self.prefix))
        )
        package = f"{version}-1\\tx\\thi \\t{version}-1\\n"
        self.program("dpkg-query", f"#!/bin/sh\nprintf 'nvidia-utils-580\\tamd64\\t{package}'\n")
        self.program("systemctl", "#!/bin/sh\nprintf 'ActiveState=active\\nUnitFileState=enabled\\n'\n")
        self.program("dkms", "#!/bin/sh\n")
        self.daemon()

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def daemon(self) -> None:
        """nvidia-persistenced runs: any process stands for it."""
        (self.machine.root / "persistenced.pid").write_text(f"{os.getpid()}\n")

    def look(self) -> dict[str, Any]:
        result = run_module(gpu_info.main, root=str(self.machine.root), system=str(self.prefix))
        assert not result.get("failed"), result
        return dict(result["gpu"])


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make_one(profile: str, version: str, flavour: str = "open") -> Simulated:
        made = Simulated(tmp_path, profile, version, flavour)
        monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
        return made

    return make_one


def failed(gpu: dict[str, Any], **expected: Any) -> dict[str, str]:
    return {check["name"]: check["says"] for check in gpu_checks(gpu, expected) if not check["ok"]}


CARDS = {
    "4x-rtx5090": ("rtx5090", 4, 32607, 575.0),
    "t4": ("t4", 1, 15360, 70.0),
    "l4": ("l4", 1, 23034, 72.0),
    "a100": ("a100", 1, 40960, 400.0),
    "h100": ("h100", 1, 81559, 700.0),
}


@pytest.mark.parametrize("profile", CARDS)
def test_a_simulated_machine_is_well_and_says_what_it_is(simulated: Any, profile: str) -> None:
    model, count, memory, watts = CARDS[profile]
    gpu = simulated(profile, BRANCHES["595"]).look()
    assert gpu["simulated"] is True
    devices = gpu["devices"]
    assert [device["model"] for device in devices][:1] == [model]
    assert len(devices) >= count
    assert gpu["counts"] == {"pci": len(devices), "driver": len(devices)}
    for device in devices:
        assert device["state"] == "ok"
        assert device["memory_mib"] == memory
        assert device["power"]["default_w"] == watts
        assert device["kernel_driver"] == "nvidia"
        assert device["temperatures"]["margin_c"] > 0
        assert "SIMULATED" in device["serial"]
    assert gpu["driver"]["loaded"] == gpu["driver"]["library"] == BRANCHES["595"]
    assert gpu["driver"]["flavour"] == "open"
    assert gpu["driver"]["smi"] == "ok"
    assert failed(gpu, gpus=[{"model": model, "count": len(devices)}], driver={"branch": "595"}) == {}


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_stand_in_speaks_every_dialect(simulated: Any, branch: str) -> None:
    gpu = simulated("t4", BRANCHES[branch], "closed" if int(branch) < 515 else "open").look()
    (device,) = gpu["devices"]
    assert gpu["driver"]["smi"] == "ok"
    assert gpu["driver"]["loaded"] == BRANCHES[branch]
    assert re.fullmatch(r"1[0-9]\.[0-9]", gpu["driver"]["cuda"])
    assert (device["memory_mib"], device["power"]["max_w"], device["link"]["width_now"]) == (15360, 70.0, 8)
    assert device["ecc"]["volatile"]["uncorrectable"] == 0
    assert device["persistence"] is True
    assert (device["missing"].get("recovery_action") == "absent") is (int(branch) < 570)
    assert not [key for key in device["missing"] if device["missing"][key] in ("unknown", "lost")]
    assert failed(gpu) == {}


FAULTS: dict[str, tuple[str, set[str], str]] = {
    "lost": ("gpus_seen", {"driver_answers"}, "1 of 4 GPUs is lost"),
    "lost-values": ("gpus_seen", set(), "1 of 4 GPUs is lost"),
    "unseen": ("gpus_seen", set(), "the driver does not list"),
    "unplugged": ("gpus_present", set(), "declared are 4 x rtx5090, on the PCI bus are 3 x rtx5090"),
    "x8": ("link_width", set(), "is on x8, expected is x16"),
    "throttled": ("throttle", {"temperature"}, "is throttled at"),
    "power-brake": ("throttle", set(), "the power supply has told it"),
    "persistence-off": ("persistence", set(), "has persistence off"),
    "memory": ("memory", set(), "should have 32543"),
    "mismatch": ("driver_answers", {"library", "gpus_seen"}, "version mismatch"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_of_a_simulated_machine_is_found(simulated: Any, kind: str) -> None:
    machine = simulated("4x-rtx5090", BRANCHES["580"])
    driver.break_(machine.machine, kind, None if kind == "mismatch" else 2)
    found = failed(machine.look(), gpus=[{"model": "rtx5090", "count": 4}], width={"": 16})
    check, more, says = FAULTS[kind]
    assert check in found
    assert says in found[check]
    assert found[check].startswith("SIMULATED: ")
    assert set(found) <= {check, *more}


@pytest.mark.parametrize(
    ("kind", "check", "says"),
    [("ecc", "ecc_errors", "uncorrectable memory error"), ("remap-failure", "memory_repair", "spare rows")],
)
def test_faults_of_memory_are_found(simulated: Any, kind: str, check: str, says: str) -> None:
    machine = simulated("a100", BRANCHES["580"])
    driver.break_(machine.machine, kind, 0)
    found = failed(machine.look())
    assert says in found[check]


def test_closed_modules_find_no_blackwell(simulated: Any) -> None:
    gpu = simulated("4x-rtx5090", BRANCHES["580"], "closed").look()
    assert gpu["counts"]["pci"] == 4
    assert not gpu["counts"]["driver"]
    assert {device["state"] for device in gpu["devices"]} == {"unseen"}
    assert "closed modules on Blackwell" in failed(gpu)["gpus_seen"]


def test_a_simulated_machine_without_gpu(simulated: Any) -> None:
    gpu = simulated("none", BRANCHES["580"]).look()
    assert gpu["devices"] == []
    assert gpu["simulated"] is True
