# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's log, wherever it is to be had; an empty one was not read."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.kernel_lines import read
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

JOURNAL = """\
1764240000.123456 demo-box kernel: Linux version 6.12.0-1-amd64
1764240003.000001 demo-box kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.
"""
DMESG = """\
[    0.000000] Linux version 6.12.0-1-amd64
<4>[ 1203.500000] NVRM: Xid (PCI:0000:01:00): 79
a line without a time
"""
NONE = Ran(127, "", "not installed")


def programs(journal=NONE, dmesg=NONE):
    return lambda command, seconds: {"journalctl": journal, "dmesg": dmesg}[command[0]]


@pytest.fixture
def uptime(tmp_path):
    path = tmp_path / "uptime"
    path.write_text("2000.00 1.00\n")
    return path


def test_the_journal_is_asked_first(uptime):
    assert read("", programs(Ran(0, JOURNAL, ""), Ran(0, DMESG, "")), 5000.0, uptime) == JOURNAL.splitlines()


@pytest.mark.parametrize("journal", [NONE, Ran(0, "", ""), Ran(1, "", "No journal files were found.")])
def test_without_a_journal_the_kernel_is(journal, uptime):
    assert read("", programs(journal, Ran(0, DMESG, "")), 5000.0, uptime) == [
        "3000.000000 kernel: Linux version 6.12.0-1-amd64",
        "4203.500000 kernel: NVRM: Xid (PCI:0000:01:00): 79",
    ]


@pytest.mark.parametrize(
    ("journal", "dmesg", "says"),
    [
        (NONE, NONE, "journalctl: not installed; dmesg: not installed"),
        (
            Ran(0, "", ""),
            Ran(1, "", "dmesg: read kernel buffer failed: Operation not permitted"),
            "journalctl: it has no line of this boot; dmesg: dmesg: read kernel buffer failed",
        ),
        (Ran(0, "-- No entries --\n", ""), Ran(0, "", ""), "dmesg: it has no line of this boot"),
    ],
)
def test_a_log_that_is_not_to_be_had_is_no_empty_log(journal, dmesg, says, uptime):
    with pytest.raises(CannotLook, match=says) as caught:
        read("", programs(journal, dmesg), 5000.0, uptime)
    assert caught.value.advice == "run this as root"


def test_a_file_that_the_profile_names(tmp_path):
    path = tmp_path / "kernel.log"
    path.write_text(f"# SIMULATED\n{JOURNAL}")

    assert read(str(path), programs(), 0.0) == JOURNAL.splitlines()


def test_a_file_that_is_not_there():
    with pytest.raises(CannotLook, match=r"the kernel's log /no/log cannot be read: No such file"):
        read("/no/log", programs(), 0.0)


def test_a_boot_at_an_unknown_time_gives_no_lines(tmp_path):
    with pytest.raises(CannotLook):
        read("", programs(NONE, Ran(0, DMESG, "")), 0.0, tmp_path / "nothing")
