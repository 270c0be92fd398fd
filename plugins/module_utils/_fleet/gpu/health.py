# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the GPUs of a machine and their driver, and what to do about each.

Pure. Works on the facts of the module gpu_info and on what the user declared. A check is ok only where it was made: one
that could not be made is not ok, and says why.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .health_devices import DEVICE_CHECKS
from .health_host import HOST_CHECKS
from .health_words import Check, Expected, bad, devices, good, named, plural


def checks(gpu: Mapping[str, Any], expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every check with its result.

    Args:
        gpu: the facts.
        expected: what was declared; see the filter gpu_checks.

    Returns:
        One dict a check: ``name``, ``ok``, ``says``.
    """
    mark = "SIMULATED: " if gpu.get("simulated") else ""
    return [
        {"name": check.name, "ok": check.ok, "says": f"{mark}{check.says}"}
        for check in found(gpu, Expected.of(expected))
    ]


def found(gpu: Mapping[str, Any], wanted: Expected) -> list[Check]:
    """The same with what was found and what to do apart."""
    # An image that is built has no card, no running driver and no running service: what will be there at its first boot
    # is looked at alone.
    groups: Sequence[Callable[[Mapping[str, Any], Expected], Iterator[Check]]] = (
        _presence,
        *HOST_CHECKS,
        *(() if wanted.deferred else DEVICE_CHECKS),
    )
    return [check for group in groups for check in group(gpu, wanted)]


def _presence(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """As many cards of each model as declared, and each of them seen by the driver."""
    there = devices(gpu)
    if wanted.deferred and not there:
        yield good("gpus_present", "no GPU is looked for while an image is built")
        return
    if wanted.gpus:
        yield _declared(there, wanted)
    elif there:
        yield good("gpus_present", f"{plural(len(there), 'GPU')} on the PCI bus: {_models(there)}")
    else:
        yield bad(
            "gpus_present", "no NVIDIA GPU is on the PCI bus", "see whether the card is in and has power"
        )
    if there and not wanted.deferred:
        yield _seen(gpu, there)


def _models(there: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(str(device.get("model") or f"10de:{device.get('pci_id')}") for device in there)
    return ", ".join(f"{count} x {model}" for model, count in sorted(counts.items()))


def _declared(there: Sequence[Mapping[str, Any]], wanted: Expected) -> Check:
    counts = Counter(str(device.get("model") or f"10de:{device.get('pci_id')}") for device in there)
    if counts == wanted.gpus:
        return good("gpus_present", f"on the PCI bus as declared: {_models(there)}")
    declared = ", ".join(f"{count} x {model}" for model, count in sorted(wanted.gpus.items()))
    found = _models(there) or "none"
    if sum(counts.values()) < sum(wanted.gpus.values()):
        return bad(
            "gpus_present",
            f"declared are {declared}, on the PCI bus are {found}",
            "switch the machine off and on again (a reboot does not reset the slots), then reseat the missing card and its "
            "power cable; or declare what is there",
        )
    return bad(
        "gpus_present",
        f"declared are {declared}, on the PCI bus are {found}",
        "declare what is there",
    )


def _seen(gpu: Mapping[str, Any], there: Sequence[Mapping[str, Any]]) -> Check:
    """The count of the bus against that of the driver: a card can be there and be lost."""
    total = len(there)
    gone = [device for device in there if device.get("state") == "lost"]
    unseen = [device for device in there if device.get("state") == "unseen"]
    without = [device for device in there if device.get("state") == "no_driver"]
    if not (gone or unseen or without):
        if any(device.get("seen_by_driver") is None for device in there):
            return bad("gpus_seen", "the driver was not asked", "run gpu_info with driver: true")
        return good(
            "gpus_seen", f"the driver answers for {'all' if total > 1 else 'the'} {plural(total, 'GPU')}"
        )
    seen = sum(1 for device in there if device.get("state") == "ok")
    parts: list[str] = []
    steps: list[str] = []
    if gone:
        parts.append(
            f"{len(gone)} of {total} GPUs is lost: {named(gone)}"
            if len(gone) == 1
            else f"{len(gone)} of {total} GPUs are lost: {named(gone)}"
        )
        steps.append(
            "switch the machine off and on again, since a reboot does not bring such a card back; `journalctl -k | grep -i "
            "xid` says why it left; if it happens again, reseat it and its power cable, then have it replaced"
        )
    if unseen:
        parts.append(f"the driver does not list {named(unseen)}")
        steps.append(
            "`journalctl -k | grep -i nvrm` says why: closed modules on Blackwell, a branch that does not know the card, "
            "or a card that failed"
        )
    if without:
        owners = sorted({str(device.get("kernel_driver") or "no driver") for device in without})
        parts.append(
            f"{named(without)} {'has' if len(without) == 1 else 'have'} {', '.join(owners)}, not nvidia"
        )
        steps.append("load NVIDIA's module (`modprobe nvidia`) after whatever has the card is off it")
    counts = f"the PCI bus has {total}, the driver sees {seen}"
    return bad("gpus_seen", f"{'; '.join(parts)} ({counts})", "; ".join(dict.fromkeys(steps)))
