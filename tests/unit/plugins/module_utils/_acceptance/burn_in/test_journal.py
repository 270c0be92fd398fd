# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's log, read on from where it was read last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.journal import (
    MOST_AT_ONCE,
    KernelLog,
    split,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

XID = "1764240000.5 box kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."
OTHER = "1764240000.6 box kernel: usb 1-1: new device"


class Journal:
    """A journal that answers as journalctl does."""

    def __init__(self, *answers: Ran) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str], seconds: float) -> Ran:
        self.asked.append(list(command))
        return self.answers.pop(0)


def test_it_begins_at_the_end_and_goes_on_from_there() -> None:
    journal = Journal(
        Ran(0, f"{OTHER}\n-- cursor: s=1\n", ""),
        Ran(0, f"{OTHER}\n{XID}\n-- cursor: s=2\n", ""),
        Ran(0, "", ""),
    )
    log = KernelLog("", journal)
    log.start()
    assert log.cursor == "s=1"
    assert log.read() == [XID]
    assert log.cursor == "s=2"
    assert log.read() == []
    assert log.cursor == "s=2", "nothing new, and the place is still known"
    assert "--after-cursor=s=2" in journal.asked[-1]
    assert not {"-k", "-b"} & set(journal.asked[-1]), (
        "what the kernel said before the machine went down counts"
    )
    assert log.problem == ""


def test_a_place_that_was_written_down_is_where_it_goes_on() -> None:
    journal = Journal(Ran(0, f"{XID}\n-- cursor: s=9\n", ""))
    log = KernelLog("", journal, "s=5")
    log.start()
    assert log.read() == [XID]
    assert "--after-cursor=s=5" in journal.asked[0]


def test_a_journal_that_cannot_be_read_is_a_problem_and_not_silence() -> None:
    log = KernelLog("", Journal(Ran(1, "", "No journal files were opened due to insufficient permissions.")))
    log.start()
    assert "insufficient permissions" in log.problem
    empty = KernelLog("", Journal(Ran(1, "", "")))
    empty.start()
    assert "no line of the kernel" in empty.problem


def test_a_file_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "kernel.log"
    path.write_text(f"{XID}\n")
    log = KernelLog(str(path), Journal())
    log.start()
    assert log.read() == []
    with path.open("a") as file:
        file.write(f"{OTHER}\n{XID}\n{XID[:20]}")
    assert log.read() == [XID], "half a line is left for the next time"
    with path.open("a") as file:
        file.write(f"{XID[20:]}\n")
    assert log.read() == [XID]
    again = KernelLog(str(path), Journal(), log.cursor)
    again.start()
    assert again.read() == []
    path.write_text(f"{XID}\n")
    assert again.read() == [XID], "it has become shorter, so it is another file"
    path.unlink()
    assert again.read() == []
    assert "cannot be read" in again.problem


def test_of_very_many_lines_the_grave_ones_are_kept_and_it_is_told() -> None:
    light = "1764240000.4 box kernel: nvidia-modeset: a display was plugged in"
    many = "\n".join([light] * (MOST_AT_ONCE + 10))
    log = KernelLog("", Journal(Ran(0, f"{many}\n{XID}\n-- cursor: s=2\n", "")), "s=1")
    found = log.read()
    assert len(found) == MOST_AT_ONCE
    assert found[-1] == XID
    assert (
        log.problem
        == f"the kernel wrote {MOST_AT_ONCE + 11} lines that may matter at once, and 2000 were kept"
    )


def test_it_is_told_whether_lines_are_read_later_or_by_nobody() -> None:
    slow = Ran(124, "", "journalctl did not answer within 20 seconds")
    log = KernelLog("", Journal(slow, Ran(0, f"{XID}\n-- cursor: s=2\n", "")), "s=1")
    log.read()
    assert (log.problem, log.lost) == (f"journalctl: {slow.err}", False)
    assert log.read() == [XID], "the place is the same, so nothing is missing"
    assert (log.problem, log.lost) == ("", False)
    nowhere = KernelLog("", Journal(slow, Ran(0, "-- cursor: s=2\n", "")))
    nowhere.start()
    assert nowhere.lost, "it begins where it is read the first time, and not where it began"
    many = "\n".join([XID] * (MOST_AT_ONCE + 1))
    flood = KernelLog("", Journal(Ran(0, f"{many}\n-- cursor: s=2\n", ""), Ran(0, "", "")), "s=1")
    flood.read()
    assert flood.lost
    flood.read()
    assert (flood.problem, flood.lost) == ("", False)


@pytest.mark.parametrize(
    "line",
    [
        "1764240000.5 box kernel: pcieport 0000:00:01.0: pciehp: Slot(1): Link Down",
        "1764240000.5 box kernel: pcieport 0000:00:01.0: broken device, retraining non-functional, link is down",
        "1764240000.5 box kernel: nouveau 0000:01:00.0: gr: GPC0/TPC0 trap",
    ],
)
def test_a_card_that_is_lost_is_seen_by_what_its_slot_and_nouveau_say(line: str) -> None:
    assert KernelLog("", Journal(Ran(0, f"{line}\n-- cursor: s=2\n", "")), "s=1").read() == [line]


def test_lines_without_a_time_are_none() -> None:
    assert split(f"-- Boot 1 --\n{XID}\n-- cursor: s=abc;i=1\n") == ([XID], "s=abc;i=1")
