# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as text."""

from __future__ import annotations

import unicodedata

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.paint import (
    Paint,
    columns,
    duration,
    fit,
    is_coloured,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.table import lines
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Label, Verdict
from hypothesis import given

from tests.acceptance_runs import entry, run, runs

PLAIN = Paint(on=False)


def shown(*entries, width=100, **more):
    return lines(run(*entries, **more), PLAIN, width)


def test_a_whole_run():
    assert shown(
        entry("memory", says="32607 MiB on each GPU", group="inventory"),
        entry(
            "pcie_link", Verdict.FAIL, "GPU 1 has 4 of 16 lanes", advice="reseat it", group="configuration"
        ),
        entry("p2p", Verdict.SKIP, "there is a single GPU", applies=False, group="interconnect"),
        entry("matmul", Verdict.SKIP, "left out with --only"),
    ) == [
        "FAIL    1 check failed (pcie_link); 1 check of 3 was not made (matmul)",
        "",
        "machine  demo-box, 2 x rtx5090, driver 580.178.04 open, Debian GNU/Linux 13 (trixie)",
        "run      20251127T104000Z-quick: suite quick on cuda, 4 min 12 s",
        "",
        "inventory",
        "  PASS    memory     32607 MiB on each GPU",
        "",
        "configuration",
        "  FAIL    pcie_link  GPU 1 has 4 of 16 lanes",
        "                     → reseat it",
        "",
        "interconnect",
        "  SKIP    p2p        does not apply: there is a single GPU",
        "",
        "1 more check was left out with --only or --skip",
        "",
        "2 of 3 checks ran; 1 more does not apply to this machine",
        "FAIL    1 check failed (pcie_link); 1 check of 3 was not made (matmul)",
    ]


@pytest.mark.parametrize(
    ("state", "says"),
    [(State.INTERRUPTED, "The run was interrupted"), (State.RUNNING, "The run has not ended, or was killed")],
)
def test_a_run_that_is_not_whole_says_so(state, says):
    assert says in "\n".join(shown(entry(), state=state, end=None))


def test_a_pass_that_is_not_of_hardware_is_not_green():
    paint = Paint(on=True)
    green = "\033[1;32m"

    assert green in "\n".join(lines(run(entry()), paint, 100))
    for label in (Label.CPU, Label.SIMULATED):
        assert green not in "\n".join(lines(run(entry(label=label), label=label), paint, 100))


def test_advice_is_under_what_needs_it_alone():
    text = "\n".join(shown(entry(advice="nothing to do"), entry("b", Verdict.WARN, advice="look at it")))

    assert "nothing to do" not in text
    assert "→ look at it" in text


def test_checks_that_were_skipped_for_one_reason_are_shown_as_one():
    entries = [entry(name, Verdict.SKIP, "it needs a GPU", advice="put one in") for name in ("a", "b", "c")]
    text = shown(entry("memory"), *entries, entry("d", Verdict.SKIP, "it needs a GPU"))

    assert text[5:12] == [
        "compute",
        "  PASS    memory  memory was found so",
        "  SKIP    3 checks: it needs a GPU",
        "          a, b, c",
        "          → put one in",
        "  SKIP    d       it needs a GPU",
        "",
    ]


@given(runs())
def test_any_run_fits_its_columns_and_ends_as_it_begins(one):
    text = lines(one, PLAIN, 80)

    assert text[0].partition(" ")[0] in ("PASS", "WARN", "FAIL", "UNKNOWN")
    assert text[0] in text[1:]
    assert not any(unicodedata.category(one) == "Cc" for line in text for one in line)


def test_a_terminal_obeys_nothing_that_a_log_says():
    text = "\n".join(shown(entry(says="\033]0;owned\007 Xid 79", verdict=Verdict.FAIL, advice="a\nb\x9b2J")))

    assert "�]0;owned� Xid 79" in text
    assert "→ a b�2J" in text


class Stream:
    def __init__(self, tty):
        self.tty = tty

    def isatty(self):
        return self.tty


@pytest.mark.parametrize(
    ("tty", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(tty, environment, coloured):
    assert is_coloured(Stream(tty), environment) is coloured


def test_text_is_cut_by_columns():
    assert fit("a longer text", 8) == "a longe…"
    assert fit("short", 8) == "short"
    assert columns("é") == 1
    assert columns("表") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (252, "4 min 12 s"), (3599.6, "1 h 00 min"), (83100, "23 h 05 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
