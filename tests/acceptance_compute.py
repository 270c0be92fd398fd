# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workloads that measure GPUs tell of a sound machine with four RTX 5090, and how a test breaks it. Made up: SIMULATED."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample, WorkloadRun

from tests.acceptance_bench import Bench, recorded

RECORDINGS = Path(__file__).parent / "fixtures" / "acceptance" / "workloads"
WORKLOADS = Path(__file__).parents[1] / "roles" / "validation" / "files" / "workloads"
BEGAN = 1_764_240_000.0
PHASE_S = 10.0

FACTS_OF = {
    "rtx5090": {"model": "rtx5090", "pci_id": "2b85", "gen": 5},
    "rtx4090": {"model": "rtx4090", "pci_id": "2684", "gen": 4},
    "h100": {"model": "h100", "pci_id": "2330", "gen": 5},
    "h100-pcie": {"model": "h100", "pci_id": "2331", "gen": 5},
    "a10": {"model": "a10", "pci_id": "2236", "gen": 4},
    "stranger": {"model": None, "pci_id": "ffff", "gen": 5},
}


def facts(*models: str, **link: Any) -> dict[str, Any]:
    """Those of a machine with these cards, four RTX 5090 where none is named; `link` is of every card."""
    cards = models or ("rtx5090",) * 4
    devices = []
    for index, name in enumerate(cards):
        card = FACTS_OF[name]
        generation = card["gen"]
        devices.append(
            {
                "index": index,
                "state": "ok",
                "model": card["model"],
                "pci_id": card["pci_id"],
                "pci_address": f"0000:{index * 32 + 1:02x}:00.0",
                "max_clocks": {"sm_mhz": 3090},
                "link": {"gen_now": 1, "gen_max": generation, "width_now": 16, "width_max": 16, **link},
            }
        )
    return {"devices": devices, "counts": {"pci": len(cards), "driver": len(cards)}}


def bench(
    workload: str, run: WorkloadRun, *models: str, link: Mapping[str, Any] | None = None, **more: Any
) -> Bench:
    """A machine on which a workload told this."""
    return Bench(facts=facts(*models, **(link or {})), workloads={workload: run}, **more)


def line(name: str, value: Any, unit: str = "", gpu: int | None = None, **more: Any) -> dict[str, Any]:
    """A figure of a workload."""
    return {"name": name, "value": value, "unit": unit, "gpu": gpu, **more}


def told(
    figures: Iterable[Mapping[str, Any]], phases: Sequence[str] = (), gpus: int = 4, **reading: Any
) -> WorkloadRun:
    """A run; each GPU had each phase, one after the other, and its sensors were read three times in it."""
    spans, samples = [], []
    for number, name in enumerate(phases):
        begin = BEGAN + number * PHASE_S
        for gpu in range(gpus):
            spans.append({"name": name, "gpu": gpu, "begin": begin, "end": begin + PHASE_S - 1})
            for third in range(3):
                samples.append(
                    Sample(
                        **{
                            "at": begin + 1 + 3 * third,
                            "gpu": gpu,
                            "sm_mhz": 2900.0,
                            "link_gen": 5,
                            "link_width": 16,
                            "utilization_percent": 97.0,
                            **reading,
                        }
                    )
                )
    return WorkloadRun(
        begin={"device": "cuda", "versions": {"torch": "2.13.0+cu130"}},
        figures=list(figures),
        phases=spans,
        samples=samples,
    )


def changed(run: WorkloadRun, name: str, gpu: int | None = None, **values: Any) -> WorkloadRun:
    """The same with other values in the figures of a name (of a GPU)."""
    assert any(one["name"] == name for one in run.figures), name
    return replace(
        run,
        figures=[
            {**one, **values} if one["name"] == name and gpu in (None, one.get("gpu")) else one
            for one in run.figures
        ],
    )


def scaled(run: WorkloadRun, name: str, factor: float, gpu: int | None = None) -> WorkloadRun:
    """The same with the figures of a name (of a GPU) multiplied."""
    return replace(
        run,
        figures=[
            {**one, "value": one["value"] * factor}
            if one["name"] == name and gpu in (None, one.get("gpu"))
            else one
            for one in run.figures
        ],
    )


def without(run: WorkloadRun, name: str, gpu: int | None = None) -> WorkloadRun:
    """The same without the figures of a name (of a GPU)."""
    kept = [one for one in run.figures if not (one["name"] == name and gpu in (None, one.get("gpu")))]
    assert len(kept) < len(run.figures), name
    return replace(run, figures=kept)


def read(run: WorkloadRun, gpu: int, **reading: Any) -> WorkloadRun:
    """The same with other readings of a GPU's sensors."""
    return replace(run, samples=[replace(one, **reading) if one.gpu == gpu else one for one in run.samples])


def crashed(says: str) -> WorkloadRun:
    """A run that ended without a word of its own."""
    return WorkloadRun(begin={}, figures=[], error=says, crashed=True)


def gave_up(says: str) -> WorkloadRun:
    """A run that told why it could not go on."""
    return WorkloadRun(begin={}, figures=[], error=says)


def recording(name: str) -> WorkloadRun:
    """What a real run on a CPU told."""
    return recorded(RECORDINGS / f"{name}-cpu.jsonl")


