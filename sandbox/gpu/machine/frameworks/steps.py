# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workloads of the frameworks would say: steps in each of them, inference, and a model trained and served. SIMULATED.

Names and units are those of the workloads themselves, in roles/validation/files/workloads.
"""

from __future__ import annotations

import sys

from .. import performance
from .stage import NO_KERNEL, Stage

_ELEMENTS = 2304
_WRONG = 17
_SHAPES = {"llama-2-7b": 13.476, "tiny": 0.02}
_SHARE_OF_MEMORY_RATE = 0.70


def step(stage: Stage) -> None:
    """torch_step, tensorflow_step and jax_step."""
    options = stage.options(share=0.2, seconds=0.0, wait=False)
    stage.begin(f"{stage.framework}_step")
    stage.steps(len(stage.gpus) + 1)
    stage.figure("devices", len(stage.gpus), names=[gpu.card.name for gpu in stage.gpus])
    sound = True
    for gpu in stage.gpus:
        if not stage.runs(gpu):
            stage.figure("wrong elements", None, gpu=gpu, of=_ELEMENTS, says=NO_KERNEL)
            sound = False
            continue
        with stage.phase("kernel", gpu, seconds=0.2):
            wrong = _WRONG if gpu.broken("wrong") else 0
            stage.figure("wrong elements", wrong, gpu=gpu, of=_ELEMENTS)
    if sound:
        if options.wait:
            stage.progress(0.6, "waits for the others")
            sys.stdin.readline()
        with stage.phase("step", seconds=max(0.5, float(options.seconds))):
            for gpu in stage.gpus:
                stage.figure("step difference", 1.2e-7 * stage.noise(gpu, "step", 0.3), gpu=gpu)
            stage.figure("steps", max(3, round(float(options.seconds) * 40)))
    stage.end()


def llm(stage: Stage) -> None:
    """Inference: bound by how fast the weights are read."""
    options = stage.options(shape="llama-2-7b", model="", prompts=30, tokens=50, split=1, share=0.9)
    used = stage.gpus[: options.split]
    stage.begin("llm", used)
    if not all(stage.runs(gpu) for gpu in used):
        stage.refuse(used[0])
    stage.steps(3)
    weights = _SHAPES.get(options.shape, _SHAPES["llama-2-7b"])
    rate = min(performance.memory_gb_s(gpu) for gpu in used) * len(used) / weights
    one = rate * _SHARE_OF_MEMORY_RATE
    with stage.phase("start", gpus=used, percent=30):
        stage.figure("weights", weights, "GB")
        stage.figure("split", options.split)
        stage.figure("start", 61.2, "s")
    with stage.phase("one stream", gpus=used):
        stage.figure("one stream", one, "tokens/s", spread=0.4)
    with stage.phase("batch", gpus=used):
        stage.figure("batch", one * min(24.0, options.prompts * 0.8), "tokens/s")
    stage.figure("first token, one stream", 1000 / one * 1.4, "ms")
    stage.figure("first token, median", 1000 / one * 5.8, "ms")
    stage.figure("first token, p95", 1000 / one * 7.2, "ms")
    wanted = options.prompts * options.tokens
    stage.figure("tokens", wanted, wanted=wanted)
    stage.figure("not finite", 1 if any(gpu.broken("wrong") for gpu in used) else 0)
    stage.end()


def serve(stage: Stage) -> None:
    """Train, save, load, serve."""
    stage.options()
    first = stage.gpus[0]
    stage.begin("serve", [first])
    if not stage.runs(first):
        stage.refuse(first)
    stage.steps(2)
    with stage.phase("train", first, percent=60):
        stage.figure("loss before", 0.7113, gpu=first)
        stage.figure("loss after", 0.0187, gpu=first)
        stage.figure("accuracy", 0.9922, gpu=first)
    with stage.phase("serve", first, percent=15):
        stage.figure("answers", 64)
        stage.figure("answers that differ", 5 if first.broken("wrong") else 0, gpu=first)
        stage.figure("largest difference", 3.1e-7, gpu=first)
        stage.figure("request", 1.94, "ms")
    stage.end()
