# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that tunes GPUs, run as it is run on a host, on an nvidia-smi of ours. On a real host: tests/hosts/nvidia_driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "nvidia_driver" / "files" / "tuning.py"

# Answers queries and keeps what is set, as the driver's own program does as far as this role asks it.
NVIDIA_SMI = r"""#!{python}
import json, sys
path = {state!r}
state = json.load(open(path))
arguments = sys.argv[1:]
def end(status, text=""):
    json.dump(state, open(path, "w"))
    print(text)
    sys.exit(status)
if state.get("broken"):
    end(9, state["broken"])
if arguments[0].startswith("--query-gpu="):
    names = arguments[0].split("=")[1].split(",")
    end(0, "\n".join(", ".join(str(gpu[name]) for name in names) for gpu in state["gpus"]))
if arguments == ["-L"]:
    lines = []
    for gpu in state["gpus"]:
        lines.append("GPU %s: %s (UUID: GPU-1)" % (gpu["index"], gpu["name"]))
        lines += ["  MIG %s     Device  %d: (UUID: MIG-%d)" % (name, n, n) for n, name in enumerate(gpu["devices"])]
    end(0, "\n".join(lines))
state["set"].append(arguments)
mig = arguments[0] == "mig"
arguments = arguments[1:] if mig else arguments
gpu = next(gpu for gpu in state["gpus"] if gpu["pci.bus_id"] == arguments[1])
option, value = arguments[2], (arguments + [""])[3]
if option in state.get("refuses", []):
    end(4, "Insufficient Permissions")
if option in state.get("ignores", []):
    end(0, "All done.")
if option == "-pl":
    gpu["power.limit"] = "%.2f" % float(value)
if option == "-c":
    gpu["compute_mode"] = value.title()
if option == "-e":
    gpu["ecc.mode.pending"] = ["Disabled", "Enabled"][int(value)]
if option == "-mig":
    gpu["mig.mode.pending"] = ["Disabled", "Enabled"][int(value)]
    if not state.get("mig_needs_reset"):
        gpu["mig.mode.current"] = gpu["mig.mode.pending"]
if option == "-ac":
    gpu["clocks.applications.memory"], gpu["clocks.applications.graphics"] = value.split(",")
if option == "-lgc":
    gpu["clocks.current.graphics"] = value.split(",")[1]
if option == "-dgi":
    gpu["devices"] = []
if option == "-cgi":
    gpu["devices"] = value.split(",")
end(0, "All done.")
"""
RTX5090 = {
    "pci.device_id": "0x2B8510DE", "name": "NVIDIA GeForce RTX 5090", "power.limit": "575.00", "power.min_limit": "400.00",
    "power.max_limit": "600.00", "compute_mode": "Default", "ecc.mode.current": "[N/A]", "ecc.mode.pending": "[N/A]",
    "mig.mode.current": "[N/A]", "mig.mode.pending": "[N/A]", "clocks.applications.memory": "[N/A]",
    "clocks.applications.graphics": "[N/A]", "clocks.current.graphics": "180", "clocks.max.graphics": "3090", "devices": [],
}  # fmt: skip
A100 = RTX5090 | {
    "pci.device_id": "0x20B010DE", "name": "NVIDIA A100-SXM4-40GB", "power.limit": "400.00", "power.min_limit": "100.00",
    "power.max_limit": "400.00", "ecc.mode.current": "Enabled", "ecc.mode.pending": "Enabled", "mig.mode.current": "Disabled",
    "mig.mode.pending": "Disabled", "clocks.applications.memory": "1215", "clocks.applications.graphics": "1095",
    "clocks.max.graphics": "1410",
}  # fmt: skip
MODELS = {"2b85": "rtx5090", "20b0": "a100"}


