# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as lines of text, for people.

Pure. Money is shown in the currency it is billed in, totals in US dollars; what is unknown is called so.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from .changes import Change, Plan, Verb
from .prices import Price, Total
from .spec import Budget
from .text_table import aligned

_SIGNS = {
    Verb.CREATE: "+",
    Verb.START: ">",
    Verb.STOP: "|",
    Verb.DELETE: "-",
    Verb.CHANGE: "~",
    Verb.KEEP: " ",
    Verb.DRIFT: "!",
    Verb.UNKNOWN: "?",
}

_WORDS = {
    Verb.CREATE: "to create",
    Verb.START: "to start",
    Verb.STOP: "to stop",
    Verb.DELETE: "to delete",
    Verb.CHANGE: "to change",
    Verb.KEEP: "to keep",
    Verb.DRIFT: "in drift",
    Verb.UNKNOWN: "unknown",
}

_ACCESS_VERBS = (Verb.CREATE, Verb.DELETE, Verb.CHANGE)

_KEEPS_SHOWN = 50
"""More machines that stay as they are than this are summed up in one line."""


def lines(
    plan: Plan,
    *,
    types: Mapping[str, str] | None = None,
    budget: Budget | None = None,
    refusal: str | None = None,
    simulated: Collection[str] = (),
) -> list[str]:
    """The plan, its cost and what stands in its way.

    Args:
        types: by machine, the declared type, for those that do not exist.
        budget: of the fleet.
        refusal: why the plan will not be carried out, if so.
        simulated: providers that are no real clouds.
    """
    counted = Counter(change.verb for change in plan.changes)
    summary = (
        ", ".join(f"{counted[verb]} {_WORDS[verb]}" for verb in Verb if counted[verb]) or "nothing declared"
    )
    entries = [change.action for cloud in plan.access for change in cloud.changes]
    if entries:
        summary += ". Access: " + ", ".join(
            f"{entries.count(verb)} {_WORDS[verb]}" for verb in _ACCESS_VERBS if verb in entries
        )
    result = [f"Fleet {plan.fleet}: {summary}."]
    if simulated:
        result.append(
            f"SIMULATED ({', '.join(sorted(simulated))}): a sandbox; no money is spent and no machine is real."
        )
    keeps = [change for change in plan.changes if change.verb is Verb.KEEP]
    shown = [c for c in plan.changes if c.verb is not Verb.KEEP or len(keeps) <= _KEEPS_SHOWN]
    if shown or entries:
        result += ["", *aligned([*_rows(shown, types or {}), *_access_rows(plan)], right=(5, 6, 7))]
    if len(shown) < len(plan.changes):
        result.append(f"  and {len(keeps)} machines as declared.")
    result += ["", *_cost(plan, budget)]
    notes = [*_sources(plan), *(f"Warning: {text}" for text in plan.warnings)]
    notes += [f"Problem: {error}" for error in plan.errors.values()]
    notes += [f"Problem: {cloud.error}" for cloud in plan.access if cloud.error]
    if refusal:
        notes.append(f"Refused: {refusal}")
    elif plan.needs_approval:
        notes.append(f"This needs an approval. The plan's digest is {plan.digest}.")
    return [*result, *([""] if notes else []), *notes]


def _rows(changes: Iterable[Change], types: Mapping[str, str]) -> list[list[str]]:
    rows = [["", "action", "machine", "type", "provider/zone", "now/h", "then/h", "then/month", "why"]]
    for change in changes:
        place = f"{change.provider}/{change.zone}" if change.zone else change.provider
        kind = (
            change.instance.type
            if change.instance and change.verb is not Verb.CREATE
            else change.after.get("type") or types.get(change.machine, "")
        )
        rows.append(
            [
                _SIGNS[change.verb],
                str(change.verb),
                change.machine,
                kind,
                place,
                _hourly(change.price_before),
                _hourly(change.price_after),
                _monthly(change.price_after),
                _why(change),
            ]
        )
    return rows


def _access_rows(plan: Plan) -> list[list[str]]:
    return [
        [_SIGNS[Verb(change.action)], change.action, "access", "", cloud.provider, "", "", "", change.text]
        for cloud in plan.access
        for change in cloud.changes
    ]


def _why(change: Change) -> str:
    if change.verb not in (Verb.CHANGE, Verb.DRIFT) or not change.after:
        return change.why
    parts = []
    for field, wished in change.after.items():
        is_ = change.before.get(field)
        if isinstance(wished, dict) and isinstance(is_, dict):
            parts += [
                f"{field}.{key}: {_said(is_.get(key))} -> {_said(value)}" for key, value in wished.items()
            ]
        else:
            parts.append(f"{field}: {_said(is_)} -> {_said(wished)}")
    return f"{'; '.join(parts)} ({change.why})"


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _hourly(price: Price | None) -> str:
    if price is None:
        return "-"
    return "unknown" if price.hourly is None else f"{price.hourly:.4f} {price.currency}"


def _monthly(price: Price | None) -> str:
    if price is None:
        return "-"
    return "unknown" if price.monthly is None else f"{price.monthly:.2f} {price.currency}"


def _cost(plan: Plan, budget: Budget | None) -> list[str]:
    rows = [["", "per hour", "per month", ""]]
    for name, total, signed in (
        ("now", plan.before, ""),
        ("then", plan.after, ""),
        ("difference", plan.difference, "+"),
    ):
        rows.append(
            [name, _amount(total.hourly, 4, signed), _amount(total.monthly, 2, signed), _unknown(total)]
        )
    if plan.ceiling.hourly != plan.after.hourly:
        rows.append(
            [
                "at most",
                _amount(plan.ceiling.hourly, 4),
                _amount(plan.ceiling.monthly, 2),
                "if fallback zones are used",
            ]
        )
    if budget:
        rows.append(["budget", _amount(Decimal(str(budget.hourly_usd)), 4), "", ""])
    result = aligned(rows, right=(1, 2))
    currencies = {
        price.currency
        for change in plan.changes
        for price in (change.price_before, change.price_after)
        if price and price.hourly is not None
    }
    rates = [
        f"1 {currency} = {plan.usd_per[currency]} USD" for currency in sorted(currencies & set(plan.usd_per))
    ]
    if rates:
        result.append(f"  Totals are in USD at {', '.join(rates)}.")
    if plan.others:
        count = len(plan.others)
        result.append(f"  They include {count} machine{'s' * (count > 1)} outside this run.")
    return result


def _amount(amount: Decimal, digits: int, sign: str = "") -> str:
    return f"{amount:{sign}.{digits}f} USD"


def _unknown(total: Total) -> str:
    return f"and {total.unknown} unknown" if total.unknown else ""


def _sources(plan: Plan) -> list[str]:
    known: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for change in plan.changes:
        for price in (change.price_before, change.price_after):
            if price and price.source:
                said = unknown if price.hourly is None else known
                said[f"{change.provider}: {price.source}"] = None
    result = [f"Prices are without tax, from {'; '.join(known)}."] if known else []
    return [*result, f"Unknown prices: {'; '.join(unknown)}."] if unknown else result
