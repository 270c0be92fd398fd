# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the settings of GPUs and CPUs as declared, read them back, and say what is not as declared. As root.

usage: gpumesh-gpu-tuning [--check] [--json] [--config FILE]

Sets only what differs. --check sets nothing. Ends with 0 where all is as declared or only waits for a reboot, with 1 where
something is not, and with 2 where nothing could be looked at. Written by the role nvidia_driver of gpumesh.fleet, run at
every boot by gpumesh-gpu-tuning.service: a driver forgets most of these settings with its last client, all of them with a
reboot.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/gpumesh/gpu-tuning.json")
# No driver tells the range that its clocks are locked to, so what was set is noted, for this boot and this loaded module.
MEMORY = Path(os.environ.get("RUNTIME_DIRECTORY", "/run/gpumesh-gpu-tuning"), "locked.json")
ON_OFF = {"on": "Enabled", "off": "Disabled"}
COMPUTE_MODES = {"default": "Default", "exclusive_process": "Exclusive_Process", "prohibited": "Prohibited"}
AGAIN = "run gpumesh-gpu-tuning to set it again"


class Unable(Exception):
    """Nothing can be looked at: what it is and what to do, in one sentence."""


class Refused(Exception):
    """What nvidia-smi would not do, in its words."""


@dataclass(frozen=True)
class Verdict:
    """How one setting of one GPU stands: `ok`, `differs`, `pending` or `impossible`, and what to say of it."""

    kind: str
    says: str = ""


OK = Verdict("ok")
Row = dict[str, str]


