# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's log of this boot says of the GPUs. `data` has every finding, as ``log``, with the line that says it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import asdict

from .. import health_checks as common
from .. import kernel_log
from ..check import FULL, QUICK, CannotLook, Check, Context, Group, Need
from ..limits import Limits
from ..verdicts import Result


def run(context: Context) -> Result:
    """Read it, and judge what is in it."""
    common.on_bus(context)
    lines = context.kernel_log()
    if not lines:
        # No kernel boots without a word: it was not this machine's log.
        raise CannotLook("the kernel's log of this boot is empty", "run this as root, and not in a container")
    most, _source = Limits(context.profile.limits).get("pcie_corrected")
    found = kernel_log.findings(lines, common.places(context), most_corrected=int(most))
    judged, notes = common.from_log(context, found)
    return common.conclude(
        judged,
        f"{common.plural(len(lines), 'line')} of the kernel's log{_since(lines)}: no Xid, no failure of the driver, no error of a link",
        common.log_figures(context, found),
        notes=notes,
        log=[asdict(one) for one in found],
    )


def _since(lines: list[str]) -> str:
    first = next((at for line in lines if (at := kernel_log.time_of(line)) is not None), None)
    return f" from {kernel_log.clock(first)} on" if first is not None else ""


CHECK = Check(
    name="kernel_log",
    title="Kernel log",
    group=Group.HEALTH,
    about="Reads the kernel's log of this boot for Xids, cards that fell off the bus, failures of the driver and its firmware, and "
    "errors of the GPUs' links, each with the card that it is about.",
    expects="None of them. How grave an Xid is, is in our catalogue, with NVIDIA's, AWS' and Azure's judgement where they differ; one "
    "that we do not know is WARN. Up to 100 corrected errors of a link are noted (`limits.pcie_corrected`).",
    fails="Xid 79 and `fallen off the bus`: switch the machine off and on, reseat card and cable. Xid 54: the power cable. Xid 48, 63, "
    "64, 94, 95: memory. Xid 109, 119, 120, RmInitAdapter: the card's own processor; switch off and on, newest driver and VBIOS. Xid "
    "13, 31, 43, 45: most often the program. After it was mended, reboot: the log is that of this boot.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
