# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workloads that measure would say: kernels, matrix multiplication, memory, transfers, collectives, training. SIMULATED.

Names and units are those of the workloads themselves, in roles/validation/files/workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

from .. import performance
from ..gpu import Gpu
from .stage import NO_KERNEL, Stage

_MIB = 1 << 20
_GRADIENTS = 102_228_128
_ERRORS = {"matmul": 4.1e-7, "convolution": 3.2e-7, "reduction": 1.6e-7, "integers": 0.0}
_ALLOWED = {"matmul": 1e-4, "convolution": 1e-4, "reduction": 1e-4, "integers": 0.0}
_PRECISIONS = {"fp32": 3e-6, "tf32": 1.1e-3, "fp16": 1.0e-3, "bf16": 7.8e-3, "fp8": 6.2e-2}
"""With the error of each; ten times that is allowed."""
_WRONG = 0.37
_BUSY = 97
"""Of a GPU that trains, in percent."""
_TRAINS_S = 8.0
"""How long all of them train: by what the sensors read meanwhile their utilization is judged."""
_COPIES = ("host to device", "device to host")
_REPEATS: dict[str, Any] = {"repeats": 9}


def _device(stage: Stage, gpu: Gpu) -> None:
    card = gpu.card
    stage.figure(
        "device",
        card.name,
        gpu=gpu,
        capability=card.compute_capability,
        sms=card.multiprocessors,
        memory_mib=gpu.memory_mib,
    )


def _refuse(stage: Stage) -> None:
    """End where a chip has no kernels: everything but `kernels` fails at its first operation."""
    for gpu in stage.gpus:
        if not stage.runs(gpu):
            stage.refuse(gpu)


def kernels(stage: Stage) -> None:
    stage.options()
    stage.begin("kernels")
    stage.steps(len(stage.gpus))
    stage.figure("architectures", stage.architectures)
    for gpu in stage.gpus:
        _device(stage, gpu)
        if not stage.runs(gpu):
            stage.figure("launch", False, gpu=gpu, says=NO_KERNEL)
            continue
        with stage.phase("kernels", gpu, seconds=0.2):
            stage.figure("launch", True, gpu=gpu)
            for name, error in _ERRORS.items():
                wrong = gpu.broken("wrong") and name == "matmul"
                value = _WRONG if wrong else error * stage.noise(gpu, name, 0.2)
                stage.figure(name, value, "relative error", gpu=gpu, allowed=_ALLOWED[name])
    stage.end()


def matmul(stage: Stage) -> None:
    stage.options()
    stage.begin("matmul")
    _refuse(stage)
    stage.steps(len(_PRECISIONS))
    for gpu in stage.gpus:
        _device(stage, gpu)
    for precision, error in _PRECISIONS.items():
        able = [gpu for gpu in stage.gpus if precision in gpu.card.rates]
        if able:
            with stage.all_at_once(precision, able):
                for gpu in able:
                    stage.figure(
                        precision,
                        performance.tflops(gpu, precision),
                        "TFLOPS",
                        gpu=gpu,
                        spread=0.004,
                        shape=[8192, 8192, 8192],
                        error=error,
                        allowed=10 * error,
                        **_REPEATS,
                    )
        for gpu in stage.gpus:
            if gpu not in able:
                why = f"{gpu.card.name} has no units for {precision}"
                stage.figure(precision, None, "TFLOPS", gpu=gpu, why=why)
    stage.end()


def memory(stage: Stage) -> None:
    options = stage.options(part="bandwidth")
    stage.begin("memory")
    _refuse(stage)
    for gpu in stage.gpus:
        _device(stage, gpu)
    if options.part == "bandwidth":
        stage.steps(2)
        for name, share in (("copy", 1.0), ("triad", 0.985)):
            with stage.all_at_once(name, stage.gpus):
                for gpu in stage.gpus:
                    stage.figure(
                        name,
                        performance.memory_gb_s(gpu) * share,
                        "GB/s",
                        gpu=gpu,
                        spread=0.003,
                        bytes=1 << 30,
                        wrong=0,
                        **_REPEATS,
                    )
    else:
        stage.steps(1)
        with stage.all_at_once("pattern", stage.gpus):
            for gpu in stage.gpus:
                _pattern(stage, gpu)
    stage.end()


def _pattern(stage: Stage, gpu: Gpu) -> None:
    patterns = ["zeros and ones", "address", "random"]
    tested = gpu.memory_mib / 1024 * 0.9
    stage.figure("tested", tested, "GiB", gpu=gpu, share=0.9, passes=1, patterns=patterns)
    place = {
        "pattern": "random",
        "offset": "0x1f400040",
        "address": "0x7f2a1f400040",
        "wrote": "0x5bd1e995",
        "read": "0x5bd1e9b5",
        "bits": 1,
    }
    wrong = gpu.broken("wrong")
    stage.figure("mismatches", 1 if wrong else 0, gpu=gpu, places=[place] if wrong else [])


