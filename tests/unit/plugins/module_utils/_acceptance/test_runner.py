# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on this machine, on the CPU, with checks that a test makes up."""

from __future__ import annotations

import io

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import store
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook, Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.document import to_document
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.interrupts import Interrupted
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.machine import Machine
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.progress import Progress
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.runner import Runner
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.selection import Selected
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Label,
    Verdict,
    failed,
    passed,
)

from tests.acceptance_runs import check, problems, run


@pytest.fixture
def go(tmp_path):
    """Makes checks; the run, and what was shown of it."""

    def make(*checks, profile=Profile(), write=store.write, before=lambda machine: None):  # noqa: B008
        machine = Machine(profile, "cpu", "quick", tmp_path)
        before(machine)
        shown = io.StringIO()
        selected = [one if isinstance(one, Selected) else Selected(one) for one in checks]
        begun = run(device="cpu", label=Label.CPU, state=State.RUNNING, end=None)
        done = Runner(machine, begun, selected, Progress(shown), write).go()
        assert problems(to_document(done)) == []
        return done, shown.getvalue()

    return make


def by_name(done):
    return {entry.name: entry for entry in done.entries}


def test_every_check_is_made_and_shown(go, tmp_path):
    done, shown = go(check("a"), check("b", lambda context: failed("GPU 1 is slow", "clean it")))

    assert done.state is State.COMPLETE
    assert [entry.result.verdict for entry in done.entries] == [Verdict.PASS, Verdict.FAIL]
    assert "2 checks, about 2 s" in shown
    assert "2/2 FAIL    b                      GPU 1 is slow" in shown
    assert store.read(tmp_path / "run.json")[1] == to_document(done)


def test_a_check_sees_the_results_of_those_before(go):
    def looks(context):
        return passed(context.results["a"].says)

    done, _ = go(check("a", lambda context: passed("of a")), check("b", looks))

    assert by_name(done)["b"].result.says == "of a"


def test_needs_come_first(go):
    done, _ = go(check("a", lambda context: 1 / 0, needs=(Need.GPU,)))

    assert by_name(done)["a"].result.says == "it needs a GPU, and the run is on the CPU"


def test_a_waived_check_is_not_made(go):
    done, _ = go(
        check("a", lambda context: 1 / 0, needs=(Need.GPU,)), profile=Profile(waived={"a": "on loan"})
    )
    found = by_name(done)["a"]

    assert (found.waived, found.result.says, found.is_gap) == ("on loan", "waived: on loan", False)


def test_a_check_that_is_left_out_is_a_gap(go):
    done, _ = go(Selected(check("a", lambda context: 1 / 0), "left out with --skip"))
    found = by_name(done)["a"]

    assert (found.result.says, found.is_gap) == ("left out with --skip", True)


def test_a_check_that_cannot_look(go):
    def blind(context):
        raise CannotLook("the log cannot be read", "run this as root")

    found = by_name(go(check("a", blind))[0])["a"]

    assert (found.result.verdict, found.result.says) == (Verdict.SKIP, "the log cannot be read")
    assert found.is_gap


def test_a_defect_of_a_check_is_unknown_and_its_traceback_is_in_a_log(go, tmp_path):
    done, shown = go(check("a", lambda context: {}["x"]), check("b"))
    found = by_name(done)["a"].result

    assert found.verdict is Verdict.UNKNOWN
    assert found.says.startswith("the check itself failed: KeyError in test_runner.py:")
    assert str(tmp_path / "errors.log") in found.advice
    assert "Traceback" in (tmp_path / "errors.log").read_text()
    assert "Traceback" not in shown
    assert by_name(done)["b"].result.verdict is Verdict.PASS


def test_the_document_is_kept_after_every_check(go, tmp_path):
    seen = []

    def keep(folder, one):
        store.write(folder, one)
        seen.append([entry.result.says for entry in one.entries])

    go(check("a"), check("b"), write=keep)
    later = "the run has not come to this check"

    assert seen == [[later, later], ["good", later], ["good", "good"], ["good", "good"]]


def test_a_run_is_never_green_before_its_end(go, tmp_path):
    verdicts = []
    go(
        check("a"),
        check("b"),
        write=lambda folder, one: verdicts.append(to_document(one)["verdict"]["checks"]),
    )

    assert verdicts == ["UNKNOWN", "UNKNOWN", "PASS", "PASS"]


def test_an_interrupt_keeps_what_there_is(go):
    def interrupted(context):
        raise Interrupted

    done, _ = go(check("a"), check("b", interrupted), check("c"))

    assert done.state is State.INTERRUPTED
    assert done.end is not None
    assert [entry.result.says for entry in done.entries] == [
        "good",
        "the run was interrupted before its end",
        "the run was interrupted before its end",
    ]


def test_the_end_is_kept_before_anything_is_shown_of_it(tmp_path):
    kept = []

    class Shown(Progress):
        def close(self):
            assert kept[-1].state is State.COMPLETE

    begun = run(device="cpu", label=Label.CPU, state=State.RUNNING, end=None)
    machine = Machine(Profile(), "cpu", "quick", tmp_path)
    selected = [Selected(check("a"))]
    Runner(machine, begun, selected, Shown(io.StringIO()), lambda _folder, one: kept.append(one)).go()


def test_a_simulated_workload_labels_its_check_and_the_run(go):
    def simulated(context):
        context.simulated_workload = True
        return passed("fast")

    done, _ = go(check("a"), check("b", simulated), check("c"))

    assert [entry.label for entry in done.entries] == [Label.CPU, Label.SIMULATED, Label.CPU]
    assert done.label is Label.SIMULATED


def test_a_full_disk_ends_the_run_in_one_sentence(go, tmp_path):
    def full(folder, one):
        raise store.StoreError("run.json cannot be written: No space left on device", hint="Make room there")

    with pytest.raises(store.StoreError, match="No space left"):
        go(check("a"), write=full)


def test_a_simulated_machine_labels_everything(go):
    def pretend(machine):
        machine.facts = {**machine.facts, "simulated": True}

    done, _ = go(check("a"), before=pretend)

    assert done.label is Label.SIMULATED
    assert done.entries[0].label is Label.SIMULATED