@dataclass(frozen=True)
class Smi:
    """The driver's own program."""

    program: str = "nvidia-smi"

    def run(self, *arguments: str) -> str:
        """What it printed; Refused where it ended with an error."""
        try:
            done = subprocess.run(
                [self.program, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=120,
            )
        except FileNotFoundError as problem:
            raise Unable(
                f"there is no {self.program}, so the driver is not installed; run the role nvidia_driver"
            ) from problem
        except subprocess.TimeoutExpired as problem:
            raise Unable(
                f"{self.program} did not answer within 120 seconds; look at 'journalctl -k' for NVRM: Xid"
            ) from problem
        if done.returncode != 0:
            said = " ".join(done.stdout.split()) or "no reason"
            raise Refused(f"{self.program} {' '.join(arguments)} ended with {done.returncode}: {said}")
        return done.stdout

    def rows(self, fields: list[str]) -> list[Row]:
        """The asked fields of every GPU, plus what tells it from the others."""
        names = ["index", "pci.bus_id", "pci.device_id", "name", *fields]
        try:
            said = self.run(f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits")
        except Refused as problem:
            raise Unable(f"{problem}; see that the driver runs, then run this again") from problem
        lines = [[cell.strip() for cell in line] for line in csv.reader(said.splitlines()) if line]
        if not lines or any(len(line) != len(names) for line in lines):
            raise Unable(f"{self.program} answered something that is no list of GPUs: {said.strip()[:200]!r}")
        return [dict(zip(names, line, strict=True)) for line in lines]

    def mig_devices(self, index: str) -> list[str]:
        """The profiles of the MIG devices of one GPU, sorted."""
        owner, found = "", []
        for line in self.run("-L").splitlines():
            gpu = re.match(r"GPU (\d+):", line)
            owner = gpu[1] if gpu else owner
            device = re.match(r"\s+MIG (\S+)\s+Device", line)
            if device and owner == index:
                found.append(device[1])
        return sorted(found)


def number(text: str) -> float | None:
    """A reading as a number; None for [N/A], a deprecated one and the like."""
    try:
        return float(text)
    except ValueError:
        return None


def watts(value: float) -> str:
    """450 and not 450.0."""
    return f"{value:g} W"


@dataclass(frozen=True)
class Setting:
    """One thing that can be declared: which fields tell of it, how to judge them, and what sets it."""

    name: str
    fields: list[str]
    judge: Callable[[Row, Any, Context], Verdict]
    commands: Callable[[Row, Any, Context], list[list[str]]]


@dataclass
class Context:
    """What judging needs besides the row."""

    smi: Smi
    locked: dict[str, str] = field(default_factory=dict)


def judge_power(row: Row, wanted: Any, _context: Context) -> Verdict:
    """The limit that is asked for, within the card's own range."""
    now, low, high = (number(row[f"power.{name}"]) for name in ("limit", "min_limit", "max_limit"))
    if now is None or low is None or high is None:
        return Verdict("impossible", "has no power limit that can be set; declare none for this model")
    if not low <= float(wanted) <= high:
        return Verdict(
            "impossible",
            f"takes a power limit of {low:g} to {high:g} W and {watts(float(wanted))} is declared; declare one in that range",
        )
    if abs(now - float(wanted)) > 0.5:
        return Verdict("differs", f"power limit is {watts(now)} and should be {watts(float(wanted))}")
    return OK


def judge_compute(row: Row, wanted: Any, _context: Context) -> Verdict:
    """The mode by name."""
    now, mode = row["compute_mode"], COMPUTE_MODES[str(wanted).lower()]
    if now.lower() != mode.lower():
        return Verdict("differs", f"compute mode is {now} and should be {mode}")
    return OK


def judge_ecc(row: Row, wanted: Any, _context: Context) -> Verdict:
    """The mode now, and the one that the next reboot brings."""
    now, pending, mode = row["ecc.mode.current"], row["ecc.mode.pending"], ON_OFF[str(wanted)]
    if now not in ON_OFF.values():
        if wanted == "off":
            return OK
        return Verdict(
            "impossible", "has no ECC memory that can be turned on; declare no nvidia_driver_ecc for it"
        )
    if pending != mode:
        return Verdict("differs", f"ECC is {pending} after the next reboot and should be {mode}")
    if now != mode:
        return Verdict("pending", f"ECC is {now} and will be {mode} after a reboot; reboot when it suits you")
    return OK


def judge_application_clocks(row: Row, wanted: Any, _context: Context) -> Verdict:
    """Memory and graphics clock, in the order of nvidia-smi."""
    now = [number(row[f"clocks.applications.{name}"]) for name in ("memory", "graphics")]
    if None in now:
        return Verdict(
            "impossible",
            "has no application clocks with this driver; declare nvidia_driver_locked_clocks instead",
        )
    if now != [float(part) for part in str(wanted).split(",")]:
        return Verdict(
            "differs",
            f"application clocks are {','.join(f'{part:g}' for part in now)} MHz and should be {wanted}",
        )
    return OK


def judge_locked_clocks(row: Row, wanted: Any, context: Context) -> Verdict:
    """What was noted when it was set, and that the clock is not above it now."""
    high = float(str(wanted).split(",")[1])
    now, most = number(row["clocks.current.graphics"]), number(row["clocks.max.graphics"])
    if most is None:
        return Verdict(
            "impossible", "tells no clocks, so they cannot be locked; declare no nvidia_driver_locked_clocks"
        )
    if high > most:
        return Verdict(
            "impossible",
            f"reaches {most:g} MHz and clocks up to {high:g} MHz are declared; declare no more than that",
        )
    if context.locked.get(row["pci.bus_id"]) != wanted:
        return Verdict(
            "differs", f"clocks are not known to be locked to {wanted} MHz since the driver was loaded"
        )
    if now is not None and now > high:
        return Verdict("differs", f"runs at {now:g} MHz and its clocks should be locked to {wanted} MHz")
    return OK


def judge_mig_mode(row: Row, wanted: Any, _context: Context) -> Verdict:
    """Whether the GPU can be divided at all."""
    now, pending = row["mig.mode.current"], row["mig.mode.pending"]
    mode = ON_OFF["off" if wanted == "off" else "on"]
    if now not in ON_OFF.values():
        if wanted == "off":
            return OK
        return Verdict("impossible", "has no MIG; declare no nvidia_driver_mig for it")
    if pending != mode:
        return Verdict("differs", f"MIG is {pending} and should be {mode}")
    if now != mode:
        return Verdict("pending", f"MIG is {now} and will be {mode} after a reboot; reboot when it suits you")
    return OK


def judge_mig_layout(row: Row, wanted: Any, context: Context) -> Verdict:
    """The MIG devices, by profile."""
    if wanted in ("on", "off") or row["mig.mode.current"] != "Enabled":
        return OK
    now, layout = context.smi.mig_devices(row["index"]), sorted(str(wanted).replace(" ", "").split(","))
    if now != layout:
        return Verdict(
            "differs", f"MIG devices are {','.join(now) or 'none'} and should be {','.join(layout)}"
        )
    return OK


def mig_layout_commands(row: Row, wanted: Any, context: Context) -> list[list[str]]:
    """Devices in use are refused by the driver itself, so no work is lost."""
    old = [["mig", "-dci"], ["mig", "-dgi"]] if context.smi.mig_devices(row["index"]) else []
    return [*old, ["mig", "-cgi", str(wanted).replace(" ", ""), "-C"]]


# In this order: MIG mode and ECC may reset the GPU, which forgets the rest.
SETTINGS = [
    Setting(
        "mig",
        ["mig.mode.current", "mig.mode.pending"],
        judge_mig_mode,
        lambda _row, wanted, _context: [["-mig", "0" if wanted == "off" else "1"]],
    ),
    Setting("mig", ["mig.mode.current", "mig.mode.pending"], judge_mig_layout, mig_layout_commands),
    Setting(
        "ecc",
        ["ecc.mode.current", "ecc.mode.pending"],
        judge_ecc,
        lambda _row, wanted, _context: [["-e", "1" if wanted == "on" else "0"]],
    ),
    Setting(
        "power_limit_w",
        ["power.limit", "power.min_limit", "power.max_limit"],
        judge_power,
        lambda _row, wanted, _context: [["-pl", f"{float(wanted):g}"]],
    ),
    Setting(
        "compute_mode",
        ["compute_mode"],
        judge_compute,
        lambda _row, wanted, _context: [["-c", str(wanted).upper()]],
    ),
    Setting(
        "application_clocks",
        ["clocks.applications.memory", "clocks.applications.graphics"],
        judge_application_clocks,
        lambda _row, wanted, _context: [["-ac", str(wanted)]],
    ),
    Setting(
        "locked_clocks",
        ["clocks.current.graphics", "clocks.max.graphics"],
        judge_locked_clocks,
        lambda _row, wanted, _context: [["-lgc", str(wanted)]],
    ),
]


@dataclass
class Report:
    """What is said in the end."""

    simulated: bool = False
    changed: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        label = "SIMULATED: " if self.simulated else ""
        said = [f"changed: {line}" for line in self.changed] + [f"waits: {line}" for line in self.pending]
        return [label + line for line in [*said, *self.problems] or ["all is as declared"]]


class Tuning:
    """One run over all GPUs and CPUs."""

    def __init__(self, config: dict[str, Any], check: bool) -> None:
        self.settings: dict[str, Any] = config.get("settings", {})
        self.models: dict[str, str] = config.get("models", {})
        self.governor: str = config.get("cpu_governor", "")
        self.root = Path(config.get("root", "/"))
        self.check = check
        self.context = Context(Smi(config.get("nvidia_smi", "nvidia-smi")))
        self.report = Report(simulated=(self.root / "SIMULATED").exists())
        self.boot = self.identify_boot()
        self.fields = sorted(
            {name for setting in SETTINGS if self.settings.get(setting.name) for name in setting.fields}
        )

    def run(self) -> Report:
        """Everything, GPU by GPU."""
        if self.settings and self.has_gpus():
            self.context.locked = self.read_locked()
            for row in self.context.smi.rows(self.fields):
                self.tune(row)
        if self.governor:
            self.govern()
        return self.report

    def tune(self, row: Row) -> None:
        """One GPU; everything that is wrong with it goes into one sentence."""
        model = self.models.get(row["pci.device_id"].lower().removeprefix("0x")[:4], "")
        who = f"GPU {row['pci.bus_id']} ({model or row['name']})"
        wrong: list[str] = []
        for setting in SETTINGS:
            wanted = self.wanted(setting.name, model)
            if not wanted:
                continue
            verdict = setting.judge(row, wanted, self.context)
            if verdict.kind == "differs" and not self.check:
                row, verdict = self.set(row, setting, wanted, who, verdict)
            if verdict.kind == "pending":
                self.report.pending.append(f"{who}: {verdict.says}")
            elif verdict.kind == "differs" and self.check:
                wrong.append(f"{verdict.says}: {AGAIN}")
            elif verdict.kind != "ok":
                wrong.append(verdict.says)
        if wrong:
            self.report.problems.append(f"{who}: {', and '.join(wrong)}.")

    def wanted(self, name: str, model: str) -> Any:
        """What is declared for this model; a plain value is for all."""
        value = self.settings.get(name)
        return value.get(model) if isinstance(value, dict) else value

    def set(self, row: Row, setting: Setting, wanted: Any, who: str, before: Verdict) -> tuple[Row, Verdict]:
        """Set it, read the GPU again, and judge what was read."""
        address = row["pci.bus_id"]
        try:
            for command in setting.commands(row, wanted, self.context):
                # The sub-command of MIG has an -i of its own.
                place = 1 if command[0] == "mig" else 0
                self.context.smi.run(*command[:place], "-i", address, *command[place:])
        except Refused as problem:
            return row, Verdict("impossible", f"{before.says}, and it could not be set: {problem}")
        if setting.name == "locked_clocks":
            self.context.locked[address] = str(wanted)
            self.write_locked()
        again = [new for new in self.context.smi.rows(self.fields) if new["pci.bus_id"] == address]
        if not again:
            raise Unable(f"{who} is gone after it was set; reboot, and look at 'journalctl -k' for NVRM: Xid")
        verdict = setting.judge(again[0], wanted, self.context)
        if verdict.kind == "differs":
            return again[0], Verdict(
                "impossible",
                f"{verdict.says}, although it was just set; without its persistence daemon a driver forgets it at once: "
                "see 'systemctl status nvidia-persistenced'",
            )
        self.report.changed.append(f"{who}: {before.says}")
        return again[0], verdict

    def has_gpus(self) -> bool:
        """Whether there is any on the PCI bus: an image with these settings may run on a machine without."""
        devices = self.root / "sys/bus/pci/devices"
        return not devices.is_dir() or any(
            (device / "vendor").read_text(encoding="utf-8").strip() == "0x10de"
            and (device / "class").read_text(encoding="utf-8").startswith("0x03")
            for device in devices.iterdir()
            if (device / "vendor").is_file() and (device / "class").is_file()
        )

    def identify_boot(self) -> str:
        """This boot and this loading of the module: with either, locked clocks are lost."""
        boot, module = self.root / "proc/sys/kernel/random/boot_id", self.root / "sys/module/nvidia"
        text = boot.read_text(encoding="utf-8").strip() if boot.is_file() else ""
        return f"{text} {module.stat().st_ino if module.is_dir() else 0}"

    def read_locked(self) -> dict[str, str]:
        """What was locked since the module was loaded."""
        try:
            noted = json.loads(MEMORY.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(noted["locked"]) if noted.get("boot") == self.boot else {}

    def write_locked(self) -> None:
        """For the next run within this boot."""
        MEMORY.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        MEMORY.write_text(json.dumps({"boot": self.boot, "locked": self.context.locked}), encoding="utf-8")

    def govern(self) -> None:
        """The CPUs, all of them in one sentence."""
        folder = self.root / "sys/devices/system/cpu"
        files = sorted(folder.glob("cpu[0-9]*/cpufreq/scaling_governor"))
        if not files:
            self.report.problems.append(
                f"CPUs: there is no frequency scaling on this machine, so '{self.governor}' cannot be set; declare no "
                "nvidia_driver_cpu_governor here."
            )
            return
        offered = (files[0].parent / "scaling_available_governors").read_text(encoding="utf-8").split()
        if self.governor not in offered:
            self.report.problems.append(
                f"CPUs: '{self.governor}' is none of their governors: {', '.join(offered)}."
            )
            return
        wrong = {
            path: now for path in files if (now := path.read_text(encoding="utf-8").strip()) != self.governor
        }
        if not wrong:
            return
        says = f"governor of {len(wrong)} is {', '.join(sorted(set(wrong.values())))} and should be {self.governor}"
        if self.check:
            self.report.problems.append(f"CPUs: {says}: {AGAIN}.")
            return
        for path in wrong:
            path.write_text(f"{self.governor}\n", encoding="utf-8")
        left = [path for path in wrong if path.read_text(encoding="utf-8").strip() != self.governor]
        if left:
            self.report.problems.append(f"CPUs: {says}, although it was just set; look at {left[0]}.")
        else:
            self.report.changed.append(f"CPUs: {says}")


def main() -> int:
    """Read, compare, set, report."""
    parser = argparse.ArgumentParser(description="Make GPUs and CPUs as declared, and read it back.")
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args()
    report, status = Report(), 2
    try:
        tuning = Tuning(json.loads(options.config.read_text(encoding="utf-8")), options.check)
        report = tuning.report
        status = 1 if tuning.run().problems else 0
    except Unable as problem:
        report.problems.append(f"The GPUs could not be tuned: {problem}.")
    except (OSError, ValueError, KeyError) as problem:
        report.problems.append(
            f"The GPUs could not be tuned: {options.config}: {problem!r}; run the role nvidia_driver again."
        )
    if options.json:
        document = {"ok": status == 0, **vars(report)}
        print(json.dumps(document))
    else:
        print("\n".join(report.lines()), file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
