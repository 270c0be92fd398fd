# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges what a framework did on each GPU alone and on all of them together.

Pure. The workloads torch_step, tensorflow_step and jax_step print the same figures, and together prints those of all three.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .check import Context, WorkloadRun
from .framework_support import broken, how_to_install, unavailable
from .interpreters import MODULES, TITLES
from .limits import Limits
from .record import CPU
from .verdicts import Figure, Result, Verdict, failed, passed, unknown

SECONDS = 600.0
"""Loading a framework from a cold disk takes minutes, and JAX compiles."""

Values = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `says` and `advice` without a full stop."""

    verdict: Verdict
    says: str
    advice: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What a framework's figures come to: the gravest finding first."""

    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]


def check(context: Context, framework: str, workload: str) -> Result:
    """Run a framework's workload and judge it."""
    if (why := unavailable(context, framework)) is not None:
        return why
    run = context.workload(workload, framework, seconds=SECONDS)
    return judge(run, framework, context)


def judge(run: WorkloadRun, framework: str, context: Context) -> Result:
    """What came of the workload of one framework."""
    version = str((run.begin.get("versions") or {}).get(MODULES[framework], ""))
    title = f"{TITLES[framework]} {version}".strip()
    if why := broken(run):
        return failed(f"{title} does not come to its end: {why}", _log(framework))
    judged = judge_figures(run.figures, framework, title, context)
    if judged.findings:
        first = judged.findings[0]
        make = failed if first.verdict is Verdict.FAIL else unknown
        return make("; ".join(one.says for one in judged.findings), first.advice, *judged.figures)
    return passed(f"{title} {right(context)}", *judged.figures)


def right(context: Context) -> str:
    """What was proved, in words."""
    if context.device == CPU:
        return f"computes right in {context.workers} parts of the CPU and in all of them together"
    if context.workers == 1:
        return "sees the GPU and computes right on it"
    return f"sees all {context.workers} GPUs, computes right on each and on all of them together"


def _log(framework: str) -> str:
    return f"read the workload's log in the folder of the run; {TITLES[framework]} says there what it could not do"


def judge_figures(values: Values, framework: str, title: str, context: Context) -> Judged:
    """The figures of one framework.

    Args:
        title: the framework's name in sentences.
    """
    found = [
        *_devices(values, framework, title, context),
        *_alone(values, framework, title, context),
        *_together(values, title, context),
    ]
    found.sort(key=lambda one: one.verdict is not Verdict.FAIL)
    return Judged(tuple(_figures(values, context)), tuple(found))


def _of(values: Values, name: str) -> Values:
    return [value for value in values if value["name"] == name]


def _unit(context: Context) -> str:
    return "process" if context.device == CPU else "GPU"


def _devices(values: Values, framework: str, title: str, context: Context) -> list[Finding]:
    told = _of(values, "devices")
    if not told or not isinstance(told[0]["value"], int):
        return [Finding(Verdict.UNKNOWN, f"{title} did not say which GPUs it sees", _log(framework))]
    count = told[0]["value"]
    if count >= context.workers:
        return []
    reason = f": {told[0]['says']}" if told[0].get("says") else ""
    advice = "see whether CUDA_VISIBLE_DEVICES is set, and whether its user may open every /dev/nvidia*"
    return [
        Finding(
            Verdict.FAIL,
            f"{title} sees {count} of the {context.workers} GPUs that the driver has{reason}",
            advice
            if count
            else f"{advice}; if it is a build without CUDA, {how_to_install(context.facts, framework)}",
        )
    ]


def _alone(values: Values, framework: str, title: str, context: Context) -> list[Finding]:
    told = _of(values, "wrong elements")
    found = []
    for value in told:
        where = f"{_unit(context)} {value['gpu']}"
        if value["value"] is None:
            found.append(
                Finding(
                    Verdict.FAIL,
                    f"{title} cannot compute on {where}: {value.get('says', 'it did not say why')}",
                    how_to_install(context.facts, framework),
                )
            )
        elif value["value"] != 0:
            found.append(
                Finding(
                    Verdict.FAIL,
                    f"{title} computes {value['value']} of {value.get('of', '?')} elements wrong on {where}",
                    "see whether the checks kernels and memory_pattern find the same on that card; if they do, the card is "
                    "defective or overclocked, if not, the build is",
                )
            )
    return found or _missing(told, title, "computed alone", context)


def _together(values: Values, title: str, context: Context) -> list[Finding]:
    told = _of(values, "step difference")
    if any(value["value"] is None for value in _of(values, "wrong elements")):
        # It is not tried where a GPU cannot compute alone, and that is said already.
        return []
    failing = [value for value in told if value["value"] is None]
    if failing:
        return [
            Finding(
                Verdict.FAIL,
                f"{title} fails when all compute together: {failing[0].get('says', 'it did not say why')}",
                "run the check all_reduce; set NCCL_DEBUG=INFO and read the workload's log, and see that /dev/shm is not full",
            )
        ]
    limit, _source = Limits(context.profile.limits).get("step_difference")
    wrong = [value for value in told if not value["value"] <= limit]
    if wrong:
        worst = max(wrong, key=lambda value: float(value["value"]))
        return [
            Finding(
                Verdict.FAIL,
                f"{title} learns wrong weights when all compute together: {worst['value']:.2g} off on "
                f"{_unit(context)} {worst['gpu']}",
                "run the checks all_reduce and p2p: data is changed on its way between the cards",
            )
        ]
    steps = _of(values, "steps")
    if told and not (steps and steps[0]["value"]):
        return [Finding(Verdict.UNKNOWN, f"{title} made no step together", "run the check once more")]
    return _missing(told, title, "took part in the step", context)


def _missing(told: Values, title: str, what: str, context: Context) -> list[Finding]:
    there = {value["gpu"] for value in told}
    lacking = [str(index) for index in range(context.workers) if index not in there]
    if not lacking:
        return []
    return [
        Finding(
            Verdict.UNKNOWN,
            f"{title} did not say whether {_unit(context)} {', '.join(lacking)} {what}",
            "run the check once more, and read the workload's log in the folder of the run",
        )
    ]


def _figures(values: Values, context: Context) -> list[Figure]:
    limit, source = Limits(context.profile.limits).get("step_difference")
    figures = [
        Figure(
            "devices",
            value["value"],
            expected=str(context.workers),
            source="processes" if context.device == CPU else "the driver",
            verdict=_good(isinstance(value["value"], int) and value["value"] >= context.workers),
        )
        for value in _of(values, "devices")
    ]
    for name, most, expected, why in (
        ("wrong elements", 0.0, "0", "computed in plain Python"),
        ("step difference", limit, f"<= {limit:g}", source),
    ):
        told = _of(values, name)
        if context.device == CPU and told:
            # Processes of the CPU are no GPUs: the worst of them stands for all.
            told = [{**max(told, key=lambda one: _badness(one["value"])), "gpu": None}]
        for value in told:
            verdict = _good(_badness(value["value"]) <= most)
            figures.append(
                Figure(name, value["value"], "", value["gpu"], expected, why, verdict, better="lower")
            )
    return figures


def _badness(value: Any) -> float:
    return float("inf") if value is None else float(value)


def _good(good: bool) -> Verdict:
    return Verdict.PASS if good else Verdict.FAIL
