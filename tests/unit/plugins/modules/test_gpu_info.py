# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as a whole: a folder with what a kernel shows, and programs that answer as on a GPU machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.filter.gpu_checks import gpu_checks
from ansible_collections.gpumesh.fleet.plugins.modules import gpu_info

from tests.module_runner import run_module

FIXTURES = Path(__file__).parents[3] / "fixtures" / "nvidia_smi"
BUSES = ("01", "21", "41", "61")
KERNEL = "6.8.0-90-generic"
VERSION = "580.178.04"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Host:
    """A machine in two folders, and the programs that answer on it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.system = folder / "system"
        self.programs = folder / "bin"
        for path in (self.root, self.system, self.programs):
            path.mkdir()

    def card(self, address: str, driver: str | None = "nvidia", **files: str) -> None:
        given = {
            "vendor": "0x10de", "device": "0x2b85", "class": "0x030000", "subsystem_vendor": "0x10de",
            "subsystem_device": "0x2057", "current_link_speed": "2.5 GT/s PCIe", "max_link_speed": "32.0 GT/s PCIe",
            "current_link_width": "16", "max_link_width": "16", "numa_node": "0",
        }  # fmt: skip
        for name, text in {**given, **files}.items():
            write(self.root / "sys/bus/pci/devices" / address / name.rstrip("_"), f"{text}\n")
        if driver:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            (self.root / "sys/bus/pci/devices" / address / "driver").symlink_to(f"../../drivers/{driver}")

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def smi(self, xml: str, *, status: int = 0, err: str = "", more: str = "") -> None:
        """nvidia-smi, which answers ``-q -x`` with a fixture, and says `more` cases."""
        self.program(
            "nvidia-smi",
            f"""case "$*" in
{more}
"-q -x") cat "{FIXTURES / xml}"; printf '%s\\n' "{err}" >&2; exit {status};;
"topo -m") cat "{FIXTURES}/topo-m-4x-rtx5090.txt";;
"topo -p2p r") cat "{FIXTURES}/topo-p2p-4x-rtx5090.txt";;
*) echo "unexpected: $*"; exit 2;;
esac""",
        )

    def look(self, **params: Any) -> dict[str, Any]:
        result = run_module(gpu_info.main, root=str(self.root), system=str(self.system), **params)
        assert not result.get("failed"), result
        assert result["changed"] is False
        assert result["ansible_facts"] == {"gpu": result["gpu"]}
        return dict(result["gpu"])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine without anything; of the real one's programs, none that these facts come from."""
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    for name in ("dpkg-query", "dpkg", "apt-get", "dkms", "systemctl", "modinfo"):
        made.program(name, "exit 1")
    made.program("nvidia-smi", "exit 9")
    return made