def transfers(stage: Stage) -> None:
    options = stage.options(part="rates", addresses="")
    stage.begin("transfers")
    _refuse(stage)
    if options.part == "link":
        stage.steps(1)
        with stage.all_at_once("link", stage.gpus):
            for gpu in stage.gpus:
                stage.figure("moved", performance.link_gb_s(gpu, "link") * 3, "GB", gpu=gpu)
    else:
        stage.steps(4)
        for together in (False, True):
            for direction in _COPIES:
                name = f"{direction} together" if together else direction
                with stage.all_at_once(name, stage.gpus, percent=35):
                    for gpu in stage.gpus:
                        rate = performance.link_gb_s(gpu, direction, together=together)
                        stage.figure(name, rate, "GB/s", gpu=gpu, spread=0.006, bytes=1 << 28, **_REPEATS)
        for gpu in stage.gpus:
            stage.figure("wrong", 0, gpu=gpu)
    stage.end()


def peers(stage: Stage) -> None:
    stage.options()
    stage.begin("peers")
    _refuse(stage)
    stage.steps(1)
    with stage.phase("copy", percent=30, seconds=0.5):
        for one, other in permutations(stage.gpus, 2):
            ends: dict[str, Any] = {"from": one.index, "to": other.index}
            reach = one.card.peers in ("OK", "NV12") and one.card is other.card
            stage.figure("access", reach, **ends)
            rate = min(performance.link_gb_s(one, "peer"), performance.link_gb_s(other, "peer")) * 0.6
            stage.figure("copy", rate, "GB/s", spread=0.01, bytes=1 << 28, **ends)
            stage.figure("wrong", 0, **ends)
    stage.end()


def collectives(stage: Stage) -> None:
    options = stage.options()
    stage.begin("collectives")
    _refuse(stage)
    stage.steps(1)
    linked = stage.gpus[0].card.peers == "NV12"
    stage.figure("backend", "nccl", version="2.28.9")
    stage.figure("transport", "P2P" if linked else "SHM")
    best, count = performance.bus_gb_s(stage.gpus), len(stage.gpus)
    with stage.phase("all_reduce", percent=60, seconds=0.6):
        for power in range(9 if options.size == "small" else 11):
            size = _MIB << power
            # Each message costs some time before its first byte.
            rate = best * size / (size + 3.5 * _MIB)
            algorithm = rate * count / (2 * (count - 1)) if count > 1 else rate
            stage.figure(
                "all_reduce",
                best if power >= 8 else rate,
                "GB/s",
                bytes=size,
                algorithm_gb_s=algorithm,
                seconds=size / algorithm / 1e9,
                spread=0.02,
                repeats=20,
            )
    for gpu in stage.gpus:
        stage.figure("wrong", 0, gpu=gpu, elements=64 * _MIB)
    stage.end()


def training(stage: Stage) -> None:
    options = stage.options(batch=32)
    stage.begin("training")
    _refuse(stage)
    gpus, count = stage.gpus, len(stage.gpus)
    timed: dict[str, Any] = {"spread": 0.01, "repeats": 3, "steps": 50}
    stage.steps(3 if count > 1 else 1)
    half = "bf16" if "bf16" in gpus[0].card.rates else "fp16"
    stage.figure(
        "model",
        "ResNet-50",
        image=224,
        batch=options.batch,
        precision=half,
        parameters=25_557_032,
        classes=1000,
    )
    stage.figure("gradients", _GRADIENTS, "bytes")
    with stage.all_at_once("single", gpus, percent=_BUSY, seconds=None if count > 1 else _TRAINS_S):
        alone = {gpu.index: performance.images_per_s(gpu) for gpu in gpus}
    for gpu in gpus:
        stage.figure("single", alone[gpu.index], "samples/s", gpu=gpu, **timed)
    if count > 1:
        _together(stage, gpus, alone, options.batch, timed)
    stage.figure("loss first", 7.02)
    stage.figure("loss last", 5.87)
    stage.figure("finite", True)
    if count > 1:
        stage.figure("weights equal", True, checksums=["5be1c1a7d0f3"] * count)
    stage.end()


def _together(
    stage: Stage, gpus: Sequence[Gpu], alone: dict[int, float], batch: int, timed: dict[str, Any]
) -> None:
    """All at once, each for itself; then all as one. A step is as long as that of the slowest, and what of the exchange is not hidden."""
    with stage.all_at_once("concurrent", gpus, percent=_BUSY):
        for gpu in gpus:
            stage.figure("concurrent", alone[gpu.index] * 0.985, "samples/s", gpu=gpu, **timed)
    bus, count = performance.bus_gb_s(list(gpus)), len(gpus)
    exchange = _GRADIENTS * 2 * (count - 1) / count / (bus * 0.86) / 1e9
    compute = batch / (min(alone.values()) * 0.985)
    seconds = compute + max(exchange * 0.5, exchange - compute * 0.6)
    with stage.all_at_once("ddp", gpus, percent=_BUSY, seconds=_TRAINS_S):
        stage.figure("ddp", count * batch / seconds, "samples/s", seconds=seconds, **timed)
    stage.figure("gradient all_reduce", bus * 0.86, "GB/s", bytes=_GRADIENTS, seconds=exchange)


ANSWERS: dict[str, Callable[[Stage], None]] = {
    "kernels": kernels,
    "matmul": matmul,
    "memory": memory,
    "transfers": transfers,
    "peers": peers,
    "collectives": collectives,
    "training": training,
}
