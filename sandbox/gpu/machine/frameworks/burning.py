# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workload of a burn-in would say, a process for each GPU, until it is told to stop. SIMULATED."""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time

from .. import clients, performance
from .stage import Stage

_CHECKED_PER_S = 21_000_000


class _Stopped(Exception):
    """It was asked to end."""


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def burn(stage: Stage) -> None:
    options = stage.options(gpu=0, memory=0.9, every=5.0, seconds=0.0)
    found = [gpu for gpu in stage.seen if gpu.index == options.gpu]
    if not found:
        stage.fail(f"GPU {options.gpu}: there is no such GPU")
    gpu = found[0]
    stage.begin("burn", [gpu])
    if not stage.runs(gpu):
        stage.refuse(gpu)
    share = options.memory
    stage.figure("memory", gpu.memory_mib / 1024 * share, "GiB", gpu=gpu, share=share)
    stage.figure("reference", True, gpu=gpu, precision="bf16", difference=0.0021, allowed=0.02)
    signal.signal(signal.SIGTERM, _stop)
    wrong = 17 if gpu.broken("wrong") else 0
    begun = time.monotonic()
    with contextlib.suppress(_Stopped), clients.working(stage.machine, {gpu.address: 100}):
        stage.progress(0.0, "burning")
        if wrong:
            stage.figure("mismatch", wrong, gpu=gpu, precision="bf16")
        rounds = 0
        while not options.seconds or time.monotonic() - begun < options.seconds:
            if _told_to_stop(options.every):
                break
            rounds += 1
            stage.figure(
                "rate",
                performance.tflops(gpu, "bf16" if "bf16" in gpu.card.rates else "fp16"),
                "TFLOPS",
                gpu=gpu,
                precision="bf16",
                traffic=performance.memory_gb_s(gpu) * 0.9,
                checked=round(_CHECKED_PER_S * (time.monotonic() - begun)),
                mismatches=wrong,
                rounds=rounds,
            )
    stage.end()


def _told_to_stop(seconds: float) -> bool:
    """Wait for a line. The end of the lines without one is the end of whoever started this."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return False
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)
    return line.strip() == "stop"
