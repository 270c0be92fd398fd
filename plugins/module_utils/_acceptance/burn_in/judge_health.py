# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether GPUs and machine stayed sound: heat, slowdown, errors, answers. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import statistics

from ..telemetry import UNTOLD
from ..verdicts import Figure, Result, Verdict, worst
from . import guard, kernel
from .plan import Plan
from .seen import Seen, result

_BAD_REASONS = {
    "hw_slowdown": "slowed down by the hardware",
    "hw_thermal": "slowed down by the hardware because of heat",
    "sw_thermal": "slowed down by the driver because of heat",
    "power_brake": "slowed down by the power supply's brake signal",
}
_SLOWED_US = {
    "hw_therm_slowdown_us": "slowed down by the hardware because of heat",
    "hw_power_brake_us": "slowed down by the power supply's brake signal",
}
"""What the driver counts in microseconds, between two readings as well; it is judged with the reasons."""
_GRAVE = (
    "ecc_volatile_uncorrectable",
    "ecc_aggregate_uncorrectable",
    "rows_uncorrectable",
    "rows_failure",
    "pages_double_bit",
)


def margin(seen: Seen) -> Result:
    """Whether every GPU stayed cool enough."""
    plan, figures, verdicts, told = seen.plan, [], [], []
    for index, gpu in seen.each:
        closest = gpu.closest.margin_c if gpu.closest else None
        hottest = gpu.hottest.temperature_c if gpu.hottest else None
        verdict = _heat(plan, closest, hottest)
        verdicts.append(verdict)
        figures += [
            Figure(
                "least margin",
                closest,
                "°C",
                index,
                f">= {plan.stop_margin_c:g}",
                "declared; distance to the card's own limit",
                verdict,
                "higher",
            ),
            Figure(
                "hottest",
                hottest,
                "°C",
                index,
                "" if plan.stop_temperature_c is None else f"<= {plan.stop_temperature_c:g}",
                "" if plan.stop_temperature_c is None else "declared",
                better="lower",
            ),
            Figure("hottest memory", gpu.memory_c, "°C", index, better="lower"),
            Figure("mean power", _rounded(gpu.mean_w), "W", index),
        ]
        told.append(f"GPU {index}: {_number(closest, 'degrees left')}, at most {_number(hottest, '°C')}")
    stopped = seen.tally.ledger.stopped or {}
    verdict = worst(verdicts) if verdicts else Verdict.UNKNOWN
    if stopped.get("kind") in (guard.TEMPERATURE, guard.MARGIN):
        return result(
            Verdict.FAIL,
            f"it was stopped: {stopped.get('says')}",
            "see to the cooling: fans, dust, thermal paste, the distance between cards, the temperature of the room",
            figures,
            stop=dict(stopped.get("reading") or {}),
        )
    advice = {
        Verdict.FAIL: "see to the cooling: fans, dust, thermal paste, the distance between cards, the temperature of the room",
        Verdict.UNKNOWN: "the driver tells no margin of a GPU; declare a temperature with --stop-temperature",
    }
    return result(verdict, "; ".join(told), advice.get(verdict, ""), figures)


def _heat(plan: Plan, closest: float | None, hottest: float | None) -> Verdict:
    if closest is not None and closest < plan.stop_margin_c:
        return Verdict.FAIL
    if plan.stop_temperature_c is not None and hottest is not None:
        return Verdict.FAIL if hottest > plan.stop_temperature_c else Verdict.PASS
    return Verdict.UNKNOWN if closest is None else Verdict.PASS


def throttling(seen: Seen) -> Result:
    """Whether a GPU was slowed down."""
    figures, bad = [], []
    for index, gpu in seen.each:
        held = {name: gpu.reasons[name] for name in _BAD_REASONS if gpu.reasons[name]}
        figures += [
            Figure(
                f"readings with {name}", count, "", index, "0", "the driver's reasons", Verdict.FAIL, "lower"
            )
            for name, count in held.items()
        ]
        counted = {name: gpu.grown[name] for name in _SLOWED_US if gpu.grown[name]}
        figures += [
            Figure(
                name.replace("_us", "").replace("_", " "),
                round(count / 1e6, 3),
                "s",
                index,
                "0",
                "the driver's counter",
                Verdict.FAIL,
                "lower",
            )
            for name, count in counted.items()
        ]
        figures.append(Figure("mean SM clock", _rounded(gpu.mean_mhz), "MHz", index))
        bad += [
            f"GPU {index} was {_BAD_REASONS[name]} in {count} of {gpu.samples} readings"
            for name, count in held.items()
        ]
        bad += [
            f"GPU {index} was {_SLOWED_US[name]} for {count / 1e6:.3g} s" for name, count in counted.items()
        ]
    if bad:
        return result(
            Verdict.FAIL,
            "; ".join(bad),
            "heat: see to the cooling; hardware slowdown or power brake without heat: see to the power supply, its cables and "
            "the card's connector",
            figures,
        )
    if any(not gpu.samples for _unused, gpu in seen.each):
        return result(
            Verdict.UNKNOWN,
            "the driver's reasons were not read of every GPU",
            "see the check readings",
            figures,
        )
    untold = {index: gpu.reasons[UNTOLD] for index, gpu in seen.each if gpu.reasons[UNTOLD]}
    if untold:
        told = ", ".join(
            f"GPU {index} did not in {count} of {seen.tally.gpus[index].samples} readings"
            for index, count in untold.items()
        )
        return result(
            Verdict.UNKNOWN,
            f"the driver did not tell whether a GPU was slowed down: {told}",
            "see `nvidia-smi -q -d PERFORMANCE`",
            figures,
        )
    capped = sum(gpu.reasons["sw_power_cap"] for _unused, gpu in seen.each)
    note = "; the power limit held the clocks down, as it is meant to" if capped else ""
    return result(Verdict.PASS, f"no GPU was slowed down by heat or by the hardware{note}", figures=figures)


