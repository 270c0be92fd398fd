# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast each GPU multiplies matrices: against what it could reach at its clock, and against its siblings.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import compute, peaks
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..limits import Limits, siblings
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned, worst

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8")
_SECONDS = 300.0
_KIND = {"fp32": "matmul_fp32", "fp8": "matmul_fp8"}
_LEAST_OF_CLOCK = 0.5
"""Of the card's highest: what runs below it although it has the power is held down by somebody, or by something that is wrong."""
_CLOCK = "see what holds the clock down (`nvidia-smi -q -d CLOCK,PERFORMANCE`), and take a clock that was set off again (`nvidia-smi -rgc`)"
_SLOW = (
    "see the checks throttle_reasons, temperatures and power_limit, and that nothing else uses the GPUs; compare with the card in "
    "another slot, and have one that stays slow replaced"
)


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "matmul", seconds=_SECONDS)
    return compute.trouble(done, "multiplying matrices") or judge(ctx, done)


class _Judge:
    def __init__(self, ctx: Context, done: WorkloadRun) -> None:
        self.ctx = ctx
        self.done = done
        self.limits = Limits(ctx.profile.limits)
        self.models = compute.models(ctx)
        self.devices = compute.devices(ctx)
        self.cards = compute.pci_ids(ctx)
        self.figures: list[Figure] = []
        self.wrong: list[str] = []
        self.slow: dict[Verdict, list[str]] = {Verdict.FAIL: [], Verdict.WARN: []}
        self.held: dict[int, str] = {}
        self.unable: dict[tuple[str, str], list[str]] = {}
        self.judged: set[int] = set()
        self.shares: list[dict[str, Any]] = []
        self.counted = {
            int(line["gpu"]): int(line["sms"]) for line in done.values("device") if line.get("sms")
        }

    def precision(self, name: str) -> None:
        lines = [line for line in self.done.values(name) if compute.number(line["value"]) is not None]
        for line in lines:
            self._correct(name, line)
        for line in self.done.values(name):
            if line["value"] is None:
                self._unmeasured(name, line)
        rates = compute.rates(lines)
        if self.ctx.device == compute.CPU:
            self.figures += [compute.figure(self.ctx, name, line) for line in lines]
            return
        beside = siblings(rates, self.models)
        for line in lines:
            self._rate(name, line, rates[int(line["gpu"])])
        for gpu, share in beside.items():
            self._sibling(name, gpu, share)

    def _unmeasured(self, name: str, line: Mapping[str, Any]) -> None:
        """One that the card does not have, or this PyTorch cannot: that is shown, and the latter is told."""
        gpu, why = int(line["gpu"]), str(line.get("why") or "")
        if why.startswith("PyTorch"):
            self.unable.setdefault((name, why), []).append(compute.who(self.ctx, gpu))
        shown = Figure(name, None, "TFLOPS", gpu, source=why, verdict=Verdict.SKIP, better="higher")
        if self.ctx.device == compute.CPU:
            shown = replace(shown, name=f"{name}, process {gpu}", gpu=None)
        self.figures.append(shown)

    @property
    def beside(self) -> str:
        """What is to be said beside the rates."""
        return "".join(
            f"; {name} was not measured on {', '.join(who)}: {why}"
            for (name, why), who in self.unable.items()
        )

    def _clock(self, name: str, gpu: int) -> float | None:
        """The mean under load; one that is far too low without the power limit being the reason is noted."""
        # A reading takes a moment: one at the edge of a phase may be of a card that rests. Its clock would lower the peak that a
        # slow card is judged by, and some cards name their power limit at rest, too.
        samples = [sample for sample in self.done.during(name, gpu) if "idle" not in sample.reasons]
        busy = compute.sm_mhz(samples)
        most = (self.devices.get(gpu, {}).get("max_clocks") or {}).get("sm_mhz")
        capped = any("sw_power_cap" in sample.reasons for sample in samples)
        if busy is not None and most and busy < _LEAST_OF_CLOCK * most and not capped:
            says = f"GPU {gpu} ran at {busy:.0f} of {most:.0f} MHz, and its power limit was not the reason"
            self.held.setdefault(gpu, says)
        return busy

    def _correct(self, name: str, line: Mapping[str, Any]) -> None:
        gpu, error = int(line["gpu"]), compute.number(line.get("error"))
        who = compute.who(self.ctx, gpu)
        if error is None or error > float(line["allowed"]):
            off = "no numbers" if error is None else f"off by {error:.3g} of the largest value"
            self.wrong.append(f"{who} computes a wrong {name} product ({off})")
        elif line.get("changed"):
            self.wrong.append(
                f"{who} gives {line['changed']} other elements when it computes the same {name} product again"
            )

    def _rate(self, name: str, line: Mapping[str, Any], rate: float) -> None:
        gpu = int(line["gpu"])
        clock = self._clock(name, gpu)
        peak = peaks.matmul(
            self.models.get(gpu, ""), name, clock, self.counted.get(gpu), pci_id=self.cards.get(gpu, "")
        )
        if peak is None:
            self.figures.append(compute.figure(self.ctx, name, line, source="no peak of this model is known"))
            return
        self.judged.add(gpu)
        share = rate / peak.tflops
        verdict, wanted, source = self.limits.share(_KIND.get(name, "matmul"), share)
        if not peak.clock_true and verdict is Verdict.FAIL:
            # A card that is held down by its power limit looks the same as long as nobody read its clock.
            verdict = Verdict.WARN
        says = f"{compute.who(self.ctx, gpu)} reaches {share:.0%} of its peak in {name} ({rate:.4g} of {peak.tflops:.4g} TFLOPS)"
        if verdict in self.slow:
            self.slow[verdict].append(says)
        self.shares.append(
            {"gpu": gpu, "precision": name, "tflops": rate, "peak": peak.tflops, "share": share,
             "sm_mhz": clock, "clock_true": peak.clock_true}
        )  # fmt: skip
        self.figures.append(
            compute.figure(
                self.ctx,
                name,
                line,
                expected=f">= {wanted * peak.tflops:.4g} ({wanted:.0%} of {peak.tflops:.4g})",
                source=f"{peak.source}; {source}",
                verdict=verdict,
            )
        )
        self.figures.append(
            Figure(f"{name}, share of the peak", round(100 * share, 1), "%", gpu,
                   source="clock-true" if peak.clock_true else "nominal", better="higher")
        )  # fmt: skip

    def _sibling(self, name: str, gpu: int, share: float) -> None:
        self.judged.add(gpu)
        verdict, wanted, source = self.limits.share("sibling", share)
        if verdict in self.slow:
            self.slow[verdict].append(f"GPU {gpu} reaches {share:.0%} of what its siblings do in {name}")
        self.figures.append(
            Figure(
                f"{name}, share of the siblings",
                round(100 * share, 1),
                "%",
                gpu,
                f">= {wanted:.0%}",
                source,
                verdict,
                "higher",
            )
        )


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Right answers first; then the rates."""
    at = _Judge(ctx, done)
    for name in PRECISIONS:
        at.precision(name)
    at.slow[Verdict.WARN][:0] = at.held.values()
    measured = {
        int(line["gpu"]) for name in PRECISIONS for line in done.values(name) if line["value"] is not None
    }
    data = {"shares": at.shares}
    if at.wrong:
        return failed(
            compute.listed(at.wrong),
            "reboot and run it again with nothing else running; a card that computes wrong answers again must be replaced",
            *at.figures,
            **data,
        )
    if missing := [compute.who(ctx, gpu) for gpu in range(ctx.workers) if gpu not in measured]:
        return unknown(
            f"no rate was told of {', '.join(missing)}",
            "see the workload's log in the folder of this run",
            *at.figures,
            **data,
        )
    if ctx.device == compute.CPU:
        return passed(
            "the products are right in all precisions that were tried; rates of a CPU are not judged",
            *at.figures,
        )
    return _of_rates(at, measured, data)


def _of_rates(at: _Judge, measured: set[int], data: Mapping[str, Any]) -> Result:
    verdict = worst(one for one, said in at.slow.items() if said)
    advice = f"{_CLOCK}; {_SLOW}" if at.held else _SLOW
    if verdict is Verdict.FAIL:
        return failed(
            compute.listed(at.slow[Verdict.FAIL] + at.slow[Verdict.WARN]) + at.beside,
            advice,
            *at.figures,
            **data,
        )
    if unjudged := sorted(measured - at.judged):
        named = ", ".join(f"GPU {gpu}" for gpu in unjudged)
        slow = at.slow[Verdict.WARN]
        return unknown(
            f"the products are right, and there is neither a peak nor a sibling to judge {named} by"
            + (f"; {compute.listed(slow)}" if slow else "")
            + at.beside,
            "add the model to the catalog, or compare this run with an earlier one by `gpu-acceptance compare`"
            + (f"; {advice}" if slow else ""),
            *at.figures,
            **data,
        )
    if verdict is Verdict.WARN:
        nominal = any(not one["clock_true"] for one in at.shares)
        if nominal:
            advice += "; without its SM clock a card that is slow and one that its power limit holds down look the same"
        return warned(compute.listed(at.slow[Verdict.WARN]) + at.beside, advice, *at.figures, **data)
    best = max(
        at.shares, key=lambda one: one["tflops"] if one["precision"] in ("bf16", "fp16") else 0, default=None
    )
    says = "the products are right, and all GPUs of a model are equally fast"
    if best:
        says = f"right and fast: {best['tflops']:.4g} TFLOPS in {best['precision']} at best, {best['share']:.0%} of the peak"
    return passed(says + at.beside, *at.figures, **data)


CHECK = Check(
    name="matmul",
    title="Matrix multiplication",
    group=Group.COMPUTE,
    about="Each GPU multiplies large matrices of random numbers in each precision it has, all GPUs at the same time: how fast, and "
    "whether the result is right.",
    expects="90 % of what the card could reach at the clock it ran at, half of its highest clock unless its power limit holds it down, "
    "not 5 % less than its siblings, and the numbers of float64 within the precision.",
    fails="Below the clock-true peak: something else used the card, or its libraries do not suit it. Slower than its siblings: heat, "
    "its power cable, its power limit, or the card itself. Wrong numbers: the card must be replaced if it happens again.",
    run=_run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.PYTORCH,),
    seconds=45,
)
