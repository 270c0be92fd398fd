# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCIe link of each GPU while data goes through it in both directions.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._fleet.gpu.health_words import Expected, ExpectedError
from .. import compute, health_checks
from ..check import FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned, worst

_SECONDS = 120.0
_RESEAT = (
    "reseat the card and its riser, see in the board's manual which slots share lanes, set the slot's generation in the firmware to "
    "automatic, and see the check pcie_errors"
)
_CLOUD = "in a cloud this may be the normal state: declare the width (`width` of what is expected) to have it judged"


def _run(ctx: Context) -> Result:
    done = compute.run(
        ctx, "transfers", "--part", "link", "--addresses", compute.addresses(ctx), seconds=_SECONDS
    )
    return compute.trouble(done, "the link under load") or judge(ctx, done)


class _Judge:
    def __init__(self, ctx: Context) -> None:
        self.metal = health_checks.bare_metal(ctx)
        self.figures: list[Figure] = []
        self.said: dict[Verdict, list[str]] = {Verdict.FAIL: [], Verdict.WARN: [], Verdict.UNKNOWN: []}
        try:
            self.width = Expected.of(ctx.profile.expected).width
        except ExpectedError as problem:
            self.width = {}
            self.said[Verdict.UNKNOWN].append(f"what is declared cannot be read ({problem})")

    def card(self, gpu: int, device: Mapping[str, Any], done: WorkloadRun) -> None:
        link = device.get("link") or {}
        samples = done.during("link", gpu)
        generations = [sample.link_gen for sample in samples if sample.link_gen is not None]
        widths = [sample.link_width for sample in samples if sample.link_width is not None]
        self._generation(gpu, max(generations, default=None), link.get("gen_max"))
        self._lanes(gpu, min(widths, default=None), link, str(device.get("model")))

    def _judged(self, verdict: Verdict, says: str) -> Verdict:
        if verdict in self.said:
            self.said[verdict].append(says)
        return verdict

    def _generation(self, gpu: int, now: int | None, most: int | None) -> None:
        if now is None or most is None:
            missing = "was not read under load" if now is None else "has no known maximum"
            verdict = self._judged(Verdict.UNKNOWN, f"the generation of GPU {gpu}'s link {missing}")
        elif now < most:
            # On a machine that is not wholly ours the slot may be somebody else's decision.
            grave = Verdict.WARN if self.metal is False else Verdict.FAIL
            says = f"the link of GPU {gpu} runs at generation {now} under load, card and slot have {most}"
            verdict = self._judged(grave, says)
        else:
            verdict = Verdict.PASS
        wanted = f">= {most}" if most is not None else ""
        self.figures.append(
            Figure(
                compute.UNDER_LOAD,
                now,
                "",
                gpu,
                wanted,
                "the card's own maximum",
                verdict,
                "higher",
            )
        )

    def _lanes(self, gpu: int, now: int | None, link: Mapping[str, Any], model: str) -> None:
        declared = self.width.get(model, self.width.get("", 0))
        most = declared or link.get("width_max")
        source = "declared" if declared else "the card's own maximum"
        if now is None or most is None:
            missing = "was not read under load" if now is None else "has no known maximum"
            verdict = self._judged(Verdict.UNKNOWN, f"the width of GPU {gpu}'s link {missing}")
        elif now < most:
            grave = Verdict.FAIL if declared else Verdict.WARN
            what = "declared are" if declared else "the card has"
            verdict = self._judged(grave, f"the link of GPU {gpu} has {now} lanes under load, {what} {most}")
        else:
            verdict = Verdict.PASS
        wanted = f">= {most}" if most is not None else ""
        self.figures.append(
            Figure("link width under load", now, "lanes", gpu, wanted, source, verdict, "higher")
        )


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Generation and width that the sensors read while the link was busy."""
    at = _Judge(ctx)
    known = compute.devices(ctx)
    for gpu in range(ctx.workers):
        at.card(gpu, known.get(gpu, {}), done)
    found = worst(one for one, said in at.said.items() if said)
    if found is Verdict.FAIL:
        return failed(compute.listed(at.said[Verdict.FAIL] + at.said[Verdict.WARN]), _RESEAT, *at.figures)
    if found is Verdict.UNKNOWN:
        return unknown(
            compute.listed(at.said[Verdict.UNKNOWN] + at.said[Verdict.WARN]),
            "see whether `nvidia-smi -q -x` tells the link, and run it again",
            *at.figures,
        )
    if found is Verdict.WARN:
        return warned(compute.listed(at.said[Verdict.WARN]), f"{_RESEAT}; {_CLOUD}", *at.figures)
    seen = {(one.name, one.value) for one in at.figures}
    generations = sorted(value for name, value in seen if "generation" in name and isinstance(value, int))
    widths = sorted(value for name, value in seen if "width" in name and isinstance(value, int))
    return passed(
        f"each link runs at generation {generations[0]} with {widths[0]} lanes or more under load",
        *at.figures,
    )


CHECK = Check(
    name="pcie_under_load",
    title="PCIe link under load",
    group=Group.COMPUTE,
    about="The generation and the width of each GPU's link, read while data goes through it in both directions: at rest a link saves "
    "power and says nothing.",
    expects="The highest generation that card and slot have, and the declared width; without a declaration the card's own.",
    fails="A bent or dirty contact, a riser of an older generation, a slot that shares its lanes, or a setting of the firmware.",
    run=_run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.PYTORCH),
    seconds=14,
)
