# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's log says of the GPUs: Xids, cards that fell off the bus, failures of the driver, errors of the links.

Pure: lines in, findings out. The lines of driver branches from 390 to 610 and of kernels from 5.4 on are understood; whatever
else is in a line is let be. Lines about other devices are nobody's business here.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from . import xid
from .verdicts import Verdict


class Kind(StrEnum):
    """What a finding is about."""

    XID = "xid"
    LOST = "lost"
    DRIVER = "driver"
    CORRECTED = "corrected"
    UNCORRECTED = "uncorrected"
    SLOT = "slot"
    NOUVEAU = "nouveau"


@dataclass(frozen=True, slots=True)
class Place:
    """A card, by which lines are found to be about it.

    Attributes:
        address: its PCI address with domain and function.
        ports: the addresses of the ports it is behind.
    """

    address: str
    ports: tuple[str, ...] = ()
    nvlink: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the log says, as often as it says it.

    Attributes:
        address: of the card; empty where the line does not tell which one it is.
        number: of an Xid.
        first: when it was there first, in seconds since the epoch; None: the line has no time.
        line: the first line that says it.
        note: what else a reader should know.
    """

    kind: Kind
    what: str
    verdict: Verdict
    advice: str
    address: str
    count: int = 1
    first: float | None = None
    last: float | None = None
    line: str = ""
    number: int | None = None
    note: str = ""

    @property
    def when(self) -> str:
        """How often, and from when to when."""
        if self.first is None or self.last is None:
            return f"{self.count} times" if self.count > 1 else "once"
        if self.count == 1:
            return f"once, at {clock(self.first)}"
        return f"{self.count} times, from {clock(self.first)} to {clock(self.last)}"


_LONGEST = 2000
_PCI = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?"
_ANY_PCI = re.compile(rf"(?:(?<=PCI:)|(?<![0-9a-fx:.-])){_PCI}(?![0-9a-f])", re.IGNORECASE)
_TIME = re.compile(r"[0-9]{9,11}(?:\.[0-9]{1,9})?(?=\s)")
_XID = re.compile(
    rf"NVRM:.{{0,40}}?\bXid\b\s*(?:\((?:PCI:)?({_PCI})?[^)]{{0,80}}\))?\s*:?\s*([0-9]{{1,4}})\b(.*)",
    re.IGNORECASE,
)
_ACTION = re.compile(r"\bto 0x[0-9a-f]+ \(([^)]{0,60})\)", re.IGNORECASE)
_OFF_THE_BUS = re.compile(
    r"fallen off the bus|lost from the bus|NV_ERR_GPU_IS_LOST|\bGPU is lost\b", re.IGNORECASE
)
_OURS = re.compile(r"\bNVRM\b|\bnvidia(?:-\w+)?\b", re.IGNORECASE)
_BUS_ERROR = re.compile(
    rf"({_PCI}): (?:AER: )?PCIe Bus Error: severity=(Un)?correct\w*(?:\s*\(([^)]{{0,20}})\))?(?:,\s*type=([^,]{{0,40}}))?",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    rf"({_PCI}): (?:AER: )?(?:Multiple )?(Un)?correct\w*(?:\s*\(([^)]{{0,20}})\))?"
    rf"(?: error| errors)? (?:message )?received(?:(?: from|:)?\s*({_PCI}))?",
    re.IGNORECASE,
)
_CONTAINED = re.compile(rf"({_PCI}): DPC: .*(?:containment event|uncorrectable error)", re.IGNORECASE)
_SLOT = re.compile(
    rf"({_PCI}): pciehp: .*(?:Link Down|Card not present)|({_PCI}): .*\blink is down\b", re.IGNORECASE
)
_NOUVEAU = re.compile(rf"\bnouveau ({_PCI})[: ]", re.IGNORECASE)

_LOST_WHAT = "the card has fallen off the bus"
_OPEN = "install the open kernel modules: set `nvidia_driver_flavour: open` and apply the driver layer"
_CLOSED = _OPEN.replace("open", "closed")
_BARS = (
    "switch on `Above 4G Decoding` and `Resizable BAR` in the board's firmware; where they are on, boot once with "
    "`pci=realloc`"
)
_LINK = (
    "reseat the card and its riser, or use a shorter one or none; then set the slot to a lower PCIe generation in the "
    "board's firmware to see whether the errors end"
)
_AGAIN = "reboot the machine once, so that NVIDIA's module has the cards from the beginning"
_MIXED = "reboot the machine; a container that brings a driver library of its own must be rebuilt"
_OLD = "install a driver branch that knows the card: `gpu_stack` says which"


@dataclass(frozen=True, slots=True)
class _Failure:
    """A line of the driver that means that something has failed."""

    pattern: re.Pattern[str]
    what: str
    verdict: Verdict
    advice: str


def _failure(pattern: str, what: str, advice: str, verdict: Verdict = Verdict.FAIL) -> _Failure:
    return _Failure(re.compile(pattern, re.IGNORECASE), what, verdict, advice)


_FAILURES: Sequence[_Failure] = (
    _failure(
        r"necessary power cables connected",
        "the card does not get power from its own cable",
        xid.find(54).advice,
    ),
    _failure(r"requires use of the NVIDIA open kernel modules", "the card needs the open kernel modules", _OPEN),
    _failure(r"not supported by open nvidia\.ko", "the card needs the closed kernel modules", _CLOSED),
    _failure(r"already bound to nouveau", "the kernel's own driver nouveau had a card when NVIDIA's module came", _AGAIN, Verdict.WARN),
    _failure(r"is not supported by the |is supported through the NVIDIA .{1,20}Legacy", "the loaded driver does not know the card", _OLD),
    _failure(r"BAR\d is 0M|PCI I/O region assigned to your NVIDIA device is invalid", "the firmware gave the card no room in memory", _BARS),
    _failure(
        r"Cannot initialize GSP|kgspBootGspRm|WPR2 already up|GSP.{0,40}(?:timed? ?out|failed|failure|crash)|(?:timeout|failed).{0,60}\bGSP\b",
        "the card's own processor (GSP) has failed",
        xid.find(120).advice,
    ),
    _failure(r"RmInitAdapter failed|rm_init_adapter failed", "the driver could not start the card", xid.find(143).advice),
    _failure(r"probe routine failed for", "the driver could not take a card", xid.find(143).advice),
    _failure(r"API mismatch", "a program has another version of the driver's library than the module is", _MIXED, Verdict.WARN),
)  # fmt: skip


@dataclass(slots=True)
class _Group:
    """Lines that say the same of the same card."""

    finding: Finding
    count: int = 0
    reported: int = 0
    first: float | None = None
    last: float | None = None


def findings(lines: Iterable[str], places: Sequence[Place], *, most_corrected: int = 0) -> list[Finding]:
    """What the log says, the gravest first.

    Args:
        lines: of the log, each with its time in seconds since the epoch in front if it has one.
        places: the cards.
        most_corrected: so many corrected errors of a link are nothing to worry about.
    """
    groups: dict[tuple[object, ...], _Group] = {}
    cards = _Cards(places)
    for line in lines:
        text = line[:_LONGEST]
        found = _read(text, cards)
        if found is None:
            continue
        finding, header = found
        key = (finding.kind, finding.number, finding.what, finding.address)
        group = groups.setdefault(key, _Group(finding))
        group.reported += header
        group.count += not header
        at = time_of(text)
        if at is not None:
            group.first = at if group.first is None else min(group.first, at)
            group.last = at if group.last is None else max(group.last, at)
    whole = [_whole(group, most_corrected) for group in groups.values()]
    order = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN, Verdict.PASS)
    return sorted(_once(whole), key=lambda one: (order.index(one.verdict), one.first or 0.0, one.address))


def time_of(line: str) -> float | None:
    """The time that a line begins with, in seconds since the epoch."""
    found = _TIME.match(line)
    return float(found[0]) if found else None


class _Cards:
    """Finds the card that an address belongs to: the card itself, its sound function, or a port it is behind."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._by_stem: dict[str, Place] = {}
        for place in places:
            for port in place.ports:
                self._by_stem.setdefault(port.lower(), place)
        for place in places:
            self._by_stem[_stem(place.address)] = place

    def at(self, address: str | None) -> Place | None:
        """The card; None: it is about another device."""
        if not address:
            return None
        full = _full(address)
        # The functions of a card are one card; those of a bridge are ports of their own.
        return self._by_stem.get(_stem(full)) or self._by_stem.get(full)


