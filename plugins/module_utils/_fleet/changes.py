# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of a plan: what is to be done with each machine, what it costs, and whether that is allowed.

Pure data and arithmetic. :mod:`plan` makes plans, :mod:`apply` carries them out.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .access import CloudAccess
from .errors import ApprovalRequired, BudgetExceeded, FleetError
from .machines import Instance
from .prices import Price, Total
from .spec import Budget


class Verb(enum.StrEnum):
    """What is to be done with a machine."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    CHANGE = "change"
    KEEP = "keep"
    DRIFT = "drift"
    UNKNOWN = "unknown"


ACTING = frozenset({Verb.CREATE, Verb.START, Verb.STOP, Verb.DELETE, Verb.CHANGE})
"""The verbs that touch a cloud."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do, or one thing to know.

    Attributes:
        verb: what is to be done; ``keep``, ``drift`` and ``unknown`` touch nothing.
        machine: the declared machine, or what an undeclared instance calls itself.
        provider, zone: where it is, or where it is wanted first.
        why: one sentence without a full stop, for the reader of the plan.
        before, after: what differs, by field; plain JSON data.
        price_before, price_after: what it costs now and then; None: nothing, because it does not exist.
        instance: what exists now, if anything.
        zones: for a create, every zone it may end up in, in order.
        error: what the reader must settle before this machine can be as declared.
    """

    verb: Verb
    machine: str
    provider: str
    zone: str
    why: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    price_before: Price | None = None
    price_after: Price | None = None
    instance: Instance | None = None
    zones: tuple[str, ...] = ()
    error: FleetError | None = None

    @property
    def acts(self) -> bool:
        """Carrying it out touches a cloud."""
        return self.verb in ACTING

    @property
    def buys(self) -> bool:
        """Carrying it out makes something run that costs money."""
        return self.verb in (Verb.CREATE, Verb.START)

    @property
    def destroys(self) -> bool:
        """Carrying it out takes something away from whoever uses it: deletes it, or stops it."""
        return self.verb in (Verb.DELETE, Verb.STOP)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "action": str(self.verb),
            "machine": self.machine,
            "provider": self.provider,
            "zone": self.zone,
            "zones": list(self.zones),
            "instance_id": self.instance.id if self.instance else None,
            "why": self.why,
            "before": dict(self.before),
            "after": dict(self.after),
            "price_before": self.price_before.to_json() if self.price_before else None,
            "price_after": self.price_after.to_json() if self.price_after else None,
            "buys": self.buys,
            "destroys": self.destroys,
            "failure": self.error.as_failure() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do for one fleet, in order, with what it costs.

    Attributes:
        changes: declared machines in the order of the file, then undeclared ones by name.
        others: what machines outside this run cost, when it was limited to some.
        usd_per: the exchange rates the totals are computed with.
        ceilings: for creates that may end up in a dearer fallback zone, the dearest price by machine.
        warnings: what the reader should know and need not settle.
        access: who may reach the machines, by cloud; for the fleet as a whole, whatever the run is limited to.
        unseen: machines outside this run that may exist and cost something, as far as anybody can tell.
    """

    fleet: str
    changes: tuple[Change, ...]
    usd_per: Mapping[str, Decimal]
    others: tuple[Price, ...] = ()
    ceilings: Mapping[str, Price] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    access: tuple[CloudAccess, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def acting(self) -> tuple[Change, ...]:
        """What touches a cloud."""
        return tuple(change for change in self.changes if change.acts)

    @property
    def differs(self) -> bool:
        """Carrying it out touches a cloud."""
        return bool(self.acting) or any(cloud.changes for cloud in self.access)

    @property
    def errors(self) -> dict[str, FleetError]:
        """What must be settled by the reader, by machine."""
        return {change.machine: change.error for change in self.changes if change.error}

    @property
    def needs_approval(self) -> bool:
        """It would buy, delete or stop something."""
        return any(change.buys or change.destroys for change in self.changes)

    @property
    def before(self) -> Total:
        """What the fleet costs now."""
        return Total.of([*self._prices("price_before"), *self.others], self.usd_per)

    @property
    def after(self) -> Total:
        """What the fleet would cost with every change carried out."""
        return Total.of([*self._prices("price_after"), *self.others], self.usd_per)

    @property
    def ceiling(self) -> Total:
        """What the fleet would cost with every new machine in the dearest zone it may end up in."""
        dearest = [
            self.ceilings.get(change.machine, change.price_after)
            if change.verb is Verb.CREATE
            else change.price_after
            for change in self.changes
        ]
        return Total.of([*(price for price in dearest if price), *self.others], self.usd_per)

    @property
    def difference(self) -> Total:
        """After minus before. Unknown counts the changes whose effect on the cost is not known."""
        before, after = self.before, self.after
        unknown = sum(
            1
            for change in self.changes
            if change.price_before != change.price_after
            and Total.of(
                [price for price in (change.price_before, change.price_after) if price], self.usd_per
            ).unknown
        )
        return Total(after.hourly - before.hourly, after.monthly - before.monthly, unknown)

    @property
    def digest(self) -> str:
        """What would be done and what it would cost, in 16 hexadecimal digits; an approval is given for these."""
        entries = sorted(
            json.dumps(
                [
                    change.verb,
                    change.machine,
                    change.provider,
                    list(change.zones) or change.zone,
                    change.instance.id if change.instance else None,
                    dict(change.after),
                    _figures(change.price_after) if change.price_after else None,
                ],
                sort_keys=True,
                default=str,
            )
            for change in self.acting
        )
        entries += sorted(
            json.dumps([cloud.provider, change.to_json()], sort_keys=True)
            for cloud in self.access
            for change in cloud.changes
        )
        return hashlib.sha256("\n".join([self.fleet, *entries]).encode()).hexdigest()[:16]

    def _prices(self, which: str) -> list[Price]:
        return [price for change in self.changes if (price := getattr(change, which))]

    def check_budget(self, budget: Budget | None) -> None:
        """Refuse to buy beyond the budget. A plan that buys nothing may always be carried out.

        Raises:
            BudgetExceeded: with the numbers.
        """
        bought = [change for change in self.changes if change.buys]
        if budget is None or not bought:
            return
        limit, ceiling = Decimal(str(budget.hourly_usd)), self.ceiling
        if ceiling.hourly > limit:
            raise BudgetExceeded(
                f"the fleet would cost up to {ceiling.hourly:.4f} USD per hour; the budget is {limit:.4f} USD per hour "
                f"and it costs {self.before.hourly:.4f} now",
                hint="Disable machines, choose smaller ones, or raise budget.hourly_usd in the fleet file",
            )
        unpriced = sorted(
            change.machine
            for change in bought
            if (price := self.ceilings.get(change.machine, change.price_after)) and self._unknown(price)
        )
        if unpriced:
            raise BudgetExceeded(
                f"the budget of {limit:.4f} USD per hour cannot be checked: no price is known for {', '.join(unpriced)}",
                hint="Leave them out with `only`, or remove the budget from the fleet file to go on without one",
            )
        hidden = [
            change.machine for change in self.changes if change.verb is Verb.UNKNOWN and change.price_after
        ]
        if hidden := sorted([*hidden, *self.unseen]):
            raise BudgetExceeded(
                f"the budget of {limit:.4f} USD per hour cannot be checked: nobody can tell whether {', '.join(hidden)} "
                "is running, for its cloud could not be asked",
                hint="Run again when the cloud answers, or remove the budget from the fleet file to go on without one",
            )

    def unbudgeted(self, budget: Budget | None) -> list[str]:
        """What to know of machines that stay and of which no price is known, where others are bought.

        They do not keep others from being bought: what a cloud charges for a stopped machine is not always known, and a
        fleet that has one must stay usable.
        """
        if budget is None or not any(change.buys for change in self.changes):
            return []
        names = [
            change.machine
            for change in self.changes
            if change.instance
            and not change.buys
            and change.price_after
            and self._unknown(change.price_after)
        ]
        return [f"no price is known for {', '.join(names)}: the budget is kept without it"] if names else []

    def _unknown(self, price: Price) -> bool:
        return Total.of([price], self.usd_per).unknown > 0

    def check_approval(self, *, approve: bool, approved_digest: str | None) -> None:
        """Refuse to buy or destroy what nobody has approved.

        Raises:
            ApprovalRequired: with what would be done.
        """
        if approve or not self.needs_approval or approved_digest == self.digest:
            return
        what = ", ".join(
            f"{change.verb} {change.machine}" for change in self.changes if change.buys or change.destroys
        )
        if approved_digest:
            raise ApprovalRequired(
                f"the plan is no longer the one that was approved ({approved_digest}); it would now {what}",
                hint="Look at the new plan and approve it",
            )
        raise ApprovalRequired(
            f"applying would {what}",
            hint="Approve it: answer the question with yes, or set fleet_auto_approve: true",
        )


def _figures(price: Price) -> dict[str, Any]:
    """A price without where it was read: that names the day, and an approval is good for longer."""
    return {key: value for key, value in price.to_json().items() if key != "source"}
