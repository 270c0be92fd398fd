# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use each GPU is as declared, or everybody.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict

_AS_SOLD = "Default"


def run(context: Context) -> Result:
    """Compare."""
    there = common.cards(context)
    wanted = common.expected(context)
    found = common.from_engine(common.engine(context, wanted).get("compute_mode"))
    for device in there:
        mode = device.get("compute_mode")
        if wanted.tuned("compute_mode", device) is not None or mode == _AS_SOLD:
            continue
        if mode is None:
            said, advice = "does not tell who may use it", "see `nvidia-smi -q`"
        else:
            said = f"is in compute mode {mode}, and nobody has declared that"
            advice = (
                f"declare it (`tuning.compute_mode` in `expected` of {common.PROFILE}), or let everybody use it: "
                "`nvidia-smi -i INDEX -c 0`"
            )
        found.append(
            common.Finding(Verdict.UNKNOWN, f"{common.title(device)} {said}", common.step(advice, device))
        )
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: compute modes are "
        + (
            "as declared"
            if "compute_mode" in wanted.tuning
            else "as the cards are sold, and none is declared"
        ),
        [
            Figure(
                "compute mode",
                str(device["compute_mode"]) if device.get("compute_mode") is not None else None,
                gpu=common.index_of(device),
                expected=str(wanted.tuned("compute_mode", device) or _AS_SOLD),
                source=common.DECLARED if wanted.tuned("compute_mode", device) else "as sold",
            )
            for device in there
        ],
        unseen=common.silent(context),
    )


CHECK = Check(
    name="compute_mode",
    title="Compute mode",
    group=Group.CONFIGURATION,
    about="Looks how many programs may use each GPU at a time.",
    expects="As declared (`tuning.compute_mode`). Without a declaration Default, in which all may; another mode is then UNKNOWN, "
    "and makes the checks of several programs at once fail.",
    fails="The tuning was not applied: `systemctl restart gpumesh-gpu-tuning`.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
