# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line on little clouds: from a fleet file to machines and their host keys."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import (
    errors,
    key_change,
    known_hosts,
    provision,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import new_host_key
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    Instance,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import BaremetalMachine
from ansible_collections.gpumesh.fleet.tests.little_cloud import FLEET, LittleCloud, PassingClock, kinds

KEYS = {name: new_host_key().public for name in ("one", "two", "box")}


class TalkingCloud(LittleCloud):
    """A cloud that tells host keys some time after a machine's start, and records those it is given."""

    tells_after = 0.0
    plants = False
    lost_keys: frozenset[str] | set[str] = frozenset()

    def host_keys(self, instance: Instance) -> tuple[str, ...]:
        self.calls["host_keys"] += 1
        current = self.objects[self._key(instance.name, instance.zone)]
        if current.host_keys:
            return current.host_keys
        if self.fault("host_keys", instance.machine, instance.zone) == "lost":
            raise errors.Unavailable("no answer")
        return (KEYS["one"],) if not self.plants and self.clock.now() >= self.tells_after else ()

    def publish_host_key(self, instance: Instance, key: str, *, pending: bool = False) -> None:
        self.calls["publish"] += 1
        if instance.machine in self.lost_keys:
            raise errors.Unavailable("no answer")
        current = self.objects[self._key(instance.name, instance.zone)]
        keys = (*current.host_keys, key) if pending else (key,)
        changed = replace(current, host_keys=keys, host_keys_planted=current.host_keys_planted and pending)
        self.objects[self._key(instance.name, instance.zone)] = changed


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = PassingClock()
        self.iron = TalkingCloud("iron", self.clock)
        self.tin = TalkingCloud("tin", self.clock)
        self.tin.plants = True
        self.kinds = {
            **kinds(self.iron),
            **kinds(self.tin, plants=True),
            "baremetal": Kind("baremetal", BaremetalMachine),
        }
        (folder / "key.pub").write_text(f"{KEYS['one']} somebody\n")

    def declare(self, machines: dict[str, dict[str, Any]], **top: Any) -> None:
        content = {
            "plugin": "gpumesh.fleet.fleet",
            "fleet": FLEET,
            "defaults": {"ssh_keys": ["key.pub"]},
            "known_hosts": "known/hosts",
            "providers": {"iron": {}, "tin": {}},
            "machines": {
                name: {"provider": "iron", "type": "small", "enabled": True, **fields}
                if fields.get("provider") != "baremetal"
                else fields
                for name, fields in machines.items()
            },
            **top,
        }
        (self.folder / "fleet.yml").write_text(yaml.safe_dump(content, sort_keys=False))

    def request(self, **options: Any) -> provision.Request:
        return provision.Request(str(self.folder / "fleet.yml"), **options)

    def run(self, **options: Any) -> provision.Report:
        return provision.run(self.request(**options), self.kinds, {}, self.clock)

    def apply(self, **options: Any) -> provision.Report:
        return self.run(**{"carry_out": True, "approve": True, **options})

    def record_all(
        self, keys: dict[str, str], *, announce: bool, write: bool = True
    ) -> tuple[bool, dict[str, errors.FleetError]]:
        return key_change.record_host_keys(
            self.request(), self.kinds, {}, self.clock, host_keys=keys, announce=announce, write=write
        )

    def record(self, key: str, *, announce: bool, machine: str = "ore", write: bool = True) -> bool:
        changed, failures = self.record_all({machine: key}, announce=announce, write=write)
        for failure in failures.values():
            assert not changed
            raise failure
        return changed

    @property
    def filed(self) -> dict[str, tuple[str, ...]]:
        text = known_hosts.read(str(self.folder / "known" / "hosts"))
        return {alias: known_hosts.filed(text, FLEET, alias) for alias in known_hosts.aliases(text, FLEET)}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_planning_touches_nothing(stage: Stage) -> None:
    stage.declare({"ore": {}})
    report = stage.run()
    assert report.changed and not stage.iron.truth() and not stage.filed
    assert [outcome.status for outcome in report.outcomes] == ["would"]
    assert report.to_json()["machines"]["ore"]["state"] == "missing"


