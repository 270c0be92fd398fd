# SPDX-License-Identifier: GPL-3.0-or-later
"""What the criteria of a burn-in are given, and the thresholds they judge by. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .. import health_checks, kernel_log, limits
from ..verdicts import Figure, Result, Verdict
from .plan import Plan
from .records import GpuTally, Tally

_PROPOSAL = limits.PROPOSAL
LIMITS: Mapping[str, tuple[float, str]] = {
    "burn_in_late_warn_s": (1.0, _PROPOSAL),
    "burn_in_late_fail_s": (10.0, _PROPOSAL),
    "burn_in_disk_warn_s": (5.0, _PROPOSAL),
    "burn_in_disk_fail_s": (60.0, _PROPOSAL),
    "burn_in_temperature_spread_c": (20.0, _PROPOSAL),
    "burn_in_unread_share": (0.01, _PROPOSAL),
    "pcie_corrected": health_checks.LIMITS["pcie_corrected"],
    "pcie_replays_per_minute": health_checks.LIMITS["pcie_replays_per_minute"],
}
"""Thresholds by name, each with its source; `Profile.limits` may replace them by name."""

OFF_CPU = "run it without --device cpu"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is judged.

    Attributes:
        gpus: those that were to burn.
        going: it is not over yet.
        limits: thresholds that the profile sets.
        cards: where the GPUs are on the PCI bus.
        indexes: their numbers in nvidia-smi, by address.
    """

    plan: Plan
    tally: Tally
    gpus: tuple[int, ...]
    going: bool
    limits: Mapping[str, float]
    cards: tuple[kernel_log.Place, ...] = ()
    indexes: Mapping[str, int] = field(default_factory=dict)

    def limit(self, name: str) -> float:
        """A threshold."""
        return self.limits[name] if name in self.limits else LIMITS[name][0]

    def source(self, name: str) -> str:
        """Where it comes from."""
        return health_checks.DECLARED if name in self.limits else LIMITS[name][1]

    @property
    def each(self) -> list[tuple[int, GpuTally]]:
        """Every GPU with what came together of it."""
        return [(index, self.tally.gpus.get(index, GpuTally())) for index in self.gpus]


def result(
    verdict: Verdict, says: str, advice: str = "", figures: Iterable[Figure] = (), **data: object
) -> Result:
    """A result; what passes needs no advice."""
    return Result(verdict, says, advice if verdict is not Verdict.PASS else "", tuple(figures), data=data)
