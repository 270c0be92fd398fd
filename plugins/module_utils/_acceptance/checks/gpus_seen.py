# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver answers for every GPU that is on the PCI bus.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import health_checks as common
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, failed, passed, skipped


def run(context: Context) -> Result:
    """Compare both counts."""
    there = common.on_bus(context)
    states = {device.get("state") for device in there}
    seen = sum(1 for device in there if device.get("state") == "ok")
    driver = context.facts.get("driver") or {}
    if seen == 0 and not states & {"lost", "no_driver"}:
        # It was reached for none of them: whose fault that is, is told by the checks of the driver.
        return skipped(
            f"nvidia-smi gave no list of GPUs: {str(driver.get('smi')).rstrip('.')}",
            "see the check driver_versions",
        )
    check = common.engine(context)["gpus_seen"]
    figures = (
        Figure("on the PCI bus", len(there)),
        Figure(
            "seen by the driver",
            seen,
            expected=str(len(there)),
            source="the PCI bus",
            verdict=Verdict.PASS if check.ok else Verdict.FAIL,
        ),
    )
    return passed(check.what, *figures) if check.ok else failed(check.what, check.to_do, *figures)


CHECK = Check(
    name="gpus_seen",
    title="GPUs seen by the driver",
    group=Group.INVENTORY,
    about="Compares the GPUs on the PCI bus with those that nvidia-smi answers for.",
    expects="All of them, whatever is declared: a card that is on the bus and does not answer is lost, or its driver is wrong.",
    fails="A lost card has fallen off the bus: switch the machine off and on, see the kernel's log for Xid 79, reseat card and "
    "cable. A card that the driver does not list needs another driver, on Blackwell the open modules. A card that another "
    "module has, such as nouveau or vfio-pci, must be given to nvidia.",
    run=run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.GPU,),
    seconds=0.1,
)