def test_what_was_shown_is_what_is_applied(stage: Stage) -> None:
    stage.declare({"ore": {}})
    shown = stage.run()
    report = stage.run(carry_out=True, approved_digest=shown.plan.digest)
    assert report.changed and report.table == shown.table and not report.errors
    assert report.to_json()["machines"]["ore"]["state"] == "running"
    again = stage.run(carry_out=True)
    assert not again.changed and not again.plan.needs_approval


def test_nothing_is_touched_without_consent(stage: Stage) -> None:
    stage.declare({"ore": {}})
    with pytest.raises(errors.ApprovalRequired):
        stage.run(carry_out=True)
    assert not stage.iron.truth() and not stage.iron.calls["create"]


def test_nothing_is_touched_over_budget_whoever_approves(stage: Stage) -> None:
    stage.declare({"ore": {}}, budget={"hourly_usd": 0.001})
    assert "budget is 0.0010 USD" in (stage.run().refusal or "")
    with pytest.raises(errors.BudgetExceeded):
        stage.apply()
    assert not stage.iron.calls["create"]


def test_a_missing_key_file_is_found_before_anything_is_bought(stage: Stage) -> None:
    stage.declare({"ore": {}}, defaults={"ssh_keys": ["gone.pub"]})
    with pytest.raises(errors.InvalidRequest, match=r"gone\.pub"):
        stage.apply()
    assert not stage.iron.calls["create"]


@pytest.mark.parametrize(
    ("fields", "files", "says"),
    [
        (
            {"defaults": {"ssh_keys": ["gone.pub"]}},
            {},
            "gone.pub, named in defaults.ssh_keys, cannot be read",
        ),
        ({}, {"extra": "#!/bin/sh\nhostname ore\n"}, "is a script and no cloud-config"),
        ({"known_hosts": "key.pub/hosts"}, {"extra": ""}, "key.pub/hosts cannot be kept: Not a directory"),
    ],
)
def test_a_plan_foresees_what_an_apply_would_refuse(
    stage: Stage, fields: dict[str, Any], files: dict[str, str], says: str
) -> None:
    for name, text in files.items():
        (stage.folder / name).write_text(text)
    stage.declare({"ore": {"user_data": "extra"} if files else {}}, **fields)
    assert says in (stage.run().refusal or "") and any("Refused: " in line for line in stage.run().table)
    with pytest.raises(errors.FleetError, match=says):
        stage.apply()
    assert not stage.iron.calls["create"]


