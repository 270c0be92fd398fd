# SPDX-License-Identifier: GPL-3.0-or-later
"""Can a model be trained, saved, loaded, served over HTTP and asked, with the same answers at the end as at the beginning?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import framework_support
from ..check import FULL, PYTORCH, Check, Context, Group, WorkloadRun
from ..record import CPU
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown

SECONDS = 300.0
LEAST_ACCURACY = 0.9
MOST_LOSS = 0.5
"""Of the loss before the training."""


def run(context: Context) -> Result:
    """Run the workload serve."""
    if (why := framework_support.unavailable(context, PYTORCH)) is not None:
        return why
    return judge(context.workload("serve", PYTORCH, seconds=SECONDS), context)


def judge(told: WorkloadRun, context: Context) -> Result:
    """What came of it."""
    if why := framework_support.broken(told):
        return failed(
            f"the way from training to serving breaks: {why}",
            "read the workload's log in the folder of the run; the check pytorch says whether PyTorch works at all",
        )
    names = (
        "loss before", "loss after", "accuracy", "answers", "answers that differ", "largest difference", "request",
    )  # fmt: skip
    by_name = {name: values[0]["value"] for name in names if (values := told.values(name))}
    if lacking := [name for name in names if not isinstance(by_name.get(name), (int, float))]:
        return unknown(f"the workload did not say {', '.join(lacking)}", "run the check once more")
    gpu = None if context.device == CPU else 0
    before, after, accuracy, answers, differ = (float(by_name[name]) for name in names[:5])
    # Written so that what is no number is bad.
    learned, apt, asked, same = (
        after <= MOST_LOSS * before,
        accuracy >= LEAST_ACCURACY,
        answers > 0,
        differ == 0,
    )

    def verdict(good: bool) -> Verdict:
        return Verdict.PASS if good else Verdict.FAIL

    figures = (
        Figure("loss before", before, gpu=gpu),
        Figure(
            "loss after", after, "", gpu, f"<= {MOST_LOSS:g} x before", "proposal", verdict(learned), "lower"
        ),
        Figure("accuracy", accuracy, "", gpu, f">= {LEAST_ACCURACY:g}", "proposal", verdict(apt), "higher"),
        Figure("answers", int(answers), expected="> 0", verdict=verdict(asked)),
        Figure(
            "answers that differ",
            int(differ),
            "",
            gpu,
            "0",
            "the model before it was saved",
            verdict(same),
            "lower",
        ),
        Figure("largest difference", by_name["largest difference"], "", gpu, better="lower"),
        Figure("request", by_name["request"], "ms", better="lower"),
    )
    if not (learned and apt):
        return failed(
            f"the model does not learn: its loss goes from {before:.3g} to {after:.3g}, and {accuracy:.0%} of its answers are right",
            "run the checks kernels and memory_pattern: the training gives the same result on every sound machine",
            *figures,
        )
    if not asked:
        return unknown("the server was asked nothing", "run the check once more", *figures)
    if not same:
        return failed(
            f"the served model answers {int(differ)} of {int(answers)} requests otherwise than before it was saved",
            "run the checks kernels and memory_pattern, and see whether the disk is sound",
            *figures,
        )
    where = "the CPU" if context.device == CPU else "GPU 0"
    return passed(
        f"a model trained on {where} was saved, loaded in another process and served over HTTP; all {int(answers)} answers are those "
        "that it gave before",
        *figures,
    )


CHECK = Check(
    name="full_stack",
    title="From training to serving",
    group=Group.FRAMEWORKS,
    about="A small model is trained on a GPU, saved, loaded in another process, served over HTTP on loopback, and asked from outside.",
    expects="The loss falls to less than half, nine of ten points are told apart, and the server's answers are those of the trained model.",
    fails="Loopback is closed by a firewall, the disk is full, or the GPU computes wrong.",
    run=run,
    suites=(FULL,),
    seconds=20,
)
