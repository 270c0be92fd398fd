# SPDX-License-Identifier: GPL-3.0-or-later
"""What data-parallel training on several GPUs loses, where, and what it could reach.

Pure. Weak scaling: every GPU has the same batch, however many there are. The efficiency X_n / (X_1 + ... of each GPU alone) is a
product of three: balance (the slowest GPU sets the pace), contention (power, heat and host are shared), and communication (the
gradients have to be added up).

The cost model: t = G x 2 (n - 1) / n / busbw. Without any overlap a step takes the computation and that; with complete overlap the
longer of the two. A run below the first has a defect; between the two it does what the link allows, whatever the owner hoped for.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def gradient_seconds(gradient_bytes: float, gpus: int, bus_gb_s: float) -> float:
    """How long adding up the gradients takes: 146 ms for 3.4 GB on 4 GPUs at 35 GB/s."""
    if gpus < 2:
        return 0.0
    if bus_gb_s <= 0:
        return float("inf")
    return gradient_bytes * 2 * (gpus - 1) / gpus / (bus_gb_s * 1e9)


@dataclass(frozen=True, slots=True)
class Scaling:
    """What was lost. All but the rates are shares; efficiency = balance x contention x communication.

    Attributes:
        alone: what all GPUs together would train if none disturbed another, in samples a second.
        together: what they did.
        least: what the cost model predicts without any overlap of computation and communication.
        most: the same with complete overlap.
        gradient_s: how long adding up the gradients takes by the cost model.
    """

    alone: float
    together: float
    efficiency: float
    balance: float
    contention: float
    communication: float
    least: float
    most: float
    gradient_s: float

    @property
    def least_efficiency(self) -> float:
        """That of `least`."""
        return self.least / self.alone

    @property
    def most_efficiency(self) -> float:
        """That of `most`."""
        return self.most / self.alone


def split(
    single: Mapping[int, float],
    concurrent: Mapping[int, float],
    together: float,
    *,
    batch: int,
    gradient_bytes: float,
    bus_gb_s: float,
) -> Scaling | None:
    """Split what was lost.

    Args:
        single: samples a second of each GPU alone.
        concurrent: the same while all train, each for itself.
        together: samples a second of all, training one model.
        batch: samples of a step on each GPU.
        gradient_bytes: how much is added up in every step.
        bus_gb_s: the bus bandwidth of the all-reduce, at about that size.

    Returns:
        None where a figure is missing or is no rate.
    """
    gpus = len(single)
    rates = [*single.values(), *concurrent.values(), together, batch, gradient_bytes, bus_gb_s]
    if gpus < 2 or set(concurrent) != set(single) or not all(0 < rate < float("inf") for rate in rates):
        return None
    alone, slowest, slowest_now = sum(single.values()), min(single.values()), min(concurrent.values())
    compute_s = batch / slowest_now
    gradient_s = gradient_seconds(gradient_bytes, gpus, bus_gb_s)
    return Scaling(
        alone=alone,
        together=together,
        efficiency=together / alone,
        balance=gpus * slowest / alone,
        contention=slowest_now / slowest,
        communication=together / (gpus * slowest_now),
        least=gpus * batch / (compute_s + gradient_s),
        most=gpus * batch / max(compute_s, gradient_s),
        gradient_s=gradient_s,
    )
