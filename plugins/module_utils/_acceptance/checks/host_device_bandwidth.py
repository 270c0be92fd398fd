# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast data gets to each GPU and back: each alone, then all together.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import compute, health_checks
from ..check import FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..limits import Limits, grade, link_gb_s
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned, worst

_WAYS = ("host to device", "device to host")
_TOGETHER = " together"
_SECONDS = 240.0
_SLOW = (
    "see the checks pcie_under_load and pcie_errors, the CPU's frequency governor, and that the memory of the host is in all its "
    "channels; reseat the card"
)
_CROWDED = (
    "all GPUs share the host's memory and the processors' links: fill all memory channels, spread the cards over the processors, and "
    "see which slots hang on one bridge (`nvidia-smi topo -m`)"
)


def _run(ctx: Context) -> Result:
    done = compute.run(
        ctx, "transfers", "--part", "rates", "--addresses", compute.addresses(ctx), seconds=_SECONDS
    )
    return compute.trouble(done, "transfers") or judge(ctx, done)


class _Judge:
    def __init__(self, ctx: Context, done: WorkloadRun) -> None:
        self.ctx = ctx
        self.done = done
        self.limits = Limits(ctx.profile.limits)
        self.devices = compute.devices(ctx)
        self.metal = health_checks.bare_metal(ctx) if ctx.device != compute.CPU else None
        self.figures: list[Figure] = []
        self.slow: list[str] = []
        self.slower: list[str] = []
        self.crowded: list[str] = []
        self.unjudged: set[int] = set()

    def theory(self, name: str, gpu: int) -> tuple[float, str] | None:
        """What the link carries under load, with the lanes that it had meanwhile."""
        samples = self.done.during(name, gpu)
        generation = compute.generation(self.ctx, samples, gpu)
        width = min((one.link_width for one in samples if one.link_width is not None), default=None)
        link: Mapping[str, Any] = self.devices.get(gpu, {}).get("link") or {}
        read = "read meanwhile"
        if width is None:
            # The phase was shorter than the time between two readings.
            width, read = link.get("width_now"), "read at rest"
        carries = link_gb_s(generation, width)
        return (carries, f"PCIe {generation}.0 x{width}, the width {read}") if carries else None

    def alone(self, way: str, line: Mapping[str, Any], rate: float) -> None:
        gpu = int(line["gpu"])
        theory = self.theory(way, gpu)
        if theory is None:
            self.unjudged.add(gpu)
            self.figures.append(compute.figure(self.ctx, way, line))
            return
        least, source = self.limits.get("transfer_fail_share")
        verdict = Verdict.PASS
        if not rate >= least * theory[0]:
            verdict = Verdict.WARN if self.metal is False else Verdict.FAIL
            says = f"{way}, GPU {gpu} reaches {rate:.3g} GB/s, {rate / theory[0]:.0%} of its link"
            (self.slow if verdict is Verdict.FAIL else self.slower).append(says)
        expected = f">= {least * theory[0]:.3g} ({least:.0%} of {theory[0]:.3g})"
        self.figures.append(
            compute.figure(
                self.ctx, way, line, expected=expected, source=f"{theory[1]}; {source}", verdict=verdict
            )
        )

    def together(self, way: str, line: Mapping[str, Any], rate: float, alone: float | None) -> None:
        gpu = int(line["gpu"])
        name = way + _TOGETHER
        if alone is None or self.ctx.workers < 2:
            self.figures.append(compute.figure(self.ctx, name, line))
            return
        least, source = self.limits.get("together_warn_share")
        verdict = grade(rate / alone, least, 0)
        if verdict is not Verdict.PASS:
            self.crowded.append(
                f"{way}, GPU {gpu} falls from {alone:.3g} to {rate:.3g} GB/s when all transfer"
            )
        self.figures.append(
            compute.figure(
                self.ctx,
                name,
                line,
                expected=f">= {least * alone:.3g} ({least:.0%} of alone)",
                source=source,
                verdict=verdict,
            )
        )


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Alone against the link; together against alone."""
    at = _Judge(ctx, done)
    wrong = [
        f"{compute.who(ctx, int(line['gpu']))} gave back {line['value']} wrong bytes"
        for line in done.values("wrong")
        if line["value"] != 0
    ]
    told: list[set[int]] = [set(compute.rates(done.values("wrong")))]
    for way in _WAYS:
        alone = compute.rates(done.values(way))
        together = compute.rates(done.values(way + _TOGETHER))
        told += [set(alone), set(together)]
        for line in done.values(way):
            if ctx.device == compute.CPU:
                at.figures.append(compute.figure(ctx, way, line))
            elif int(line["gpu"]) in alone:
                at.alone(way, line, alone[int(line["gpu"])])
        for line in done.values(way + _TOGETHER):
            if ctx.device == compute.CPU:
                at.figures.append(compute.figure(ctx, way + _TOGETHER, line))
            elif int(line["gpu"]) in together:
                at.together(way, line, together[int(line["gpu"])], alone.get(int(line["gpu"])))
    if wrong:
        return failed(
            compute.listed(wrong),
            "see the checks pcie_errors and kernel_log, reseat the card and its riser, and test the memory of the host",
            *at.figures,
        )
    whole = set.intersection(*told)
    if missing := [compute.who(ctx, gpu) for gpu in range(ctx.workers) if gpu not in whole]:
        return unknown(
            f"not everything was told of {', '.join(missing)}",
            "see the workload's log in the folder of this run",
            *at.figures,
        )
    if ctx.device == compute.CPU:
        return passed(
            "what was copied is right; there is no link on a CPU, and its rates are not judged", *at.figures
        )
    return _of_rates(at)


def _of_rates(at: _Judge) -> Result:
    found = worst(
        verdict
        for verdict, said in ((Verdict.FAIL, at.slow), (Verdict.WARN, at.slower), (Verdict.WARN, at.crowded))
        if said
    )
    if found is Verdict.FAIL:
        return failed(compute.listed(at.slow + at.slower + at.crowded), _SLOW, *at.figures)
    if at.unjudged:
        named = ", ".join(f"GPU {gpu}" for gpu in sorted(at.unjudged))
        return unknown(
            f"what came back is right, and the link of {named} is not known to judge the rates by",
            "see whether `nvidia-smi -q -x` tells generation and width of the link",
            *at.figures,
        )
    if found is Verdict.WARN:
        return warned(compute.listed(at.slower + at.crowded), _SLOW if at.slower else _CROWDED, *at.figures)
    lowest = min(rate for way in _WAYS for rate in compute.rates(at.done.values(way)).values())
    return passed(
        f"each GPU transfers {lowest:.3g} GB/s or more each way, and what comes back is right", *at.figures
    )


CHECK = Check(
    name="host_device_bandwidth",
    title="Host to GPU and back",
    group=Group.COMPUTE,
    about="Blocks of pinned memory go to each GPU and back, each GPU alone and then all together; what comes back is compared.",
    expects="75 % of what the link carries at the generation it has under load and with its lanes, and together not less than 75 % of "
    "that alone.",
    fails="Slow alone: the link (see pcie_under_load), the CPU's clock, memory on the wrong processor. Slow together: the host's memory "
    "or a bridge that several slots share.",
    run=_run,
    suites=(QUICK, FULL),
    needs=(Need.PYTORCH,),
    seconds=25,
)
