# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what would be done, and what it would cost."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.changes import Change, Plan, Verb
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    Instance,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    BaremetalMachine,
    Budget,
    ExternalMachine,
    FleetSpec,
    Gpu,
    MachineBase,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import (
    LittleCloud,
    LittleMachine,
    PassingClock,
    fleet,
    machine,
)
from hypothesis import given
from hypothesis import strategies as st


class Quotes:
    """Prices by zone: running, stopped."""

    def __init__(self, prices: dict[str, tuple[Price, Price]] | None = None) -> None:
        self.prices = prices or {}

    def zones(self, machine: MachineBase) -> tuple[str, ...]:
        assert isinstance(machine, LittleMachine)
        return (machine.place, *machine.fallbacks)

    def running(self, machine: MachineBase, zone: str) -> Price:
        return self.prices.get(zone, (Price(Decimal("0.01")), Price(Decimal("0.01"))))[0]

    def stopped(self, machine: MachineBase, zone: str) -> Price:
        return self.prices.get(zone, (Price(Decimal("0.01")), Price(Decimal("0.01"))))[1]


@pytest.fixture
def cloud() -> LittleCloud:
    return LittleCloud("iron", PassingClock(), names_per_zone=True)


def planned(spec: FleetSpec, *instances: Instance, **options: Any) -> Plan:
    return plan.make(spec, instances, options.pop("quotes", Quotes()), **options)


def only_change(made: Plan) -> Change:
    (change,) = made.changes
    return change


def verbs(made: Plan) -> list[tuple[str, str]]:
    return [(change.machine, str(change.verb)) for change in made.changes]


@pytest.mark.parametrize(
    ("declared", "state", "verb"),
    [
        ({"enabled": True}, None, "create"),
        ({"enabled": True}, State.RUNNING, "keep"),
        ({"enabled": True}, State.CREATING, "keep"),
        ({"enabled": True}, State.UNKNOWN, "keep"),
        ({"enabled": True}, State.STOPPED, "start"),
        ({"enabled": True}, State.STOPPING, "start"),
        ({"enabled": True}, State.DELETING, "create"),
        ({"enabled": False}, None, "keep"),
        ({"enabled": False}, State.RUNNING, "delete"),
        ({"enabled": False}, State.CREATING, "delete"),
        ({"enabled": False}, State.STOPPED, "delete"),
        ({"enabled": False}, State.DELETING, "keep"),
        ({"enabled": False, "disabled": "stopped"}, None, "keep"),
        ({"enabled": False, "disabled": "stopped"}, State.RUNNING, "stop"),
        ({"enabled": False, "disabled": "stopped"}, State.CREATING, "stop"),
        ({"enabled": False, "disabled": "stopped"}, State.STOPPED, "keep"),
        ({"enabled": False, "disabled": "stopped"}, State.STOPPING, "keep"),
    ],
)
def test_what_follows_from_wish_and_state(
    cloud: LittleCloud, declared: dict[str, Any], state: State | None, verb: str
) -> None:
    instances = [cloud.put("ore", state=state)] if state else []
    change = only_change(planned(fleet(machine("ore", **declared)), *instances))
    assert (change.verb, change.buys, change.destroys) == (
        verb,
        verb in ("create", "start"),
        verb in ("delete", "stop"),
    )
    assert (change.instance.id if change.instance else None) == (instances[0].id if instances else None)


def test_machines_no_cloud_makes_are_kept() -> None:
    spec = fleet(
        BaremetalMachine(name="box", address="192.0.2.10"),
        ExternalMachine(name="laptop", node_id="8046d53400"),
    )
    made = planned(spec)
    assert verbs(made) == [("box", "keep"), ("laptop", "keep")]
    assert not made.needs_approval and made.after.hourly == 0 and made.after.unknown == 0


@pytest.mark.parametrize(
    ("options", "verb"),
    [
        ({}, "drift"),
        ({"prune": True}, "delete"),
        ({"retire": ["box"]}, "delete"),
        ({"retire": ["all"]}, "delete"),
    ],
)
def test_what_a_cloud_has_under_the_name_of_another_kind_of_machine_is_shown_and_can_be_retired(
    cloud: LittleCloud, options: dict[str, Any], verb: str
) -> None:
    spec = fleet(BaremetalMachine(name="box", address="192.0.2.10"))
    made = planned(spec, cloud.put("box"), **options)
    assert verbs(made) == [("box", "keep"), ("box", verb)]
    assert made.before.hourly == Decimal("0.01") and made.changes[1].provider == "iron"
    assert "declared as baremetal" in made.changes[1].why


