# SPDX-License-Identifier: GPL-3.0-or-later
"""How a language model is laid on a machine's GPUs, and how fast it may be expected to answer there.

Pure but for reading the size of a local model. The model of speed: to make one token of one stream, each weight is read from the
GPU's memory once, so

    tokens/s <= memory bandwidth x number of GPUs that share the model / bytes of the weights.

With many prompts at once the weights are read once for all of them, so the bound is for one stream alone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import peaks
from .check import Context, WorkloadRun
from .framework_support import broken
from .limits import NOT_JUDGED, Limits
from .record import CPU
from .verdicts import Figure, Result, Verdict, does_not_apply, failed, passed, skipped, unknown, warned

LLAMA, TINY = "llama-2-7b", "tiny"
LLAMA_GB = 13.477
"""Of weights in 16 bits."""
LLAMA_HEADS = 32
SHARE = 0.9
"""Of a GPU's memory that vLLM may use."""
SPARE_GB = 2.5
"""For the context, CUDA and the graphs of kernels, on each GPU; a proposal."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which model, over how many GPUs."""

    shape: str
    split: int


@dataclass(frozen=True, slots=True)
class Bound:
    """The most tokens a second of one stream, and what it was worked out from."""

    tokens_per_s: float
    source: str


def plan(context: Context) -> Plan | Result:
    """The fewest GPUs that hold the model; or why it is not tried."""
    if context.device == CPU:
        return Plan(TINY, 1)
    size, heads = LLAMA_GB, LLAMA_HEADS
    what = "a model of the shape of Llama 2 7B in 16 bits"
    if context.profile.model_path:
        path = Path(context.profile.model_path)
        what = f"the model {path}"
        read = _local(path)
        if read is None:
            return skipped(
                f"{what} cannot be read: there is no config.json with weights beside it",
                "correct `model_path` in the profile, or leave it empty",
            )
        size, heads = read
    sizes = [int(device["memory_mib"]) for device in _answering(context) if device.get("memory_mib")]
    if len(sizes) < context.workers:
        return skipped(
            "the memory of a GPU cannot be read, so it is not known what fits", "see the check memory"
        )
    memory = min(sizes) * 1.048576e-3
    for split in (1, 2, 4, 8, 16):
        if split <= context.workers and heads % split == 0 and size / split + SPARE_GB <= SHARE * memory:
            return Plan(LLAMA, split)
    return does_not_apply(
        f"{what} has {size:.1f} GB of weights and does not fit into {context.workers} x {memory:.1f} GB; `model_path` in the profile "
        "can name a smaller one"
    )


