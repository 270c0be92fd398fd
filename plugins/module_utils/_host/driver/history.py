# SPDX-License-Identifier: GPL-3.0-or-later
"""What was installed of the driver before each change, for the way back.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from . import packages, paths
from .family import driver_of, is_stack, stack_of
from .kept_files import keep, write_note

KEPT = 10
# One driver: when it was noted and by what (`found`, `run`, or where a way back went), its packages, marks, holds, files.
State = dict[str, Any]
# All states, what came with the driver, the change that is under way (`open`), and the way back that is (`going`).
History = dict[str, Any]


def now() -> str:
    """The time as it is noted."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def look(files: Iterable[str], by: str) -> State:
    """Everything of the machine that a way back needs."""
    present = packages.installed()
    ours = stack_of(present)
    return {
        "at": now(),
        "by": by,
        "driver": driver_of(present),
        "packages": ours,
        "manual": sorted(packages.marked("manual") & set(ours)),
        # What other layers hold, such as the container toolkit, comes and goes without the driver.
        "holds": sorted(name for name in packages.holds() if is_stack(name) or name.startswith("linux-")),
        "files": keep([*files, str(paths.HOLDS)]),
    }


def nothing(history: History, files: Iterable[str], ours: Iterable[str]) -> State:
    """The state of a machine with no driver of ours.

    Args:
        ours: the packages that this layer holds.
    """
    noted = (path for state in history["states"] for path in state["files"])
    return {
        "at": "",
        "by": "",
        "driver": "",
        "packages": {},
        "manual": [],
        "holds": sorted(set(packages.holds()) - set(ours)),
        "files": dict.fromkeys(sorted({*files, str(paths.HOLDS), *noted})),
    }


def same(one: State, other: State) -> bool:
    """Whether two states have the same packages of the driver."""
    return bool(one["packages"] == other["packages"])


def load() -> History:
    """The history; a new one where there is none."""
    if paths.HISTORY.exists():
        found: History = json.loads(paths.HISTORY.read_text(encoding="utf-8"))
        return found
    return {"format": 1, "states": [], "came": [], "open": None, "going": None}


def save(history: History) -> None:
    """Write it down, with the first state and the newest ones."""
    states = history["states"]
    history["states"] = states if len(states) <= KEPT else [states[0], *states[1 - KEPT :]]
    write_note(paths.HISTORY, history)


def note(files: Iterable[str], carry_out: bool = True) -> bool:
    """Keep what there is before a change, unless it is what an interrupted change has left; whether anything is written."""
    history, present = load(), look(files, "found")
    states = history["states"]
    known = bool(states) and same(states[-1], present)
    if history["open"] and not known:
        return False
    if not known:
        states.append(present)
    history["open"] = {"at": present["at"], "all": sorted(packages.installed())}
    if carry_out:
        save(history)
    return True


def settle(files: Iterable[str], carry_out: bool = True) -> bool:
    """Keep what there is after a change that was proved; whether that changes the history."""
    history, present = load(), look(files, "run")
    states, opened = history["states"], history["open"]
    before = json.dumps(history, sort_keys=True)
    if opened:
        add_what_came(history, opened["all"])
    if states and same(states[-1], present):
        states[-1] = {**present, "at": states[-1]["at"], "by": states[-1]["by"]}
    else:
        states.append(present)
    history["open"] = history["going"] = None
    changed = json.dumps(history, sort_keys=True) != before
    if changed and carry_out:
        save(history)
    return changed


def add_what_came(history: History, before: Iterable[str]) -> None:
    """Note what is installed now and was not before the change, to be removed with the driver if nothing needs it."""
    history["came"] = sorted({*history["came"], *(set(packages.installed()) - set(before))})
