# SPDX-License-Identifier: GPL-3.0-or-later
"""Few errors on each GPU's link since the machine has started, and all of them corrected.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .. import health_checks as common
from ..check import FULL, QUICK, CannotLook, Check, Context, Group, Need
from ..limits import Limits
from ..verdicts import Figure, Result, Verdict, skipped

LINK = (
    "reseat the card and its riser, or use a shorter riser or none; then set the slot to a lower generation in the board's "
    "firmware: if the errors end with that, the path to the slot is bad, else the card"
)
_HARMLESS = "nonfatal.UnsupReq"
"""A question that nobody answers, as when a driver looks what there is: by itself no sign of a bad link."""


def run(context: Context) -> Result:
    """Read the kernel's counters and the card's own."""
    there = common.on_bus(context)
    most, source = Limits(context.profile.limits).get("pcie_corrected")
    unseen = [
        device
        for device in there
        if device.get("state") != "ok" and common.of(device, "aer", "fatal") is None
    ]
    looked = [device for device in there if device not in unseen and _counted(device)]
    blind = [device for device in there if device not in unseen and not _counted(device)]
    if len(unseen) == len(there):
        raise CannotLook(
            "the driver answers for no GPU, and the kernel counts no errors of the links",
            "see the checks driver_versions, kernel_modules and gpus_seen",
        )
    if not looked and not unseen:
        return skipped(
            "neither the kernel nor the driver counts errors of these links",
            "let the board's firmware give AER to the system, or waive this check in a virtual machine",
        )
    found = [finding for device in looked for finding in _of(device, most)]
    found += [
        common.Finding(
            Verdict.UNKNOWN,
            f"nobody counts the errors of {common.title(device)}",
            "see `nvidia-smi -q` and whether the board's firmware gives AER to the system",
        )
        for device in blind
    ]
    without = [device for device in looked if common.of(device, "aer", "correctable") is None]
    notes = []
    if without:
        whose = "any link" if len(without) == len(looked) else common.named(without)
        notes.append(
            f"the kernel counts no errors of {whose} here (AER is the firmware's, or the machine a virtual one): the cards' own "
            "counters were read alone"
        )
    if some := [device for device in looked if 0 < _corrected(device) <= most]:
        notes.append(f"{common.named(some)}: a few errors, all corrected")
    return common.conclude(
        found,
        f"{common.plural(len(looked), 'GPU')}: no error of a link that matters",
        [figure for device in looked for figure in _figures(device, most, source)],
        unseen=unseen,
        notes=notes,
    )


def _counted(device: common.Device) -> bool:
    return (
        common.of(device, "link", "replay_counter") is not None
        or common.of(device, "aer", "correctable") is not None
    )


def _corrected(device: common.Device) -> int:
    """The most that any of the counters of the link says."""
    counts = (
        common.of(device, "link", "replay_counter"),
        common.of(device, "aer", "correctable"),
        common.of(device, "port", "aer", "correctable"),
    )
    return max(int(count or 0) for count in counts)


def _of(device: common.Device, most: float) -> Iterator[common.Finding]:
    name = common.title(device)
    for end, aer in (("", device.get("aer")), (" at its slot's port", common.of(device, "port", "aer"))):
        aer = aer or {}
        kinds = aer.get("kinds") or {}
        if fatal := aer.get("fatal"):
            yield common.Finding(
                Verdict.FAIL,
                f"{name} has had {common.plural(fatal, 'fatal error')} of its link{end}{_kinds(kinds, 'fatal')}",
                LINK,
            )
        if nonfatal := aer.get("nonfatal"):
            asked = nonfatal == kinds.get(_HARMLESS)
            yield common.Finding(
                Verdict.WARN if asked else Verdict.FAIL,
                f"{name} has had {common.plural(nonfatal, 'error')} of its link that could not be corrected{end}"
                f"{_kinds(kinds, 'nonfatal')}",
                "see `journalctl -k | grep -i aer` for what asked for it" if asked else LINK,
            )
    rolled = common.of(device, "link", "replay_rollover_counter")
    if rolled:
        yield common.Finding(
            Verdict.FAIL,
            f"{name} gave up sending a packet again {common.plural(rolled, 'time')}: its link had to be trained anew",
            LINK,
        )
    count = _corrected(device)
    if count > most:
        kinds = {
            **(common.of(device, "aer", "kinds") or {}),
            **(common.of(device, "port", "aer", "kinds") or {}),
        }
        yield common.Finding(
            Verdict.WARN,
            f"{name} has had {count} corrected errors of its link{_kinds(kinds, 'correctable')}, more than {most:g}",
            LINK,
        )


def _kinds(kinds: Mapping[str, int], of: str) -> str:
    told = ", ".join(
        f"{count} x {name.partition('.')[2]}"
        for name, count in sorted(kinds.items())
        if name.startswith(f"{of}.")
    )
    return f" ({told})" if told else ""


def _figures(device: common.Device, most: float, source: str) -> Iterator[Figure]:
    gpu = common.index_of(device)
    some = f"<= {most:g}"
    counts = (
        ("replays", common.of(device, "link", "replay_counter"), some, source),
        ("replay rollovers", common.of(device, "link", "replay_rollover_counter"), "0", ""),
        ("corrected errors", common.of(device, "aer", "correctable"), some, source),
        ("errors not corrected", common.of(device, "aer", "nonfatal"), "0", ""),
        ("fatal errors", common.of(device, "aer", "fatal"), "0", ""),
        ("corrected errors at the port", common.of(device, "port", "aer", "correctable"), some, source),
    )
    for name, count, expected, where in counts:
        good = count is not None and count <= (most if expected == some else 0)
        bad = Verdict.WARN if expected == some else Verdict.FAIL
        verdict = Verdict.SKIP if count is None else Verdict.PASS if good else bad
        yield Figure(name, count, gpu=gpu, expected=expected, source=where, verdict=verdict, better="lower")


CHECK = Check(
    name="pcie_errors",
    title="PCIe errors",
    group=Group.HEALTH,
    about="Reads the errors of each GPU's link: those that the kernel has counted at both ends since the machine has started (AER), "
    "and how often the card had to send a packet again.",
    expects="None that could not be corrected (FAIL), and at most 100 corrected ones (WARN; a proposal, `limits.pcie_corrected`), "
    "since a few happen whenever a link changes its speed. Where the kernel does not count, the card's own counter is read "
    "alone, and the result says so.",
    fails="A riser that is too long or not home, a card that is not in its slot to the end, a dirty contact. Reseat; try without a "
    "riser; try a lower generation in the board's firmware; exchange slots with a card that has no errors.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
