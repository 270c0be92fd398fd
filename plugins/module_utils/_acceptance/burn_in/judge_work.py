# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the GPUs did their work: for how long, without a fault, and alike. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from .. import limits
from ..record import CPU
from ..verdicts import Figure, Result, Verdict, does_not_apply, worst
from . import guard
from .ledger import ASKED
from .plan import clock
from .seen import OFF_CPU, Seen, result


def hours(seen: Seen) -> Result:
    """Whether all hours were burned."""
    ledger, asked = seen.tally.ledger, seen.plan.seconds
    figures = (
        Figure(
            "burned",
            round(ledger.burned_s / 3600, 4),
            "h",
            expected=f">= {asked / 3600:g}",
            source="asked for",
        ),
        Figure("gaps", len(ledger.gaps)),
        Figure("time in gaps", round(sum(gap.seconds for gap in ledger.gaps)), "s"),
    )
    done = f"{clock(ledger.burned_s)} of {clock(asked)} were burned"
    if ledger.burned_s >= asked:
        return result(Verdict.PASS, done, figures=figures)
    if seen.going:
        return result(Verdict.UNKNOWN, f"{done} so far", "wait for its end", figures)
    stopped = ledger.stopped
    if stopped is None:
        return result(
            Verdict.UNKNOWN,
            f"{done}, and it was interrupted",
            f"go on with it: gpu-acceptance burn-in --resume {seen.plan.id}",
            figures,
        )
    why = "somebody stopped it" if stopped.get("kind") == ASKED else f"it stopped: {stopped.get('says')}"
    return result(Verdict.UNKNOWN, f"{done}; {why}", "start a new one for the whole time", figures)


def workers(seen: Seen) -> Result:
    """Whether the load of every GPU lasted."""
    ended = seen.tally.workers
    stopped = seen.tally.ledger.stopped or {}
    shares = {index: gpu.memory_share for index, gpu in seen.each if gpu.memory_share is not None}
    least = seen.plan.memory - seen.limit("burn_in_memory_short")
    short = {index: share for index, share in shares.items() if share < least}
    memory = [
        Figure(
            "memory filled",
            round(share, 3),
            "",
            index,
            f">= {least:.3g}",
            f"{seen.plan.memory:g} was asked for; {limits.PROPOSAL}",
            Verdict.WARN if index in short else None,
            "higher",
        )
        for index, share in shares.items()
    ]
    if ended:
        says = "; ".join(str(record.get("says")) for record in ended[:4])
        return result(
            Verdict.FAIL,
            says,
            f"see burn-{ended[0].get('gpu')}.log and the kernel's log of that moment; a worker that the kernel killed for want of "
            "memory is no defect of the GPU",
            memory,
        )
    if stopped.get("kind") in (guard.START, guard.WORKER):
        return result(
            Verdict.FAIL,
            str(stopped.get("says")),
            "see the logs burn-*.log in the run's folder",
            memory,
        )
    if not seen.tally.ticks:
        return result(Verdict.UNKNOWN, "no worker has burned yet", "see the logs burn-*.log", memory)
    untold = [index for index in seen.gpus if index not in shares]
    if untold and seen.plan.device != CPU:
        return result(
            Verdict.UNKNOWN,
            f"nobody said how much of the memory of GPU {', '.join(map(str, untold))} was filled",
            "see the logs burn-*.log",
            memory,
        )
    if short:
        return result(
            Verdict.WARN,
            "; ".join(
                f"only {share:.0%} of GPU {index}'s memory was filled" for index, share in short.items()
            ),
            "end what else uses the GPU's memory (`nvidia-smi` lists it) and start a new burn-in",
            memory,
        )
    until = "so far" if seen.going else "to the end"
    return result(Verdict.PASS, f"all {len(seen.gpus)} workers were alive {until}", figures=memory)


