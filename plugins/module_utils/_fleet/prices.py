# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine costs per hour and month. An unknown price is unknown, never zero.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

HOURS_PER_MONTH = 730
"""365 days of 24 hours by 12: what the clouds' own calculators use."""


@dataclass(frozen=True, slots=True)
class Price:
    """An hourly price, net of tax, with where it was read.

    Attributes:
        hourly: amount per hour, or None: unknown.
        currency: ISO 4217 code.
        source: where the figure comes from and of which date, for the reader of a plan.
        monthly_cap: what a month costs at most, where the cloud caps it (Hetzner).
    """

    hourly: Decimal | None
    currency: str = "USD"
    source: str = ""
    monthly_cap: Decimal | None = None

    @classmethod
    def unknown(cls, why: str = "") -> Price:
        """No figure, and why there is none."""
        return cls(hourly=None, source=why)

    @property
    def monthly(self) -> Decimal | None:
        """Amount for a whole month, capped where the cloud caps it."""
        if self.hourly is None:
            return None
        month = self.hourly * HOURS_PER_MONTH
        return month if self.monthly_cap is None else min(month, self.monthly_cap)

    def to_json(self) -> dict[str, Any]:
        """Plain data; amounts as decimal strings, so that no rounding creeps in."""
        return {
            "hourly": None if self.hourly is None else str(self.hourly),
            "currency": self.currency,
            "source": self.source,
            "monthly_cap": None if self.monthly_cap is None else str(self.monthly_cap),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Price:
        """What :meth:`to_json` wrote."""
        return cls(
            hourly=None if data["hourly"] is None else Decimal(data["hourly"]),
            currency=data["currency"],
            source=data["source"],
            monthly_cap=None if data["monthly_cap"] is None else Decimal(data["monthly_cap"]),
        )


@dataclass(frozen=True, slots=True)
class Total:
    """A sum of prices in US dollars, and how many of its parts are unknown.

    Attributes:
        hourly, monthly: US dollars for the known parts.
        unknown: how many parts have no price; the sum is a lower bound unless this is 0.
    """

    hourly: Decimal
    monthly: Decimal
    unknown: int

    @classmethod
    def of(cls, prices: Iterable[Price], usd_per: Mapping[str, Decimal]) -> Total:
        """Add prices up.

        Args:
            prices: the parts.
            usd_per: US dollars for one unit of each currency; a currency missing here makes its parts unknown.
        """
        hourly = monthly = Decimal(0)
        unknown = 0
        for price in prices:
            rate = Decimal(1) if price.currency == "USD" else usd_per.get(price.currency)
            if price.hourly is None or price.monthly is None or rate is None:
                unknown += 1
                continue
            hourly += price.hourly * rate
            monthly += price.monthly * rate
        return cls(hourly=hourly, monthly=monthly, unknown=unknown)
