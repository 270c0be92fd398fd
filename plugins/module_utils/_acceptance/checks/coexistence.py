# SPDX-License-Identifier: GPL-3.0-or-later
"""Do all installed frameworks compute right while they share the GPUs?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import replace

from .. import framework_steps, framework_support
from ..check import DEMO, FULL, JAX, PYTORCH, TENSORFLOW, Check, Context, Group, WorkloadRun
from ..interpreters import MODULES, TITLES
from ..record import CPU
from ..verdicts import Figure, Result, Verdict, does_not_apply, failed, passed, skipped, unknown

FRAMEWORKS = (PYTORCH, TENSORFLOW, JAX)
STEPPING_S = 10.0
STEPPING_CPU_S = 3.0
LEAST_OVERLAP = 0.5
"""Share of that time in which all of them must have been at work together; a proposal."""
SECONDS = 900.0


def run(context: Context) -> Result:
    """Run the workload together."""
    here = {name: python for name in FRAMEWORKS if (python := context.interpreter(name))}
    if context.device != CPU and not context.workers:
        return skipped("the driver answers for no GPU", "see the checks gpus_present and driver_versions")
    if len(here) < 2:
        return _too_few(context, tuple(here))
    stepping = STEPPING_CPU_S if context.device == CPU else STEPPING_S
    asked = [word for name, python in here.items() for word in ("--with", f"{name}={python}")]
    told = context.workload(
        "together", next(iter(here)), "--seconds", f"{stepping:g}", *asked, seconds=SECONDS
    )
    return judge(told, tuple(here), stepping, context)


def _too_few(context: Context, here: tuple[str, ...]) -> Result:
    lacking = [name for name in FRAMEWORKS if name not in here]
    what = f"{TITLES[here[0]]} is the only framework here" if here else "no framework is installed"
    on_gpu = context.device != CPU
    if here and on_gpu and all(framework_support.unsupported(context.facts, name) for name in lacking):
        return does_not_apply(f"{what}, and no other has kernels for these GPUs")
    return skipped(f"{what}, and it takes two", "install the others with role ai_frameworks")


def judge(told: WorkloadRun, names: tuple[str, ...], stepping: float, context: Context) -> Result:
    """What came of it."""
    words = ", ".join(TITLES[name] for name in names)
    if why := framework_support.broken(told):
        return failed(
            f"{words} do not come to their end together: {why}",
            "see whether each passes alone (checks pytorch, tensorflow, jax), whether the compute mode is Default, and whether "
            "another program holds the GPUs' memory",
        )
    versions = told.begin.get("versions") or {}
    figures: list[Figure] = []
    findings: list[framework_steps.Finding] = []
    for name in names:
        values = [value for value in told.figures if value.get("framework") == name]
        title = f"{TITLES[name]} {versions.get(MODULES[name], '')}".strip()
        judged = framework_steps.judge_figures(values, name, title, context)
        figures += [replace(figure, name=f"{name}: {figure.name}") for figure in judged.figures]
        findings += judged.findings
    findings.sort(key=lambda one: one.verdict is not Verdict.FAIL)
    shared = next(iter(told.values("overlap")), None)
    overlap = float(shared["value"]) if shared and shared["value"] is not None else 0.0
    enough = overlap >= LEAST_OVERLAP * stepping
    figures.append(
        Figure(
            "overlap",
            overlap,
            "s",
            expected=f">= {LEAST_OVERLAP * stepping:g}",
            source="proposal",
            verdict=Verdict.PASS if enough else Verdict.UNKNOWN,
        )
    )
    if findings:
        make = failed if findings[0].verdict is Verdict.FAIL else unknown
        return make("; ".join(one.says for one in findings), findings[0].advice, *figures)
    if not enough:
        return unknown(
            f"{words} were at work together for {overlap:.1f} s only, so nothing is known of how they share the GPUs",
            "run the check again on an idle machine",
            *figures,
        )
    where = "the CPU" if context.device == CPU else f"all {context.workers} GPUs"
    if context.device != CPU and context.workers == 1:
        where = "the GPU"
    return passed(f"{words} compute right on {where} at the same time", *figures)


CHECK = Check(
    name="coexistence",
    title="Frameworks side by side",
    group=Group.FRAMEWORKS,
    about="All installed frameworks compute on all GPUs at the same time, each in its own environment, and all answers are right.",
    expects="Every framework passes what it passes alone, while the others are at work, each with its share of the memory.",
    fails="One that passes alone and fails here found no memory (something else holds it, or preallocates all of it), or the compute "
    "mode lets a single program in.",
    run=run,
    suites=(FULL, DEMO),
    seconds=60,
)