def test_a_plan_makes_no_keys_and_no_files(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.declare({"zinc": {"provider": "tin"}})
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    assert stage.run().refusal is None and not (stage.folder / "known").exists()


def test_a_plan_foresees_what_becomes_of_known_hosts(stage: Stage) -> None:
    box = {"provider": "baremetal", "address": "192.0.2.1", "host_keys": [KEYS["box"]]}
    stage.declare({"ore": {}})
    stage.apply()
    assert not stage.run().changed
    stage.declare({"ore": {}, "box": box})
    assert stage.run().changed and len(stage.filed) == 1
    assert stage.apply().changed and not stage.run().changed


def test_what_has_the_name_of_a_machine_no_cloud_makes_can_be_retired(stage: Stage) -> None:
    stage.declare({"box": {"provider": "baremetal", "address": "192.0.2.1", "host_keys": [KEYS["box"]]}})
    stage.iron.put("box")
    report = stage.run()
    assert stage.apply(prune=True).changed and not stage.iron.truth()
    assert report.machines["box"] == {
        "provider": "baremetal", "declared": True, "enabled": True, "state": "unmanaged"
    }  # fmt: skip


def test_failures_are_told_by_machine_and_the_others_go_on(stage: Stage) -> None:
    stage.declare({"ore": {}, "zinc": {}})
    stage.iron.fault = lambda verb, name, _zone: "quota" if (verb, name) == ("create", "ore") else None
    report = stage.apply()
    assert str(report.errors[0]).startswith("ore: here: not so many (QUOTA_EXCEEDED).")
    assert report.to_json()["failures"][0]["machine"] == "ore" and report.changed
    assert report.machines["zinc"]["state"] == "running"


def test_a_cloud_named_and_not_used_only_warns(stage: Stage) -> None:
    stage.declare({"ore": {}})
    stage.tin.refuses = errors.AuthError("no token")
    report = stage.apply()
    assert not report.errors and report.warnings == ("tin: no token.",)


class TestHostKeys:
    def test_are_filed_for_every_machine(self, stage: Stage) -> None:
        box = {"provider": "baremetal", "address": "192.0.2.1", "host_keys": [KEYS["box"]]}
        stage.declare({"ore": {}, "zinc": {"provider": "tin"}, "box": box})
        report = stage.apply()
        ore = report.machines["ore"]["host_key_alias"]
        assert stage.filed == {ore: (KEYS["one"],), "gpumesh-minerals-box-baremetal": (KEYS["box"],)}

    def test_are_waited_for_after_a_start(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.iron.tells_after = 40.0
        report = stage.apply()
        assert len(stage.filed) == 1 and not report.warnings and 40 <= stage.clock.now() < 45

    def test_that_do_not_come_are_told(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.iron.tells_after = 1000.0
        report = stage.apply(key_timeout=30)
        assert "host keys of ore are not published yet" in report.warnings[0] and not report.errors
        stage.clock.sleep(1000)
        assert stage.apply().changed and len(stage.filed) == 1

    def test_are_asked_for_once(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.apply()
        stage.apply()
        assert stage.iron.calls["host_keys"] == 1

    def test_of_a_machine_that_has_run_for_long_are_not_waited_for(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.iron.put("ore")
        stage.iron.tells_after = 1000.0
        assert stage.apply().warnings and stage.clock.now() == 0

    def test_that_cannot_be_asked_for_are_told(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.iron.fault = lambda verb, _name, _zone: "lost" if verb == "host_keys" else None
        assert "not published yet" in stage.apply(key_timeout=5).warnings[0]

    def test_that_nobody_vouches_for_any_more_are_no_matter_of_waiting(self, stage: Stage) -> None:
        stage.declare({"zinc": {"provider": "tin"}})
        stage.tin.put("zinc")
        (warning,) = stage.apply().warnings
        assert "host keys of zinc any more, for the label gpumesh-hostkey is gone" in warning

    def test_that_a_defect_of_ours_keeps_back_are_an_error(self, stage: Stage) -> None:
        stage.declare({"ore": {}, "zinc": {}})

        def fault(verb: str, name: str, _zone: str) -> str | None:
            return str(1 // 0) if (verb, name) == ("host_keys", "ore") else None

        stage.iron.fault = fault
        report = stage.apply()
        (error,) = report.errors
        assert str(error).startswith("ore: unexpected ZeroDivisionError at ") and not report.warnings
        assert len(stage.filed) == 1 and len(stage.iron.truth()) == 2

    def test_that_cannot_be_filed_after_all_are_an_error_of_a_run_that_reports(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.declare({"ore": {}})

        def full(*_arguments: Any, **_options: Any) -> bool:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(known_hosts, "_update", full)
        report = stage.apply()
        (error,) = report.errors
        assert str(stage.folder / "known" / "hosts") in str(error) and "No space left on device" in str(error)
        assert report.machines["ore"]["state"] == "running" and report.to_json()["failures"]

    def test_that_are_none_leave_the_file_alone(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.iron.put("ore", host_keys=("no key at all",))
        (error,) = stage.apply().errors
        assert "is something else than host keys" in str(error) and not stage.filed

    def test_of_machines_that_are_gone_are_dropped(self, stage: Stage) -> None:
        stage.declare({"ore": {}, "zinc": {}})
        stage.apply()
        assert len(stage.filed) == 2
        stage.apply(retire=["ore"])
        assert [alias.split("-")[2] for alias in stage.filed] == ["zinc"]

    def test_of_a_cloud_that_does_not_answer_stay(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.apply()
        stage.iron.refuses = errors.Unavailable("no answer")
        assert stage.apply().errors and len(stage.filed) == 1
        stage.iron.refuses, stage.iron.unreachable = None, ("here",)
        assert stage.apply().errors and len(stage.filed) == 1

    def test_of_a_machine_made_anew_have_a_name_of_their_own(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.apply()
        old = set(stage.filed)
        stage.apply(retire=["ore"])
        stage.apply()
        assert len(stage.filed) == 1 and not old & set(stage.filed)


class TestTheChangeOfHostKeys:
    @pytest.fixture
    def planted(self, stage: Stage) -> Stage:
        stage.declare({"ore": {"provider": "tin"}})
        stage.tin.put("ore", host_keys=(KEYS["one"],), host_keys_planted=True)
        stage.apply()
        assert set(stage.filed.values()) == {(KEYS["one"],)}
        return stage

    def test_trusts_both_in_between_and_one_at_the_end(self, planted: Stage) -> None:
        assert planted.record(KEYS["two"], announce=True)
        assert set(planted.filed.values()) == {tuple(sorted((KEYS["one"], KEYS["two"])))}
        assert planted.record(KEYS["two"], announce=False)
        assert set(planted.filed.values()) == {(KEYS["two"],)}
        (ore,) = planted.tin.truth()
        assert ore.host_keys == (KEYS["two"],) and not ore.host_keys_planted
        assert not planted.apply().changed

    def test_may_be_repeated_and_tells_that_nothing_changed(self, planted: Stage) -> None:
        for announce in (True, False):
            assert planted.record(KEYS["two"], announce=announce)
            assert not planted.record(KEYS["two"], announce=announce)

    def test_survives_a_run_of_another_control_machine_in_between(self, planted: Stage) -> None:
        planted.record(KEYS["two"], announce=True)
        (planted.folder / "known" / "hosts").unlink()
        planted.apply()
        assert set(planted.filed.values()) == {tuple(sorted((KEYS["one"], KEYS["two"])))}

    def test_only_tells_in_check_mode(self, planted: Stage) -> None:
        assert planted.record(KEYS["two"], announce=True, write=False)
        assert set(planted.filed.values()) == {(KEYS["one"],)} and not planted.tin.calls["publish"]

    def test_where_the_agent_publishes_is_only_filed(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        stage.apply()
        assert stage.record(KEYS["two"], announce=False)
        assert set(stage.filed.values()) == {(KEYS["two"],)} and not stage.iron.calls["publish"]

    def test_of_a_machine_that_is_not_there_is_refused(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        with pytest.raises(errors.InvalidRequest, match="Provision it first"):
            stage.record(KEYS["two"], announce=True)

    def test_to_something_that_is_no_key_is_refused(self, planted: Stage) -> None:
        with pytest.raises(errors.InvalidRequest, match="not a public SSH key"):
            planted.record("two words too many", announce=True)

    def test_goes_on_with_the_others(self, planted: Stage) -> None:
        planted.declare({name: {"provider": "tin"} for name in ("lead", "ore", "zinc")})
        planted.tin.put("zinc", host_keys=(KEYS["one"],), host_keys_planted=True)
        keys = dict.fromkeys(("gone", "lead", "ore"), KEYS["two"]) | {"zinc": "no key"}
        changed, failures = planted.record_all(keys, announce=True)
        assert changed and set(failures) == {"gone", "lead", "zinc"}
        assert all(str(error).startswith(f"{name}: ") for name, error in failures.items())
        assert tuple(sorted((KEYS["one"], KEYS["two"]))) in planted.filed.values()

    def test_keeps_what_is_known_of_a_machine_whose_cloud_did_not_take_its_key(self, planted: Stage) -> None:
        planted.declare({name: {"provider": "tin"} for name in ("ore", "zinc")})
        planted.tin.put("zinc", host_keys=(KEYS["one"],), host_keys_planted=True)
        keys = dict.fromkeys(("ore", "zinc"), KEYS["two"])
        planted.record_all(keys, announce=True)
        planted.tin.lost_keys = {"ore"}
        changed, failures = planted.record_all(keys, announce=False)
        assert changed and set(failures) == {"ore"}
        both = tuple(sorted((KEYS["one"], KEYS["two"])))
        assert {alias.split("-")[2]: its for alias, its in planted.filed.items()} == {
            "ore": both, "zinc": (KEYS["two"],)
        }  # fmt: skip

    def test_in_a_file_that_cannot_be_written_fails_for_all(self, planted: Stage) -> None:
        (planted.folder / "known" / "hosts").unlink()
        (planted.folder / "known" / "hosts").mkdir()
        changed, failures = planted.record_all({"ore": KEYS["two"]}, announce=True)
        assert not changed and "cannot be kept: Is a directory" in str(failures["ore"])
        assert not planted.tin.calls["publish"]

    def test_of_nobody_is_none(self, planted: Stage) -> None:
        assert planted.record_all({}, announce=True) == (False, {})

    def test_in_a_cloud_that_does_not_answer_fails(self, planted: Stage) -> None:
        planted.declare({name: {"provider": "tin"} for name in ("ore", "zinc")})
        planted.tin.refuses = errors.Unavailable("no answer")
        changed, failures = planted.record_all(dict.fromkeys(("ore", "zinc"), KEYS["two"]), announce=True)
        assert not changed and {name: str(error) for name, error in failures.items()} == {
            "ore": "ore: no answer.", "zinc": "zinc: no answer."
        }  # fmt: skip


def test_a_cloud_that_is_a_sandbox_is_never_taken_for_a_real_one(stage: Stage) -> None:
    stage.declare({"ore": {}})
    assert stage.run().simulated == ()
    stage.iron.simulated = True
    assert stage.run().simulated == ("iron",) and "SIMULATED (iron)" in stage.run().table[1]


def test_instances_of_other_fleets_are_not_ours(stage: Stage) -> None:
    stage.declare({"ore": {}})
    foreign = stage.iron.put("theirs", state=State.RUNNING, labels={FLEET_LABEL: "other"})
    stage.apply(retire=["all"])
    assert stage.iron.truth() == [foreign]


class TestAccess:
    OFFICE = ("198.51.100.0/24",)

    @pytest.fixture
    def made(self, stage: Stage) -> Stage:
        stage.declare({"ore": {}, "zinc": {"provider": "tin"}})
        stage.apply()
        assert stage.iron.doors == stage.tin.doors == {FLEET: "0.0.0.0/0, ::/0"}
        return stage

    def narrow(self, stage: Stage, **ore: Any) -> None:
        sources = list(self.OFFICE)
        stage.declare(
            {"ore": ore, "zinc": {"provider": "tin"}},
            defaults={"ssh_keys": ["key.pub"], "ssh_sources": sources},
        )

    def test_costs_one_look_while_nothing_changes(self, made: Stage) -> None:
        made.iron.calls.clear()
        report = made.apply()
        assert not report.changed and not report.to_json()["access"]
        assert made.iron.calls == {"list": 1, "access": 1}

    def test_that_is_declared_anew_is_shown_and_then_applied_without_an_approval(self, made: Stage) -> None:
        self.narrow(made)
        shown = made.run()
        line = "~  change  access"
        assert sum(row.startswith(line) for row in shown.table) == 2
        assert any("SSH from 0.0.0.0/0, ::/0 -> 198.51.100.0/24" in row for row in shown.table)
        assert "Access: 2 to change." in shown.table[0]
        assert shown.changed and not shown.plan.needs_approval and made.iron.doors[FLEET] != self.OFFICE[0]
        done = made.run(carry_out=True)
        assert done.changed and done.table == shown.table and done.plan.digest == shown.plan.digest
        assert made.iron.doors == made.tin.doors == {FLEET: self.OFFICE[0]}
        told = [{**entry, "status": "ok"} for entry in shown.to_json()["access"]]
        assert done.to_json()["access"] == told
        assert not made.apply().changed

    def test_is_part_of_what_is_approved(self, stage: Stage) -> None:
        stage.declare({"ore": {}})
        shown = stage.run()
        stage.iron.doors = {FLEET: "192.0.2.0/24"}
        with pytest.raises(errors.ApprovalRequired, match="no longer the one"):
            stage.run(carry_out=True, approved_digest=shown.plan.digest)

    def test_is_the_whole_fleets_whatever_a_run_is_limited_to(self, made: Stage) -> None:
        self.narrow(made)
        made.apply(only=["ore"])
        assert made.tin.doors == {FLEET: self.OFFICE[0]}

    def test_goes_with_the_last_machine(self, made: Stage) -> None:
        made.apply(retire=["ore"])
        assert not made.iron.doors and made.tin.doors
        shown = made.run(retire=["all"])
        assert any("door minerals: no machine of the fleet needs it" in row for row in shown.table)
        made.apply(retire=["all"])
        assert not made.tin.doors and not made.tin.truth()
        again = made.apply(retire=["all"])
        assert not again.changed and not again.warnings and not again.errors

    def test_stays_with_a_machine_that_could_not_be_deleted(self, made: Stage) -> None:
        made.iron.fault = lambda verb, _name, _zone: "lost" if verb == "delete" else None
        report = made.apply(retire=["all"])
        assert made.iron.doors and not made.tin.doors
        assert [o.status for o in report.access] == ["skipped", "ok"]

    def test_stays_while_a_deleted_machine_is_listed(self, made: Stage) -> None:
        leaving = made.iron.put("old", state=State.DELETING)
        report = made.apply(retire=["all"])
        assert made.iron.doors and "the next apply removes them" in report.warnings[0] and not report.errors
        del made.iron.objects[leaving.name, ""]
        assert made.apply(retire=["all"]).changed and not made.iron.doors

    def test_stays_for_machines_that_are_not_declared_or_not_seen(self, made: Stage) -> None:
        made.iron.put("stray")
        made.tin.unreachable = ("here",)
        made.declare({"box": {"provider": "baremetal", "address": "192.0.2.1", "host_keys": [KEYS["box"]]}})
        report = made.apply()
        assert made.iron.doors and made.tin.doors and report.access == ()

    def test_follows_the_file_for_a_machine_that_is_stopped(self, made: Stage) -> None:
        self.narrow(made, enabled=False, disabled="stopped")
        report = made.apply()
        assert report.machines["ore"]["state"] == "stopped" and made.iron.doors == {FLEET: self.OFFICE[0]}

    def test_that_cannot_be_had_fails_its_cloud_only(self, stage: Stage) -> None:
        stage.declare({"ore": {}, "zinc": {"provider": "tin"}})
        stage.iron.fault = lambda verb, _name, _zone: "lost" if verb == "prepare" else None
        report = stage.apply()
        (error,) = report.errors
        assert error.machine == "ore" and error.what == "preparing for new machines failed: no answer"
        assert report.machines["zinc"]["state"] == "running" and stage.tin.doors

    @pytest.mark.parametrize(("fault", "said"), [("lost", "no answer"), ("late", "it broke")])
    def test_that_cannot_be_changed_is_an_error_of_its_own(self, made: Stage, fault: str, said: str) -> None:
        self.narrow(made)
        made.iron.fault = lambda verb, _name, _zone: fault if verb == "prepare" else None
        report = made.apply()
        assert [(error.machine, error.what) for error in report.errors] == [(None, said)]
        assert {entry["provider"]: entry["status"] for entry in report.to_json()["access"]} == {
            "iron": "failed",
            "tin": "ok",
        }

    def test_that_cannot_be_looked_at_while_planning_is_told_and_tried_again(self, made: Stage) -> None:
        self.narrow(made)
        looks: list[str] = []

        def fault(verb: str, _name: str, _zone: str) -> str | None:
            looks.extend([verb] if verb == "access" else [])
            return "lost" if verb == "access" and len(looks) == 1 else None

        made.iron.fault = fault
        shown = made.run()
        assert "Problem: no answer." in shown.table and [str(error) for error in shown.errors] == [
            "no answer."
        ]
        looks.clear()
        report = made.apply()
        assert not report.errors and made.iron.doors == {FLEET: self.OFFICE[0]} and report.changed

    def test_says_what_the_cloud_wants_to_be_known(self, made: Stage) -> None:
        made.iron.says = ("somebody left a window open",)
        assert made.run().warnings == ("somebody left a window open",)
        assert made.apply().warnings[0] == "somebody left a window open"
