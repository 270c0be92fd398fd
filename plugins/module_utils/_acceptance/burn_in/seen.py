# SPDX-License-Identifier: GPL-3.0-or-later
"""What the criteria of a burn-in are given, and the thresholds they judge by. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .. import kernel_log
from ..limits import Limits
from ..verdicts import Figure, Result, Verdict
from .plan import Plan
from .records import GpuTally, Tally

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
        models: by number, what each is.
    """

    plan: Plan
    tally: Tally
    gpus: tuple[int, ...]
    going: bool
    limits: Mapping[str, float]
    cards: tuple[kernel_log.Place, ...] = ()
    indexes: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[int, str] = field(default_factory=dict)

    def limit(self, name: str) -> float:
        """A threshold."""
        return Limits(self.limits).get(name)[0]

    def source(self, name: str) -> str:
        """Where it comes from."""
        return Limits(self.limits).get(name)[1]

    @property
    def each(self) -> list[tuple[int, GpuTally]]:
        """Every GPU with what came together of it."""
        return [(index, self.tally.gpus.get(index, GpuTally())) for index in self.gpus]


def result(
    verdict: Verdict, says: str, advice: str = "", figures: Iterable[Figure] = (), **data: object
) -> Result:
    """A result; what passes needs no advice."""
    return Result(verdict, says, advice if verdict is not Verdict.PASS else "", tuple(figures), data=data)