def test_a_stop_that_saves_nothing_says_so(cloud: LittleCloud) -> None:
    spec = fleet(machine("ore", enabled=False, disabled="stopped"))
    saves = Quotes({"here": (Price(Decimal("0.01")), Price(Decimal("0.001")))})
    free = Quotes({"here": (Price(Decimal("0.01")), Price(Decimal(0)))})
    ore = cloud.put("ore")
    assert "only deleting ends the cost" in only_change(planned(spec, ore)).why
    assert "still charged" in only_change(planned(spec, ore, quotes=saves)).why
    assert "charged" not in only_change(planned(spec, ore, quotes=free)).why


def test_undeclared_instances_are_shown_and_left_alone(cloud: LittleCloud) -> None:
    stray, foreign = cloud.put("stray"), replace(cloud.put("other"), labels={FLEET_LABEL: "somebody-elses"})
    made = planned(fleet(machine("ore")), cloud.put("ore"), stray, foreign)
    assert verbs(made) == [("ore", "keep"), ("stray", "drift")]
    assert not made.acting and not made.errors
    assert made.before.hourly == Decimal("0.02")


def test_prune_deletes_undeclared_instances(cloud: LittleCloud) -> None:
    made = planned(fleet(machine("ore")), cloud.put("ore"), cloud.put("stray"), prune=True)
    assert verbs(made) == [("ore", "keep"), ("stray", "delete")]
    assert made.needs_approval


def test_retire_deletes_what_is_enabled(cloud: LittleCloud) -> None:
    spec = fleet(machine("ore"), machine("tin", enabled=False, disabled="stopped"), machine("zinc"))
    found = [cloud.put("ore"), cloud.put("tin"), cloud.put("stray")]
    assert verbs(planned(spec, *found, retire=["ore"])) == [
        ("ore", "delete"), ("tin", "stop"), ("zinc", "create"), ("stray", "drift")
    ]  # fmt: skip
    assert verbs(planned(spec, *found, retire=["all"])) == [
        ("ore", "delete"), ("tin", "delete"), ("zinc", "keep"), ("stray", "delete")
    ]  # fmt: skip
    assert verbs(planned(spec, *found, retire=["stray"]))[-1] == ("stray", "delete")


@pytest.mark.parametrize("option", ["only", "retire"])
def test_a_misspelt_name_is_refused(cloud: LittleCloud, option: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"'galenna'.* You may have meant galena\."):
        planned(fleet(machine("galena")), **{option: ["galenna"]})


def test_only_limits_the_changes_and_not_the_cost(cloud: LittleCloud) -> None:
    spec = fleet(machine("ore"), machine("tin", enabled=False))
    made = planned(spec, cloud.put("tin"), cloud.put("stray"), only=["ore"])
    assert verbs(made) == [("ore", "create")]
    assert (made.before.hourly, made.after.hourly) == (Decimal("0.02"), Decimal("0.03"))


