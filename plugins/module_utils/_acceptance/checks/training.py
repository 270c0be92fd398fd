# SPDX-License-Identifier: GPL-3.0-or-later
"""How much faster all GPUs together train ResNet-50 than one, and what is lost where.

A missed target is a WARN, for it is a wish of the owner's; the sentence says what these cards can reach. A FAIL is what the cost
model cannot explain: a defect.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import compute
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..limits import Limits, siblings
from ..scaling import Scaling, split
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned

_SECONDS = 420.0
_AVERAGED_S = 1.0
"""nvidia-smi tells the utilization of up to a second before: at the edges of a phase that is of something else."""
_LOG = "see the workload's log in the folder of this run"
_BELOW = (
    "see the checks all_reduce, pcie_under_load, host_device_bandwidth and throttle_reasons; look for another load on the GPUs or the "
    "CPU, and for CPU threads that are bound to few cores (OMP_NUM_THREADS, cgroups)"
)
_CONTENTION = (
    "all GPUs at once are slower than each alone: look at power limit and power supply, temperatures (see the curves), and whether the "
    "CPU keeps up (governor, cores for each GPU)"
)
_TARGET = (
    "nothing is broken: larger batches, accumulated gradients or half-precision gradients let these cards scale better, or set "
    "targets.scaling_efficiency to what they can reach"
)
_WRONG = "reboot and run it again; run the checks kernels, memory_pattern and all_reduce; a card that fails alone must be replaced"
_SLOW_SIBLING = "see what the check matmul says of that GPU, its temperature, its power limit and its slot"


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "training", seconds=_SECONDS)
    return compute.trouble(done, "training") or judge(ctx, done)


def _value(done: WorkloadRun, name: str) -> Any:
    return next((line["value"] for line in done.values(name)), None)


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """What is learnt first; then the rates."""
    figures = _shown(ctx, done)
    data: dict[str, Any] = {"unit": "samples/s", "utilization": _utilization(ctx, done)}
    if problem := _learning(ctx, done):
        return failed(problem, _WRONG, *figures, **data)
    single = compute.rates(done.values("single"))
    told = [_value(done, name) for name in ("loss first", "loss last", "finite")]
    if set(single) != set(range(ctx.workers)) or None in told:
        return unknown("the training did not tell all it should", _LOG, *figures, **data)
    if ctx.workers < 2:
        gpu = 0
        says = f"{compute.who(ctx, gpu)} trains {single[gpu]:.4g} samples/s, and learns; there is no second one to scale to"
        return passed(says, *figures, **data)
    model = next(iter(done.values("model")), {})
    parts = split(
        single,
        compute.rates(done.values("concurrent")),
        compute.number(_value(done, "ddp")) or 0.0,
        batch=int(model.get("batch") or 0),
        gradient_bytes=compute.number(_value(done, "gradients")) or 0.0,
        bus_gb_s=compute.number(_value(done, "gradient all_reduce")) or 0.0,
    )
    if parts is None or _value(done, "weights equal") is None:
        return unknown("the training did not tell all it should", _LOG, *figures, **data)
    data["scaling"] = [
        {
            "workers": ctx.workers,
            "alone": parts.alone / ctx.workers,
            "apart": sum(compute.rates(done.values("concurrent")).values()),
            "together": parts.together,
            "predicted": parts.least,
        }
    ]
    data["loss"] = {
        "efficiency": parts.efficiency,
        "balance": parts.balance,
        "contention": parts.contention,
        "communication": parts.communication,
        "reachable": [parts.least_efficiency, min(1.0, parts.most_efficiency)],
        "target": ctx.profile.targets.scaling_efficiency,
    }
    if ctx.device == compute.CPU:
        figures += _parts(ctx, parts, {})
        return passed(
            f"{ctx.workers} processes train one {model.get('value')} ({model.get('image')} pixels, batch {model.get('batch')}), learn, and "
            "end with equal weights; rates of a CPU are not judged",
            *figures,
            **data,
        )
    return _of_rates(ctx, parts, single, figures, data)


def _learning(ctx: Context, done: WorkloadRun) -> str:
    """What is wrong with what was learnt; empty: nothing, or it was not told."""
    if _value(done, "finite") is False:
        return "the training ended in weights or losses that are no numbers"
    first, last = (compute.number(_value(done, name)) for name in ("loss first", "loss last"))
    if first is not None and last is not None and not last < first:
        return f"nothing was learnt: the loss went from {first:.3g} to {last:.3g} on data that can be learnt"
    if _value(done, "weights equal") is False:
        line = next(iter(done.values("weights equal")))
        sums = list(line.get("checksums") or [])
        usual = max(sums, key=sums.count, default="")
        odd = [compute.who(ctx, gpu) for gpu, one in enumerate(sums) if one != usual]
        named = f" (not those of the others: {', '.join(odd)})" if odd and len(sums) > 2 else ""
        return f"the GPUs do not end with equal weights{named}"
    return ""


def _shown(ctx: Context, done: WorkloadRun) -> list[Figure]:
    """What was trained, and whether it was learnt."""
    figures: list[Figure] = []
    for line in done.values("model"):
        what = f"{line['value']}, {line.get('image')} pixels, batch {line.get('batch')} each, {line.get('precision')}"
        figures.append(Figure("model", what, source="synthetic data"))
    for line in done.values("gradients"):
        count = compute.number(line["value"])
        figures.append(Figure("gradients a step", None if count is None else round(count / 1e6, 1), "MB"))
    first, last = (compute.number(_value(done, name)) for name in ("loss first", "loss last"))
    if first is not None and last is not None:
        good = Verdict.PASS if last < first else Verdict.FAIL
        figures.append(
            Figure(
                "loss at the end",
                float(f"{last:.4g}"),
                "",
                None,
                f"< {first:.4g}",
                "the loss at the start",
                good,
                "lower",
            )
        )
    for name in ("finite", "weights equal"):
        value = _value(done, name)
        if isinstance(value, bool):
            figures.append(Figure(name, value, "", None, "True", "", Verdict.PASS if value else Verdict.FAIL))
    for name, title in (("single", "alone"), ("concurrent", "all at once, each for itself")):
        figures += [compute.figure(ctx, title, line) for line in done.values(name)]
    figures += [compute.figure(ctx, "all together", line) for line in done.values("ddp")]
    figures += [
        compute.figure(ctx, "all-reduce of the gradients", line)
        for line in done.values("gradient all_reduce")
    ]
    return figures


def _parts(ctx: Context, parts: Scaling, judged: Mapping[str, tuple[str, str, Verdict]]) -> list[Figure]:
    shares = {
        "efficiency": parts.efficiency,
        "balance": parts.balance,
        "contention": parts.contention,
        "communication": parts.communication,
    }
    shown = []
    for name, share in shares.items():
        expected, source, verdict = judged.get(name, ("", "", None))
        line = {"value": round(100 * share, 1), "unit": "%"}
        shown.append(compute.figure(ctx, name, line, expected=expected, source=source, verdict=verdict))
    return shown


def _of_rates(
    ctx: Context, parts: Scaling, single: Mapping[int, float], figures: list[Figure], data: Mapping[str, Any]
) -> Result:
    limits = Limits(ctx.profile.limits)
    target = ctx.profile.targets.scaling_efficiency
    least_share, least_source = limits.get("training_fail_share")
    calm, calm_source = limits.get("contention_warn_share")
    least = least_share * parts.least
    reached, wanted = f"{parts.efficiency:.0%}", f"{target:.0%}"
    reachable = f"{parts.least_efficiency:.0%} to {min(1.0, parts.most_efficiency):.0%}"
    as_predicted = parts.together >= least
    hit, quiet = parts.efficiency >= target, parts.contention >= calm
    figures += _parts(
        ctx,
        parts,
        {
            "efficiency": (f">= {wanted}", "the owner's target", Verdict.PASS if hit else Verdict.WARN),
            "contention": (f">= {calm:.0%}", calm_source, Verdict.PASS if quiet else Verdict.WARN),
        },
    )
    model_source = "cost model: gradients x 2 (n - 1) / n / bus bandwidth, without overlap; " + least_source
    figures.append(
        Figure(
            "rate against the cost model", round(100 * parts.together / parts.least, 1), "%", None, f">= {least_share:.0%}",
            model_source, Verdict.PASS if as_predicted else Verdict.FAIL, "higher",
        )
    )  # fmt: skip
    figures.append(
        Figure(
            "reachable efficiency", reachable, "", None, "", "cost model, without and with complete overlap"
        )
    )
    lost = f"balance {parts.balance:.0%}, contention {parts.contention:.0%}, communication {parts.communication:.0%}"
    says = f"{ctx.workers} GPUs train {parts.together:.4g} samples/s, {reached} of what each reaches alone ({lost})"
    if not as_predicted:
        return failed(
            f"{says}; by the cost model it should be {parts.least:.4g} samples/s or more: a defect, no missed target",
            _BELOW,
            *figures,
            **data,
        )
    problems, advice = [], []
    if not quiet:
        problems.append(f"the GPUs disturb each other, {parts.contention:.0%} is left")
        advice.append(_CONTENTION)
    slow = {
        gpu: share
        for gpu, share in siblings(single, compute.models(ctx)).items()
        if limits.share("sibling", share)[0] is not Verdict.PASS
    }
    if slow:
        problems.append(
            "slower than its siblings: "
            + ", ".join(f"GPU {gpu} ({share:.0%})" for gpu, share in slow.items())
        )
        advice.append(_SLOW_SIBLING)
    if not hit:
        problems.append(f"the owner's target is {wanted}; these cards can reach {reachable} by the cost model, so it is a missed target "
                        "and no defect")  # fmt: skip
        advice.append(_TARGET if quiet and not slow else "then look at the target again")
    if problems:
        return warned(f"{says}; {'; '.join(problems)}", "; ".join(advice), *figures, **data)
    return passed(f"{says}; the owner's target is {wanted}", *figures, **data)


def _utilization(ctx: Context, done: WorkloadRun) -> list[dict[str, Any]]:
    """How busy each GPU was while all trained together; the check utilization judges it."""
    found = []
    for gpu in range(ctx.workers if ctx.device != compute.CPU else 0):
        # With a single GPU there is no phase of all together.
        samples = done.during("ddp" if ctx.workers > 1 else "single", gpu, margin=_AVERAGED_S)
        read = [one.utilization_percent for one in samples if one.utilization_percent is not None]
        found.append({"gpu": gpu, "percent": compute.mean(read), "readings": len(read)})
    return found


CHECK = Check(
    name="training",
    title="Data-parallel training",
    group=Group.INTERCONNECT,
    about="ResNet-50 on synthetic data, 32 pictures a GPU: each GPU alone, all at once for themselves, all together on one model; what "
    "is lost is split into balance, contention and communication.",
    expects="A falling loss and equal weights; not less than the cost model predicts from the measured all-reduce; the owner's target "
    "of efficiency.",
    fails="Below the cost model: something besides the link holds the training up. Missed target: cards without NVLink and peer access "
    "may not reach it, which is no defect. Unequal weights or no learning: wrong results, see kernels and memory_pattern.",
    run=_run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.PYTORCH,),
    seconds=70,
)