def _full(address: str) -> str:
    """An address with a domain of four digits, lower case."""
    parts = address.lower().split(":")
    domain = int(parts[0], 16) if len(parts) == 3 else 0
    return f"{domain:04x}:{parts[-2]}:{parts[-1]}"


def _stem(address: str) -> str:
    return _full(address).partition(".")[0]


def _read(text: str, cards: _Cards) -> tuple[Finding, bool] | None:
    """What a line says, and whether it is but the head of an error that a later line tells whole."""
    if "NVRM" in text and (found := _XID.search(text)):
        return _xid(text, found, cards), False
    if found := _BUS_ERROR.search(text):
        return _bus_error(text, cards.at(found[1]), bool(found[2]), found[4] or "", header=False)
    if "AER" in text and (found := _REPORTED.search(text)):
        return _bus_error(text, cards.at(found[4] or found[1]), bool(found[2]), "", header=True)
    if "DPC" in text and (found := _CONTAINED.search(text)):
        return _bus_error(text, cards.at(found[1]), True, "", header=True)
    if found := _SLOT.search(text):
        return _about(
            Kind.SLOT,
            "the link of its slot went down",
            xid.find(79).advice,
            text,
            cards.at(found[1] or found[2]),
        )
    if found := _NOUVEAU.search(text):
        what = "the kernel's own driver nouveau had the card"
        return _about(Kind.NOUVEAU, what, _AGAIN, text, cards.at(found[1]), Verdict.WARN)
    if not _OURS.search(text):
        return None
    named = next((place for found in _ANY_PCI.finditer(text) if (place := cards.at(found[0]))), None)
    address = named.address if named else ""
    if _OFF_THE_BUS.search(text):
        return Finding(Kind.LOST, _LOST_WHAT, Verdict.FAIL, xid.find(79).advice, address, line=text), False
    for failure in _FAILURES:
        if failure.pattern.search(text):
            return Finding(
                Kind.DRIVER, failure.what, failure.verdict, failure.advice, address, line=text
            ), False
    return None


