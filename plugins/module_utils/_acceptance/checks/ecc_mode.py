# SPDX-License-Identifier: GPL-3.0-or-later
"""ECC is on or off on each GPU as declared, or as the card is sold.

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
    check = common.engine(context, wanted).get("ecc_mode")
    able = [device for device in there if not common.has_none(device, "ecc.current")]
    if not able and (check is None or check.ok):
        return does_not_apply("the GPUs have no ECC")
    found = common.from_engine(check)
    for device in able:
        if check is None or device["pci_address"] not in check.cards:
            found += _of(device, wanted.tuned("ecc", device))
    return common.conclude(
        found,
        f"{common.plural(len(able), 'GPU')}: ECC is "
        + ("as declared" if "ecc" in wanted.tuning else "as the cards are sold, and nothing is declared"),
        [_figure(device, wanted.tuned("ecc", device)) for device in there],
        unseen=common.silent(context),
    )


def _of(device: common.Device, declared: object) -> Iterator[common.Finding]:
    now, later = common.of(device, "ecc", "current"), common.of(device, "ecc", "pending")
    if now is None:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} does not tell whether ECC is on ({common.missing(device, 'ecc.current')})",
            "see `nvidia-smi -q -d ECC`",
        )
        return
    if later is not None and later is not now:
        yield common.Finding(
            Verdict.WARN,
            f"{common.title(device)} has ECC {_word(now)} and will have it {_word(later)} after a reset",
            common.step("reset the card (`nvidia-smi -r -i INDEX`) or reboot, then run this again", device),
        )
    model = common.model_of(device)
    if declared is None and now is False and model and model.ecc == "yes":
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} is sold with ECC on, has it off, and nobody has declared that",
            common.step(
                f"switch it on (`nvidia-smi -i INDEX -e 1`, then a reboot), or declare `tuning.ecc: off` in {common.PROFILE}",
                device,
            ),
        )


def _word(value: object) -> str:
    return "on" if value else "off"


def _figure(device: common.Device, declared: object) -> Figure:
    now = common.of(device, "ecc", "current")
    return Figure(
        "ECC",
        None if now is None else _word(now),
        gpu=common.index_of(device),
        expected=str(declared) if declared is not None else "",
        source=common.DECLARED if declared is not None else "",
    )


CHECK = Check(
    name="ecc_mode",
    title="ECC",
    group=Group.CONFIGURATION,
    about="Looks whether each GPU corrects errors of its memory, and whether a reset would change that.",
    expects="As declared (`tuning.ecc`). Without a declaration as the card is sold; off on a card that is sold with it on is then "
    "UNKNOWN. A change that waits for a reset is WARN. Does not apply to cards without ECC, such as GeForce.",
    fails="Somebody has switched it, or the switch waits for a reset: `nvidia-smi -i INDEX -e 1`, then reboot.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
