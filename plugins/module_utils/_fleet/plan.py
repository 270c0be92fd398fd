# SPDX-License-Identifier: GPL-3.0-or-later
"""From the wish (a FleetSpec) and what is (a listing) to an ordered, priced list of changes.

Pure: nothing is asked and nothing is touched here. Prices and candidate zones come in through :class:`Quotes`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from .changes import Change, Plan, Verb
from .errors import Conflict, FleetError, InvalidRequest, no_access
from .machines import FLEET_LABEL, MACHINE_LABEL, Instance, State
from .prices import Price, Total
from .sight import Sight
from .spec import CloudMachine, FleetSpec, Gpu, MachineBase

ALL = "all"
"""In place of machine names: every machine of the fleet."""

_UNSEEN = Price.unknown("its cloud could not be asked")


class Quotes(Protocol):
    """What the plan needs to know from the clouds besides their listings."""

    def zones(self, machine: MachineBase) -> Sequence[str]:
        """Where the machine may be placed, in order of preference."""

    def running(self, machine: MachineBase, zone: str) -> Price:
        """What it would cost while it runs there."""

    def stopped(self, machine: MachineBase, zone: str) -> Price:
        """What it would still cost while stopped there."""


def make(
    spec: FleetSpec,
    instances: Iterable[Instance],
    quotes: Quotes,
    *,
    unreachable: Mapping[str, Collection[str]] | None = None,
    sick: Mapping[str, FleetError] | None = None,
    only: Collection[str] | None = None,
    retire: Collection[str] = (),
    prune: bool = False,
) -> Plan:
    """Compare the wish with what is.

    Args:
        spec: the wish.
        instances: everything that carries the fleet's label, from all clouds that answered.
        quotes: prices and candidate zones.
        unreachable: by provider, the zones it could not answer for.
        sick: by provider, why it could not be asked at all.
        only: limit changes to these machines; None means all.
        retire: machines to delete whatever the file says; ``all`` means every machine of the fleet, declared or not.
        prune: delete undeclared instances of the fleet.

    Raises:
        InvalidRequest: ``only`` or ``retire`` names a machine that is not declared and does not exist.
    """
    found: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=lambda i: (i.machine, i.provider, i.zone, i.id)):
        if instance.fleet == spec.fleet:
            found[instance.machine].append(instance)
    undeclared = [name for name in found if name not in spec.machines]
    _check_names("only", only or (), {*spec.machines, *found})
    _check_names("retire", set(retire) - {ALL}, {*spec.machines, *found})

    planner = _Planner(spec, quotes, Sight(unreachable or {}, sick or {}))
    changes: list[Change] = []
    others: list[Price] = []
    unseen: list[str] = []
    for name in [*spec.machines, *undeclared]:
        mine = found.get(name, [])
        retired = name in retire or ALL in retire
        if only is not None and name not in only:
            others += [instance.price for instance in mine if instance.state is not State.DELETING]
            if planner.may_be_paid_for(name, mine):
                others.append(_UNSEEN)
                unseen.append(name)
        elif name in spec.machines:
            declared = spec.machines[name]
            changes += planner.declared(declared, mine, retire=retired)
            if not isinstance(declared, CloudMachine):
                why = f"carries the fleet's label, though {name} is declared as {declared.provider}"
                changes += planner.undeclared(mine, why, delete=prune or retired)
        else:
            why = "carries the fleet's label and is not declared"
            changes += planner.undeclared(mine, why, delete=prune or retired)
    creates = [(change.machine, change.provider) for change in changes if change.verb is Verb.CREATE]
    made = Plan(
        fleet=spec.fleet,
        changes=tuple(changes),
        usd_per=spec.usd_per,
        others=tuple(others),
        ceilings=planner.ceilings,
        warnings=(*planner.warnings, *planner.sight.warnings(creates)),
        unseen=tuple(unseen),
    )
    return replace(made, warnings=(*made.warnings, *made.unbudgeted(spec.budget)))


def _check_names(option: str, given: Collection[str], known: Collection[str]) -> None:
    for name in sorted(given):
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise InvalidRequest(
                f"`{option}` names {name!r}, which is neither declared in the fleet file nor found in any cloud",
                hint=f"You may have meant {near[0]}"
                if near
                else "Look at the names with ansible-inventory --graph",
            )


class _Planner:
    """Plans one machine after the other, and gathers what concerns the plan as a whole."""

    def __init__(
        self,
        spec: FleetSpec,
        quotes: Quotes,
        sight: Sight,
    ) -> None:
        self._spec = spec
        self._quotes = quotes
        self.sight = sight
        self._usd_per = spec.usd_per
        self.ceilings: dict[str, Price] = {}
        self.warnings: list[str] = []

    def declared(self, machine: MachineBase, mine: Sequence[Instance], *, retire: bool) -> list[Change]:
        """What to do with a machine of the fleet file, given every instance that claims to be it."""
        if not isinstance(machine, CloudMachine):
            word = "never configured" if machine.provider == "external" else "not made by a cloud"
            return [Change(Verb.KEEP, machine.name, machine.provider, "", word)]
        wanted = machine.enabled and not retire
        alive = [instance for instance in mine if instance.state is not State.DELETING]
        if not alive:
            leaving = mine[0] if mine else None
            return [self._create(machine, leaving) if wanted else self._absent(machine, leaving)]
        if not wanted and (retire or machine.disabled == "absent"):
            why = "to be retired" if retire else "not enabled"
            return [_delete(instance, why) for instance in alive]
        if len(alive) > 1:
            return _duplicates(machine, alive)
        if not wanted:
            return [self._stop(machine, alive[0])]
        return self._present(machine, alive[0])

    def undeclared(self, mine: Sequence[Instance], why: str, *, delete: bool) -> list[Change]:
        """What to do with instances of the fleet that are no machine of its file."""
        alive = [instance for instance in mine if instance.state is not State.DELETING]
        if delete:
            return [_delete(instance, why) for instance in alive]
        return [_as_it_is(Verb.DRIFT, instance, f"{why}; it is left alone") for instance in alive]

    def may_be_paid_for(self, name: str, mine: Sequence[Instance]) -> bool:
        """Whether a machine outside this run, of which nothing is to be seen, may cost something nevertheless."""
        machine = self._spec.machines.get(name)
        if not isinstance(machine, CloudMachine) or mine:
            return False
        reason = self._doubt(machine)
        return reason is not None and (machine.enabled or not no_access(reason))

    def _create(self, machine: CloudMachine, leaving: Instance | None) -> Change:
        if reason := self._doubt(machine):
            return _unseen(machine, "cannot tell whether it exists", reason)
        zones = tuple(self._quotes.zones(machine))
        prices = [self._quotes.running(machine, zone) for zone in zones]
        why = "enabled and does not exist"
        if leaving:
            why = "enabled and being deleted; created again when that has ended"
        dearest = self._dearest(prices)
        if dearest != prices[0]:
            self.ceilings[machine.name] = dearest
        after: dict[str, Any] = {
            "type": machine.type,
            "image": machine.image,
            "labels": self._labels(machine),
        }
        if machine.gpu:
            after["gpu"] = _gpu(machine.gpu.model, machine.gpu.count)
        return Change(
            Verb.CREATE,
            machine.name,
            machine.provider,
            zones[0],
            why,
            after=after,
            price_after=prices[0],
            instance=leaving,
            zones=zones,
        )

    def _dearest(self, prices: Sequence[Price]) -> Price:
        def rank(price: Price) -> tuple[int, Decimal]:
            total = Total.of([price], self._usd_per)
            return total.unknown, total.hourly

        return max(prices, key=rank)

    def _doubt(self, machine: CloudMachine) -> FleetError | None:
        return self.sight.doubt(machine, self._quotes.zones(machine))

    def _absent(self, machine: CloudMachine, leaving: Instance | None) -> Change:
        reason = self._doubt(machine)
        if reason is None:
            why = "being deleted" if leaving else "not enabled and does not exist"
            return Change(Verb.KEEP, machine.name, machine.provider, machine.zone, why, instance=leaving)
        why = "not enabled; cannot tell whether it exists"
        if not no_access(reason):
            return _unseen(machine, why, reason)
        # Who has no credential has hardly bought anything there, and a machine that is not wanted is not worth an error.
        self.warnings.append(str(reason))
        return Change(Verb.UNKNOWN, machine.name, machine.provider, machine.zone, why)

    def _stop(self, machine: CloudMachine, instance: Instance) -> Change:
        if instance.state in (State.STOPPED, State.STOPPING):
            return _as_it_is(Verb.KEEP, instance, f"not enabled and {instance.state}, as declared")
        price = self._quotes.stopped(_as_made(machine, instance), instance.zone)
        why = "not enabled; disabled: stopped"
        if (
            price.hourly is not None
            and instance.price.hourly is not None
            and price.hourly >= instance.price.hourly
        ):
            why += (
                f", though {instance.provider} goes on charging the full price: only deleting ends the cost"
            )
        elif price.hourly is None or price.hourly > 0:
            why += "; what it keeps (disks, addresses) is still charged"
        return Change(
            Verb.STOP,
            machine.name,
            instance.provider,
            instance.zone,
            why,
            before={"state": str(instance.state)},
            after={"state": str(State.STOPPED)},
            price_before=instance.price,
            price_after=price,
            instance=instance,
        )

    def _present(self, machine: CloudMachine, instance: Instance) -> list[Change]:
        differs, hint = self._drift(machine, instance)
        labels = self._label_changes(machine, instance)
        changes = []
        if instance.state in (State.STOPPED, State.STOPPING):
            price = self._quotes.running(_as_made(machine, instance), instance.zone)
            changes.append(
                Change(
                    Verb.START,
                    machine.name,
                    instance.provider,
                    instance.zone,
                    f"enabled and {instance.state}",
                    before={"state": str(instance.state)},
                    after={"state": str(State.RUNNING)},
                    price_before=instance.price,
                    price_after=price,
                    instance=instance,
                )
            )
        if labels:
            before, after = labels
            price_of_it = None if changes else instance.price
            changes.append(
                Change(
                    Verb.CHANGE,
                    machine.name,
                    instance.provider,
                    instance.zone,
                    "labels differ; changed in place",
                    before={"labels": before},
                    after={"labels": after},
                    price_before=price_of_it,
                    price_after=price_of_it,
                    instance=instance,
                )
            )
        if differs:
            price_of_it = None if changes else instance.price
            changes.append(
                Change(
                    Verb.DRIFT,
                    machine.name,
                    instance.provider,
                    instance.zone,
                    hint,
                    before={key: is_ for key, (is_, _dummy) in differs.items()},
                    after={key: wished for key, (_dummy, wished) in differs.items()},
                    price_before=price_of_it,
                    price_after=price_of_it,
                    instance=instance,
                )
            )
        if changes:
            return changes
        return [
            _as_it_is(
                Verb.KEEP, instance, "as declared" if instance.state is State.RUNNING else str(instance.state)
            )
        ]

    def _drift(self, machine: CloudMachine, instance: Instance) -> tuple[dict[str, tuple[Any, Any]], str]:
        """What differs and cannot be changed in place (what is, what is wished), with the way out."""
        if instance.provider != machine.provider:
            differs: dict[str, tuple[Any, Any]] = {"provider": (instance.provider, machine.provider)}
        else:
            zones = self._quotes.zones(machine)
            gpu_is = _gpu(instance.gpu_model, instance.gpu_count)
            gpu_wished = _gpu(machine.gpu.model, machine.gpu.count) if machine.gpu else None
            pairs = {
                "type": (instance.type, machine.type),
                "image": (instance.image, machine.image if instance.image is not None else None),
                "gpu": (gpu_is, gpu_wished),
                "zone": (instance.zone, instance.zone if instance.zone in zones else machine.zone),
            }
            differs = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        fields = ", ".join(differs)
        return (
            differs,
            f"{fields} differ{'' if len(differs) > 1 else 's'}; to change that, retire the machine and provision it again",
        )

    def _labels(self, machine: CloudMachine) -> dict[str, str]:
        return {**machine.labels, FLEET_LABEL: self._spec.fleet, MACHINE_LABEL: machine.name}

    def _label_changes(
        self, machine: CloudMachine, instance: Instance
    ) -> tuple[dict[str, str | None], dict[str, str]] | None:
        """Labels as they are and as they should be, where they differ. Labels that others have set are nobody's business."""
        wished = {
            key: value for key, value in self._labels(machine).items() if instance.labels.get(key) != value
        }
        return ({key: instance.labels.get(key) for key in wished}, wished) if wished else None


