# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the acceptance suite for tests of its report: whole, failing, on the CPU, half unchecked, interrupted, burn-in.

No machine was measured for any of these. They are labelled SIMULATED or CPU, as the suite itself would label them; `of_no_machine`
is the one without a label, to see how a verdict on hardware looks: its machine says that it does not exist.

``python -m tests.report_runs FOLDER`` writes them all.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.document import moment, to_document
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import Entry, Run, State, entry
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Label, Result, skipped

from tests import report_results as results

PAGE = "report.html"
BEGAN = datetime(2026, 11, 27, 10, 5, tzinfo=UTC).timestamp()

_BUSY = {
    "kernels": 0.3,
    "matmul": 1.0,
    "memory_bandwidth": 0.62,
    "memory_pattern": 0.6,
    "pcie_under_load": 0.2,
    "host_device_bandwidth": 0.22,
    "all_reduce": 0.35,
    "training": 0.9,
    "pytorch": 0.4,
    "jax": 0.4,
    "coexistence": 0.8,
    "llm_inference": 0.7,
    "full_stack": 0.4,
}
"""How much the GPUs have to do in a check."""


def machine(**changes: Any) -> dict[str, Any]:
    """What a run says of its machine."""
    return {
        "name": "demo-box",
        "hostname": "demo-box",
        "system": "Ubuntu 24.04.4 LTS",
        "kernel": "6.8.0-90-generic",
        "virtualisation": "none",
        "bare_metal": True,
        "cpu": "AMD EPYC 9354 32-Core Processor",
        "cores": 32,
        "memory_gib": 251.6,
        "board": "ASUS K14PA-U12",
        "driver": "580.178.04",
        "flavour": "open",
        "cuda": "13.0",
        "gpus": [
            {
                "index": index,
                "model": "rtx5090",
                "name": "NVIDIA GeForce RTX 5090",
                "pci_address": f"0000:{address}:00.0",
                "uuid": f"GPU-{0x41AC08D1 + index * 7919:08x}-5284-5c44-8719-889a7f9c{4912 + index}",
                "serial": f"SIMULATED-0001-{index:02}",
                "vbios": "98.02.2E.00.03",
                "memory_mib": 32607,
                "power_limit_w": 575.0,
            }
            for index, address in enumerate(("01", "21", "41", "61"))
        ],
    } | changes


def entries(
    found: Mapping[str, Result], label: Label, waived: Mapping[str, str] | None = None
) -> tuple[Entry, ...]:
    """One a check, one after the other from `BEGAN`."""
    made, clock = [], BEGAN
    for name in results.names(found):
        why = (waived or {}).get(name, "")
        result = skipped(why) if why else found[name]
        seconds = results.SECONDS.get(name, 0.2)
        if check := results.CHECKS.get(name):
            one = entry(check, result, label=label, waived=why, begin=clock, seconds=seconds)
        else:
            title, group, expects = results.BURN_IN[name]
            one = Entry(name, title, group, title, expects, result, label, why, clock)
        made.append(one)
        clock += seconds
    return tuple(made)


def run(found: Mapping[str, Result], label: Label = Label.SIMULATED, **changes: Any) -> Run:
    """A run of these results."""
    waived = changes.pop("waived", {})
    made = entries(found, label, waived)
    suite = changes.get("suite", "full")
    plain = Run(
        id=f"20261127T100500Z-{suite}",
        suite=suite,
        device="cuda",
        label=label,
        state=State.COMPLETE,
        begin=BEGAN,
        end=BEGAN + sum(one.seconds for one in made),
        machine=machine(),
        versions={
            "gpumesh": "0.5.0",
            "python": "3.12.3",
            "torch": "2.10.0+cu130",
            "jax": "0.10.2",
            "vllm": "0.14.1",
        },
        profile={
            "machine": "demo-box",
            "gpus": {"rtx5090": 4},
            "bare_metal": True,
            "expected": {"branch": "580", "flavour": "open"},
            "targets": {"scaling_efficiency": 0.8, "utilization": 0.9, "tokens_per_s": 10.0},
            "limits": {},
            "waived": dict(waived),
        },
        entries=made,
    )
    return replace(plain, **changes)


def samples(
    load: Callable[[float], float],
    seconds: float,
    *,
    every: float = 2.0,
    hot: int | None = None,
    gap: tuple[float, float] = (math.inf, math.inf),
) -> Iterable[dict[str, Any]]:
    """What sensors might read: warmth follows power, clocks follow warmth, and a hot GPU slows itself down."""
    chance = random.Random(5090)
    warmth = [31.0 + index for index in range(4)]
    for step in range(int(seconds / every)):
        time = step * every
        if gap[0] <= time < gap[1]:
            warmth = [max(30.0, one - every * 0.05) for one in warmth]
            continue
        work = load(time)
        idle = work < 0.05
        for index in range(4):
            wanted = 24 + work * (542 + 4 * math.sin(time / 900 + index)) + chance.gauss(0, 6 * work + 0.4)
            power = min(575.0, wanted)
            room = 24 + 1.5 * math.sin(time / 13000) + 1.8 * index + (17.5 if index == hot else 0)
            warmth[index] += (room + power * 0.085 - warmth[index]) * min(1.0, every / 40)
            celsius = round(warmth[index] + chance.gauss(0, 0.35))
            reasons = ["idle"] if idle else ["sw_thermal"] if celsius >= 86 else []
            if power > 572:
                reasons.append("sw_power_cap")
            clock = 2940 - 1.3 * celsius - (310 if celsius >= 86 else 0) + chance.gauss(0, 9)
            yield {
                "at": round(BEGAN + time + 0.01 * index, 2),
                "gpu": index,
                "temperature_c": celsius,
                "margin_c": 90 - celsius,
                "memory_temperature_c": None,
                "power_w": round(power, 1),
                "sm_mhz": 180 if idle else round(clock / 15) * 15,
                "memory_mhz": 405 if idle else 14001,
                "utilization_percent": round(min(100, work * 100)),
                "memory_used_mib": round(2 + work * 29300),
                "link_gen": 1 if idle else 5,
                "link_width": 16,
                "reasons": reasons,
            }


