# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand the values of the GPUs to Prometheus' node exporter, as a file that its textfile collector reads.

usage: gpumesh-gpu-metrics [--once] [--interval SECONDS] FILE

Names and units are those of nvidia_gpu_exporter, so that dashboards made for it show them. A value that a card does not have is left
out. Where nvidia-smi does not answer, the file says so (`nvidia_smi_up 0`) and has no old values. Where it cannot be written, there is
none.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# What nvidia-smi is asked for, the metric's name, what a unit of it is worth in the metric's, and what it is.
FIELDS: dict[str, tuple[str, float, str]] = {
    "temperature.gpu": ("temperature_gpu", 1, "Temperature of the GPU in degrees Celsius"),
    "temperature.memory": ("temperature_memory", 1, "Temperature of the memory in degrees Celsius"),
    "temperature.gpu.tlimit": ("temperature_gpu_tlimit", 1, "Degrees Celsius left to the card's own limit"),
    "utilization.gpu": ("utilization_gpu_ratio", 0.01, "Share of the time in which the GPU computed"),
    "utilization.memory": (
        "utilization_memory_ratio",
        0.01,
        "Share of the time in which the memory was in use",
    ),
    "memory.total": ("memory_total_bytes", 1 << 20, "Memory of the GPU"),
    "memory.used": ("memory_used_bytes", 1 << 20, "Memory in use"),
    "power.draw": ("power_draw_watts", 1, "Power that the card draws"),
    "power.limit": ("power_limit_watts", 1, "Power that the card may draw"),
    "clocks.sm": ("clocks_current_sm_clock_hz", 1e6, "Clock of the multiprocessors"),
    "clocks.mem": ("clocks_current_memory_clock_hz", 1e6, "Clock of the memory"),
    "fan.speed": ("fan_speed_ratio", 0.01, "Speed of the fan as a share of the highest"),
    "pcie.link.gen.current": ("pcie_link_gen_current", 1, "Generation of the PCIe link now"),
    "pcie.link.width.current": ("pcie_link_width_current", 1, "Lanes of the PCIe link now"),
    "ecc.errors.uncorrected.volatile.total": (
        "ecc_errors_uncorrected_volatile_total",
        1,
        "Uncorrected ECC errors since the driver was loaded",
    ),
}
# An older name is tried where a branch does not know the newer one.
REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
SLOWDOWNS = ("hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown", "sw_power_cap")
IDENTITY = ("uuid", "index", "name", "pci.bus_id", "driver_version", "serial")
REFUSED = re.compile(r'Field "([^"]+)" is not a valid field')
SECONDS = 60
"""How long nvidia-smi may take."""
HANGS = (
    f"nvidia-smi did not answer within {SECONDS} seconds and was told to end; if it does not, the driver hangs: "
    "see 'journalctl -k', and reboot the machine"
)


class Silent(Exception):
    """nvidia-smi gave no answer."""


