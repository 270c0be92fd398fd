# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU computes, and what it computes is right.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import compute
from ..check import FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown

_OPERATIONS = ("matmul", "convolution", "reduction", "integers")
_SECONDS = 180.0


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "kernels", seconds=_SECONDS)
    return compute.trouble(done, "computing") or judge(ctx, done)


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Of what the workload told: whether kernels start, and how far off the answers are."""
    figures: list[Figure] = []
    asleep: list[str] = []
    wrong: list[str] = []
    launched: set[int] = set()
    for line in done.values("launch"):
        gpu = int(line["gpu"])
        good = line["value"] is True
        if good:
            launched.add(gpu)
        else:
            asleep.append(f"{compute.who(ctx, gpu)}: {line.get('says') or 'no kernel runs'}")
        figures.append(_figure(ctx, "kernels run", good, gpu, "True", good))
    judged: dict[int, set[str]] = {}
    for operation in _OPERATIONS:
        for line in done.values(operation):
            gpu, error, allowed = int(line["gpu"]), compute.number(line["value"]), float(line["allowed"])
            good = error is not None and error <= allowed
            judged.setdefault(gpu, set()).add(operation)
            if not good:
                off = (
                    "its result is no number" if error is None else f"off by {error:.3g} of the largest value"
                )
                wrong.append(f"{compute.who(ctx, gpu)} computes a wrong {operation} ({off})")
            value = None if error is None else float(f"{error:.3g}")
            figures.append(_figure(ctx, f"{operation}, relative error", value, gpu, f"<= {allowed:g}", good))
    if asleep:
        return _asleep(done, asleep, figures)
    if wrong:
        return failed(
            compute.listed(wrong),
            "run it again after a reboot with nothing else running; a card that computes wrong answers again must be replaced",
            *figures,
        )
    missing = [
        compute.who(ctx, gpu)
        for gpu in range(ctx.workers)
        if gpu not in launched or judged.get(gpu) != set(_OPERATIONS)
    ]
    if missing:
        return unknown(
            f"nothing, or not everything, was told of {', '.join(missing)}",
            "see the workload's log in the folder of this run",
            *figures,
        )
    what = (
        "processes compute"
        if ctx.device == compute.CPU
        else f"GPU{'s' * (ctx.workers > 1)} compute{'s' * (ctx.workers == 1)}"
    )
    return passed(f"{ctx.workers} {what} right answers", *figures)


def _figure(
    ctx: Context, name: str, value: bool | float | None, gpu: int, expected: str, good: bool
) -> Figure:
    """Right or wrong is judged on a CPU as well."""
    verdict = Verdict.PASS if good else Verdict.FAIL
    if ctx.device == compute.CPU:
        return Figure(f"{name}, process {gpu}", value, "", None, expected, "float64 on the CPU", verdict)
    return Figure(name, value, "", gpu, expected, "float64 on the CPU", verdict)


def _asleep(done: WorkloadRun, asleep: list[str], figures: list[Figure]) -> Result:
    says = compute.listed(asleep)
    if not any("no kernel image" in one for one in asleep):
        return failed(
            says,
            "look for Xid lines in the kernel's log (check kernel_log), reboot, and run it again; a card that fails again must be "
            "replaced",
            *figures,
        )
    built = next((str(line["value"]) for line in done.values("architectures")), "")
    cards = sorted({str(line.get("capability")) for line in done.values("device") if line.get("capability")})
    detail = (
        f" (built for {built or 'unknown architectures'}; compute capability {', '.join(cards) or 'unknown'})"
    )
    return failed(
        f"{says}: PyTorch {done.begin.get('versions', {}).get('torch', '')} finds the GPU and has no kernels for it{detail}",
        compute.REINSTALL,
        *figures,
    )


CHECK = Check(
    name="kernels",
    title="Computes correctly",
    group=Group.COMPUTE,
    about="On each GPU a kernel of PyTorch runs, and a matrix product, a convolution, a sum and integer work come out as on the CPU.",
    expects="Each result is as close to float64 on the CPU as its precision allows; integers are equal.",
    fails="Kernels that do not start: PyTorch was built without the card's architecture (an older wheel still lists the GPU as "
    "available); install the one that role ai_frameworks picks. Wrong answers: a defect of the card, its memory or its power supply; "
    "reboot, run it again, and have the card replaced if it happens again.",
    run=_run,
    suites=(QUICK, FULL),
    needs=(Need.PYTORCH,),
    seconds=12,
)
