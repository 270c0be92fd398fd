# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast each GPU reads and writes its own memory.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import compute, peaks
from ..check import FULL, Check, Context, Group, Need, WorkloadRun
from ..limits import Limits, siblings
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned, worst

_KERNELS = ("copy", "triad")
_SECONDS = 180.0
_SLOW = (
    "see that ECC is as declared and that nothing else uses the GPUs, look at the memory's clock and temperature, and compare with "
    "the card in another slot; have one that stays slow replaced"
)


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "memory", "--part", "bandwidth", seconds=_SECONDS)
    return compute.trouble(done, "the memory's bandwidth") or judge(ctx, done)


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Against the nominal bandwidth of the model, and against the siblings."""
    limits, models, cards = Limits(ctx.profile.limits), compute.models(ctx), compute.pci_ids(ctx)
    figures: list[Figure] = []
    wrong: list[str] = []
    slow: dict[Verdict, list[str]] = {Verdict.FAIL: [], Verdict.WARN: []}
    judged: set[int] = set()
    for name in _KERNELS:
        lines = done.values(name)
        rates = compute.rates(lines)
        beside = siblings(rates, models) if ctx.device != compute.CPU else {}
        for line in lines:
            gpu = int(line["gpu"])
            if line.get("wrong"):
                wrong.append(f"{compute.who(ctx, gpu)} holds {line['wrong']} wrong elements after {name}")
            peak = None
            if ctx.device != compute.CPU:
                peak = peaks.memory_gb_s(models.get(gpu, ""), cards.get(gpu, ""))
            if peak is None or gpu not in rates:
                figures.append(compute.figure(ctx, name, line))
            else:
                judged.add(gpu)
                share = rates[gpu] / peak[0]
                verdict, wanted, source = limits.share("memory_bandwidth", share)
                if verdict in slow:
                    slow[verdict].append(f"GPU {gpu} reaches {share:.0%} of its memory's bandwidth in {name}")
                expected = f">= {wanted * peak[0]:.4g} ({wanted:.0%} of {peak[0]:.4g})"
                figures.append(
                    compute.figure(
                        ctx, name, line, expected=expected, source=f"{peak[1]}; {source}", verdict=verdict
                    )
                )
        for gpu, share in beside.items():
            verdict, wanted, source = limits.share("sibling", share)
            judged.add(gpu)
            if verdict in slow:
                slow[verdict].append(f"GPU {gpu} reaches {share:.0%} of what its siblings do in {name}")
            title = f"{name}, share of the siblings"
            figures.append(
                Figure(title, round(100 * share, 1), "%", gpu, f">= {wanted:.0%}", source, verdict, "higher")
            )
    if wrong:
        return failed(
            compute.listed(wrong),
            "run the check memory_pattern; a card that loses data must be replaced",
            *figures,
        )
    told = set.intersection(*(set(compute.rates(done.values(name))) for name in _KERNELS))
    if missing := [compute.who(ctx, gpu) for gpu in range(ctx.workers) if gpu not in told]:
        return unknown(
            f"no bandwidth was told of {', '.join(missing)}",
            "see the workload's log in the folder of this run",
            *figures,
        )
    if ctx.device == compute.CPU:
        return passed("copies and sums in memory are right; rates of a CPU are not judged", *figures)
    verdict = worst(one for one, said in slow.items() if said)
    if verdict is Verdict.FAIL:
        return failed(compute.listed(slow[Verdict.FAIL] + slow[Verdict.WARN]), _SLOW, *figures)
    if verdict is Verdict.WARN:
        return warned(compute.listed(slow[Verdict.WARN]), _SLOW, *figures)
    if unjudged := sorted(told - judged):
        return unknown(
            f"the data is right, and there is neither a nominal bandwidth nor a sibling to judge {', '.join(f'GPU {gpu}' for gpu in unjudged)} by",
            "compare this run with an earlier one by `gpu-acceptance compare`",
            *figures,
        )
    lowest = min(compute.rates(done.values("triad")).values())
    return passed(
        f"each GPU moves {lowest:.4g} GB/s or more in its own memory, and the data is right", *figures
    )


CHECK = Check(
    name="memory_bandwidth",
    title="Memory bandwidth",
    group=Group.COMPUTE,
    about="Each GPU copies and adds up arrays far larger than its caches; the results are compared.",
    expects="80 % of the nominal bandwidth of the card, and not 5 % less than its siblings.",
    fails="Slow memory: ECC on graphics memory, a memory clock that is held down, or a card that is not what it was sold as.",
    run=_run,
    suites=(FULL,),
    needs=(Need.PYTORCH,),
    seconds=20,
)
