# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a burn-in, with a stand-in for the workload and answers of programs that the test scripts. SIMULATED."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.journal import MOST_AT_ONCE
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.plan import (
    RECORDS,
    STOP,
    Plan,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.recorder import lines
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.records import Tally
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.supervisor import (
    BLIND_S,
    HUNG_S,
    Supervisor,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

STAND_IN = Path(__file__).parents[6] / "tests/fixtures/acceptance/burn_in/worker.py"
XID = "1764240000.5 box kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."


class Programs:
    """What they answer, one time after the other; the last again and again."""

    def __init__(self, *answers: Ran) -> None:
        self.answers = list(answers)
        self.seconds: list[float] = []

    def __call__(self, command: Sequence[str], seconds: float) -> Ran:
        self.seconds.append(seconds)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def supervise(folder: Path, plan: Plan, programs: Programs) -> tuple[Tally, list[dict[str, Any]]]:
    """Burn; what it came to, and what was written."""
    tally = Tally()
    commands = {
        0: [sys.executable, str(STAND_IN), "burn.py", "--device", "cpu", "--gpu", "0", "--every", "1"]
    }
    Supervisor(plan, folder, Profile(), tally, commands, programs, lambda _tally: None, "one").run()
    return tally, list(lines(folder / RECORDS))


def test_a_journal_that_was_slow_once_and_is_read_from_the_same_place_leaves_nothing_unknown(
    tmp_path: Path,
) -> None:
    programs = Programs(
        Ran(0, "-- cursor: s=1\n", ""),
        Ran(0, "", ""),
        Ran(124, "", "journalctl did not answer within 20 seconds"),
        Ran(0, f"{XID}\n-- cursor: s=2\n", ""),
        Ran(0, "", ""),
    )
    tally, written = supervise(tmp_path, Plan("x-burn-in", 2, 0.0, "cpu", interval_s=1), programs)
    told = [record["event"] for record in written if record["event"] in ("blind", "seen", "kernel")]
    assert told == ["blind", "kernel", "seen"]
    assert tally.blind_says == {}
    assert tally.kernel_lines == [XID]


def test_lines_that_nobody_kept_stay_unknown_when_the_journal_answers_again(tmp_path: Path) -> None:
    flood = "\n".join([XID] * (MOST_AT_ONCE + 1))
    programs = Programs(
        Ran(0, "-- cursor: s=1\n", ""), Ran(0, f"{flood}\n-- cursor: s=2\n", ""), Ran(0, "", "")
    )
    tally, written = supervise(tmp_path, Plan("x-burn-in", 1, 0.0, "cpu", interval_s=1), programs)
    assert f"{MOST_AT_ONCE} were kept" in tally.blind_says["kernel"]
    assert "seen" not in {record["event"] for record in written}


def test_a_reading_that_hangs_leaves_time_for_another_before_it_is_too_long(tmp_path: Path) -> None:
    plan = Plan("x-burn-in", 600, 0.0, interval_s=30).checked()
    (tmp_path / STOP).touch()
    programs = Programs(Ran(124, "", "nvidia-smi did not answer"))
    supervise(tmp_path, plan, programs)
    assert plan.interval_s + max(programs.seconds) < BLIND_S
    assert 4 * plan.interval_s < HUNG_S
