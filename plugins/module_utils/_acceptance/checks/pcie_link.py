# SPDX-License-Identifier: GPL-3.0-or-later
"""Each GPU's link has the lanes that it should have, and what generation it could come to.

At rest a link falls to generation 1, which means nothing; the check pcie_under_load looks at it at work.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict

_RESEAT = (
    "switch the machine off, reseat the card and its riser, see that the slot has all its lanes (the board's manual says which "
    "slots share them) and that the firmware does not split it"
)


@dataclass(frozen=True, slots=True)
class _Link:
    """What one card's link is and could be; None: nobody tells."""

    now: int | None
    declared: int | None
    card: int | None
    slot: int | None
    port: str

    @property
    def possible(self) -> int | None:
        """The lanes that both ends have."""
        return min((lanes for lanes in (self.card, self.slot) if lanes), default=None)


def run(context: Context) -> Result:
    """Compare what is with what is declared, or with what could be."""
    wanted = common.expected(context)
    found: list[common.Finding] = []
    notes: list[str] = []
    unseen: list[common.Device] = []
    figures: list[Figure] = []
    there = common.on_bus(context)
    whole = common.bare_metal(context)
    for device in there:
        link = _link(device, wanted)
        if link.now is None and device.get("state") != "ok":
            unseen.append(device)
            continue
        figures += _figures(device, link)
        _judge(device, link, whole, found, notes)
        if newer := _older_slot(device):
            notes.append(newer)
    declared = any(figure.source == common.DECLARED for figure in figures)
    return common.conclude(
        found,
        f"{common.plural(len(there) - len(unseen), 'GPU')}: the links are as wide as "
        + ("declared" if declared else "card and slot can have it" if not notes else "they can be here"),
        figures,
        unseen=unseen,
        notes=notes,
    )


def _link(device: common.Device, wanted: common.Expected) -> _Link:
    port = device.get("port") or {}
    return _Link(
        now=common.of(device, "link", "width_now"),
        declared=wanted.width.get(str(device.get("model")), wanted.width.get("", 0)) or None,
        card=common.of(device, "link", "width_max"),
        slot=port.get("width_max"),
        port=str(port.get("address") or ""),
    )


def _judge(
    device: common.Device,
    link: _Link,
    whole: bool | None,
    found: list[common.Finding],
    notes: list[str],
) -> None:
    name = common.title(device)
    if link.now is None:
        found.append(
            common.Finding(
                Verdict.UNKNOWN,
                f"{name} does not tell the width of its link ({common.missing(device, 'link.width_now')})",
                f"see `lspci -vvs {device.get('pci_address')}`; in a virtual machine that hides it, waive this check with that reason",
            )
        )
    elif link.declared is not None:
        if link.now < link.declared:
            slot = f" (its slot has {link.slot})" if link.slot and link.slot < link.declared else ""
            found.append(
                common.Finding(
                    Verdict.FAIL, f"{name} is on x{link.now}, declared is x{link.declared}{slot}", _RESEAT
                )
            )
    elif link.possible is not None and link.now < link.possible:
        if whole is False:
            notes.append(
                f"{name} is on x{link.now} of x{link.possible}, as is usual in clouds; nothing is declared"
            )
        else:
            found.append(
                common.Finding(
                    Verdict.WARN,
                    f"{name} is on x{link.now}, card and slot could have x{link.possible}; nothing is declared",
                    f"{_RESEAT}; where that is all it can have here, declare it: `width` in `expected` of {common.PROFILE}",
                )
            )
    elif link.slot and link.card and link.slot < link.card:
        notes.append(
            f"{name} is on x{link.now} of x{link.card}, for its slot ({link.port}) has no more lanes"
        )


def _older_slot(device: common.Device) -> str:
    """A note where the board holds the card back; how fast the link then is, is measured at work."""
    card = common.of(device, "link", "gen_device_max")
    slot = common.of(device, "port", "gen_max") or common.of(device, "link", "gen_max")
    if not card or not slot or slot >= card:
        return ""
    return f"{common.title(device)} could have generation {card}, its slot gives it {slot}"


def _figures(device: common.Device, link: _Link) -> list[Figure]:
    gpu = common.index_of(device)
    least = link.declared or link.possible
    verdict = None
    if least and link.now is not None:
        short = Verdict.FAIL if link.declared else Verdict.WARN
        verdict = Verdict.PASS if link.now >= least else short
    return [
        Figure(
            "width",
            link.now,
            "lanes",
            gpu,
            expected=f">= {least}" if least else "",
            source=common.DECLARED if link.declared else "card and slot" if least else "",
            verdict=verdict,
            better="higher",
        ),
        Figure(
            "highest generation",
            common.of(device, "link", "gen_max"),
            gpu=gpu,
            expected=str(common.of(device, "link", "gen_device_max") or ""),
            source="the card",
            better="higher",
        ),
        Figure("generation at rest", common.of(device, "link", "gen_now"), gpu=gpu),
    ]


CHECK = Check(
    name="pcie_link",
    title="PCIe link",
    group=Group.CONFIGURATION,
    about="Reads how many lanes each GPU's link has, and the highest generation that card and slot could come to.",
    expects="The declared width (`width`), else FAIL. Without a declaration what card and slot both could have: less is WARN on bare "
    "metal and noted in a virtual machine, where eight lanes of sixteen are usual. The generation at rest is shown and never "
    "judged, since a link that has nothing to do falls to generation 1.",
    fails="The card is not in its slot to the end, its riser is bad, it is in a slot with fewer lanes, or the firmware splits the "
    "slot. Reseat card and riser first; then compare with a card whose link is whole by exchanging their slots.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
