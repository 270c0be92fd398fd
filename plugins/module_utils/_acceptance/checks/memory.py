# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU has all of its memory.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..._fleet.gpu.health_devices import memory_floor
from .. import health_checks as common
from ..check import DEMO, FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict


def run(context: Context) -> Result:
    """Compare the driver's figure with the catalog's."""
    there = common.cards(context)
    found = common.from_engine(common.engine(context).get("memory"))
    strange = [device for device in there if memory_floor(device) is None]
    found += [
        common.Finding(
            Verdict.UNKNOWN,
            f"{common.title(device)} has {device.get('memory_mib')} MiB, and the catalog does not have the card",
            f"see whether {device.get('memory_mib')} MiB is what it is sold with, and add the card to the catalog",
        )
        for device in strange
    ]
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: all memory is there",
        [_figure(device) for device in there],
        unseen=common.silent(context),
    )


def _figure(device: common.Device) -> Figure:
    least, memory = memory_floor(device), common.number(device.get("memory_mib"))
    verdict = Verdict.UNKNOWN
    if least is not None:
        verdict = Verdict.PASS if memory is not None and memory >= least else Verdict.FAIL
    return Figure(
        "memory",
        memory,
        "MiB",
        common.index_of(device),
        expected=f">= {least}" if least is not None else "",
        source="catalog" if least is not None else "",
        verdict=verdict,
        better="higher",
    )


CHECK = Check(
    name="memory",
    title="Memory size",
    group=Group.INVENTORY,
    about="Compares the memory that the driver reports of each GPU with what a card of its kind has.",
    expects="What a real card of this PCI id reports, as the catalog has it, less 64 MiB; with ECC on, one sixteenth less; where "
    "no reading is known, 92 % of the size on the box. UNKNOWN for a card that is not in the catalog.",
    fails="Memory that the card has switched off, or a card that is not what it was sold as. Switch the machine off and on once; "
    "one that stays so is to be replaced.",
    run=run,
    suites=(QUICK, FULL, DEMO),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