class Host:
    """A machine with these GPUs, on which the program can be run."""

    def __init__(self, folder: Path, *gpus: dict[str, Any]) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.state_file = folder / "state.json"
        (folder / "bin").mkdir()
        smi = folder / "bin" / "nvidia-smi"
        smi.write_text(
            NVIDIA_SMI.replace("{python}", sys.executable).replace("{state!r}", repr(str(self.state_file))),
            encoding="utf-8",
        )
        smi.chmod(0o755)
        self.become(
            gpus=[
                gpu | {"index": str(place), "pci.bus_id": f"00000000:{place + 1:02X}:00.0"}
                for place, gpu in enumerate(gpus)
            ],
            set=[],
        )
        self.boots("one")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
        return found

    def become(self, **changes: Any) -> None:
        """Another state of the driver."""
        state = self.state if self.state_file.exists() else {}
        self.state_file.write_text(json.dumps(state | changes), encoding="utf-8")

    def boots(self, boot: str) -> None:
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot + "\n", encoding="utf-8")

    def cpu(self, *governors: str) -> list[Path]:
        """As many CPUs as there are governors."""
        files = []
        for place, governor in enumerate(governors):
            folder = self.root / f"sys/devices/system/cpu/cpu{place}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_available_governors").write_text("performance powersave\n", encoding="utf-8")
            (folder / "scaling_governor").write_text(governor + "\n", encoding="utf-8")
            files.append(folder / "scaling_governor")
        return files

    def tune(self, *options: str, governor: str = "", **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run it with this declaration."""
        config = self.folder / "config.json"
        document = {
            "root": str(self.root),
            "settings": settings,
            "models": MODELS,
            "cpu_governor": governor,
        }
        config.write_text(json.dumps(document), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-", f"--config={config}", *options],
            check=False, capture_output=True, text=True, stdin=PROGRAM.open(encoding="utf-8"),
            env={**os.environ, "PATH": f"{self.folder}/bin:/usr/bin:/bin", "RUNTIME_DIRECTORY": str(self.folder / "run")},
        )  # fmt: skip

    def is_set(self) -> list[list[str]]:
        """The commands that set something since the last question."""
        found: list[list[str]] = self.state["set"]
        self.become(set=[])
        return found


@pytest.fixture
def four(tmp_path: Path) -> Host:
    """The golden machine."""
    return Host(tmp_path, RTX5090, RTX5090, RTX5090, RTX5090)


def test_a_power_limit_is_set_on_every_gpu_and_not_a_second_time(four: Host) -> None:
    first = four.tune(power_limit_w=450)
    assert first.returncode == 0, first.stderr
    assert [gpu["power.limit"] for gpu in four.state["gpus"]] == ["450.00"] * 4
    assert len(four.is_set()) == 4
    second = four.tune(power_limit_w=450)
    assert (second.returncode, second.stdout) == (0, "all is as declared\n")
    assert four.is_set() == []


def test_only_what_differs_is_set(four: Host) -> None:
    four.tune(power_limit_w=450)
    gpus = four.state["gpus"]
    gpus[2]["power.limit"] = "575.00"
    four.become(gpus=gpus, set=[])
    tuned = four.tune(power_limit_w=450)
    assert (
        tuned.stdout == "changed: GPU 00000000:03:00.0 (rtx5090): power limit is 575 W and should be 450 W\n"
    )
    assert four.is_set() == [["-i", "00000000:03:00.0", "-pl", "450"]]


def test_a_check_only_says_what_differs_and_what_to_do(four: Host) -> None:
    checked = four.tune("--check", power_limit_w=450, compute_mode="EXCLUSIVE_PROCESS")
    assert checked.returncode == 1
    assert four.is_set() == []
    lines = checked.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        "GPU 00000000:01:00.0 (rtx5090): power limit is 575 W and should be 450 W: run gpumesh-gpu-tuning to set it again, "
        "and compute mode is Default and should be Exclusive_Process: run gpumesh-gpu-tuning to set it again."
    )


@pytest.mark.parametrize(
    ("gpu", "watts", "says"),
    [
        (
            RTX5090,
            350,
            "takes a power limit of 400 to 600 W and 350 W is declared; declare one in that range",
        ),
        (
            RTX5090,
            601,
            "takes a power limit of 400 to 600 W and 601 W is declared; declare one in that range",
        ),
        (
            RTX5090 | {"power.limit": "[N/A]"},
            450,
            "has no power limit that can be set; declare none for this model",
        ),
    ],
)
def test_a_limit_that_the_card_does_not_take_is_not_tried(
    tmp_path: Path, gpu: dict[str, Any], watts: int, says: str
) -> None:
    host = Host(tmp_path, gpu)
    tuned = host.tune(power_limit_w=watts)
    assert tuned.returncode == 1
    assert tuned.stderr == f"GPU 00000000:01:00.0 (rtx5090): {says}.\n"
    assert host.is_set() == []


def test_each_model_gets_its_own_value_and_one_without_is_left(tmp_path: Path) -> None:
    host = Host(tmp_path, RTX5090, A100)
    assert host.tune(power_limit_w={"a100": 250}, mig={"a100": "on"}).returncode == 0
    assert host.is_set() == [
        ["-i", "00000000:02:00.0", "-mig", "1"],
        ["-i", "00000000:02:00.0", "-pl", "250"],
    ]


def test_ecc_waits_for_a_reboot_and_that_is_said(tmp_path: Path) -> None:
    host = Host(tmp_path, A100)
    for options in ((), ("--check",)):
        tuned = host.tune("--json", *options, ecc="off")
        answer = json.loads(tuned.stdout)
        assert (tuned.returncode, answer["ok"]) == (0, True)
        assert answer["pending"] == [
            "GPU 00000000:01:00.0 (a100): ECC is Enabled and will be Disabled after a reboot; reboot when it suits you"
        ]
    assert host.is_set() == [["-i", "00000000:01:00.0", "-e", "0"]]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("ecc", "on", "has no ECC memory that can be turned on; declare no nvidia_driver_ecc for it"),
        ("mig", "on", "has no MIG; declare no nvidia_driver_mig for it"),
        (
            "application_clocks",
            "1215,1410",
            "has no application clocks with this driver; declare nvidia_driver_locked_clocks instead",
        ),
        (
            "locked_clocks",
            "300,4000",
            "reaches 3090 MHz and clocks up to 4000 MHz are declared; declare no more than that",
        ),
    ],
)
def test_what_a_card_does_not_have_is_no_success(tmp_path: Path, setting: str, value: str, says: str) -> None:
    host = Host(tmp_path, RTX5090)
    tuned = host.tune(**{setting: value})
    assert (tuned.returncode, tuned.stderr) == (1, f"GPU 00000000:01:00.0 (rtx5090): {says}.\n")
    assert host.is_set() == []


def test_what_a_card_does_not_have_is_off_already(four: Host) -> None:
    assert four.tune(ecc="off", mig="off").stdout == "all is as declared\n"


def test_a_mig_layout_is_made_and_another_one_replaces_it(tmp_path: Path) -> None:
    host = Host(tmp_path, A100)
    assert host.tune(mig="3g.20gb, 3g.20gb").returncode == 0
    assert host.state["gpus"][0]["devices"] == ["3g.20gb", "3g.20gb"]
    host.is_set()
    assert host.tune(mig="3g.20gb,3g.20gb").stdout == "all is as declared\n"
    assert host.is_set() == []
    assert host.tune(mig="1g.5gb,2g.10gb").returncode == 0
    assert [command[3] for command in host.is_set()] == ["-dci", "-dgi", "-cgi"]
    assert sorted(host.state["gpus"][0]["devices"]) == ["1g.5gb", "2g.10gb"]


def test_a_mig_mode_that_needs_a_reset_waits_and_its_layout_with_it(tmp_path: Path) -> None:
    host = Host(tmp_path, A100)
    host.become(mig_needs_reset=True)
    tuned = host.tune(mig="3g.20gb,3g.20gb")
    assert tuned.returncode == 0
    assert (
        "waits: GPU 00000000:01:00.0 (a100): MIG is Disabled and will be Enabled after a reboot"
        in tuned.stdout
    )
    assert host.state["gpus"][0]["devices"] == []


def test_application_clocks_are_compared_as_numbers(tmp_path: Path) -> None:
    host = Host(tmp_path, A100)
    assert host.tune(application_clocks="1215,1410").returncode == 0
    assert host.tune(application_clocks="1215,1410").stdout == "all is as declared\n"
    assert host.is_set() == [["-i", "00000000:01:00.0", "-ac", "1215,1410"]]


def test_locked_clocks_are_set_again_after_a_boot_and_a_clock_above_them_is_seen(tmp_path: Path) -> None:
    host = Host(tmp_path, RTX5090)
    assert host.tune(locked_clocks="300,2200").returncode == 0
    assert host.tune(locked_clocks="300,2200").stdout == "all is as declared\n"
    assert len(host.is_set()) == 1
    gpus = host.state["gpus"]
    gpus[0]["clocks.current.graphics"] = "2900"
    host.become(gpus=gpus)
    checked = host.tune("--check", locked_clocks="300,2200")
    assert checked.returncode == 1
    assert "runs at 2900 MHz and its clocks should be locked to 300,2200 MHz" in checked.stderr
    gpus[0]["clocks.current.graphics"] = "210"
    host.become(gpus=gpus)
    host.boots("two")
    assert host.tune("--check", locked_clocks="300,2200").returncode == 1
    assert host.tune(locked_clocks="300,2200").returncode == 0
    assert len(host.is_set()) == 1


def test_what_was_set_and_reads_back_otherwise_is_a_failure(four: Host) -> None:
    four.become(ignores=["-pl"])
    tuned = four.tune(power_limit_w=450)
    assert tuned.returncode == 1
    assert "power limit is 575 W and should be 450 W, although it was just set" in tuned.stderr


def test_a_refusal_of_the_driver_is_told_in_its_words_and_the_rest_is_still_set(four: Host) -> None:
    four.become(refuses=["-pl"])
    tuned = four.tune(power_limit_w=450, compute_mode="prohibited")
    assert tuned.returncode == 1
    assert len(tuned.stderr.splitlines()) == 8
    assert (
        "could not be set: nvidia-smi -i 00000000:01:00.0 -pl 450 ended with 4: Insufficient Permissions"
        in tuned.stderr
    )
    assert {gpu["compute_mode"] for gpu in four.state["gpus"]} == {"Prohibited"}


def test_a_driver_that_does_not_run_is_told(four: Host) -> None:
    four.become(broken="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    tuned = four.tune(power_limit_w=450)
    assert tuned.returncode == 2
    assert (
        "couldn't communicate with the NVIDIA driver.; see that the driver runs, then run this again"
        in tuned.stderr
    )
    (four.folder / "bin" / "nvidia-smi").unlink()
    tuned = four.tune(power_limit_w=450)
    assert tuned.returncode == 2
    assert "there is no nvidia-smi" in tuned.stderr


def test_an_image_on_a_machine_without_gpu_is_no_failure(four: Host) -> None:
    four.become(broken="no driver")
    device = four.root / "sys/bus/pci/devices/0000:00:02.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n", encoding="utf-8")
    (device / "class").write_text("0x030000\n", encoding="utf-8")
    assert four.tune(power_limit_w=450).returncode == 0
    (device / "vendor").write_text("0x10de\n", encoding="utf-8")
    assert four.tune(power_limit_w=450).returncode == 2


def test_the_governor_of_every_cpu_is_set_once(four: Host) -> None:
    files = four.cpu("powersave", "performance")
    assert four.tune("--check", governor="performance").returncode == 1
    assert (
        four.tune(governor="performance").stdout
        == "changed: CPUs: governor of 1 is powersave and should be performance\n"
    )
    assert [path.read_text(encoding="utf-8").strip() for path in files] == ["performance", "performance"]
    assert four.tune(governor="performance").stdout == "all is as declared\n"
    wrong = four.tune(governor="turbo")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "CPUs: 'turbo' is none of their governors: performance, powersave.\n",
    )


def test_a_machine_without_frequency_scaling_says_so(four: Host) -> None:
    tuned = four.tune(governor="performance")
    assert tuned.returncode == 1
    assert "there is no frequency scaling on this machine" in tuned.stderr


def test_simulated_gpus_are_called_so(four: Host) -> None:
    (four.root / "SIMULATED").touch()
    assert four.tune(power_limit_w=450).stdout.startswith("SIMULATED: changed: ")
    assert json.loads(four.tune("--json", power_limit_w=450).stdout)["simulated"] is True


def test_a_broken_declaration_is_told_without_a_traceback(four: Host) -> None:
    tuned = four.tune(compute_mode="shared")
    assert tuned.returncode == 2
    assert "Traceback" not in tuned.stderr


TEMPLATES = PROGRAM.parents[1] / "templates"
DEVICE = {
    "pci_address": "0000:01:00.0",
    "pci_id": "2b85",
    "model": "rtx5090",
    "power": {"min_w": 400.0, "max_w": 575.0},
}


def declared(folder: Path, **variables: Any) -> Any:
    """What the role makes of a declaration on a machine with one RTX 5090: problems, settings, unit."""
    template = "lookup('ansible.builtin.template', '{}/{}.j2')"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(PROGRAM.parents[1] / "defaults" / "main.yml")],
        "vars": {
            "ansible_python_interpreter": sys.executable,
            "__nvidia_driver_gpu": {"devices": [DEVICE]},
            "__nvidia_driver_stack": {"gpus": [{"model": "a100", "pci_ids": ["10de:20B0"]}]},
            "__nvidia_driver_tuning_config": "/etc/gpumesh/gpu-tuning.json",
            "__nvidia_driver_tuning_program": "/usr/local/sbin/gpumesh-gpu-tuning",
            "__nvidia_driver_tuning_settings": "{{ "
            + template.format(TEMPLATES, "gpu_tuning_settings.json")
            + " | from_json }}",
            "answer": {
                "problems": "{{ " + template.format(TEMPLATES, "tuning_problems") + " }}",
                "settings": "{{ __nvidia_driver_tuning_settings }}",
                "models": "{{ " + template.format(TEMPLATES, "gpu_tuning_models.json") + " | from_json }}",
                "unit": "{{ " + template.format(TEMPLATES, "gpu_tuning.service") + " }}",
            },
        },
        "tasks": [
            {
                "name": "Answer",
                "ansible.builtin.copy": {
                    "content": "{{ answer | to_json }}",
                    "dest": str(folder / "answer"),
                    "mode": "0600",
                },
            }
        ],
    }
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    played = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local",
            "-e", json.dumps(variables), str(playbook),
        ],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout + played.stderr
    return json.loads((folder / "answer").read_text(encoding="utf-8"))


def test_a_declaration_is_normalised_and_what_is_empty_is_none(tmp_path: Path) -> None:
    answer = declared(
        tmp_path,
        nvidia_driver_power_limit_w={"rtx5090": "450", "t4": 70, "a100": 0},
        nvidia_driver_compute_mode="exclusive_process",
        nvidia_driver_ecc=False,
        nvidia_driver_mig={"a100": True},
        nvidia_driver_root="/somewhere",
    )
    assert answer["settings"] == {
        "power_limit_w": {"rtx5090": 450, "t4": 70},
        "compute_mode": "exclusive_process",
        "ecc": "off",
        "mig": {"a100": "on"},
    }
    assert not answer["problems"]
    assert answer["models"] == {"2b85": "rtx5090", "20b0": "a100"}
    assert "ReadWritePaths=/somewhere" in answer["unit"]
    assert "ProtectKernelTunables=yes" in answer["unit"]


def test_nothing_declared_is_nothing_to_set(tmp_path: Path) -> None:
    answer = declared(tmp_path, nvidia_driver_cpu_governor="performance")
    assert answer["settings"] == {}
    assert not answer["problems"]
    assert "ReadWritePaths" not in answer["unit"]
    # A governor is set through /sys, which this would make read-only.
    assert "ProtectKernelTunables" not in answer["unit"]


def test_every_impossible_declaration_is_a_line(tmp_path: Path) -> None:
    answer = declared(
        tmp_path,
        nvidia_driver_power_limit_w={"rtx5090": 600, "t4": "much"},
        nvidia_driver_compute_mode={"t4": "shared"},
        nvidia_driver_ecc="maybe",
        nvidia_driver_application_clocks=1410,
        nvidia_driver_locked_clocks="300-2200",
        nvidia_driver_mig="3g.20gb;3g.20gb",
    )
    assert answer["problems"].split("\n")[:-1] == [
        (
            "nvidia_driver_power_limit_w: 600 W is declared for GPU 0000:01:00.0 (rtx5090), and this card takes 400 to "
            "575 W; declare a limit in that range."
        ),
        "nvidia_driver_application_clocks: '1410' is no pair of clocks; give MEMORY,GRAPHICS in MHz.",
        "nvidia_driver_compute_mode: 'shared' for t4 is no compute mode; give default, exclusive_process or prohibited.",
        "nvidia_driver_ecc: 'maybe' is neither on nor off.",
        "nvidia_driver_locked_clocks: '300-2200' is no pair of clocks; give LEAST,MOST in MHz.",
        "nvidia_driver_mig: '3g.20gb;3g.20gb' is neither on nor off nor a list of profiles such as 3g.20gb,3g.20gb.",
        "nvidia_driver_power_limit_w: 'much' for t4 is no number of watts; give a number, or 0 to leave it.",
    ]