def errors(seen: Seen) -> Result:
    """Whether a counter of errors grew."""
    figures: list[Figure] = []
    grave: list[str] = []
    light: list[str] = []
    minutes = max(seen.tally.ledger.wall_s / 60, 1.0)
    for index, gpu in seen.each:
        for name, count in sorted(gpu.grown.items()):
            if name in _SLOWED_US:
                continue
            heavy = name in _GRAVE or (
                name == "replay_counter" and count / minutes > seen.limit("pcie_replays_per_minute")
            )
            verdict = Verdict.FAIL if heavy else Verdict.WARN
            words = name.replace("_", " ")
            figures.append(Figure(words, count, "", index, "0", "grown during the burn-in", verdict, "lower"))
            (grave if heavy else light).append(f"{words} of GPU {index} grew by {count}")
    if grave or light:
        return result(
            Verdict.FAIL if grave else Verdict.WARN,
            "; ".join([*grave, *light]),
            "replays: reseat the card and its riser; memory errors: run the check memory_rows, and have a card with uncorrectable "
            "ones replaced",
            figures,
        )
    silent = [index for index, gpu in seen.each if not {*gpu.counters} - {*_SLOWED_US}]
    if silent:
        return result(
            Verdict.UNKNOWN,
            f"the driver told no counters of GPU {', '.join(map(str, silent))}",
            "see whether nvidia-smi -q shows them",
        )
    kinds = {name for _unused, gpu in seen.each for name in gpu.counters} - {*_SLOWED_US}
    ecc = any(name.startswith("ecc") for name in kinds)
    without = "" if ecc else "; the cards have no ECC that could have seen errors of their memory"
    return result(Verdict.PASS, f"no counter of errors grew ({len(kinds)} were watched){without}")


def responsive(seen: Seen) -> Result:
    """Whether the machine could be worked with."""
    tally = seen.tally
    if not tally.ticks:
        return result(Verdict.UNKNOWN, "nothing was measured yet", "let it burn longer")
    figures, verdicts = [], []
    for name, values, limit in (
        ("woke late by", tally.late_s, "burn_in_late"),
        ("a small write to the disk took", tally.sync_s, "burn_in_disk"),
    ):
        most = max(values)
        usual = statistics.quantiles(values, n=100)[98] if len(values) > 1 else most
        warn, fail = f"{limit}_warn_s", f"{limit}_fail_s"
        verdict = (
            Verdict.FAIL
            if most > seen.limit(fail)
            else Verdict.WARN
            if usual > seen.limit(warn)
            else Verdict.PASS
        )
        verdicts.append(verdict)
        figures += [
            Figure(
                f"{name} (most)",
                round(most, 4),
                "s",
                None,
                f"<= {seen.limit(fail):g}",
                seen.source(fail),
                verdict,
                "lower",
            ),
            Figure(
                f"{name} (99 %)",
                round(usual, 4),
                "s",
                None,
                f"<= {seen.limit(warn):g}",
                seen.source(warn),
                better="lower",
            ),
        ]
    says = f"it woke at most {max(tally.late_s):.3f} s late, and a write to the disk took at most {max(tally.sync_s):.3f} s"
    if tally.lost:
        verdicts.append(Verdict.WARN)
        says += f"; {tally.lost} writes to the disk were lost, and so is what this run was to keep with them"
        figures.append(
            Figure("writes lost", tally.lost, "", None, "0", "of this run's", Verdict.WARN, "lower")
        )
    verdict = worst(verdicts)
    return result(
        verdict,
        says,
        "see what else runs on the machine, whether memory was short, and whether the disk is full, or sound",
        figures,
    )


def readings(seen: Seen) -> Result:
    """Whether the driver answered."""
    tally = seen.tally
    unread = tally.blind["gpus"]
    share = unread / max(1, tally.ticks + unread)
    figures = [
        Figure(
            "readings missed",
            unread,
            "",
            None,
            f"<= {seen.limit('burn_in_unread_share'):.0%}",
            seen.source("burn_in_unread_share"),
            better="lower",
        )
    ]
    stopped = tally.ledger.stopped or {}
    if stopped.get("kind") == guard.BLIND:
        return result(
            Verdict.FAIL,
            str(stopped.get("says")),
            "look for an Xid in the kernel's log; a card that has fallen off the bus comes back only with a power cycle",
            figures,
        )
    if not any(gpu.samples for _unused, gpu in seen.each):
        return result(
            Verdict.UNKNOWN, "nothing was read of the GPUs", "see whether nvidia-smi answers", figures
        )
    if share > seen.limit("burn_in_unread_share"):
        return result(
            Verdict.WARN,
            f"the driver did not answer in time {unread} times: {tally.blind_says.get('gpus', '')}",
            "see what nvidia-smi says under load; a driver that is slow to answer may be about to lose a card",
            figures,
        )
    return result(
        Verdict.PASS,
        f"the driver answered in all but {unread} of {tally.ticks + unread} readings",
        figures=figures,
    )


def kernel_errors(seen: Seen) -> Result:
    """What the kernel's log says."""
    return kernel.judge(seen.tally, seen.cards, seen.indexes, seen.limit("pcie_corrected"))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _number(value: float | None, unit: str) -> str:
    return "not told" if value is None else f"{value:g} {unit}"
