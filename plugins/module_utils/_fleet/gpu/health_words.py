# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of GPUs share: a result, what was declared, and how cards are named in sentences.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import catalog


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its result.

    Attributes:
        what: what was found, without a full stop.
        to_do: what to do about it, likewise; empty where it is good.
        made: false: it could not be made, and `what` is why.
        cards: the addresses of the cards that are not good, where it is about single cards.
    """

    name: str
    ok: bool
    what: str
    to_do: str = ""
    made: bool = True
    cards: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        """What was found, and what to do if that is not good, as sentences."""
        mark = "" if self.made else "not checked: "
        step = f" {self.to_do[:1].upper()}{self.to_do[1:]}." if self.to_do else ""
        return f"{mark}{self.what}.{step}"


def good(name: str, what: str) -> Check:
    """Looked at and found good."""
    return Check(name, True, what)


def bad(name: str, what: str, to_do: str, cards: Sequence[str] = ()) -> Check:
    """What it is, and what to do."""
    return Check(name, False, what, to_do, cards=tuple(cards))


def not_made(name: str, why: str, to_do: str) -> Check:
    """A check that could not be made says so: nothing that was not looked at is good."""
    return Check(name, False, why, to_do, made=False)


class ExpectedError(ValueError):
    """What was declared cannot be read."""


@dataclass(frozen=True)
class Expected:
    """What was declared."""

    gpus: Mapping[str, int] = field(default_factory=dict)
    version: str = ""
    branch: str = ""
    flavour: str = ""
    source: str = ""
    packages: Sequence[str] = ()
    tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    width: Mapping[str, int] = field(default_factory=dict)
    deferred: bool = False
    apt: bool = False
    kernel_held: bool = False

    def tuned(self, setting: str, device: Mapping[str, Any]) -> Any:
        """What a setting of a card was declared to be; None where it was not."""
        values = self.tuning.get(setting, {})
        return values.get(str(device.get("model")), values.get(""))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Expected:
        """From plain data.

        Raises:
            ExpectedError: something in it is of the wrong kind, or nothing we know.
        """
        known = {"gpus", "driver", "packages", "tuning", "width", "deferred", "apt", "kernel_held"}
        if strangers := sorted(set(given) - known):
            raise ExpectedError(f"no such key: {', '.join(strangers)}; there are {', '.join(sorted(known))}")
        driver = _mapping(given, "driver")
        if strangers := sorted(set(driver) - {"version", "branch", "flavour", "source"}):
            raise ExpectedError(f"no such key in driver: {', '.join(strangers)}")
        packages = given.get("packages") or []
        if isinstance(packages, str) or not isinstance(packages, Sequence):
            raise ExpectedError("packages is no list")
        return cls(
            gpus=_gpus(given.get("gpus") or []),
            version=str(driver.get("version") or ""),
            branch=str(driver.get("branch") or ""),
            flavour=str(driver.get("flavour") or ""),
            source=str(driver.get("source") or ""),
            packages=tuple(map(str, packages)),
            tuning=_tuning(_mapping(given, "tuning")),
            width={str(model): _whole(lanes, "width") for model, lanes in _mapping(given, "width").items()},
            deferred=_yes(given.get("deferred"), "deferred"),
            apt=_yes(given.get("apt"), "apt"),
            kernel_held=_yes(given.get("kernel_held"), "kernel_held"),
        )


def _tuning(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each setting by model; what is declared for all models is under the empty name."""
    found: dict[str, dict[str, Any]] = {}
    for setting, value in given.items():
        values = value if isinstance(value, Mapping) else {"": value}
        kept = {
            str(model): one for model, one in values.items() if one not in (None, "", 0, "0") or one is False
        }
        if setting == "power_limit_w":
            kept = {model: _watts(one) for model, one in kept.items()}
        if kept:
            found[str(setting)] = kept
    return found


def _watts(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ExpectedError(f"power_limit_w: {value!r} is no number") from None


def _yes(value: Any, what: str) -> bool:
    """A boolean, also as templates write it."""
    words = {"": False, "no": False, "false": False, "none": False, "yes": True, "true": True}
    found = value if isinstance(value, bool) else words.get(str(value if value is not None else "").lower())
    if found is None:
        raise ExpectedError(f"{what}: {value!r} is neither true nor false")
    return found


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise ExpectedError(f"{key} is no dict")
    return value


def _whole(value: Any, what: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ExpectedError(f"{what}: {value!r} is no whole number") from None


def _gpus(given: Any) -> dict[str, int]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ExpectedError("gpus is no list of dicts with model and count")
    counts: dict[str, int] = {}
    for entry in given:
        if not isinstance(entry, Mapping) or not entry.get("model"):
            raise ExpectedError("gpus is no list of dicts with model and count")
        found = catalog.find(str(entry["model"]))
        model = found.name if found else str(entry["model"])
        counts[model] = counts.get(model, 0) + _whole(entry.get("count", 1), "count")
    return {model: count for model, count in counts.items() if count}


def devices(gpu: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cards."""
    return [device for device in gpu.get("devices") or [] if isinstance(device, Mapping)]


def answering(gpu: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cards that the driver answers for."""
    return [device for device in devices(gpu) if device.get("state") == "ok"]


def title(device: Mapping[str, Any]) -> str:
    """How a card is named in a sentence."""
    number = f"GPU {device['index']}, " if device.get("index") is not None else ""
    slot = f", slot {device['slot']}" if device.get("slot") else ""
    model = device.get("model") or device.get("name") or f"10de:{device.get('pci_id')}"
    return f"{device.get('pci_address')} ({number}{model}{slot})"


def named(several: Sequence[Mapping[str, Any]]) -> str:
    """Several cards."""
    return ", ".join(title(device) for device in several)


def plural(count: int, noun: str) -> str:
    """``1 GPU``, ``4 GPUs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def missing(device: Mapping[str, Any], key: str) -> str:
    """Why a reading is not there."""
    return str((device.get("missing") or {}).get(key, "absent"))
