# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying plans out, against whole clouds in memory: what happens when a request, an operation or we ourselves fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import access_rules, errors, plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.apply import Outcome, apply, would
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.changes import Plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.live import look
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    Instance,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.quotes import LiveQuotes
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    FleetSpec,
    MachineBase,
    ProviderSettings,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import (
    Killed,
    LittleCloud,
    LittleMachine,
    PassingClock,
    boots,
    fleet,
    kinds,
    machine,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Stage:
    """Little clouds, and what a run of the fleet module does with them."""

    def __init__(self) -> None:
        self.clock = PassingClock()
        self.iron = LittleCloud("iron", self.clock)
        self.tin = LittleCloud("tin", self.clock, names_per_zone=True)

    def plan(self, spec: FleetSpec, **options: Any) -> Plan:
        live = look(spec, kinds(self.iron, self.tin), self.clock)
        self.providers = live.providers
        made = plan.make(
            spec,
            live.instances,
            LiveQuotes(live.providers),
            unreachable=live.unreachable,
            sick=live.sick,
            **options,
        )
        limits = {name: value for name, value in options.items() if name in ("only", "retire")}
        return replace(made, access=access_rules.look(spec, live, made, **limits))

    def run(self, spec: FleetSpec, *, wait_timeout: float = 600.0, **options: Any) -> dict[str, Outcome]:
        """Look, plan, apply; the outcomes by machine."""
        made = self.plan(spec, **options)
        outcomes, self.access = apply(
            made, spec, self.providers, boots(spec), self.clock, wait_timeout=wait_timeout
        )
        assert {o.machine for o in made.acting} <= {o.machine for o in outcomes}
        return {outcome.machine: outcome for outcome in outcomes}

    def truth(self) -> dict[str, tuple[str, State]]:
        """By machine, where it is and how; fails if one is there twice."""
        found = [*self.iron.truth(), *self.tin.truth()]
        assert len({i.machine for i in found}) == len(found), found
        return {i.machine: (i.zone, i.state) for i in found}


@pytest.fixture
def stage() -> Stage:
    return Stage()


def once(kind: str, verb: str = "create", machine: str | None = None, zone: str | None = None) -> Any:
    """A fault that strikes the first request of that sort only."""
    struck = Counter[str]()

    def fault(its_verb: str, its_machine: str, its_zone: str) -> str | None:
        if its_verb != verb or machine not in (None, its_machine) or zone not in (None, its_zone):
            return None
        struck[its_machine] += 1
        return kind if struck[its_machine] == 1 else None

    return fault


def always(kind: str, verb: str = "create", zone: str | None = None) -> Any:
    return lambda its_verb, _machine, its_zone: (
        kind if its_verb == verb and zone in (None, its_zone) else None
    )


RUNNING = ("here", State.RUNNING)


def test_a_fleet_of_two_clouds_is_created_at_the_same_time(stage: Stage) -> None:
    spec = fleet(*(machine(f"m{n}", provider="iron" if n % 2 else "tin") for n in range(100)))
    outcomes = stage.run(spec)
    assert {o.status for o in outcomes.values()} == {"ok"} and len(stage.truth()) == 100
    assert all(o.instance and o.instance.state is State.RUNNING for o in outcomes.values())
    assert stage.clock.now() < 7, "each operation takes 5 s, and all are under way at once"
    assert stage.iron.calls["poll"] <= 20, "operations are asked about together"
    assert stage.iron.calls["prepare"] == 1 and stage.iron.calls["access"] == 1
    assert not stage.plan(spec).acting


def test_what_would_be_done_has_the_form_of_what_was_done(stage: Stage) -> None:
    stage.iron.put("stray")
    spec = fleet(machine("ore"))
    promised = would(stage.plan(spec, prune=True))
    done = stage.run(spec, prune=True)
    assert [(o.machine, o.action) for o in promised] == [(o.machine, o.action) for o in done.values()]
    assert set(promised[0].to_json()) == set(done["ore"].to_json())


def test_every_verb(stage: Stage) -> None:
    stage.iron.put("asleep", state=State.STOPPED)
    stage.iron.seconds = 30
    stage.iron.stop(stage.iron.put("dozing"))
    stage.iron.put("surplus")
    stage.iron.put("idle")
    stage.iron.put("mislabelled", labels={"team": "old", "theirs": "x"})
    spec = fleet(
        machine("asleep"),
        machine("dozing"),
        machine("surplus", enabled=False),
        machine("idle", enabled=False, disabled="stopped"),
        machine("mislabelled", labels={"team": "new"}),
        machine("fresh"),
    )
    outcomes = stage.run(spec)
    assert {name: (o.action, o.status) for name, o in outcomes.items()} == {
        "asleep": ("start", "ok"),
        "dozing": ("start", "ok"),
        "surplus": ("delete", "ok"),
        "idle": ("stop", "ok"),
        "mislabelled": ("change", "ok"),
        "fresh": ("create", "ok"),
    }
    truth = stage.truth()
    assert truth["idle"][1] is State.STOPPED and "surplus" not in truth
    labels = {i.machine: i.labels for i in stage.iron.truth()}["mislabelled"]
    assert labels["team"] == "new" and labels["theirs"] == "x" and labels[FLEET_LABEL]


def test_a_machine_on_its_way_up_is_waited_for(stage: Stage) -> None:
    spec = fleet(machine("ore"))
    stage.iron.fault = once("kill_after")
    with pytest.raises(Killed):
        stage.run(spec)
    outcome = stage.run(spec)["ore"]
    assert (outcome.action, outcome.status) == ("keep", "ok")
    assert outcome.instance and outcome.instance.state is State.RUNNING
    assert stage.iron.calls["create"] == 1


class TestStockOut:
    def test_the_next_zone_is_tried(self, stage: Stage) -> None:
        stage.tin.fault = always("stockout", zone="here")
        outcome = stage.run(fleet(machine("ore", provider="tin", fallbacks=("there", "far"))))["ore"]
        assert (outcome.status, outcome.zone) == ("ok", "there")
        assert stage.truth() == {"ore": ("there", State.RUNNING)}

    @pytest.mark.parametrize("cloud", ["iron", "tin"])
    def test_one_that_shows_late_leaves_nothing_behind(self, stage: Stage, cloud: str) -> None:
        getattr(stage, cloud).fault = once("late_stockout")
        outcome = stage.run(fleet(machine("ore", provider=cloud, fallbacks=("there",))))["ore"]
        assert (outcome.status, outcome.zone) == ("ok", "there")
        assert stage.truth() == {"ore": ("there", State.RUNNING)}

    def test_when_no_zone_has_any_each_is_named(self, stage: Stage) -> None:
        stage.tin.fault = always("quota")
        outcome = stage.run(fleet(machine("ore", provider="tin", fallbacks=("there",))))["ore"]
        assert isinstance(outcome.error, errors.QuotaExceeded)
        assert "here: not so many; there: not so many" in str(outcome.error)
        assert not stage.truth()

    def test_a_stopped_remnant_that_cannot_be_started_is_not_followed_by_another_zone(
        self, stage: Stage
    ) -> None:
        remnant = stage.tin.put("ore", state=State.STOPPED)
        stage.tin._hidden[("ore", "here")] = 1000.0
        stage.tin.fault = always("stockout", "start")
        outcome = stage.run(fleet(machine("ore", provider="tin", fallbacks=("there",))))["ore"]
        assert isinstance(outcome.error, errors.OperationFailed) and stage.tin.truth() == [remnant]

    def test_a_start_that_finds_no_stock_says_what_to_do(self, stage: Stage) -> None:
        stage.tin.put("ore", state=State.STOPPED)
        stage.tin.fault = always("stockout", "start")
        outcome = stage.run(fleet(machine("ore", provider="tin")))["ore"]
        assert isinstance(outcome.error, errors.OutOfStock) and "another zone" in str(outcome.error)


class TestOneRequestOfDoubtfulFate:
    @pytest.mark.parametrize("kind", ["lost", "unanswered", "twice", "locked", "lag"])
    @pytest.mark.parametrize("cloud", ["iron", "tin"])
    def test_makes_one_machine(self, stage: Stage, kind: str, cloud: str) -> None:
        getattr(stage, cloud).fault = once(kind)
        spec = fleet(machine("ore", provider=cloud, fallbacks=("there",)), machine("zinc", provider=cloud))
        assert {o.status for o in stage.run(spec).values()} == {"ok"}
        assert stage.truth() == {"ore": RUNNING, "zinc": RUNNING}

    @pytest.mark.parametrize("kind", ["lost", "unanswered", "locked"])
    @pytest.mark.parametrize("verb", ["start", "stop", "delete", "change"])
    def test_of_any_verb_is_seen_through(self, stage: Stage, kind: str, verb: str) -> None:
        stage.iron.put("ore", state=State.STOPPED if verb == "start" else State.RUNNING)
        stage.iron.fault = once(kind, verb)
        wish: dict[str, dict[str, Any]] = {
            "stop": {"enabled": False, "disabled": "stopped"},
            "delete": {"enabled": False},
        }
        spec = fleet(machine("ore", labels={"a": "b"} if verb == "change" else {}, **wish.get(verb, {})))
        outcome = stage.run(spec)["ore"]
        assert (outcome.action, outcome.status) == (verb, "ok"), outcome.error
        assert not stage.plan(spec).acting

    def test_is_not_followed_by_another_zone(self, stage: Stage) -> None:
        stage.tin.fault = always("lost")
        outcome = stage.run(fleet(machine("ore", provider="tin", fallbacks=("there",))))["ore"]
        assert isinstance(outcome.error, errors.Unavailable) and not stage.truth()

    def test_and_then_a_stockout_is_looked_into(self, stage: Stage) -> None:
        class Slow(LittleCloud):
            """Carries a request out some time after it failed to answer it."""

            def find(self, machine: MachineBase, zone: str) -> Instance | None:
                found = super().find(machine, zone)
                return found if self.calls["create"] > 1 else None

        stage.tin = Slow("tin", stage.clock, names_per_zone=True)
        answers = iter(["unanswered", "stockout"])
        stage.tin.fault = lambda verb, _machine, _zone: next(answers, None) if verb == "create" else None
        outcome = stage.run(fleet(machine("ore", provider="tin", fallbacks=("there",))))["ore"]
        assert outcome.status == "ok" and stage.truth() == {"ore": RUNNING}
        assert stage.tin.calls["create"] == 2


def test_a_create_that_fails_late_leaves_nothing_behind(stage: Stage) -> None:
    stage.iron.fault = once("late", machine="ore")
    spec = fleet(machine("ore"), machine("zinc"))
    outcomes = stage.run(spec)
    assert outcomes["ore"].error and "it broke" in str(outcomes["ore"].error)
    assert outcomes["zinc"].status == "ok" and stage.truth() == {"zinc": RUNNING}
    assert stage.run(spec)["ore"].status == "ok"


def test_a_remnant_that_cannot_be_removed_is_told(stage: Stage) -> None:
    faults = {"create": "late", "delete": "lost"}
    stage.iron.fault = lambda verb, _machine, _zone: faults.get(verb)
    error = stage.run(fleet(machine("ore")))["ore"].error
    assert error and "it broke; and what it left behind could not be removed: no answer" in str(error)


def test_a_name_of_somebody_else_is_left_alone(stage: Stage) -> None:
    stage.iron.put("ore", labels={FLEET_LABEL: "other"})
    outcome = stage.run(fleet(machine("ore"), machine("zinc")))["ore"]
    assert isinstance(outcome.error, errors.Conflict)
    assert stage.truth()["zinc"] == RUNNING and len(stage.iron.objects) == 2


def test_a_name_of_another_machine_of_ours_is_left_alone(stage: Stage) -> None:
    stage.iron.put("elsewhere", name="ore")
    outcomes = stage.run(fleet(machine("ore")))
    assert isinstance(outcomes["ore"].error, errors.Conflict)
    assert "belongs to the fleet minerals as elsewhere" in str(outcomes["ore"].error)


def test_a_lagging_list_does_not_make_a_second_machine_in_another_zone(stage: Stage) -> None:
    spec = fleet(machine("ore", provider="tin", fallbacks=("there",)))
    hidden = stage.tin.put("ore", "there")
    stage.tin._hidden[("ore", "there")] = 1000.0
    outcome = stage.run(spec)["ore"]
    assert outcome.instance == hidden and stage.tin.calls["create"] == 0


def test_a_machine_being_deleted_is_waited_for(stage: Stage) -> None:
    stage.iron.seconds = 30
    spec = fleet(machine("ore"))
    old = stage.iron.put("ore")
    stage.iron.delete(old)
    outcome = stage.run(spec)["ore"]
    assert outcome.instance and outcome.instance.id != old.id and stage.truth() == {"ore": RUNNING}


class TestWaiting:
    def test_ends_with_the_last_state_and_how_to_go_on(self, stage: Stage) -> None:
        stage.iron.fault = always("stuck")
        outcome = stage.run(fleet(machine("ore")), wait_timeout=60)["ore"]
        assert isinstance(outcome.error, errors.WaitTimeout)
        assert "operation iron-create-0" in str(outcome.error) and "last seen CREATING in here" in str(
            outcome.error
        )
        assert "run the same command again" in str(outcome.error)
        assert 60 <= stage.clock.now() < 70

    def test_for_a_machine_on_its_way_ends_too(self, stage: Stage) -> None:
        stage.iron.put("ore", state=State.CREATING)
        outcome = stage.run(fleet(machine("ore")), wait_timeout=60)["ore"]
        assert isinstance(outcome.error, errors.WaitTimeout) and "last seen CREATING" in str(outcome.error)

    def test_ends_when_the_machine_is_gone(self, stage: Stage) -> None:
        stage.iron.put("ore", state=State.CREATING)
        stage.iron.fault = lambda verb, _m, _z: stage.iron.objects.clear() if verb == "find" else None
        error = stage.run(fleet(machine("ore")))["ore"].error
        assert isinstance(error, errors.NotFound) and "not in here any more" in str(error)

    def test_ends_when_the_machine_will_not_start(self, stage: Stage) -> None:
        ore = stage.iron.put("ore", state=State.CREATING)

        def stops(verb: str, _machine: str, _zone: str) -> None:
            if verb == "find":
                stage.iron._set(ore, State.STOPPED)

        stage.iron.fault = stops
        error = stage.run(fleet(machine("ore")))["ore"].error
        assert error and "did not start" in str(error) and 20 <= stage.clock.now() < 30

    def test_bears_a_cloud_that_is_away_for_a_while(self, stage: Stage) -> None:
        stage.iron.fault = lambda verb, _m, _z: "lost" if verb == "poll" and stage.clock.now() < 20 else None
        assert stage.run(fleet(machine("ore")))["ore"].status == "ok"

    def test_names_what_kept_it_from_asking(self, stage: Stage) -> None:
        stage.iron.fault = lambda verb, _m, _z: "lost" if verb == "poll" else None
        outcome = stage.run(fleet(machine("ore")), wait_timeout=30)["ore"]
        assert isinstance(outcome.error, errors.WaitTimeout) and "no answer" in str(outcome.error)

    def test_asks_more_rarely_the_longer_it_takes(self, stage: Stage) -> None:
        stage.iron.seconds = 300
        assert stage.run(fleet(machine("ore")))["ore"].status == "ok"
        assert stage.iron.calls["poll"] < 100

    def test_a_machine_that_was_made_and_does_not_run_is_told(self, stage: Stage) -> None:
        stage.iron.fault = once("late", "start")
        stage.iron.put("ore", state=State.STOPPED)
        spec = fleet(machine("ore"))
        assert isinstance(stage.run(spec)["ore"].error, errors.OutOfStock)
        assert stage.run(spec)["ore"].status == "ok"


class TestOneCloudThatFailsWholly:
    def test_does_not_stop_the_other(self, stage: Stage) -> None:
        stage.iron.refuses = errors.AuthError("the token is refused")
        spec = fleet(machine("ore"), machine("zinc", provider="tin"))
        made = stage.plan(spec)
        assert isinstance(made.errors["ore"], errors.AuthError)
        assert stage.run(spec)["zinc"].status == "ok"

    def test_while_applying_is_told_for_each_machine(self, stage: Stage) -> None:
        spec = fleet(machine("ore"), machine("lead"), machine("zinc", provider="tin"))
        made = stage.plan(spec)
        stage.iron.refuses = errors.AuthError("the token is refused")
        outcomes, _ = apply(made, spec, stage.providers, boots(spec), stage.clock)
        assert [o.status for o in outcomes] == ["failed", "failed", "ok"]
        assert isinstance(outcomes[0].error, errors.AuthError)
        assert str(outcomes[0].error).startswith("ore: ") and str(outcomes[1].error).startswith("lead: ")

    def test_one_failure_that_ends_many_machines_names_each(self, stage: Stage) -> None:
        shared = errors.OperationFailed("the firewall could not be made")
        stage.iron.late = shared
        stage.iron.fault = always("late")
        outcomes = stage.run(fleet(machine("ore"), machine("lead")))
        assert [str(o.error).split(":")[0] for o in outcomes.values()] == ["ore", "lead"]

    def test_while_waiting_is_told_at_once(self, stage: Stage) -> None:
        def refuse(verb: str, machine: str, zone: str) -> str | None:
            if verb == "poll":
                raise errors.Forbidden("not for you")
            return None

        stage.iron.fault = refuse
        outcome = stage.run(fleet(machine("ore")))["ore"]
        assert isinstance(outcome.error, errors.Forbidden) and stage.clock.now() < 5


def test_the_second_step_of_a_machine_is_skipped_after_the_first_failed(stage: Stage) -> None:
    stage.iron.put("ore", state=State.STOPPED)
    stage.iron.fault = always("stockout", "start")
    spec = fleet(machine("ore", labels={"a": "b"}))
    outcomes, _ = apply(stage.plan(spec), spec, stage.providers, boots(spec), stage.clock)
    assert [(o.action, o.status) for o in outcomes] == [("start", "failed"), ("change", "skipped")]


def test_an_interrupt_accounts_for_every_machine(stage: Stage) -> None:
    class Impatient(PassingClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now() > 2:
                raise KeyboardInterrupt

    stage.clock = Impatient()
    stage.iron.clock = stage.tin.clock = stage.clock
    outcomes = stage.run(fleet(machine("ore"), machine("zinc")))
    assert {o.status for o in outcomes.values()} == {"failed"}
    assert all("Run the same command again" in str(o.error) for o in outcomes.values())


def test_a_defect_of_ours_is_told_without_its_text(stage: Stage) -> None:
    def defect(verb: str, machine: str, zone: str) -> str | None:
        if verb == "create":
            raise RuntimeError("sesame-token")
        return None

    stage.iron.fault = defect
    outcomes = stage.run(fleet(machine("ore"), machine("zinc", provider="tin")))
    assert outcomes["zinc"].status == "ok"
    assert "unexpected RuntimeError" in str(outcomes["ore"].error)
    assert "sesame" not in str(outcomes["ore"].to_json())


# Whatever goes wrong, wherever we are killed: runs that follow end in exactly the declared machines.

FAULTS = st.sampled_from(
    [
        "stockout",
        "quota",
        "late",
        "late_stockout",
        "lost",
        "unanswered",
        "twice",
        "locked",
        "lag",
        "slow",
        "kill",
        "kill_after",
    ]
)
PLACES = st.sampled_from(["here", "there", "far"])


@st.composite
def fleets(draw: st.DrawFn) -> FleetSpec:
    return fleet(
        *(
            machine(
                f"m{number}",
                provider=("iron", "tin")[number % 2],
                enabled=draw(st.booleans()),
                disabled=draw(st.sampled_from(["absent", "stopped"])),
                place=(place := draw(PLACES)),
                fallbacks=tuple(sorted(draw(st.sets(PLACES)) - {place})),
            )
            for number in sorted(draw(st.sets(st.integers(0, 4), min_size=1)))
        ),
        providers={"iron": ProviderSettings(), "tin": ProviderSettings()},
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(fleets(), min_size=1, max_size=3),
    st.dictionaries(
        # Whose request, and which one of theirs, so that it is the same one however the threads are woven; "" is a poll.
        st.tuples(st.sampled_from(["", "m0", "m1", "m2", "m3", "m4"]), st.integers(1, 6)),
        FAULTS,
        max_size=8,
    ),
)
def test_runs_under_any_faults_end_in_exactly_what_is_declared(
    wishes: list[FleetSpec], ordered: dict[tuple[str, int], str]
) -> None:
    stage = Stage()
    requests = Counter[str]()
    pending = dict(ordered)

    def fault(verb: str, machine: str, zone: str) -> str | None:
        if verb in ("list", "access", "prepare"):
            return None
        requests[machine] += 1
        kind = pending.get((machine, requests[machine]))
        if kind and (verb in ("find", "poll") and kind not in ("lost", "kill")):
            return None
        return pending.pop((machine, requests[machine]), None)

    stage.iron.fault = stage.tin.fault = fault
    for spec in wishes:
        try:
            outcomes = stage.run(spec, wait_timeout=100)
        except Killed:
            continue
        for outcome in outcomes.values():
            assert (outcome.status == "ok") == (outcome.error is None)
    pending.clear()

    # The last wish, without faults, after a list has caught up. What an earlier wish has left is undeclared: pruned.
    stage.clock.sleep(3600)
    for _ in range(2):
        outcomes = stage.run(wishes[-1], prune=True)
        assert all(o.status == "ok" for o in outcomes.values()), outcomes
    final = stage.plan(wishes[-1], prune=True)
    assert not final.acting

    # One that the file moved while its cloud's list lagged may be there twice: told, never settled by a guess.
    twice = {name for name, error in final.errors.items() if isinstance(error, errors.Conflict)}
    assert not twice or "lag" in ordered.values()
    for name in twice:
        assert len({_zones(spec.machines[name]) for spec in wishes if name in spec.machines}) > 1
    if twice:
        stage.run(wishes[-1], retire=tuple(twice))
        stage.run(wishes[-1])

    truth = stage.truth()
    wanted = wishes[-1].machines
    assert {name for name in truth if wanted[name].enabled} == {m.name for m in wanted.values() if m.enabled}
    for name, (_, state) in truth.items():
        assert state is (State.RUNNING if wanted[name].enabled else State.STOPPED)
        assert wanted[name].enabled or wanted[name].disabled == "stopped"


def _zones(machine: MachineBase) -> frozenset[str]:
    assert isinstance(machine, LittleMachine)
    return frozenset((machine.place, *machine.fallbacks))


def test_one_that_the_file_moves_while_the_list_lags_is_told_and_healed_by_retiring_it(stage: Stage) -> None:
    stage.tin.fault = once("lag")
    assert stage.run(fleet(machine("ore", provider="tin")))["ore"].status == "ok"
    moved = fleet(machine("ore", provider="tin", place="there"))
    assert stage.run(moved)["ore"].status == "ok"
    stage.clock.sleep(3600)
    error = stage.plan(moved).errors["ore"]
    assert isinstance(error, errors.Conflict)
    assert "2 instances claim to be this machine: tin here id 1, tin there id 2" in str(error)
    assert "retire" in str(error)
    stage.run(moved, retire=["ore"])
    stage.run(moved)
    assert stage.truth() == {"ore": ("there", State.RUNNING)}
