# SPDX-License-Identifier: GPL-3.0-or-later
"""As many GPUs of each model on the PCI bus as declared. Needs no driver.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .. import health_checks as common
from ..check import DEMO, FULL, QUICK, Check, Context, Group
from ..record import CPU
from ..verdicts import Figure, Result, Verdict, failed, passed, skipped, unknown


def run(context: Context) -> Result:
    """Count, and compare."""
    if context.device == CPU:
        return skipped("no GPU is looked for, since the run is on the CPU", "run it without --device cpu")
    wanted = common.expected(context)
    there = common.devices(context.facts)
    counts = Counter(_name(device) for device in there)
    figures = [_figure(name, counts[name], wanted.gpus) for name in sorted({*counts, *wanted.gpus})]
    check = common.engine(context, wanted)["gpus_present"]
    if not check.ok:
        return failed(check.what, check.to_do, *figures)
    if wanted.gpus:
        return passed(check.what, *figures)
    declaration = ", ".join(
        f'"{model}": {count}' for model, count in sorted(counts.items()) if not model.startswith("10de:")
    )
    return unknown(
        f"{check.what}; nobody has declared how many belong there, so one that is missing could not be told",
        f'if that is all of them, declare it: `"gpus": {{{declaration}}}` in {common.PROFILE}',
        *figures,
    )


def _name(device: common.Device) -> str:
    return str(device.get("model") or f"10de:{device.get('pci_id')}")


def _figure(name: str, count: int, declared: Mapping[str, int]) -> Figure:
    if not declared:
        return Figure(name, count)
    wanted = declared.get(name, 0)
    verdict = Verdict.PASS if count == wanted else Verdict.FAIL
    return Figure(name, count, expected=str(wanted), source=common.DECLARED, verdict=verdict)


CHECK = Check(
    name="gpus_present",
    title="GPUs on the PCI bus",
    group=Group.INVENTORY,
    about="Counts the NVIDIA GPUs on the PCI bus by model, without the driver's help.",
    expects="As many of each model as the profile declares. Without a declaration UNKNOWN, since a card that is missing leaves "
    "no trace by which it could be told; no GPU at all is FAIL.",
    fails="A card is not in its slot to the end, has no power, or the board has switched the slot off. Switch the machine off and "
    "on, since a reboot does not reset slots; then reseat the card and its power cable; then try the card in another slot.",
    run=run,
    suites=(QUICK, FULL, DEMO),
    seconds=0.1,
)
