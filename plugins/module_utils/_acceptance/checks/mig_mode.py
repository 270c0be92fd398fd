# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU is whole, or cut into the parts that are declared (MIG).

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply


def run(context: Context) -> Result:
    """Compare what is now with what is declared, and with what a reset would make of it."""
    there = common.cards(context)
    wanted = common.expected(context)
    check = common.engine(context, wanted).get("mig_mode")
    able = [device for device in there if not common.has_none(device, "mig.current")]
    if not able and (check is None or check.ok):
        return does_not_apply("the GPUs cannot be cut into parts")
    found = common.from_engine(check)
    for device in able:
        if check is None or device["pci_address"] not in check.cards:
            found += _of(device, wanted.tuned("mig", device))
    return common.conclude(
        found,
        f"{common.plural(len(able), 'GPU')}: MIG is "
        + ("as declared" if "mig" in wanted.tuning else "off, and nothing is declared"),
        [_figure(device, wanted.tuned("mig", device)) for device in there],
        unseen=common.silent(context),
    )


def _of(device: common.Device, declared: object) -> Iterator[common.Finding]:
    now, later = common.of(device, "mig", "current"), common.of(device, "mig", "pending")
    if now is None:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} does not tell whether MIG is on ({common.missing(device, 'mig.current')})",
            "see `nvidia-smi -q`",
        )
        return
    if later is not None and later is not now:
        yield common.Finding(
            Verdict.WARN,
            f"{common.title(device)} has MIG {_word(now)} and will have it {_word(later)} after a reset",
            common.step("reset the card (`nvidia-smi -r -i INDEX`) or reboot, then run this again", device),
        )
    if declared is None and now is True:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} is cut into parts (MIG), and nobody has declared that",
            common.step(
                f"declare the parts (`tuning.mig` in `expected` of {common.PROFILE}), or make the card whole: "
                "`nvidia-smi -i INDEX -mig 0`",
                device,
            ),
        )


def _word(value: object) -> str:
    return "on" if value else "off"


def _figure(device: common.Device, declared: object) -> Figure:
    now = common.of(device, "mig", "current")
    parts = len(common.of(device, "mig", "devices") or [])
    return Figure(
        "MIG",
        None if now is None else f"on, {common.plural(parts, 'part')}" if now else "off",
        gpu=common.index_of(device),
        expected=str(declared) if declared is not None else "off",
        source=common.DECLARED if declared is not None else "as sold",
    )


CHECK = Check(
    name="mig_mode",
    title="MIG",
    group=Group.CONFIGURATION,
    about="Looks whether each GPU is whole, or cut into the declared number of parts.",
    expects="As declared (`tuning.mig`). Without a declaration off; a card that is cut is then UNKNOWN, for whatever is measured is "
    "measured on a part of it. A change that waits for a reset is WARN. Does not apply to cards that cannot be cut.",
    fails="The tuning was not applied, or waits for a reset: `systemctl restart gpumesh-gpu-tuning`, then reboot.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