def busy(made: Sequence[Entry]) -> Callable[[float], float]:
    """How much the GPUs have to do at a time, by the check that runs then."""
    spans = [
        (one.begin - BEGAN, one.begin - BEGAN + one.seconds, _BUSY.get(one.name, 0.0))
        for one in made
        if one.begin is not None
    ]
    return lambda time: next((work for begin, end, work in spans if begin + 1 <= time < end - 1), 0.0)


def write(folder: Path, of: Run, read: Iterable[Mapping[str, Any]] = ()) -> Path:
    """The run's folder, as the suite leaves it."""
    target = folder / of.id
    target.mkdir(parents=True, exist_ok=True)
    (target / "run.json").write_text(json.dumps(to_document(of), indent=1), encoding="utf-8")
    with (target / "samples.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in read)
    return target


def whole(folder: Path) -> Path:
    """Four simulated RTX 5090, all in order; some checks do not apply, one is waived."""
    of = run(results.good(), waived={"tensorflow": "TensorFlow is not used on this machine"})
    return write(folder, of, samples(busy(of.entries), (of.end or 0) - of.begin))


def failing(folder: Path) -> Path:
    """A slow card, a narrow link, an Xid, a hot card, a missed target."""
    of = run(results.bad())
    return write(folder, of, samples(busy(of.entries), (of.end or 0) - of.begin, hot=2))


def on_cpu(folder: Path) -> Path:
    """Suite quick on the CPU of a machine without GPUs."""
    nothing = dict.fromkeys(("board", "driver", "flavour", "cuda"))
    of = run(
        results.cpu(),
        Label.CPU,
        suite="quick",
        device="cpu",
        machine=machine(
            **nothing,
            name="ci-runner",
            hostname="ci-runner",
            system="Debian GNU/Linux 13 (trixie)",
            kernel="6.12.117+deb13-amd64",
            virtualisation="docker",
            bare_metal=False,
            cpu="Intel Xeon Processor",
            cores=2,
            memory_gib=21.5,
            gpus=[],
        ),
        versions={"gpumesh": "0.5.0", "python": "3.13.5", "torch": "2.6.0+debian"},
        profile={"machine": "ci-runner", "gpus": {}, "expected": {}, "limits": {}, "waived": {}},
    )
    return write(folder, of)


def half_unchecked(folder: Path) -> Path:
    """No framework, nothing declared, no root: half of the checks cannot be made."""
    return write(folder, run(results.bare(), versions={"gpumesh": "0.5.0", "python": "3.12.3"}))


def interrupted(folder: Path) -> Path:
    """Ended by Ctrl-C in the training."""
    found = results.good()
    order = results.names(found)
    for name in order[order.index("training") :]:
        found[name] = skipped("the run has not come to this check")
    of = run(found, state=State.INTERRUPTED)
    began = next(one.begin or BEGAN for one in of.entries if one.name == "training")
    made = tuple(
        replace(one, begin=None, seconds=0.0) if (one.begin or 0) >= began else one for one in of.entries
    )
    of = replace(of, entries=made, end=began + 41)
    return write(folder, of, samples(busy(made), began + 41 - BEGAN))


def burned(folder: Path, hours: float = 24.0) -> Path:
    """A burn-in that a restart of the machine interrupted after nine hours."""
    total = hours * 3600
    gap = (total * 0.39, total * 0.39 + 35 * 60)
    why = "the machine was restarted"
    told = {
        "hours": hours,
        "begin": moment(BEGAN),
        "end": moment(BEGAN + total),
        "done_s": total - 35 * 60,
        "interval_s": 5,
        "gaps": [{"begin": moment(BEGAN + gap[0]), "end": moment(BEGAN + gap[1]), "why": why}],
        "stopped": "",
    }
    of = run(results.burn_in(), suite="burn-in", burn_in=told, end=BEGAN + total)
    return write(folder, of, samples(lambda _: 0.97, total, every=5.0, gap=gap))


def of_no_machine(folder: Path, *, good: bool = True) -> Path:
    """How a verdict on hardware looks, on a machine that says that it does not exist."""
    nowhere = machine(name="no-such-machine", hostname="no-such-machine", cpu="none: made for a test")
    nowhere["gpus"] = [gpu | {"serial": "NO SUCH GPU", "uuid": "GPU-0"} for gpu in nowhere["gpus"]]
    found = results.good() if good else results.bad()
    waived = {"tensorflow": "TensorFlow is not used on this machine"} if good else {}
    of = run(found, Label.HARDWARE, machine=nowhere, waived=waived)
    return write(folder, of, samples(busy(of.entries), (of.end or 0) - of.begin))


RUNS: dict[str, Callable[[Path], Path]] = {
    "whole": whole,
    "failing": failing,
    "cpu": on_cpu,
    "half-unchecked": half_unchecked,
    "interrupted": interrupted,
    "burn-in": burned,
}

if __name__ == "__main__":
    for kind, build in RUNS.items():
        print(build(Path(sys.argv[1]) / kind))
