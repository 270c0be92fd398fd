# SPDX-License-Identifier: GPL-3.0-or-later
"""Prices and candidate zones from connected clouds, in the form a plan asks for them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .errors import ProviderError
from .prices import Price
from .providers.base import Provider
from .spec import MachineBase


class LiveQuotes:
    """Prices and zones from connected providers. What a cloud that was not reached would say is unknown."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    def zones(self, machine: MachineBase) -> Sequence[str]:
        """Where the machine may be placed, in order of preference."""
        provider = self._providers.get(machine.provider)
        return tuple(provider.zones(machine)) if provider else (machine.zone,)

    def running(self, machine: MachineBase, zone: str) -> Price:
        """What it would cost while it runs there."""
        provider = self._providers.get(machine.provider)
        return _price(provider.price if provider else None, machine, zone)

    def stopped(self, machine: MachineBase, zone: str) -> Price:
        """What it would still cost while stopped there."""
        provider = self._providers.get(machine.provider)
        return (
            provider.stopped_price(machine, zone) if provider else Price.unknown("its cloud was not reached")
        )


def _price(ask: Callable[[MachineBase, str], Price] | None, machine: MachineBase, zone: str) -> Price:
    if ask is None:
        return Price.unknown("its cloud was not reached")
    try:
        return ask(machine, zone)
    except ProviderError as error:
        return Price.unknown(error.what)