def _local(path: Path) -> tuple[float, int] | None:
    """GB of weights and number of attention heads of a model in a folder."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        files = list(path.glob("*.safetensors")) or list(path.glob("*.bin"))
        size = sum(file.stat().st_size for file in files)
    except (OSError, ValueError):
        return None
    heads = config.get("num_attention_heads") if isinstance(config, dict) else None
    return (size / 1e9, heads if isinstance(heads, int) and heads > 0 else 1) if size else None


def _answering(context: Context) -> list[Mapping[str, Any]]:
    return [device for device in context.facts.get("devices") or [] if device.get("state") == "ok"]


def bound(context: Context, weights_gb: float, split: int) -> Bound | None:
    """What one stream can reach; None: the bandwidth is not known."""
    measured = context.results.get("memory_bandwidth")
    rates = [
        float(figure.value)
        for figure in (measured.figures if measured else ())
        if figure.unit == "GB/s" and figure.gpu is not None and isinstance(figure.value, (int, float))
    ]
    if rates:
        slowest, source = min(rates), "measured by memory_bandwidth"
    else:
        nominal = [
            peaks.memory_gb_s(str(device.get("model") or ""), str(device.get("pci_id") or ""))
            for device in _answering(context)
        ]
        known = [one for one in nominal if one]
        if not known or len(known) < len(nominal):
            return None
        slowest, says = min(known)
        source = "catalog, unverified" if "unverified" in says else "catalog"
    many = f" x {split} GPUs" if split > 1 else ""
    return Bound(
        slowest * split / weights_gb,
        f"{slowest:.0f} GB/s ({source}){many} / {weights_gb:.1f} GB of weights",
    )


def judge(told: WorkloadRun, way: Plan, context: Context) -> Result:
    """What came of the workload llm."""
    if why := broken(told):
        return failed(
            f"no answer from the model: {why}",
            "read the workload's log in the folder of the run; where memory is short, see what else uses the GPU (nvidia-smi), "
            "and where a compiler is missing, set CC for vLLM's environment",
        )
    names = (
        "weights",
        "one stream",
        "batch",
        "first token, one stream",
        "first token, median",
        "first token, p95",
        "tokens",
    )
    by_name = {name: values[0] for name in names if (values := told.values(name))}
    lacking = [name for name in names if not isinstance(by_name.get(name, {}).get("value"), (int, float))]
    if lacking:
        return unknown(f"vLLM did not say {', '.join(lacking)}", "run the check once more")
    value = {name: float(of["value"]) for name, of in by_name.items()}
    on_gpu = context.device != CPU
    limit = bound(context, value["weights"], way.split) if on_gpu and value["weights"] else None
    least, why_least = Limits(context.profile.limits).get("llm_bandwidth_share")
    target = context.profile.targets.tokens_per_s
    share = value["one stream"] / limit.tokens_per_s if limit else None
    # Written so that what is no number misses.
    on_target = value["one stream"] >= target
    far_below = share is not None and not share >= least
    speed = None
    if on_gpu:
        speed = Verdict.FAIL if far_below else Verdict.PASS if on_target else Verdict.WARN
    figures = [
        *_sizes(told, value, on_gpu),
        *_rates(value, speed, target),
        *_shares(limit, share, least, why_least),
        *_answers(told, value),
    ]
    if problem := _wrong(told, value, by_name["tokens"], figures):
        return problem
    says = (
        f"{value['one stream']:.1f} tokens/s in one stream, {value['batch']:.0f} with all prompts at once; first token after "
        f"{value['first token, median']:.0f} ms (median) and {value['first token, p95']:.0f} ms (p95)"
    )
    if far_below and limit and share is not None:
        return failed(
            f"{says}; that is {share:.0%} of the {limit.tokens_per_s:.0f} tokens/s that the memory bandwidth allows",
            "see throttle_reasons, temperatures and memory_bandwidth, and all_reduce where the model is split over cards",
            *figures,
        )
    if speed is Verdict.WARN:
        possible = (
            f"and the memory bandwidth allows {limit.tokens_per_s:.0f} at most"
            if limit
            else "and what the memory bandwidth would allow is not known"
        )
        return warned(
            f"{says}; the owner's target of {target:g} tokens/s in one stream is missed, {possible}",
            "take a smaller or quantized model, or a GPU with more memory bandwidth",
            *figures,
        )
    return passed(says if on_gpu else f"{says} (speed is not judged on the CPU)", *figures)


def _wrong(
    told: WorkloadRun, value: Mapping[str, float], tokens: Mapping[str, Any], figures: Sequence[Figure]
) -> Result | None:
    """What is wrong with the answers themselves."""
    wanted = tokens.get("wanted")
    if wanted is not None and value["tokens"] != wanted:
        return failed(
            f"{value['tokens']:.0f} of {wanted} tokens were made",
            "read the workload's log in the folder of the run",
            *figures,
        )
    finite = next((of["value"] for of in told.values("not finite")), None)
    if finite is None:
        return unknown("vLLM did not say by what its tokens were chosen", "run the check once more", *figures)
    if finite:
        return failed(
            f"{finite} tokens were chosen by something that is no number",
            "run the checks kernels and memory_pattern; on a card of compute capability below 8.0, see whether the model stands 16 bits",
            *figures,
        )
    return None


def _sizes(told: WorkloadRun, value: Mapping[str, float], on_gpu: bool) -> list[Figure]:
    split = next((of["value"] for of in told.values("split")), None)
    return [Figure("weights", value["weights"], "GB"), Figure("split", split, "GPUs" if on_gpu else "")]


def _rates(value: Mapping[str, float], speed: Verdict | None, target: float) -> list[Figure]:
    """Where `speed` is None, they are shown and not judged."""
    source = NOT_JUDGED if speed is None else ""
    hit = Verdict.PASS if value["one stream"] >= target else Verdict.WARN
    one = Figure("one stream", value["one stream"], "tokens/s", source=source, better="higher")
    if speed is not None:
        one = replace(one, expected=f">= {target:g}", source="the owner's target", verdict=hit)
    return [
        one,
        Figure("batch", value["batch"], "tokens/s", source=source, better="higher"),
        *(
            Figure(name, value[name], "ms", source=source, better="lower")
            for name in ("first token, one stream", "first token, median", "first token, p95")
        ),
    ]


def _shares(limit: Bound | None, share: float | None, least: float, why: str) -> list[Figure]:
    if limit is None or share is None:
        return []
    return [
        Figure(
            "share of what the bandwidth allows",
            round(100 * share, 1),
            "%",
            expected=f">= {100 * least:g}",
            source=f"{why}; at most {limit.tokens_per_s:.0f} tokens/s: {limit.source}",
            verdict=_good(share >= least),
            better="higher",
        )
    ]


def _answers(told: WorkloadRun, value: Mapping[str, float]) -> list[Figure]:
    wanted = told.values("tokens")[0].get("wanted", value["tokens"])
    bad = next((of["value"] for of in told.values("not finite")), None)
    return [
        Figure(
            "tokens", int(value["tokens"]), expected=f"{wanted:g}", verdict=_good(value["tokens"] == wanted)
        ),
        Figure("not finite", bad, expected="0", verdict=None if bad is None else _good(not bad)),
    ]


def _good(good: bool) -> Verdict:
    return Verdict.PASS if good else Verdict.FAIL
