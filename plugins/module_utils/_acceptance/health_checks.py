# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks that look at hardware share: the cards, what is declared, and how findings become one result.

What is wrong with a card is judged in ``_fleet/gpu/health*.py``, by the same functions that the roles' gates use; the checks
here give it a verdict, figures and a place in the report.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._fleet.gpu import catalog, health, smi_text
from .._fleet.gpu.health_words import (
    Check,
    Expected,
    ExpectedError,
    answering,
    devices,
    missing,
    named,
    plural,
    title,
)
from . import kernel_log, machine_words
from .check import CannotLook, Context
from .kernel_log import Place
from .verdicts import Figure, Result, Verdict, worst

__all__ = ["Check", "Expected", "answering", "devices", "missing", "named", "plural", "title"]

PROFILE = "/etc/gpumesh/acceptance.json"
DECLARED = "declared"
Device = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; `says` and `advice` without a full stop."""

    verdict: Verdict
    says: str
    advice: str


def expected(context: Context) -> Expected:
    """What is declared, as the engine takes it.

    Raises:
        CannotLook: it cannot be read.
    """
    given = {
        key: value
        for key, value in context.profile.expected.items()
        if key not in ("deferred", "apt", "kernel_held")
    }
    if context.profile.gpus:
        given["gpus"] = [{"model": name, "count": count} for name, count in context.profile.gpus.items()]
    try:
        return Expected.of(given)
    except ExpectedError as problem:
        raise CannotLook(
            f"what is declared cannot be read: {problem}", f"correct `expected` in {PROFILE}"
        ) from problem


def engine(context: Context, wanted: Expected | None = None) -> dict[str, Check]:
    """What the engine found, by the names of its checks."""
    return {check.name: check for check in health.found(context.facts, wanted or expected(context))}


def undeclared_driver(wanted: Expected) -> Expected:
    """The same without a driver that it must be: what fits together fits, whichever it is."""
    return replace(wanted, version="", branch="", flavour="")


def on_bus(context: Context) -> list[Device]:
    """The cards, whoever sees them.

    Raises:
        CannotLook: there is none.
    """
    there = devices(context.facts)
    if not there:
        raise CannotLook("no NVIDIA GPU is on the PCI bus", "see the check gpus_present")
    return there


def cards(context: Context) -> list[Device]:
    """The cards that the driver answers for.

    Raises:
        CannotLook: it answers for none.
    """
    on_bus(context)
    there = answering(context.facts)
    if not there:
        raise CannotLook(
            "the driver answers for no GPU", "see the checks driver_versions, kernel_modules and gpus_seen"
        )
    return there


def silent(context: Context) -> list[Device]:
    """The cards that are on the bus, and that the driver does not answer for."""
    return [device for device in devices(context.facts) if device.get("state") != "ok"]


def model_of(device: Device) -> catalog.GpuModel | None:
    """A card's entry in the catalog."""
    card = catalog.by_pci_id(str(device.get("pci_id") or ""))
    return catalog.model_of(card) if card else None


def generation_of(device: Device) -> str:
    """The name of its architecture; empty where the catalog does not have the card."""
    model = model_of(device)
    return model.architecture if model else ""


def bare_metal(context: Context) -> bool | None:
    """Whether the whole machine is ours; None: nobody knows."""
    declared = context.profile.bare_metal
    if declared is not None:
        return declared
    ran = context.run(["systemd-detect-virt"], 10)
    return machine_words.bare_metal(None, machine_words.virtualisation(ran))


def from_engine(check: Check | None, verdict: Verdict = Verdict.FAIL) -> list[Finding]:
    """A check of the engine as a finding, if it found something."""
    if check is None or check.ok:
        return []
    return [Finding(verdict, check.what, check.to_do)] if check.made else []


def number(value: Any) -> float | None:
    """A reading that is a number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def index_of(device: Device) -> int | None:
    """Its number in nvidia-smi."""
    found = device.get("index")
    return found if isinstance(found, int) else None


def step(advice: str, device: Device) -> str:
    """Advice for one card: its number instead of the word that stands for it."""
    index = index_of(device)
    return advice.replace("INDEX", str(index) if index is not None else str(device.get("pci_address")))


def of(device: Device, *keys: str) -> Any:
    """A reading by its path; None where there is none."""
    at: Any = device
    for key in keys:
        at = at.get(key) if isinstance(at, Mapping) else None
    return at


def conclude(
    findings: Iterable[Finding],
    fine: str,
    figures: Sequence[Figure] = (),
    *,
    unseen: Sequence[Device] = (),
    notes: Sequence[str] = (),
    **data: Any,
) -> Result:
    """One result of everything that was found, the gravest first.

    Args:
        fine: what is said where nothing was found.
        unseen: cards that could not be looked at: beside them nothing is green.
        notes: what a reader should know besides, whatever the verdict.
    """
    found = list(findings)
    if unseen:
        said = (
            "does not answer and was not looked at"
            if len(unseen) == 1
            else "do not answer and were not looked at"
        )
        found.append(
            Finding(
                Verdict.UNKNOWN,
                f"{named(unseen)} {said}",
                "see the check gpus_seen first, then run this again",
            )
        )
    gravity = worst(one.verdict for one in found) if found else Verdict.PASS
    order = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WARN)
    found.sort(key=lambda one: order.index(one.verdict) if one.verdict in order else len(order))
    parts = [one.says for one in found] or ([fine] if fine else [])
    says = "; ".join(dict.fromkeys([*parts, *notes]))
    advice = "; ".join(dict.fromkeys(one.advice for one in found if one.advice))
    return Result(gravity, says, advice, tuple(figures), data=data)


def has_none(device: Device, key: str) -> bool:
    """Whether the card says that it has no such thing; what nobody told is not the same."""
    return (device.get("missing") or {}).get(key) == smi_text.NOT_AVAILABLE


def places(context: Context) -> list[Place]:
    """The cards, as the kernel's log is searched for them."""
    found = []
    for device in devices(context.facts):
        model, port = model_of(device), of(device, "port", "address")
        found.append(
            Place(
                str(device.get("pci_address")),
                ports=(str(port),) if port else (),
                # Of a card that we do not know it is not said that it has none.
                nvlink=model is None or model.nvlink != "no",
            )
        )
    return found


def from_log(context: Context, found: Sequence[kernel_log.Finding]) -> tuple[list[Finding], list[str]]:
    """What the kernel's log says, in sentences: what is to be judged, and what is but to be told."""
    by_address = {str(device.get("pci_address")): device for device in devices(context.facts)}
    judged: list[Finding] = []
    notes: list[str] = []
    for one in found:
        device = by_address.get(one.address)
        where = title(device) if device else one.address or "a GPU that the log does not name"
        number = f"Xid {one.number} on " if one.number is not None else ""
        more = f" ({one.note})" if one.note else ""
        says = f"{number}{where}: {one.what}{more}, {one.when}"
        if one.verdict is Verdict.PASS:
            notes.append(says)
        else:
            judged.append(Finding(one.verdict, says, step(one.advice, device) if device else one.advice))
    return judged, notes


def log_figures(context: Context, found: Sequence[kernel_log.Finding]) -> list[Figure]:
    """How often it says what."""
    by_address = {str(device.get("pci_address")): index_of(device) for device in devices(context.facts)}
    return [
        Figure(
            f"Xid {one.number}" if one.number is not None else one.what,
            one.count,
            gpu=by_address.get(one.address),
            expected="0",
            verdict=one.verdict,
            better="lower",
        )
        for one in found
    ]
