# SPDX-License-Identifier: GPL-3.0-or-later
"""The processor can address all of each GPU's memory.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply

_WITHOUT = frozenset({"Pascal", "Volta", "Turing"})
"""Generations before it: what they show of their memory is fixed."""


def run(context: Context) -> Result:
    """Compare the window with the memory."""
    there = common.cards(context)
    able = [device for device in there if common.generation_of(device) not in _WITHOUT]
    if not able:
        return does_not_apply("the GPUs are of a generation whose window into memory cannot be resized")
    found: list[common.Finding] = []
    notes: list[str] = []
    for device in able:
        window, memory = common.number(device.get("bar1_mib")), common.number(device.get("memory_mib"))
        if window is None or memory is None:
            found.append(
                common.Finding(
                    Verdict.UNKNOWN,
                    f"{common.title(device)} does not tell how much of its memory the processor can address "
                    f"({common.missing(device, 'bar1_mib')})",
                    "see `nvidia-smi -q -d MEMORY`",
                )
            )
        elif window < memory:
            said = f"{common.title(device)} lets the processor address {window:g} of {memory:g} MiB"
            if common.bare_metal(context) is False:
                notes.append(f"{said}, which only the host of this virtual machine could change")
            else:
                found.append(
                    common.Finding(
                        Verdict.WARN,
                        said,
                        "switch on `Above 4G Decoding` and `Resizable BAR` in the board's firmware (and switch off CSM)",
                    )
                )
    good = len(able) - len(notes)
    return common.conclude(
        found,
        f"{common.plural(good, 'GPU')}: the processor can address all of the memory" if good else "",
        [_figure(device) for device in there],
        unseen=common.silent(context),
        notes=notes,
    )


def _figure(device: common.Device) -> Figure:
    window, memory = common.number(device.get("bar1_mib")), common.number(device.get("memory_mib"))
    fixed = common.generation_of(device) in _WITHOUT
    return Figure(
        "addressable memory",
        window,
        "MiB",
        common.index_of(device),
        expected="" if fixed or memory is None else f">= {memory:g}",
        source="" if fixed or memory is None else "the card's memory",
        better="higher",
    )


CHECK = Check(
    name="resizable_bar",
    title="Resizable BAR",
    group=Group.CONFIGURATION,
    about="Compares how much of each GPU's memory the processor can address (BAR 1) with the memory that it has.",
    expects="All of it, on Ampere and later. Less is WARN on bare metal: everything works, transfers are slower and P2P cannot be had. "
    "In a virtual machine only the host could change it, so that it is noted and not judged. Older generations have a fixed window.",
    fails="Resizable BAR or Above 4G Decoding is off in the board's firmware, or the firmware is older than the card.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