class NvidiaSmi:
    """The program, of which no second one is started while a first one hangs.

    One that waits in the kernel for a driver that hangs cannot be killed, so nobody may wait for its end.
    """

    def __init__(self) -> None:
        self.hung: subprocess.Popen[str] | None = None

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, and what it printed.

        Raises:
            Silent: with its reason.
        """
        if self.hung is not None:
            if self.hung.poll() is None:
                raise Silent(HANGS)
            close(self.hung)
            self.hung = None
        try:
            started = subprocess.Popen(
                ["nvidia-smi", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        except OSError as problem:
            raise Silent(f"nvidia-smi: {problem}") from problem
        try:
            out, err = started.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as problem:
            started.kill()
            self.hung = started
            raise Silent(HANGS) from problem
        return started.returncode, out, err


def close(program: subprocess.Popen[str]) -> None:
    """Let go of the pipes of a program that has ended."""
    for pipe in (program.stdout, program.stderr):
        if pipe is not None:
            pipe.close()


def ask(program: NvidiaSmi, fields: list[str]) -> list[dict[str, str]]:
    """One dict a GPU. A field that this branch of the driver does not know is left out, and taken off the list.

    Raises:
        Silent: with its reason.
    """
    while True:
        status, out, err = program.run(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
        unknown = REFUSED.search(out + err)
        if unknown and unknown[1] in fields:
            fields.remove(unknown[1])
            continue
        rows = [row for row in csv.reader(out.splitlines(), skipinitialspace=True) if row]
        whole = [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]
        if not whole:
            said = (err or out).strip().splitlines() or ["it said nothing"]
            raise Silent(f"nvidia-smi ended with status {status}: {said[-1]}")
        return whole


def fields() -> list[str]:
    """Everything that is asked for, both names of what has two."""
    return [*IDENTITY, *FIELDS, *(f"{prefix}.{reason}" for reason in SLOWDOWNS for prefix in REASONS)]


def number(text: str) -> float | None:
    """A reading; None where it is none, such as ``[N/A]``."""
    try:
        return float(text)
    except ValueError:
        return None


def escaped(text: str) -> str:
    """A label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def metrics(gpus: list[dict[str, str]], now: float, interval: float) -> Iterator[str]:
    """Lines in Prometheus' text format."""
    simulated = any(gpu.get("serial", "").startswith("SIMULATED") for gpu in gpus)
    yield from family("up", "Whether nvidia-smi answered", [("", 1.0)])
    # Both are for whoever has to know whether the values are old.
    yield from family("read_timestamp_seconds", "When the values were read", [("", now)])
    yield from family("read_interval_seconds", "How often they are read", [("", interval)])
    mark = {"simulated": "true"} if simulated else {}
    named = [{"uuid": gpu["uuid"], "index": gpu["index"], **mark} for gpu in gpus]
    info = [
        (labels(name=gpu["name"], pci=gpu["pci.bus_id"], driver_version=gpu["driver_version"], **whose), 1.0)
        for gpu, whose in zip(gpus, named, strict=True)
    ]
    yield from family("gpu_info", "What the GPU is", info)
    for field, (name, worth, about) in FIELDS.items():
        read = [(whose, number(gpu.get(field, ""))) for gpu, whose in zip(gpus, named, strict=True)]
        yield from family(
            name, about, [(labels(**whose), value * worth) for whose, value in read if value is not None]
        )
    for reason in SLOWDOWNS:
        told = {
            labels(**whose): float(gpu[f"{prefix}.{reason}"] == "Active")
            for gpu, whose in zip(gpus, named, strict=True)
            for prefix in REASONS
            if gpu.get(f"{prefix}.{reason}") in ("Active", "Not Active")
        }
        yield from family(
            f"clocks_event_reasons_{reason}",
            f"Whether the clocks are held back: {reason}",
            list(told.items()),
        )


def labels(**values: str) -> str:
    """Those of a value."""
    return "{" + ",".join(f'{name}="{escaped(text)}"' for name, text in values.items()) + "}"


def family(name: str, about: str, values: list[tuple[str, float]]) -> Iterator[str]:
    """One metric with all its values; nothing where there is none."""
    if values:
        yield f"# HELP nvidia_smi_{name} {about}."
        yield f"# TYPE nvidia_smi_{name} gauge"
        for tail, value in values:
            yield f"nvidia_smi_{name}{tail} {f'{value:.0f}' if value.is_integer() else f'{value:.10g}'}"


def write(path: Path, lines: list[str]) -> str:
    """Put the file in place in one step: the collector never reads half of one. What went wrong, or nothing."""
    half = path.with_name(f".{path.name}.new")
    try:
        half.write_text("\n".join(lines) + "\n", encoding="utf-8")
        half.chmod(0o644)
        half.replace(path)
    except OSError as problem:
        try:
            # Old values would be taken for those of now.
            path.unlink(missing_ok=True)
            half.unlink(missing_ok=True)
        except OSError:
            return f"{path} cannot be written, and its old values cannot be taken away: {problem.strerror}"
        return f"{path} cannot be written, so there are no values: {problem.strerror}"
    return ""


def main() -> int:
    """Look once, or again and again."""
    options = argparse.ArgumentParser(prog="gpumesh-gpu-metrics")
    options.add_argument("--once", action="store_true")
    options.add_argument("--interval", type=float, default=15.0)
    options.add_argument("file", type=Path)
    given = options.parse_args()
    program, asked, last = NvidiaSmi(), fields(), ""
    while True:
        began = time.monotonic()
        try:
            lines, says = list(metrics(ask(program, asked), time.time(), given.interval)), ""
        except Silent as problem:
            lines, says = list(family("up", "Whether nvidia-smi answered", [("", 0.0)])), str(problem)
        says = write(given.file, lines) or says
        if says != last:
            # Once for each change: the journal is no place for a line every 15 seconds.
            print(says or "nvidia-smi answers again, and its values are in place", file=sys.stderr)
            last = says
        if given.once:
            return 1 if says else 0
        time.sleep(max(0.5, given.interval - (time.monotonic() - began)))


if __name__ == "__main__":
    sys.exit(main())