class TestDrift:
    def test_labels_are_changed_in_place_and_those_of_others_left(self, cloud: LittleCloud) -> None:
        found = cloud.put("ore", labels={"team": "old", "theirs": "x"})
        change = only_change(planned(fleet(machine("ore", labels={"team": "new", "extra": "1"})), found))
        assert change.verb is Verb.CHANGE and not change.buys and not change.destroys
        assert change.before == {"labels": {"team": "old", "extra": None}}
        assert change.after == {"labels": {"team": "new", "extra": "1"}}

    @pytest.mark.parametrize(
        ("facts", "field", "pair"),
        [
            ({"type": "large"}, "type", ("large", "small")),
            ({"image": "ubuntu-24.04"}, "image", ("ubuntu-24.04", "debian-13")),
            ({"gpu_model": "t4", "gpu_count": 2}, "gpu", ("2 x t4", None)),
            ({"zone": "elsewhere"}, "zone", ("elsewhere", "here")),
        ],
    )
    def test_other_differences_are_shown_with_the_way_out(
        self, cloud: LittleCloud, facts: dict[str, Any], field: str, pair: tuple[Any, Any]
    ) -> None:
        change = only_change(planned(fleet(machine("ore")), cloud.put("ore", **facts)))
        assert change.verb is Verb.DRIFT and not change.acts
        assert (change.before, change.after) == ({field: pair[0]}, {field: pair[1]})
        assert "retire the machine and provision it again" in change.why

    def test_a_gpu_that_is_declared_and_missing_differs(self, cloud: LittleCloud) -> None:
        change = only_change(planned(fleet(machine("ore", gpu=Gpu(model="t4"))), cloud.put("ore")))
        assert change.after == {"gpu": "1 x t4"}

    def test_an_image_the_cloud_does_not_tell_is_no_drift(self, cloud: LittleCloud) -> None:
        assert only_change(planned(fleet(machine("ore")), cloud.put("ore", image=None))).verb is Verb.KEEP

    def test_a_fallback_zone_is_no_drift(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore", fallbacks=("there",)))
        assert only_change(planned(spec, cloud.put("ore", "there"))).verb is Verb.KEEP

    def test_another_provider_is_drift_and_nothing_is_created(self, cloud: LittleCloud) -> None:
        change = only_change(planned(fleet(machine("ore", provider="tin")), cloud.put("ore")))
        assert (change.verb, change.provider, change.after) == (Verb.DRIFT, "iron", {"provider": "tin"})

    def test_a_stopped_machine_that_differs_is_started_and_shown(self, cloud: LittleCloud) -> None:
        found = cloud.put("ore", state=State.STOPPED, type="large", labels={"team": "old"})
        made = planned(fleet(machine("ore", labels={"team": "new"})), found)
        assert verbs(made) == [("ore", "start"), ("ore", "change"), ("ore", "drift")]
        assert made.before.hourly == made.after.hourly == Decimal("0.01")

    def test_two_instances_of_one_machine_are_for_the_reader(self, cloud: LittleCloud) -> None:
        found = [cloud.put("ore", "here"), cloud.put("ore", "there")]
        made = planned(fleet(machine("ore", fallbacks=("there",))), *found)
        assert verbs(made) == [("ore", "drift"), ("ore", "drift")]
        assert isinstance(made.errors["ore"], errors.Conflict)
        assert "iron here id 1, iron there id 2" in str(made.errors["ore"])

    def test_two_instances_of_a_retired_machine_are_both_deleted(self, cloud: LittleCloud) -> None:
        found = [cloud.put("ore", "here"), cloud.put("ore", "there")]
        assert verbs(planned(fleet(machine("ore")), *found, retire=["ore"])) == [("ore", "delete")] * 2


class TestWhatCannotBeSeen:
    def test_nothing_is_created_that_may_exist_in_an_unreachable_zone(self) -> None:
        spec = fleet(machine("ore", fallbacks=("there",)), machine("tin"))
        made = planned(spec, unreachable={"iron": ["zones/there"]})
        assert verbs(made) == [("ore", "unknown"), ("tin", "create")]
        assert isinstance(made.errors["ore"], errors.Unavailable) and "there" in str(made.errors["ore"])

    @pytest.mark.parametrize("scope", ["regions/here", "some zones", "zones/here-a"])
    def test_a_silent_region_or_an_unnamed_scope_hides_its_zones(self, scope: str) -> None:
        made = planned(fleet(machine("ore", place="here-a")), unreachable={"iron": [scope]})
        assert verbs(made) == [("ore", "unknown")]

    def test_nothing_is_created_in_a_cloud_that_did_not_answer(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore"), machine("tin", provider="other"), machine("off", enabled=False))
        made = planned(spec, sick={"iron": errors.Unavailable("no answer", hint="Wait")})
        assert verbs(made) == [("ore", "unknown"), ("tin", "create"), ("off", "unknown")]
        assert set(made.errors) == {"ore", "off"}
        assert str(made.errors["ore"]) == "ore: its cloud could not be asked: no answer. Wait."

    @pytest.mark.parametrize("kind", [errors.AuthError, errors.MissingLibrary])
    def test_disabled_machines_of_a_cloud_without_access_only_warn(
        self, kind: type[errors.FleetError]
    ) -> None:
        made = planned(fleet(machine("off", enabled=False)), sick={"iron": kind("no token")})
        assert verbs(made) == [("off", "unknown")] and not made.errors
        assert made.warnings == ("off: its cloud could not be asked: no token.",)
        assert made.after.unknown == 0

    def test_a_refused_credential_is_no_lack_of_access(self) -> None:
        refused = errors.AuthError("the token is refused", code="unauthorized")
        made = planned(fleet(machine("off", enabled=False)), sick={"iron": refused})
        assert set(made.errors) == {"off"} and made.after.unknown == 1

    @pytest.mark.parametrize(
        "trouble",
        [{"sick": {"iron": errors.Unavailable("no answer")}}, {"unreachable": {"iron": ["zones/there"]}}],
    )
    def test_a_machine_that_may_have_moved_from_a_silent_cloud_warns(self, trouble: dict[str, Any]) -> None:
        spec = fleet(machine("ore", provider="tin"), machine("zinc", provider="tin"))
        made = planned(spec, **trouble)
        assert verbs(made) == [("ore", "create"), ("zinc", "create")]
        (warning,) = made.warnings
        assert warning.startswith("iron could not tell") and "ore, zinc" in warning

    def test_a_cloud_nobody_has_access_to_is_not_suspected(self) -> None:
        spec = fleet(machine("ore", provider="tin"))
        assert not planned(spec, sick={"iron": errors.AuthError("no token")}).warnings


class TestMoney:
    EUR = Price(Decimal("0.01"), "EUR", monthly_cap=Decimal("6"))

    def test_totals_are_in_dollars_and_count_what_is_unknown(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore", place="euro"), machine("tin", place="dark"), machine("zinc"))
        quotes = Quotes({"euro": (self.EUR, self.EUR), "dark": (Price.unknown(), Price.unknown())})
        made = planned(spec, cloud.put("zinc"), quotes=quotes)
        assert (made.before.hourly, made.before.unknown) == (Decimal("0.01"), 0)
        assert (made.after.hourly, made.after.unknown) == (Decimal("0.022"), 1)
        assert made.after.monthly == Decimal("7.2") + Decimal("7.30")
        assert (made.difference.hourly, made.difference.unknown) == (Decimal("0.012"), 1)

    def test_an_unknown_price_that_stays_is_no_unknown_difference(self, cloud: LittleCloud) -> None:
        made = planned(fleet(machine("ore")), replace(cloud.put("ore"), price=Price.unknown()))
        assert (made.before.unknown, made.after.unknown, made.difference.unknown) == (1, 1, 0)

    def test_a_plan_over_budget_is_refused_with_the_numbers(self, cloud: LittleCloud) -> None:
        budget = Budget(hourly_usd=0.015)
        made = planned(fleet(machine("ore"), machine("tin"), budget=budget), cloud.put("tin"))
        with pytest.raises(
            errors.BudgetExceeded, match=r"0\.0200 USD .* budget is 0\.0150 USD .* costs 0\.0100 now"
        ):
            made.check_budget(budget)

    def test_a_fleet_over_budget_may_still_shrink(self, cloud: LittleCloud) -> None:
        budget = Budget(hourly_usd=0.005)
        made = planned(
            fleet(machine("ore"), machine("tin", enabled=False)), cloud.put("ore"), cloud.put("tin")
        )
        made.check_budget(budget)

    def test_the_budget_counts_the_dearest_zone_a_machine_may_end_up_in(self) -> None:
        dear = Price(Decimal("0.05"))
        made = planned(fleet(machine("ore", fallbacks=("dear",))), quotes=Quotes({"dear": (dear, dear)}))
        assert (made.after.hourly, made.ceiling.hourly) == (Decimal("0.01"), Decimal("0.05"))
        with pytest.raises(errors.BudgetExceeded):
            made.check_budget(Budget(hourly_usd=0.02))

    def test_a_budget_that_cannot_be_checked_is_not_kept(self) -> None:
        made = planned(fleet(machine("ore", place="dark")), quotes=Quotes({"dark": (Price.unknown(),) * 2}))
        with pytest.raises(errors.BudgetExceeded, match="no price is known for ore"):
            made.check_budget(Budget(hourly_usd=100))
        made.check_budget(None)

    def test_a_budget_is_not_kept_with_a_fallback_zone_of_unknown_price(self) -> None:
        spec = fleet(machine("ore", fallbacks=("dark",)))
        made = planned(spec, quotes=Quotes({"dark": (Price.unknown(),) * 2}))
        with pytest.raises(errors.BudgetExceeded, match="no price is known for ore"):
            made.check_budget(Budget(hourly_usd=100))

    @pytest.mark.parametrize("only", [None, ["tin"]])
    @pytest.mark.parametrize(
        ("reason", "enabled"),
        [(errors.Unavailable("no answer"), False), (errors.AuthError("no token"), True)],
    )
    def test_a_budget_is_not_kept_with_a_part_of_the_fleet_out_of_sight(
        self, only: list[str] | None, reason: errors.FleetError, enabled: bool
    ) -> None:
        budget = Budget(hourly_usd=100)
        spec = fleet(machine("ore", enabled=enabled), machine("tin", provider="tin"), budget=budget)
        made = planned(spec, sick={"iron": reason}, only=only)
        assert (made.before.unknown, made.after.unknown, made.difference.unknown) == (1, 1, 0)
        with pytest.raises(errors.BudgetExceeded, match="nobody can tell whether ore is running"):
            made.check_budget(budget)

    def test_a_fleet_out_of_sight_and_over_budget_may_still_shrink(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore", provider="tin"), machine("tin", enabled=False))
        made = planned(spec, cloud.put("tin"), sick={"tin": errors.Unavailable("no answer")})
        made.check_budget(Budget(hourly_usd=0.001))

    def test_what_exists_without_a_price_is_told_and_does_not_stand_in_the_way(
        self, cloud: LittleCloud
    ) -> None:
        budget = Budget(hourly_usd=0.02)
        asleep = replace(cloud.put("ore", state=State.STOPPED), price=Price.unknown())
        spec = fleet(machine("ore", enabled=False, disabled="stopped"), machine("tin"), budget=budget)
        made = planned(spec, asleep)
        made.check_budget(budget)
        assert made.after.unknown == 1
        assert made.warnings == ("no price is known for ore: the budget is kept without it",)
        alone = fleet(spec.machines["ore"], budget=budget)
        assert not planned(alone, asleep).warnings


class TestApproval:
    def test_buying_needs_it_and_changing_a_label_does_not(self, cloud: LittleCloud) -> None:
        made = planned(fleet(machine("ore")))
        with pytest.raises(errors.ApprovalRequired, match="create ore"):
            made.check_approval(approve=False, approved_digest=None)
        made.check_approval(approve=True, approved_digest=None)
        made.check_approval(approve=False, approved_digest=made.digest)
        relabel = planned(fleet(machine("ore", labels={"a": "b"})), cloud.put("ore"))
        relabel.check_approval(approve=False, approved_digest=None)

    def test_an_approval_is_for_one_plan(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore"), machine("tin", enabled=False))
        first, second = planned(spec), planned(spec, cloud.put("tin"))
        with pytest.raises(errors.ApprovalRequired, match="no longer the one that was approved"):
            second.check_approval(approve=False, approved_digest=first.digest)

    @pytest.mark.parametrize(
        "other",
        [
            {"type": "large"},
            {"image": "debian-12"},
            {"place": "there"},
            {"fallbacks": ("there",)},
            {"name": "tin"},
        ],
    )
    def test_whatever_is_bought_differently_has_another_digest(self, other: dict[str, Any]) -> None:
        assert (
            planned(fleet(machine("ore"))).digest
            != planned(fleet(machine(**{"name": "ore", **other}))).digest
        )

    def test_another_price_has_another_digest(self) -> None:
        dear = Quotes({"here": (Price(Decimal(1)), Price(Decimal(1)))})
        assert planned(fleet(machine("ore"))).digest != planned(fleet(machine("ore")), quotes=dear).digest

    def test_where_a_price_was_read_is_not_approved(self) -> None:
        today, tomorrow = (
            Quotes({"here": (Price(Decimal(1), source=f"the list of {day}"), Price(Decimal(1)))})
            for day in ("2026-11-20", "2026-11-21")
        )
        spec = fleet(machine("ore"))
        assert planned(spec, quotes=today).digest == planned(spec, quotes=tomorrow).digest

    def test_an_instance_made_anew_has_another_digest(self, cloud: LittleCloud) -> None:
        spec = fleet(machine("ore", enabled=False))
        assert planned(spec, cloud.put("ore")).digest != planned(spec, cloud.put("ore")).digest


# Properties

NAMES = st.sampled_from(["ore", "tin", "zinc", "lead"])
PLACES = st.sampled_from(["here", "there", "far"])


@st.composite
def machines(draw: st.DrawFn) -> list[LittleMachine]:
    return [
        machine(
            name,
            enabled=draw(st.booleans()),
            disabled=draw(st.sampled_from(["absent", "stopped"])),
            place=(place := draw(PLACES)),
            fallbacks=tuple(sorted(draw(st.sets(PLACES)) - {place})),
            labels=draw(st.dictionaries(st.just("team"), st.sampled_from(["a", "b"]))),
            type=draw(st.sampled_from(["small", "large"])),
        )
        for name in sorted(draw(st.sets(NAMES)))
    ]


@st.composite
def instances(draw: st.DrawFn) -> list[Instance]:
    cloud = LittleCloud("iron", PassingClock(), names_per_zone=True)
    return [
        cloud.put(
            draw(st.sampled_from(["ore", "tin", "zinc", "stray", "odd"])),
            draw(PLACES),
            state=draw(st.sampled_from(State)),
            type=draw(st.sampled_from(["small", "large"])),
            labels=draw(st.dictionaries(st.just("team"), st.sampled_from(["a", "b"]))),
        )
        for _ in range(draw(st.integers(0, 6)))
    ]


ZONES = st.sets(PLACES).map(lambda zones: {"iron": sorted(zones)})


@given(machines(), instances(), ZONES)
def test_never_creates_what_exists_and_never_touches_the_undeclared(
    declared: list[LittleMachine], found: list[Instance], unreachable: dict[str, list[str]]
) -> None:
    made = planned(fleet(*declared), *found, unreachable=unreachable)
    alive = {i.machine for i in found if i.state is not State.DELETING}
    names = {one.name for one in declared}
    assert not {c.machine for c in made.changes if c.verb is Verb.CREATE} & alive
    assert {c.machine for c in made.acting} <= names
    hidden = {m.name for m in declared if {m.place, *m.fallbacks} & set(unreachable["iron"])}
    assert not {c.machine for c in made.changes if c.verb is Verb.CREATE} & hidden
    assert {c.machine for c in made.changes} == names | alive


@given(machines(), instances(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    declared: list[LittleMachine], found: list[Instance], chance: random.Random
) -> None:
    one = planned(fleet(*declared), *found)
    chance.shuffle(found)
    again = planned(fleet(*declared), *found)
    assert [change.to_json() for change in again.changes] == [change.to_json() for change in one.changes]
    chance.shuffle(declared)
    other = planned(fleet(*declared), *found)
    assert other.digest == one.digest
    assert sorted(verbs(other)) == sorted(verbs(one))


@given(machines(), instances(), st.sets(NAMES))
def test_the_totals_add_up(declared: list[LittleMachine], found: list[Instance], only: set[str]) -> None:
    names = {one.name for one in declared} | {i.machine for i in found}
    made = planned(fleet(*declared), *found, only=only & names)
    before, after, difference = made.before, made.after, made.difference
    assert before.hourly + difference.hourly == after.hourly
    assert before.monthly + difference.monthly == after.monthly
    paid = sum((i.price.hourly or 0) for i in found if i.state is not State.DELETING)
    assert before.hourly == paid
    assert made.ceiling.hourly >= after.hourly


@given(machines(), instances())
def test_a_plan_carried_out_leaves_nothing_to_do(
    declared: list[LittleMachine], found: list[Instance]
) -> None:
    spec = fleet(*declared)
    made = planned(spec, *found)
    after = {i.id: i for i in found if i.state is not State.DELETING}
    cloud = LittleCloud("iron", PassingClock(), names_per_zone=True)
    for number, change in enumerate(made.changes):
        was = after.get(change.instance.id) if change.instance else None
        if change.verb is Verb.CREATE:
            wanted = spec.machines[change.machine]
            assert isinstance(wanted, LittleMachine)
            new = cloud.put(change.machine, change.zone, type=wanted.type, labels=wanted.labels)
            after[f"new-{number}"] = replace(new, id=f"new-{number}")
        elif change.verb is Verb.DELETE and was:
            del after[was.id]
        elif change.verb in (Verb.START, Verb.STOP) and was:
            after[was.id] = replace(was, state=State.RUNNING if change.verb is Verb.START else State.STOPPED)
        elif change.verb is Verb.CHANGE and was:
            after[was.id] = replace(was, labels={**was.labels, **change.after["labels"]})
    again = planned(spec, *after.values())
    assert not again.acting, verbs(again)
    assert again.difference.hourly == 0 and not again.needs_approval
