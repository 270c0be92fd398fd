# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the tools are there, and that the exporters tell of every GPU, now. Changes nothing.

usage: python3 - '{"tools": [...], "units": [...], "listen": "ADDRESS:PORT", "node": URL, "smi": true, "dcgm": URL, "gpus": 4, "interval": 15}' < gate.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROGRAMS = {"htop": "htop", "iotop-c": "iotop-c", "nvtop": "nvtop"}
# What the role writes of each exporter, and what that reads only when it starts.
FILES = {
    "prometheus-node-exporter.service": (
        "/etc/gpumesh/node-exporter.env",
        "/etc/systemd/system/prometheus-node-exporter.service.d/gpumesh.conf",
    ),
    "gpumesh-gpu-metrics.service": (
        "/etc/systemd/system/gpumesh-gpu-metrics.service",
        "/usr/local/libexec/gpumesh-gpu-metrics",
    ),
    "nvidia-dcgm-exporter.service": ("/etc/systemd/system/nvidia-dcgm-exporter.service.d/gpumesh.conf",),
}
checks: list[dict[str, Any]] = []


def check(name: str, ok: bool, says: str) -> bool:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})
    return bool(ok)


def fetched(url: str, seconds: float, wanted: str) -> tuple[str, str]:
    """What an exporter tells, and what is wrong. It is given some time: an exporter that was started just now may need it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            # No proxy: the address is the machine's own.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=10) as answer:
                text, wrong = answer.read().decode("utf-8", "replace"), ""
        except (OSError, urllib.error.URLError) as problem:
            text, wrong = "", str(getattr(problem, "reason", problem))
        if (text and re.search(wanted, text, re.MULTILINE)) or time.monotonic() > deadline:
            return text, wrong
        time.sleep(1)


def value(text: str, name: str) -> float | None:
    """A metric without labels."""
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def node(wanted: dict[str, Any]) -> None:
    """The node exporter, and through it the GPUs."""
    smi = wanted["smi"]
    pattern = r"^nvidia_smi_up 1$" if smi else r"^node_uname_info"
    text, wrong = fetched(wanted["node"], 30 + (wanted["interval"] if smi else 0), pattern)
    journal = "see 'journalctl -u prometheus-node-exporter'"
    check(
        "node exporter", "node_uname_info" in text, f"{wanted['node']} does not answer ({wrong}); {journal}"
    )
    if not smi:
        return
    up = value(text, "nvidia_smi_up")
    check(
        "GPU values",
        up == 1,
        "nvidia-smi does not answer the exporter"
        if up == 0
        else "the node exporter has none; see 'journalctl -u gpumesh-gpu-metrics'",
    )
    told = len(set(re.findall(r'^nvidia_smi_temperature_gpu\{.*?uuid="([^"]+)"', text, re.MULTILINE)))
    check(
        "every GPU",
        told == wanted["gpus"],
        f"the PCI bus has {wanted['gpus']}, and there are temperatures of {told}; run '--tags nvidia,gate' for what is wrong with the others",
    )
    age = time.time() - (value(text, "nvidia_smi_read_timestamp_seconds") or 0)
    check(
        "fresh values",
        age < 4 * wanted["interval"] + 60,
        f"they are {age:.0f} seconds old; 'systemctl restart gpumesh-gpu-metrics'",
    )


def shown(unit: str) -> dict[str, str]:
    """What systemd says of a unit."""
    asked = "--property=ActiveState,UnitFileState,NeedDaemonReload,MainPID,ExecMainStartTimestampMonotonic"
    done = subprocess.run(["systemctl", "show", asked, unit], check=False, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def outlived(unit: str, state: dict[str, str]) -> bool:
    """Whether a file of a unit was written after the unit's process had started."""
    # By the clock that nobody sets: the time of day at the start may have been a wrong one.
    start = int(state.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    if not start:
        return False
    now, age = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC) - start
    for path in FILES.get(unit, ()):
        try:
            written = os.stat(path).st_mtime
        except OSError:
            continue
        # One from the future was written by a wrong clock, and would be newer than every restart.
        if now - age < written <= now:
            return True
    return False


def stale(unit: str, state: dict[str, str], wanted: dict[str, Any]) -> bool:
    """Whether a unit runs with settings that are not those of its files any more."""
    if state.get("NeedDaemonReload") == "yes":
        return True
    if state.get("MainPID", "0") == "0":
        return False
    if outlived(unit, state):
        return True
    if unit != "prometheus-node-exporter.service":
        return False
    try:
        words = (
            Path(f"/proc/{state['MainPID']}/cmdline")
            .read_text(encoding="utf-8", errors="replace")
            .split("\0")
        )
    except OSError:
        return False
    return f"--web.listen-address={wanted['listen']}" not in words


def main() -> None:
    """Print every check; with ``stale`` only the units that want a restart."""
    wanted = json.loads(sys.argv[1])
    # What comes out of a template is a text before ansible-core 2.19.
    wanted.update({name: int(wanted[name]) for name in ("gpus", "interval")})
    if "stale" in sys.argv[2:]:
        print(json.dumps([unit for unit in wanted["units"] if stale(unit, shown(unit), wanted)]))
        return
    for package in wanted["tools"]:
        program = PROGRAMS[package]
        there = shutil.which(program, path="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
        check(program, there is not None, f"it is not installed; 'apt-get install {package}'")
    for unit in wanted["units"]:
        state = shown(unit)
        check(
            unit,
            state.get("ActiveState") == "active" and state.get("UnitFileState") == "enabled",
            f"it is {state.get('ActiveState', 'unknown')} and {state.get('UnitFileState') or 'not installed'}; see 'journalctl -u {unit}'",
        )
        check(
            f"{unit}, settings",
            not stale(unit, state, wanted),
            f"it runs with other settings; 'systemctl restart {unit}'",
        )
    if wanted["node"]:
        node(wanted)
    if wanted["dcgm"]:
        text, wrong = fetched(wanted["dcgm"], 60, r"^DCGM_FI_DEV_GPU_TEMP")
        told = len(set(re.findall(r'^DCGM_FI_DEV_GPU_TEMP\{.*?UUID="([^"]+)"', text, re.MULTILINE)))
        check(
            "DCGM exporter",
            told == wanted["gpus"],
            f"the PCI bus has {wanted['gpus']} GPUs, and it tells of {told} {f'({wrong})' if wrong else ''}; see /var/dcgm-exporter.log",
        )
    print(json.dumps({"checks": checks}))


if __name__ == "__main__":
    main()