@pytest.fixture
def four(host: Host) -> Host:
    """Four RTX 5090 with the whole stack, all of one version."""
    for bus in BUSES:
        host.card(f"0000:{bus}:00.0")
        host.card(f"0000:{bus}:00.1", None, device="0x22e8", class_="0x040300")
    host.card("0000:00:00.0", None, vendor="0x1022", class_="0x060000")
    write(host.root / "sys/bus/pci/slots/3/address", "0000:41:00\n")
    write(
        host.root / "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build\n",
    )
    write(host.root / "proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\n")
    write(host.root / "proc/sys/kernel/osrelease", f"{KERNEL}\n")
    write(
        host.root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\6\0\0\0\0"
    )
    write(host.root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    for kernel in (KERNEL, "6.8.0-100-generic"):
        write(host.system / f"boot/vmlinuz-{kernel}", "")
    libraries = host.system / "usr/lib/x86_64-linux-gnu"
    for name in ("libnvidia-ml", "libcuda"):
        write(libraries / f"{name}.so.{VERSION}", "")
        (libraries / f"{name}.so.1").symlink_to(f"{name}.so.{VERSION}")
    host.smi("610-rtx5090.xml")
    host.program(
        "modinfo",
        f"""case "$*" in
*" -k {KERNEL} nvidia"|*" -k 6.8.0-100-generic nvidia")
echo "filename: /lib/modules/x/updates/dkms/nvidia.ko.zst"; echo "version: {VERSION}"; echo "license: Dual MIT/GPL";;
*) exit 1;; esac""",
    )
    package = f"{VERSION}-1ubuntu1\\tnvidia-graphics-drivers-580\\thi \\t{VERSION}-1ubuntu1\\n"
    host.program(
        "dpkg-query",
        f"printf 'nvidia-dkms-580-open\\tamd64\\t{package}nvidia-utils-580\\tamd64\\t{package}'; exit 1",
    )
    host.program("dkms", f"echo 'nvidia/{VERSION}, {KERNEL}, x86_64: installed'")
    host.program("systemctl", "printf 'ActiveState=active\\nUnitFileState=enabled\\n'")
    return host


def problems(found: dict[str, Any], **expected: Any) -> list[str]:
    return [check["says"] for check in gpu_checks(found, expected) if not check["ok"]]


def test_a_machine_without_anything(host: Host) -> None:
    found = host.look()
    assert found["devices"] == []
    assert found["counts"] == {"pci": 0, "driver": None}
    assert found["driver"]["loaded"] is None
    assert found["driver"]["kernels"] == []
    assert found["secure_boot"] is None
    assert found["simulated"] is False


def test_cards_are_found_before_any_driver_is_there(host: Host) -> None:
    host.card("0000:01:00.0", None)
    host.card("0000:21:00.0", "nouveau", device="0x1eb8", class_="0x030200")
    (host.programs / "nvidia-smi").unlink()
    found = host.look(driver=False)
    assert [
        (device["model"], device["state"], device["kernel_driver"], device["link"]["width_now"])
        for device in found["devices"]
    ] == [("rtx5090", "no_driver", None, 16), ("t4", "no_driver", "nouveau", 16)]
    assert found["counts"] == {"pci": 2, "driver": None}
    assert found["driver"]["smi"] == "not asked"


def test_everything_agrees(four: Host) -> None:
    found = four.look()
    assert found["counts"] == {"pci": 4, "driver": 4}
    assert [device["pci_address"] for device in found["devices"]] == [f"0000:{bus}:00.0" for bus in BUSES]
    assert found["devices"][2]["slot"] == "3"
    assert found["devices"][2]["power"]["requested_w"] == 450.0
    driver = found["driver"]
    assert driver["loaded"] == driver["library"] == driver["on_disk"][KERNEL]["version"] == VERSION
    assert driver["flavour"] == "open"
    assert driver["libraries"] == {"libcuda": [VERSION], "libnvidia-ml": [VERSION]}
    assert driver["running_kernel"] == KERNEL
    assert driver["kernels"] == [KERNEL, "6.8.0-100-generic"]
    assert driver["next_kernel"] == "6.8.0-100-generic"
    assert driver["on_disk"]["6.8.0-100-generic"]["flavour"] == "open"
    assert driver["persistence_daemon"] == {"active": True, "enabled": True, "state": "enabled"}
    assert found["packages"]["nvidia-utils-580"]["held"] is True
    assert found["dkms"] == [{"module": "nvidia", "version": VERSION, "kernel": KERNEL, "state": "installed"}]
    assert found["secure_boot"] is False
    assert found["cpu_governors"] == ["performance"]
    assert found["topology"][0] == {"from": 0, "to": 1, "link": "PHB"}
    assert found["p2p"][-1] == {"from": 2, "to": 3, "read": "OK"}
    assert found["apt"]["checked"] is False
    assert problems(
        found,
        gpus=[{"model": "rtx5090", "count": 4}],
        driver={"branch": "580", "flavour": "open"},
        packages=["nvidia-utils-580", "nvidia-dkms-580-open"],
        tuning={"power_limit_w": 450},
        width={"rtx5090": 16},
    ) == []  # fmt: skip


def test_check_mode_tells_the_same(four: Host) -> None:
    result = run_module(gpu_info.main, check=True, root=str(four.root), system=str(four.system))
    assert result["gpu"] == four.look()


def test_one_of_four_is_lost_and_nvidia_smi_lists_three(four: Host) -> None:
    xml = (FIXTURES / "610-rtx5090.xml").read_text()
    parts = xml.split("\t<gpu ")
    write(four.system / "three.xml", "\t<gpu ".join([*parts[:3], parts[4]]))
    four.smi(
        str(four.system / "three.xml"),
        status=15,
        err="Unable to determine the device handle for GPU2: 00000000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
    )
    found = four.look()
    assert found["counts"] == {"pci": 4, "driver": 3}
    assert [device["state"] for device in found["devices"]] == ["ok", "ok", "lost", "ok"]
    assert found["driver"]["smi"].startswith("Unable to determine the device handle")
    (lost,) = [
        text for text in problems(found) if "lost" in text and "0000:41:00.0" in text and "slot 3" in text
    ]
    assert "the PCI bus has 4, the driver sees 3" in lost


def test_one_of_four_is_lost_and_nvidia_smi_lists_none(four: Host) -> None:
    """Then each is asked alone."""
    handle = "Unable to determine the device handle for GPU"
    cases = [
        f'"-q -x") echo "{handle} 0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU"; exit 15;;',
        f'"-q -x -i 0000:41:00.0") echo "{handle} 0000:41:00.0: GPU is lost."; exit 15;;',
    ]
    for number, bus in enumerate(BUSES):
        xml = (FIXTURES / "610-rtx5090.xml").read_text().split("\t<gpu ")
        path = four.system / f"{bus}.xml"
        path.write_text(
            "\t<gpu ".join([xml[0], xml[number + 1].removesuffix("</nvidia_smi_log>\n")])
            + "</nvidia_smi_log>\n"
        )
        if bus != "41":
            cases.append(f'"-q -x -i 0000:{bus}:00.0") cat "{path}";;')
    four.smi("none", more="\n".join(cases))
    found = four.look()
    assert [(device["state"], device["index"]) for device in found["devices"]] == [
        ("ok", 0), ("ok", 1), ("lost", None), ("ok", 3),
    ]  # fmt: skip
    assert found["devices"][3]["temperatures"]["gpu_c"] == 31


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'NVIDIA-SMI has failed because it could not communicate'; exit 9", "NVIDIA-SMI has failed"),
        ("exit 3", "ended with status 3"),
        ("true", "printed nothing"),
        ("echo '<nvidia_smi_log><gpu>'", "cut short"),
        ("""echo '<!DOCTYPE a [<!ENTITY b "c">]><nvidia_smi_log>&b;</nvidia_smi_log>'""", "entities"),
    ],
)
def test_an_answer_that_is_none_is_told_and_breaks_nothing(four: Host, script: str, says: str) -> None:
    four.program("nvidia-smi", script)
    found = four.look()
    assert says in found["driver"]["smi"]
    assert found["counts"] == {"pci": 4, "driver": None}
    assert [device["state"] for device in found["devices"]] == ["unseen"] * 4
    # The rest is there all the same.
    assert found["driver"]["on_disk"][KERNEL]["version"] == VERSION