def numbers(seen: Seen) -> Result:
    """Whether every value was right."""
    figures = [
        Figure(
            "wrong values",
            gpu.mismatches,
            "",
            index,
            "0",
            f"the same product, compared bit by bit {gpu.checked:.3g} times",
            Verdict.FAIL if gpu.mismatches else None,
            "lower",
        )
        for index, gpu in seen.each
    ]
    wrong = {index: f"{gpu.mismatches} of them" for index, gpu in seen.each if gpu.mismatches}
    wrong |= {int(one["gpu"]): "already at the start" for one in seen.tally.workers if one.get("wrong")}
    if wrong:
        told = ", ".join(f"GPU {index}: {what}" for index, what in sorted(wrong.items()))
        return result(
            Verdict.FAIL,
            f"values came out wrong ({told})",
            "take the GPU out of service: it computes wrongly or its memory forgets; try it in another slot and with another "
            "cable, then have it replaced",
            figures,
        )
    unseen = [index for index, gpu in seen.each if not gpu.checked]
    if unseen:
        return result(
            Verdict.UNKNOWN,
            f"nothing was compared on GPU {', '.join(map(str, unseen))}",
            "let it burn longer: one round over the whole memory has to end",
            figures,
        )
    total = sum(gpu.checked for _unused, gpu in seen.each)
    return result(Verdict.PASS, f"{total:.3g} values were compared and all were right", figures=figures)


def siblings(seen: Seen) -> Result:
    """Whether the GPUs of a model are alike."""
    if len(seen.gpus) < 2:
        return does_not_apply("there is a single GPU")
    rates = {index: statistics.median(gpu.rates) for index, gpu in seen.each if gpu.rates}
    if seen.plan.device == CPU:
        shown = [Figure("rate", round(rate, 4), "TFLOPS", index) for index, rate in sorted(rates.items())]
        return Result(Verdict.SKIP, "not judged: CPU", OFF_CPU, tuple(shown))
    same = [group for group in _by_model(seen) if len(group) > 1]
    if not same:
        return does_not_apply("no two GPUs are of the same model")
    shares = limits.siblings(rates, seen.models)
    if any(index not in shares for group in same for index in group):
        return result(Verdict.UNKNOWN, "there is no rate of every GPU yet", "let it burn longer")
    figures, verdicts, told = _rates(seen, rates, shares)
    for group in same:
        figures_, verdict, says = _heat(seen, group)
        figures += figures_
        verdicts.append(verdict)
        told += says
    judged = [rates[index] for index in shares]
    return result(
        worst(verdicts),
        "; ".join(told)
        or f"no GPU is slower or hotter than its siblings; their rates are {min(judged):.4g} to {max(judged):.4g} TFLOPS",
        "compare power limits, links and cooling of the GPUs; exchange two cards and see whether it moves with the card",
        figures,
    )


def _by_model(seen: Seen) -> list[list[int]]:
    """The numbers of the GPUs of each model."""
    found: dict[str, list[int]] = {}
    for index in seen.gpus:
        found.setdefault(seen.models.get(index, ""), []).append(index)
    return list(found.values())


def _rates(
    seen: Seen, rates: Mapping[int, float], shares: Mapping[int, float]
) -> tuple[list[Figure], list[Verdict], list[str]]:
    figures, verdicts, told = [], [], []
    for index, share in sorted(shares.items()):
        verdict, least, source = limits.Limits(seen.limits).share("sibling", share)
        verdicts.append(verdict)
        figures.append(
            Figure(
                "rate",
                round(rates[index], 3),
                "TFLOPS",
                index,
                f">= {rates[index] / share * least:.4g}",
                f"{least:.0%} of the median of its model, of two of the faster; {source}",
                verdict,
                "higher",
            )
        )
        if verdict is not Verdict.PASS:
            told.append(f"GPU {index} computes {1 - share:.1%} slower than its siblings")
    return figures, verdicts, told


def _heat(seen: Seen, group: list[int]) -> tuple[list[Figure], Verdict, list[str]]:
    """How far apart the temperatures of the GPUs of one model are."""
    of = dict(seen.each)
    heat = {index: mean for index in group if (mean := of[index].mean_c) is not None}
    if len(heat) < 2:
        return [], Verdict.PASS, []
    spread = max(heat.values()) - min(heat.values())
    limit = seen.limit("burn_in_temperature_spread_c")
    verdict = Verdict.WARN if spread > limit else Verdict.PASS
    model = seen.models.get(group[0], "")
    figures = [
        Figure("mean temperature", round(value, 1), "°C", index) for index, value in sorted(heat.items())
    ]
    figures.append(
        Figure(
            f"hottest less coolest{f' {model}' if len(group) < len(seen.gpus) else ''}",
            round(spread, 1),
            "°C",
            None,
            f"<= {limit:g}",
            seen.source("burn_in_temperature_spread_c"),
            verdict,
            "lower",
        )
    )
    if verdict is Verdict.PASS:
        return figures, verdict, []
    hot = max(heat, key=lambda index: heat[index])
    return figures, verdict, [f"GPU {hot} is {spread:.0f} degrees hotter than the coolest one of its model"]
