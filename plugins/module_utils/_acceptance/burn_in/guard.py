# SPDX-License-Identifier: GPL-3.0-or-later
"""When a burn-in has to stop for the sake of the hardware, and what the driver counts meanwhile. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..check import Sample
from .records import Card

TEMPERATURE, MARGIN, WORKER, BLIND, START = "temperature", "margin", "worker", "blind", "start"
"""Kinds of stop that are a defect, beside those in `ledger` that are none."""
CHANGED = "changed"
"""The machine has other GPUs than when it began: no defect, and nothing that could go on."""

COUNTERS = {
    "replay_counter": ("link", "replay_counter"),
    "ecc_volatile_correctable": ("ecc", "volatile", "correctable"),
    "ecc_volatile_uncorrectable": ("ecc", "volatile", "uncorrectable"),
    "ecc_aggregate_correctable": ("ecc", "aggregate", "correctable"),
    "ecc_aggregate_uncorrectable": ("ecc", "aggregate", "uncorrectable"),
    "rows_correctable": ("remapped_rows", "correctable"),
    "rows_uncorrectable": ("remapped_rows", "uncorrectable"),
    "rows_failure": ("remapped_rows", "failure"),
    "pages_single_bit": ("retired_pages", "single_bit"),
    "pages_double_bit": ("retired_pages", "double_bit"),
    "hw_therm_slowdown_us": ("throttle_us", "hw_therm_slowdown"),
    "hw_power_brake_us": ("throttle_us", "hw_power_brake"),
}
"""What only grows when something went wrong, and where it is in the facts of a GPU."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a burn-in stops.

    Attributes:
        says: one sentence without a full stop.
        reading: what was read, for the report.
    """

    kind: str
    says: str
    reading: Mapping[str, Any]

    def as_record(self, at: float) -> dict[str, Any]:
        """As it is written."""
        return {"event": "stop", "t": at, "kind": self.kind, "says": self.says, "reading": dict(self.reading)}


def cards(devices: Iterable[Mapping[str, Any]]) -> tuple[Card, ...]:
    """The GPUs that the driver answers for, in the order of their numbers."""
    there = numbered(device for device in devices if device.get("state") != "lost")
    return tuple(there[index] for index in sorted(there))


def numbered(devices: Iterable[Mapping[str, Any]]) -> dict[int, Card]:
    """The GPUs of the facts that have a number, by it."""
    return {
        int(device["index"]): Card(
            str(device.get("uuid") or device.get("pci_address") or ""),
            str(device.get("pci_address") or ""),
            str(device.get("model") or device.get("name") or ""),
        )
        for device in devices
        if isinstance(device.get("index"), int)
    }


def uuids(of: Iterable[Card]) -> list[str]:
    """What tells the GPUs from others, in their order."""
    return [card.uuid for card in of]


def gone(before: Sequence[Card], now: Sequence[Card]) -> dict[int, str]:
    """The GPUs that burned before and are not there any more, by the number they had; what is to be said of each."""
    there = {card.uuid for card in now}
    return {
        index: f"GPU {index} ({card.uuid}) burned before, and the driver does not answer for it any more"
        for index, card in enumerate(before)
        if card.uuid not in there
    }


def too_hot(samples: Iterable[Sample], stop_margin_c: float, stop_temperature_c: float | None) -> Stop | None:
    """The first GPU that is too hot to go on; None: all may."""
    for sample in samples:
        reading = {
            "gpu": sample.gpu,
            "at": sample.at,
            "temperature_c": sample.temperature_c,
            "margin_c": sample.margin_c,
            "power_w": sample.power_w,
        }
        if (
            stop_temperature_c is not None
            and sample.temperature_c is not None
            and sample.temperature_c > stop_temperature_c
        ):
            return Stop(
                TEMPERATURE,
                f"GPU {sample.gpu} was at {sample.temperature_c:g} °C, and {stop_temperature_c:g} °C was the most that was allowed",
                reading,
            )
        if sample.margin_c is not None and sample.margin_c < stop_margin_c:
            return Stop(
                MARGIN,
                f"GPU {sample.gpu} was at {_degrees(sample.temperature_c)}, {_distance(sample.margin_c)} where it slows itself down; "
                f"{stop_margin_c:g} degrees were to be kept",
                reading,
            )
    return None


def _degrees(value: float | None) -> str:
    return "an unknown temperature" if value is None else f"{value:g} °C"


def _distance(margin: float) -> str:
    return f"{margin:g} degrees below" if margin >= 0 else f"{-margin:g} degrees above"


def counters(devices: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """What the driver counts of each GPU, by its index; what it does not tell is left out."""
    found: dict[str, dict[str, int]] = {}
    for device in devices:
        index = device.get("index")
        if not isinstance(index, int):
            continue
        values: dict[str, int] = {}
        for name, path in COUNTERS.items():
            value: Any = device
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, bool | int):
                values[name] = int(value)
        found[str(index)] = values
    return found