def test_a_program_that_hangs_is_not_waited_for(four: Host) -> None:
    four.program("nvidia-smi", "sleep 60 & sleep 60")
    start = time.monotonic()
    found = four.look(timeout=1)
    assert time.monotonic() - start < 20
    assert found["driver"]["smi"] == "nvidia-smi did not answer within 1 seconds"


def test_programs_that_are_not_there_are_no_failure(four: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in four.programs.iterdir():
        program.unlink()
    monkeypatch.setattr(
        "ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs._SYSTEM", ()
    )
    monkeypatch.setenv("PATH", str(four.programs))
    found = four.look(nvidia_smi="no-such-program")
    assert found["driver"]["smi"] == "no-such-program is not installed"
    assert found["packages"] == {}
    assert found["driver"]["on_disk"] == {KERNEL: None, "6.8.0-100-generic": None}


def test_debians_name_of_the_module_is_found(four: Host) -> None:
    write(
        four.system / f"lib/modules/{KERNEL}/modules.dep",
        "kernel/drivers/gpu/nvidiafb.ko.xz:\nupdates/dkms/nvidia-current-uvm.ko.xz: updates/dkms/nvidia-current.ko.xz\n"
        "updates/dkms/nvidia-current.ko.xz:\n",
    )
    four.program(
        "modinfo",
        'case "$*" in *"-k 6.8.0-90-generic nvidia-current") echo "version: 550.163.01"; echo "license: NVIDIA";; '
        '*) echo "modinfo: ERROR: Module nvidia not found." >&2; exit 1;; esac',
    )
    on_disk = four.look()["driver"]["on_disk"]
    assert on_disk[KERNEL] == {"version": "550.163.01", "flavour": "closed", "path": ""}
    assert on_disk["6.8.0-100-generic"] is None


def test_a_library_of_another_driver_is_seen(four: Host) -> None:
    folder = four.system / "usr/lib/x86_64-linux-gnu"
    write(folder / "libnvidia-ml.so.595.91.07", "")
    found = four.look()
    assert found["driver"]["library"] == VERSION
    assert found["driver"]["libraries"]["libnvidia-ml"] == [VERSION, "595.91.07"]
    assert any("libraries of several drivers" in text for text in problems(found))


def test_what_apt_would_do_is_asked_for_only_where_wanted(four: Host) -> None:
    four.program("dpkg", "printf 'Half configured:\\n nvidia-open-kernel-dkms NVIDIA module\\n'")
    four.program(
        "apt-get",
        f"""case "$*" in
*dist-upgrade) echo "Remv nvidia-dkms-580-open [{VERSION}-1ubuntu1]"; echo "Inst nvidia-dkms-open (595.91.07-1 NVIDIA [amd64])";;
*"upgrade --with-new-pkgs") echo "E: Could not get lock" >&2; exit 100;;
*) exit 2;; esac""",
    )
    assert four.look()["apt"] == {"checked": False, "broken": [], "would_change": [], "would_remove": []}
    found = four.look(apt=True)
    assert found["apt"] == {
        "checked": True,
        "broken": ["nvidia-open-kernel-dkms", "apt-get upgrade: Could not get lock"],
        "would_change": [{"name": "nvidia-dkms-open", "from": "", "to": "595.91.07-1", "kind": "gpu"}],
        "would_remove": ["nvidia-dkms-580-open"],
    }
    assert any("nvidia-dkms-580-open removed" in text for text in problems(found, apt=True))


@pytest.mark.parametrize(
    ("prepare", "result"),
    [
        (lambda root: write(root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\6\0\0\0\1"), True),
        (lambda root: write(root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\6\0\0\0\0"), False),
        (lambda root: write(root / "sys/firmware/acpi/pm_profile", "1"), False),
        (lambda root: (root / "sys/firmware/efi").mkdir(parents=True), None),
        (lambda root: (root / "sys/firmware").mkdir(parents=True), None),
        (lambda root: None, None),
    ],
)  # fmt: skip
def test_secure_boot(host: Host, prepare: Callable[[Path], None], result: bool | None) -> None:
    prepare(host.root)
    assert host.look(driver=False)["secure_boot"] is result


def test_a_simulated_machine_says_so(four: Host) -> None:
    write(four.root / "SIMULATED", "")
    found = four.look()
    assert found["simulated"] is True
    assert all(check["says"].startswith("SIMULATED: ") for check in gpu_checks(found, {}))


def test_the_facts_are_plain_data(four: Host) -> None:
    assert json.loads(json.dumps(four.look(apt=True), allow_nan=False))
