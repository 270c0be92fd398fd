# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU's power limit is the declared one, or the card's own, and the card enforces it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..._fleet.gpu import smi_text
from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply

_SETTING = "power_limit_w"


def run(context: Context) -> Result:
    """Compare what was asked for with what is declared, and with what holds."""
    there = common.cards(context)
    wanted = common.expected(context)
    declared = {str(device["pci_address"]): wanted.tuned(_SETTING, device) for device in there}
    without = [device for device in there if _has_none(device)]
    if len(without) == len(there) and not any(declared.values()):
        return does_not_apply("the GPUs have no power limit")
    found = common.from_engine(common.engine(context, wanted).get("power_limit"))
    for device in there:
        if not _has_none(device):
            found += _of(device, declared[str(device["pci_address"])])
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: power limits are "
        + ("as declared" if any(declared.values()) else "the cards' own, and none is declared"),
        [_figure(device, declared[str(device["pci_address"])]) for device in there],
        unseen=common.silent(context),
    )


def _has_none(device: common.Device) -> bool:
    state = (device.get("missing") or {}).get("power.requested_w")
    return _asked(device) is None and state == smi_text.NOT_AVAILABLE


def _asked(device: common.Device) -> float | None:
    requested = common.number(common.of(device, "power", "requested_w"))
    return requested if requested is not None else common.number(common.of(device, "power", "limit_w"))


def _of(device: common.Device, declared: float | None) -> Iterator[common.Finding]:
    name = common.title(device)
    asked, default = _asked(device), common.number(common.of(device, "power", "default_w"))
    if declared is not None:
        yield from _in_range(device, declared)
    elif asked is None:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} does not tell its power limit ({common.missing(device, 'power.requested_w')})",
            "see `nvidia-smi -q -d POWER`",
        )
    elif default is not None and abs(asked - default) >= 1:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} has a power limit of {asked:g} W, its own is {default:g} W, and nobody has declared one",
            common.step(
                f"declare it (`tuning.power_limit_w` in `expected` of {common.PROFILE}), or give the card its own back: "
                f"`nvidia-smi -i INDEX -pl {default:g}`",
                device,
            ),
        )
    held = common.number(common.of(device, "power", "limit_w"))
    if held is not None and asked is not None and held <= asked - 1:
        yield common.Finding(
            Verdict.WARN,
            f"{name} was given {asked:g} W and holds to {held:g} W",
            "see its power cable: a 12V-2x6 cable tells the card by its sense pins how much it may draw, and a smaller one less",
        )


def _in_range(device: common.Device, declared: float) -> Iterator[common.Finding]:
    least, most = (common.number(common.of(device, "power", key)) for key in ("min_w", "max_w"))
    if least is not None and most is not None and not least <= declared <= most:
        yield common.Finding(
            Verdict.FAIL,
            f"{common.title(device)} can be set from {least:g} to {most:g} W, declared are {declared:g} W",
            f"declare one that it can have, {least:g} to {most:g} W",
        )


def _figure(device: common.Device, declared: float | None) -> Figure:
    default, asked = common.number(common.of(device, "power", "default_w")), _asked(device)
    wanted = declared if declared is not None else default
    verdict = None
    if wanted is not None and asked is not None:
        other = Verdict.FAIL if declared is not None else Verdict.UNKNOWN
        verdict = Verdict.PASS if abs(asked - wanted) < 1 else other
    return Figure(
        "power limit",
        asked,
        "W",
        common.index_of(device),
        expected=f"{wanted:g}" if wanted is not None else "",
        source=common.DECLARED if declared is not None else "the card's own" if wanted is not None else "",
        verdict=verdict,
    )


CHECK = Check(
    name="power_limit",
    title="Power limit",
    group=Group.CONFIGURATION,
    about="Reads back the power limit that each GPU was given, and the one that it holds to.",
    expects="The declared one (`tuning.power_limit_w`). Without a declaration the card's own; another one that nobody has declared "
    "is UNKNOWN. A card that holds to less than it was given is WARN.",
    fails="The tuning was not applied, or was lost at a boot: `systemctl restart gpumesh-gpu-tuning`. A limit outside of the card's "
    "range cannot be set, and must be declared otherwise.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
