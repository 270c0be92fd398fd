# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand the values of the GPUs to Prometheus' node exporter, as a file that its textfile collector reads.

usage: gpumesh-gpu-metrics [--once] [--interval SECONDS] FILE

Names and units are those of nvidia_gpu_exporter, so that dashboards made for it show them. A value that a card does not have is left
out. Where nvidia-smi does not answer, the file says so (`nvidia_smi_up 0`) and has no old values.
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


class Silent(Exception):
    """nvidia-smi gave no answer."""


def ask(fields: list[str]) -> list[dict[str, str]]:
    """One dict a GPU. A field that this branch of the driver does not know is left out, and taken off the list.

    Raises:
        Silent: with its reason.
    """
    while True:
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
                check=False, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise Silent(f"nvidia-smi: {problem}") from problem
        unknown = REFUSED.search(done.stdout + done.stderr)
        if unknown and unknown[1] in fields:
            fields.remove(unknown[1])
            continue
        rows = [row for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if row]
        whole = [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]
        if not whole:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise Silent(f"nvidia-smi ended with status {done.returncode}: {said[-1]}")
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


def metrics(gpus: list[dict[str, str]], now: float) -> Iterator[str]:
    """Lines in Prometheus' text format."""
    simulated = any(gpu.get("serial", "").startswith("SIMULATED") for gpu in gpus)
    yield from family("up", "Whether nvidia-smi answered", [("", 1.0)])
    yield from family("read_timestamp_seconds", "When the values were read", [("", now)])
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


def write(path: Path, lines: list[str]) -> None:
    """Put the file in place in one step: the collector never reads half of one."""
    half = path.with_name(f".{path.name}.new")
    half.write_text("\n".join(lines) + "\n", encoding="utf-8")
    half.chmod(0o644)
    half.replace(path)


def main() -> int:
    """Look once, or again and again."""
    options = argparse.ArgumentParser(prog="gpumesh-gpu-metrics")
    options.add_argument("--once", action="store_true")
    options.add_argument("--interval", type=float, default=15.0)
    options.add_argument("file", type=Path)
    given = options.parse_args()
    asked, last = fields(), ""
    while True:
        began = time.monotonic()
        try:
            lines, says = list(metrics(ask(asked), time.time())), ""
        except Silent as problem:
            lines, says = list(family("up", "Whether nvidia-smi answered", [("", 0.0)])), str(problem)
        write(given.file, lines)
        if says != last:
            # Once for each change: the journal is no place for a line every 15 seconds.
            print(says or "nvidia-smi answers again", file=sys.stderr)
            last = says
        if given.once:
            return 1 if says else 0
        time.sleep(max(0.5, given.interval - (time.monotonic() - began)))


if __name__ == "__main__":
    sys.exit(main())
