# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's log of a burn-in comes to. What a line means is known to `kernel_log`. Pure, but for `places`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._fleet.gpu.catalog import GpuModel
from .. import health_checks, kernel_log
from ..verdicts import Figure, Result, Verdict, passed, skipped, unknown, worst
from .records import Tally

_BUS = "sys/bus/pci/devices"


def places(facts: Mapping[str, Any], root: Path) -> tuple[kernel_log.Place, ...]:
    """The cards, and the ports they are behind, by which lines are told to be about them."""
    found = []
    for device in facts.get("devices") or ():
        address = str(device["pci_address"])
        try:
            above = (root / _BUS / address).resolve().parents
        except OSError:
            above = ()
        ports = tuple(path.name for path in above if path.name.count(":") == 2)
        found.append(kernel_log.Place(address, ports, has_nvlink(health_checks.model_of(device))))
    return tuple(found)


def has_nvlink(model: GpuModel | None) -> bool:
    """Whether errors of NVLink are a card's; of one that we do not know it is not said that it has none."""
    return model is None or model.nvlink != "no"


def judge(
    tally: Tally, cards: Sequence[kernel_log.Place], indexes: Mapping[str, int], most_corrected: float
) -> Result:
    """The result.

    Args:
        cards: those that lines may be about.
        indexes: their numbers in nvidia-smi, by address.
        most_corrected: so many corrected errors of a link are nothing to worry about.
    """
    if not tally.ledger.spells:
        return unknown("nothing was read yet", "let it burn longer")
    if "kernel" in tally.blind_says and not tally.cursor:
        return skipped(
            tally.blind_says["kernel"], "run it as root, on a machine whose kernel's log can be read"
        )
    found = kernel_log.findings(tally.kernel_lines, cards, most_corrected=int(most_corrected))
    figures = [
        Figure(
            f"Xid {one.number}" if one.number is not None else one.what,
            one.count,
            "",
            indexes.get(one.address),
            "0",
            one.note,
            one.verdict,
            "lower",
        )
        for one in found
    ]
    bad = [one for one in found if one.verdict is not Verdict.PASS]
    lines = [one.line for one in found][:20]
    left_out = tally.kernel_lost if bad else tally.kernel_seen - len(tally.kernel_lines)
    unread = tally.blind_says.get("kernel", "")
    if (left_out or unread) and not any(one.verdict is Verdict.FAIL for one in bad):
        # A graver line may be among those that nobody has.
        what = (
            f"{left_out} of {tally.kernel_seen} lines that may matter were not kept" if left_out else unread
        )
        lighter = "".join(f"; {_card(one.address, indexes)}: {one.what} ({one.when})" for one in bad[:5])
        return unknown(
            f"the kernel's log is not known whole: {what}{lighter}",
            "see `journalctl -k` of that time",
            *figures,
        )
    if not bad:
        return passed("the kernel reported no error of a GPU or of its link", *figures, lines=lines)
    says = "; ".join(
        f"{_card(one.address, indexes)}: {'Xid ' + str(one.number) + ', ' if one.number is not None else ''}{one.what} ({one.when})"
        for one in bad[:5]
    )
    number = indexes.get(bad[0].address)
    advice = bad[0].advice.replace("INDEX", str(number) if number is not None else bad[0].address or "INDEX")
    return Result(worst(one.verdict for one in bad), says, advice, tuple(figures), data={"lines": lines})


def _card(address: str, indexes: Mapping[str, int]) -> str:
    if address in indexes:
        return f"GPU {indexes[address]}"
    return address or "a GPU"
