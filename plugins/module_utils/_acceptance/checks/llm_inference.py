# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast does the machine answer with a large language model?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..check import DEMO, FULL, VLLM, Check, Context, Group
from ..framework_support import unavailable
from ..llm_speed import judge, plan
from ..verdicts import Result

PROMPTS = 30
TOKENS = 50
SECONDS = 1800.0
"""Loading a model from a slow disk, and compiling for the card, each take minutes."""


def run(context: Context) -> Result:
    """Run the workload llm."""
    if (why := unavailable(context, VLLM)) is not None:
        return why
    way = plan(context)
    if isinstance(way, Result):
        return way
    what = ("--model", context.profile.model_path) if context.profile.model_path else ("--shape", way.shape)
    told = context.workload(
        "llm",
        VLLM,
        *what,
        "--prompts",
        str(PROMPTS),
        "--tokens",
        str(TOKENS),
        "--split",
        str(way.split),
        seconds=SECONDS,
    )
    return judge(told, way, context)


CHECK = Check(
    name="llm_inference",
    title="LLM inference",
    group=Group.FRAMEWORKS,
    about="vLLM answers 30 prompts with 50 tokens each, one prompt at a time and all at once, with a model of the shape of Llama 2 7B "
    "with random weights, or with the one that the profile names.",
    expects="The owner's target for one stream (WARN below), and a quarter of what the memory bandwidth allows (FAIL below; a "
    "proposal): each token reads all weights once, so tokens/s is at most bandwidth / bytes of the weights.",
    fails="Far below the bound, the model is not where it should be (memory of the host, a throttled card, a link in between when it "
    "is split over cards): see throttle_reasons, memory_bandwidth and all_reduce. Below the target only, the hardware is too small for "
    "the wish: take a smaller or quantized model.",
    run=run,
    suites=(FULL, DEMO),
    seconds=180,
)
