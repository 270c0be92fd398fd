# SPDX-License-Identifier: GPL-3.0-or-later
"""The tuning's unit applies what differs, and what it could not is told. The program itself: tests/unit/roles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import nvidia_tuning

from tests.module_runner import run_module
from tests.unit.plugins.module_utils._host.driver.driver_machine import Machine

PROBLEM = "GPU 00000000:01:00.0 (rtx5090): power limit is 575 W and should be 450 W."


class Tuned:
    """A machine with the program and the unit."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.problems = machine, [PROBLEM]
        self.pending: list[str] = []
        self.restarts = 0
        self.result, self.invocation, self.refuses, self.answers = "success", "1f", False, True
        machine.meanwhile = self.answer

    def answer(self, words: list[str]) -> tuple[int, str] | None:
        if words[1:] == ["--check", "--json"]:
            report: dict[str, Any] = {
                "ok": not self.problems,
                "simulated": True,
                "changed": [],
                "pending": self.pending,
                "problems": self.problems,
            }
            return (int(bool(self.problems)), json.dumps(report)) if self.answers else (127, "")
        if words[:2] == ["systemctl", "restart"]:
            self.restarts += 1
            if not self.refuses:
                self.problems = []
        if words[:2] == ["systemctl", "show"]:
            return 0, f"Result={self.result}\nInvocationID={self.invocation}\n"
        if words[0] == "journalctl":
            assert words[-1] == f"_SYSTEMD_INVOCATION_ID={self.invocation}"
            return 0, "first\nsecond\n"
        return None


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    return Tuned(Machine(tmp_path, monkeypatch))


def test_what_differs_is_applied_by_the_unit_and_once(tuned: Tuned) -> None:
    would = run_module(nvidia_tuning.main, check=True)
    assert (would["changed"], would["problems"], tuned.restarts) == (True, [PROBLEM], 0)
    done = run_module(nvidia_tuning.main)
    assert (done["changed"], done["ok"], done["problems"], tuned.restarts) == (True, True, [], 1)
    assert run_module(nvidia_tuning.main)["changed"] is False
    assert tuned.restarts == 1


def test_a_new_declaration_runs_the_unit_even_where_nothing_differs(tuned: Tuned) -> None:
    tuned.problems = []
    assert run_module(nvidia_tuning.main, restart=True)["changed"] is True
    assert tuned.restarts == 1


def test_what_is_still_not_as_declared_fails_with_every_sentence(tuned: Tuned) -> None:
    tuned.refuses, tuned.problems = True, [PROBLEM, "CPUs: 'fast' is none of their governors: slow."]
    failed = run_module(nvidia_tuning.main)
    assert failed["msg"] == f"{PROBLEM}\nCPUs: 'fast' is none of their governors: slow."
    assert failed["changed"] is True


def test_a_unit_that_failed_tells_it_in_its_own_words(tuned: Tuned) -> None:
    tuned.result = "exit-code"
    assert run_module(nvidia_tuning.main)["msg"] == "first\nsecond"
    # Also where nothing differs any more: at the next boot it would fail again.
    again = run_module(nvidia_tuning.main)
    assert (again["failed"], again["changed"]) == (True, False)
    tuned.invocation = ""
    assert "did not run" in run_module(nvidia_tuning.main)["msg"]


def test_what_waits_for_a_reboot_is_no_failure(tuned: Tuned) -> None:
    tuned.problems, tuned.pending = [], ["ECC is Disabled and will be Enabled after a reboot"]
    done = run_module(nvidia_tuning.main)
    assert (done["ok"], done["pending"], done["simulated"]) == (True, tuned.pending, True)


def test_a_comparison_fails_and_changes_nothing(tuned: Tuned) -> None:
    found = run_module(nvidia_tuning.main, state="compared")
    assert (found["changed"], found["ok"], found["problems"], tuned.restarts) == (False, False, [PROBLEM], 0)
    assert "failed" not in found
    tuned.answers = False
    found = run_module(nvidia_tuning.main, state="compared", program="/usr/local/sbin/tune")
    assert found["problems"] == [
        "The tuning was not proved: /usr/local/sbin/tune does not answer; run the role nvidia_driver again."
    ]