def _unseen(machine: CloudMachine, why: str, reason: FleetError) -> Change:
    """A machine that may exist and cost something, as far as anybody can tell."""
    return Change(
        Verb.UNKNOWN,
        machine.name,
        machine.provider,
        machine.zone,
        why,
        price_before=_UNSEEN,
        price_after=_UNSEEN,
        error=reason,
    )


def _gpu(model: str | None, count: int) -> str | None:
    return f"{count} x {model}" if model and count else None


def _as_made(machine: CloudMachine, instance: Instance) -> MachineBase:
    """The declared machine with the shape the instance really has, so that it is priced as what it is."""
    gpu = (
        Gpu(model=instance.gpu_model, count=instance.gpu_count)
        if instance.gpu_model and instance.gpu_count
        else None
    )
    return machine.model_copy(update={"type": instance.type, "gpu": gpu})


def _as_it_is(verb: Verb, instance: Instance, why: str) -> Change:
    return Change(
        verb,
        instance.machine,
        instance.provider,
        instance.zone,
        why,
        price_before=instance.price,
        price_after=instance.price,
        instance=instance,
    )


def _delete(instance: Instance, why: str) -> Change:
    return Change(
        Verb.DELETE,
        instance.machine,
        instance.provider,
        instance.zone,
        why,
        before={"type": instance.type, "state": str(instance.state)},
        price_before=instance.price,
        instance=instance,
    )


def _duplicates(machine: MachineBase, alive: Sequence[Instance]) -> list[Change]:
    where = ", ".join(f"{i.provider} {i.zone} id {i.id}" for i in alive)
    error = Conflict(
        f"{len(alive)} instances claim to be this machine: {where}",
        machine=machine.name,
        hint="Delete the one that is wrong in its cloud, or retire the machine to delete all of them",
    )
    first, *rest = (
        _as_it_is(Verb.DRIFT, instance, "more than one instance claims to be this machine")
        for instance in alive
    )
    return [replace(first, error=error), *rest]
