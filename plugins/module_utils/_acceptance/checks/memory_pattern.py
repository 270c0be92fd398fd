# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU's memory keeps what is written to it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import compute
from ..check import FULL, Check, Context, Group, Need, WorkloadRun
from ..limits import Limits
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned

_SECONDS = 600.0


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "memory", "--part", "pattern", seconds=_SECONDS)
    return compute.trouble(done, "testing the memory") or judge(ctx, done)


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """A single wrong bit is a failure."""
    least, source = Limits(ctx.profile.limits).get("memory_pattern_share")
    figures: list[Figure] = []
    bad: list[str] = []
    little: list[str] = []
    places: list[dict[str, Any]] = []
    tested = {int(line["gpu"]): line for line in done.values("tested")}
    told: set[int] = set()
    for line in done.values("mismatches"):
        gpu, count = int(line["gpu"]), compute.number(line["value"])
        who = compute.who(ctx, gpu)
        if count is None or gpu not in tested:
            continue
        told.add(gpu)
        share = compute.number(tested[gpu].get("share"))
        scarce = share is not None and share < least
        if scarce:
            little.append(f"{share:.0%} of the memory of {who}")
        figures.append(_tested(ctx, tested[gpu], share, least, source, scarce))
        wrong = Verdict.FAIL if count else Verdict.PASS
        # Whether memory keeps its content is judged on a CPU as well.
        figures.append(
            _of(ctx, Figure("wrong words", int(count), "", gpu, "0", "what was written", wrong, "lower"))
        )
        if count:
            bad.append(f"{who} has {int(count)} wrong words{_first(line)}")
            places += [{"gpu": gpu, **place} for place in line.get("places") or []]
    if bad:
        return failed(
            compute.listed(bad),
            "reboot and run it again; memory that loses bits again cannot be repaired, have the card replaced",
            *figures,
            places=places,
        )
    if missing := [compute.who(ctx, gpu) for gpu in range(ctx.workers) if gpu not in told]:
        return unknown(
            f"nothing was told of {', '.join(missing)}",
            "see the workload's log in the folder of this run",
            *figures,
        )
    total = sum(compute.number(line["value"]) or 0 for line in tested.values())
    if little:
        return warned(
            f"no wrong word, and only {compute.listed(little)} could be tested",
            "end what else uses the GPUs' memory (`nvidia-smi` lists it) and run it again",
            *figures,
        )
    return passed(f"no wrong word in {total:.4g} GiB", *figures)


def _of(ctx: Context, one: Figure) -> Figure:
    if ctx.device != compute.CPU:
        return one
    return Figure(
        f"{one.name}, process {one.gpu}",
        one.value,
        one.unit,
        None,
        one.expected,
        one.source,
        one.verdict,
        one.better,
    )


def _tested(
    ctx: Context, line: Mapping[str, Any], share: float | None, least: float, source: str, scarce: bool
) -> Figure:
    expected = f">= {least:.0%} of the memory" if share is not None else ""
    verdict = None if share is None else Verdict.WARN if scarce else Verdict.PASS
    value = compute.number(line["value"])
    return _of(
        ctx,
        Figure("tested", None if value is None else round(value, 3), "GiB", int(line["gpu"]), expected,
               source if expected else "", verdict, "higher"),
    )  # fmt: skip


def _first(line: Mapping[str, Any]) -> str:
    place = next(iter(line.get("places") or []), None)
    if not place:
        return ""
    bits = place.get("bits")
    return (
        f", the first at {place.get('offset')} of what was tested (address {place.get('address')}): wrote {place.get('wrote')}, "
        f"read {place.get('read')}, {bits} bit{'s' * (bits != 1)}, pattern {place.get('pattern')}"
    )


CHECK = Check(
    name="memory_pattern",
    title="Memory pattern test",
    group=Group.COMPUTE,
    about="Most of each GPU's free memory is filled with patterns (constant, walking bit, its own address, random) and read back.",
    expects="What was written, in every word; at least 70 % of the memory tested.",
    fails="Wrong words: memory that loses bits, or a card that is overclocked or too hot. It must be replaced if it happens again "
    "after a reboot.",
    run=_run,
    suites=(FULL,),
    needs=(Need.PYTORCH,),
    seconds=60,
)