def _about(
    kind: Kind, what: str, advice: str, text: str, place: Place | None, verdict: Verdict = Verdict.FAIL
) -> tuple[Finding, bool] | None:
    return (Finding(kind, what, verdict, advice, place.address, line=text), False) if place else None


def _xid(text: str, found: re.Match[str], cards: _Cards) -> Finding:
    known = xid.find(int(found[2]))
    place = cards.at(found[1])
    verdict, advice, what, note = known.verdict, known.advice, known.what, known.disagreement
    more = found[3]
    if known.number == 154 and (action := _ACTION.search(more)):
        verdict, advice = xid.of_action(action[1])
        what = f"the driver asks for an action: {action[1]}"
    elif known.nvlink and place and not place.nvlink:
        verdict, note = min(verdict, Verdict.WARN, key=_mildest), "this model has no NVLink"
    elif 144 <= known.number <= 150 and re.search(r"\bnon-?fatal\b", more, re.IGNORECASE):
        verdict = Verdict.WARN
        what += ", not fatal"
    where = place.address if place else _full(found[1]) if found[1] else ""
    return Finding(Kind.XID, what, verdict, advice, where, line=text, number=known.number, note=note)


def _mildest(verdict: Verdict) -> int:
    return (Verdict.PASS, Verdict.WARN, Verdict.FAIL).index(verdict)


def _bus_error(
    text: str, place: Place | None, uncorrected: bool, layer: str, *, header: bool
) -> tuple[Finding, bool] | None:
    """An error of a link. Of other devices' links there are many, and none of our business."""
    if place is None:
        return None
    kind = Kind.UNCORRECTED if uncorrected else Kind.CORRECTED
    what = f"PCI Express {'could not correct' if uncorrected else 'corrected'} an error of its link"
    note = layer.strip()
    return Finding(
        kind, what, Verdict.FAIL if uncorrected else Verdict.WARN, _LINK, place.address, line=text, note=note
    ), header


def _whole(group: _Group, most_corrected: int) -> Finding:
    """What the lines of a group say together."""
    count = max(group.count, group.reported)
    one = group.finding
    verdict = one.verdict
    if one.number is not None and count > 1:
        verdict = xid.find(one.number).repeated or verdict
    if one.kind is Kind.CORRECTED and count <= most_corrected:
        verdict = Verdict.PASS
    return replace(one, verdict=verdict, count=count, first=group.first, last=group.last)


def _once(several: Sequence[Finding]) -> list[Finding]:
    """A card that fell off the bus is told twice, with and without an Xid, and the second need not say which it was."""
    gone = {one.address for one in several if one.number == 79}
    named = gone | {one.address for one in several if one.kind is Kind.LOST and one.address}
    return [
        one
        for one in several
        if one.kind is not Kind.LOST or not (one.address in gone or (not one.address and named))
    ]


def clock(seconds: float) -> str:
    """A time in words."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