def each(make: Callable[[int], Iterable[Mapping[str, Any]]], gpus: int = 4) -> list[Mapping[str, Any]]:
    """The figures of each GPU."""
    return [one for gpu in range(gpus) for one in make(gpu)]


# Sound machines.


def kernels(gpus: int = 4) -> WorkloadRun:
    """They compute, and correctly."""

    def of(gpu: int) -> list[dict[str, Any]]:
        errors = {
            "matmul": (5e-7, 1e-5),
            "convolution": (1e-4, 5e-3),
            "reduction": (1e-8, 1e-5),
            "integers": (0.0, 0.0),
        }
        return [
            line("device", "NVIDIA GeForce RTX 5090", gpu=gpu, capability="12.0", sms=170, memory_mib=32120),
            line("launch", True, gpu=gpu),
            *(
                line(name, error, "relative error", gpu, allowed=allowed)
                for name, (error, allowed) in errors.items()
            ),
        ]

    return told([line("architectures", "sm_90 sm_100 sm_120"), *each(of, gpus)], ["kernels"], gpus)


RATES = {"fp32": 83.0, "tf32": 119.0, "fp16": 238.0, "bf16": 238.0, "fp8": 774.0}
"""At 2.9 GHz; 252.3 is the peak in bf16, 1010 in fp8."""


def matmul(gpus: int = 4, **reading: Any) -> WorkloadRun:
    """As fast as they should be."""

    def of(gpu: int) -> list[dict[str, Any]]:
        more = {
            "spread": 0.01,
            "repeats": 400,
            "shape": [8192] * 3,
            "error": 1e-6,
            "allowed": 1e-2,
            "changed": 0,
        }
        device = line("device", "NVIDIA GeForce RTX 5090", gpu=gpu, capability="12.0", sms=170)
        return [device, *(line(name, rate, "TFLOPS", gpu, **more) for name, rate in RATES.items())]

    return told(each(of, gpus), list(RATES), gpus, **reading)


def bandwidth(gpus: int = 4, gb_s: float = 1600.0) -> WorkloadRun:
    """Copy and triad."""
    more = {"spread": 0.01, "repeats": 100, "bytes": 1 << 31, "wrong": 0}
    return told(
        each(lambda gpu: [line(name, gb_s, "GB/s", gpu, **more) for name in ("copy", "triad")], gpus),
        ["copy", "triad"],
        gpus,
    )


def pattern(gpus: int = 4) -> WorkloadRun:
    """Memory that keeps everything."""
    return told(
        each(
            lambda gpu: [
                line("tested", 27.0, "GiB", gpu, share=0.85, passes=4, patterns=["zeros"]),
                line("mismatches", 0, gpu=gpu, places=[]),
            ],
            gpus,
        ),
        ["pattern"],
        gpus,
    )


def link(gpus: int = 4) -> WorkloadRun:
    """Links that are busy."""
    return told(each(lambda gpu: [line("moved", 400.0, "GB", gpu)], gpus), ["link"], gpus)


WAYS = ("host to device", "device to host", "host to device together", "device to host together")


def transfers(gpus: int = 4, gb_s: float = 55.0) -> WorkloadRun:
    """PCIe 5.0 x16."""
    return told(
        each(lambda gpu: [*(line(way, gb_s, "GB/s", gpu) for way in WAYS), line("wrong", 0, gpu=gpu)], gpus),
        WAYS,
        gpus,
    )


def peers(gpus: int = 4, access: bool = False) -> WorkloadRun:
    """No peer access, and whole data."""
    figures = []
    for start in range(gpus):
        for to in set(range(gpus)) - {start}:
            pair = {"from": start, "to": to}
            figures += [
                line("access", access, **pair),
                line("copy", 22.0, "GB/s", **pair),
                line("wrong", 0, **pair),
            ]
    return told(figures)


def collectives(gpus: int = 4, gb_s: float = 35.0) -> WorkloadRun:
    """The one figure that is public of four RTX 5090."""
    mib = 1 << 20
    return told(
        [
            line("backend", "nccl", version="2.27.3"),
            *(line("wrong", 0, gpu=gpu, elements=1 << 24) for gpu in range(gpus)),
            line("all_reduce", 4.0, "GB/s", bytes=mib),
            line("all_reduce", gb_s * 0.9, "GB/s", bytes=64 * mib),
            line("all_reduce", gb_s, "GB/s", bytes=256 * mib),
            line("transport", "SHM"),
        ],
        ["all_reduce"],
        gpus,
    )


def training(
    gpus: int = 4, single: float = 1200.0, concurrent: float = 1180.0, ddp: float = 4300.0
) -> WorkloadRun:
    """Scales as well as four RTX 5090 may."""
    figures = [
        line("model", "ResNet-50", image=224, batch=32, precision="tf32", parameters=25_557_032, classes=10),
        line("gradients", 102_228_128, "bytes"),
        *(line("single", single, "samples/s", gpu) for gpu in range(gpus)),
        line("loss first", 7.2),
        line("loss last", 0.4),
        line("finite", True),
    ]
    if gpus > 1:
        figures += [
            *(line("concurrent", concurrent, "samples/s", gpu) for gpu in range(gpus)),
            line("ddp", ddp, "samples/s"),
            line("weights equal", True, checksums=["aa"] * gpus),
            line("gradient all_reduce", 30.0, "GB/s", bytes=102_228_128),
        ]
    return told(figures, ["single", "concurrent", "ddp"], gpus)
