# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU is well below the temperature at which it slows itself down, by its own limits.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import health_checks as common
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need
from ..limits import Limits
from ..verdicts import Figure, Result, Verdict


def run(context: Context) -> Result:
    """Compare what is left with what a card at rest should have left."""
    there = common.cards(context)
    least, source = Limits(context.profile.limits).get("rest_margin_c")
    found = common.from_engine(common.engine(context).get("temperature"))
    for device in there:
        margin = common.number(common.of(device, "temperatures", "margin_c"))
        now = common.of(device, "temperatures", "gpu_c")
        if margin is None:
            found.append(
                common.Finding(
                    Verdict.UNKNOWN,
                    f"{common.title(device)} does not tell its own temperature limit "
                    f"({common.missing(device, 'temperatures.margin_c')})",
                    "see `nvidia-smi -q -d TEMPERATURE`",
                )
            )
        elif 0 < margin < least:
            found.append(
                common.Finding(
                    Verdict.WARN,
                    f"{common.title(device)} is at {now} degrees before any work, {margin:g} below its own limit",
                    "see whether something runs on it; if nothing does: fans, dust, the air around the card",
                )
            )
    margins = [
        margin
        for device in there
        if (margin := common.number(common.of(device, "temperatures", "margin_c"))) is not None
    ]
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: {min(margins):g} degrees or more are left to the cards' own limits"
        if margins
        else "",
        [figure for device in there for figure in _figures(device, least, source)],
        unseen=common.silent(context),
    )


def _figures(device: common.Device, least: float, source: str) -> Iterator[Figure]:
    gpu = common.index_of(device)
    margin = common.number(common.of(device, "temperatures", "margin_c"))
    verdict = Verdict.UNKNOWN
    if margin is not None:
        verdict = Verdict.FAIL if margin <= 0 else Verdict.WARN if margin < least else Verdict.PASS
    yield Figure(
        "margin", margin, "°C", gpu, f">= {least:g}", f"the card's own limit; {source}", verdict, "higher"
    )
    yield Figure("temperature", common.of(device, "temperatures", "gpu_c"), "°C", gpu, better="lower")
    memory = common.of(device, "temperatures", "memory_c")
    if memory is not None:
        yield Figure("memory temperature", memory, "°C", gpu, better="lower")


CHECK = Check(
    name="temperatures",
    title="Temperatures at rest",
    group=Group.HEALTH,
    about="Reads each GPU's temperature before any work, and how far it is from the card's own limit.",
    expects="Below the limit that the card itself has (highest in operation, else where it slows down), told in degrees or as a "
    "distance: at it is FAIL, closer than 15 degrees before any work is WARN (a proposal, `limits.rest_margin_c`). A card that does "
    "not tell its limit is UNKNOWN. No fixed temperature is used, since limits differ from card to card.",
    fails="Fans, dust, the air around the card, a case that is too narrow; or something was running.",
    run=run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
