# SPDX-License-Identifier: GPL-3.0-or-later
"""How busy each GPU was while all of them trained.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import compute
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply, passed, skipped, unknown, warned

LEAST_READINGS = 2
_IDLE = (
    "see what the check training says of contention and communication; a GPU that waits while others compute is fed too slowly (CPU, "
    "governor, link)"
)


def _run(ctx: Context) -> Result:
    trained = ctx.results.get("training")
    if trained is None:
        return skipped(
            "it judges what the sensors read during the check training, which was not made",
            "make both in one run",
        )
    if not trained.applies:
        return does_not_apply(trained.says)
    if trained.verdict is Verdict.SKIP or "utilization" not in trained.data:
        return skipped(
            "the check training, whose readings it judges, did not get to its end", "see that check"
        )
    return judge(ctx, trained.data["utilization"])


def judge(ctx: Context, found: Sequence[Mapping[str, Any]]) -> Result:
    """Against the owner's target: a GPU that waits is no defect by itself."""
    target = ctx.profile.targets.utilization
    figures: list[Figure] = []
    idle: list[str] = []
    unread: list[str] = []
    for one in found:
        gpu, percent = int(one["gpu"]), compute.number(one["percent"])
        if percent is None or int(one["readings"]) < LEAST_READINGS:
            unread.append(f"GPU {gpu}")
            verdict = Verdict.UNKNOWN
        elif percent < 100 * target:
            idle.append(f"GPU {gpu} {percent:.0f} %")
            verdict = Verdict.WARN
        else:
            verdict = Verdict.PASS
        value = None if percent is None else round(percent, 1)
        figures.append(
            Figure(
                "utilization while training",
                value,
                "%",
                gpu,
                f">= {100 * target:g}",
                "the owner's target",
                verdict,
                "higher",
            )
        )
    if unread or not found:
        return unknown(
            f"there are too few readings of {', '.join(unread) or 'the GPUs'} from the training to judge",
            "run the suite full, which trains longer",
            *figures,
        )
    if idle:
        return warned(
            f"busy less than the owner's {target:.0%} of the time: {', '.join(idle)}", _IDLE, *figures
        )
    lowest = min(float(one["percent"]) for one in found)
    return passed(f"each GPU was busy {lowest:.0f} % of the time or more while all trained", *figures)


CHECK = Check(
    name="utilization",
    title="Utilization while training",
    group=Group.INTERCONNECT,
    about="How much of the time each GPU computes while all train one model, as nvidia-smi reads it. A GPU that waits for another inside "
    "an all-reduce counts as busy, so this says whether the host feeds them, not how well they scale.",
    expects="The owner's target.",
    fails="A CPU that cannot feed its GPUs, or a training that stopped.",
    run=_run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.GPU, Need.PYTORCH),
    seconds=1,
)
