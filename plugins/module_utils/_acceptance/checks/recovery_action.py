# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver asks for nothing to heal a GPU.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..._fleet.gpu import smi_text
from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply

_NOT_THERE = (smi_text.ABSENT, smi_text.NOT_AVAILABLE, smi_text.DEPRECATED)


def run(context: Context) -> Result:
    """Read what it asks for."""
    there = common.cards(context)
    telling = [
        device
        for device in there
        if device.get("recovery_action") is not None
        or common.missing(device, "recovery_action") not in _NOT_THERE
    ]
    if not telling:
        return does_not_apply("this driver does not say what would heal a card; branches from 570 on do")
    found = common.from_engine(common.engine(context).get("recovery"))
    found += [
        common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} does not tell what would heal it ({common.missing(device, 'recovery_action')})",
            "see `nvidia-smi -q`",
        )
        for device in telling
        if device.get("recovery_action") is None
    ]
    return common.conclude(
        found,
        f"{common.plural(len(telling), 'GPU')}: the driver asks for nothing",
        [
            Figure(
                "recovery action",
                device.get("recovery_action"),
                gpu=common.index_of(device),
                expected="None",
                verdict=Verdict.PASS
                if str(device.get("recovery_action")).lower() == "none" and device.get("recovery_action")
                else Verdict.UNKNOWN
                if device.get("recovery_action") is None
                else Verdict.FAIL,
            )
            for device in telling
        ],
        unseen=common.silent(context),
    )


CHECK = Check(
    name="recovery_action",
    title="Recovery action",
    group=Group.HEALTH,
    about="Reads what the driver asks for to heal each GPU: a reset, a reboot, or to be given no new work.",
    expects="Nothing. Does not apply to drivers before branch 570, which do not tell.",
    fails="Do what it asks for: end what uses the card and reset it (`nvidia-smi -r -i INDEX`), or reboot. One that asks again after "
    "that is to be replaced.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
