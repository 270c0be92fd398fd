# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of burn-ins: made, found, read, and held by the one process that is at it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..._fleet.errors import FleetError
from .. import store
from ..record import BURN_IN
from .plan import PLAN, RECORDS, SAMPLES, UNFINISHED, Plan, PlanError
from .recorder import gone, lines, sync_folder
from .records import Tally, sample_of

DETACHED, ATTACHED = "systemd", "terminal"
"""What is in the marker of an unfinished burn-in: who goes on with it."""


class Broken(FleetError):
    """A burn-in cannot be found, read or begun."""


def make(base: Path, plan_of: Plan, *, detached: bool) -> tuple[Path, Plan]:
    """The folder of a new burn-in, with its plan in it; the plan has the run's id then."""
    folder = store.new_folder(base, BURN_IN, plan_of.begin)
    plan = Plan.from_json({**plan_of.as_json(), "id": folder.name})
    store.write_text(folder / PLAN, json.dumps(plan.as_json(), indent=1) + "\n")
    store.write_text(folder / UNFINISHED, f"{DETACHED if detached else ATTACHED}\n")
    sync_folder(folder.parent)
    return folder, plan


def read(folder: Path) -> Plan:
    """The plan of a burn-in.

    Raises:
        Broken: there is none, or it cannot be read.
    """
    try:
        return Plan.from_json(json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except OSError as problem:
        raise Broken(
            f"{folder} is no burn-in: {PLAN} cannot be read: {problem.strerror}",
            hint="See `gpu-acceptance burn-in --status`, or name another with --folder",
        ) from problem
    except (PlanError, ValueError, AttributeError) as problem:
        raise Broken(f"{folder / PLAN} cannot be used: {problem}", hint="Start a new burn-in") from problem


def recorded(folder: Path) -> Tally:
    """Everything that was recorded, put together."""
    tally = Tally()
    for record in lines(folder / RECORDS):
        tally.add(record)
    for line in lines(folder / SAMPLES):
        sample = sample_of(line)
        if sample is not None:
            tally.add_sample(sample)
    return tally


def all_of(base: Path) -> list[Path]:
    """The folders of all burn-ins, the oldest first."""
    return sorted(path.parent for path in base.glob(f"runs/*/{PLAN}"))


def unfinished(base: Path) -> list[Path]:
    """Those that are not over, the oldest first."""
    return [folder for folder in all_of(base) if not is_over(folder)]


def find(base: Path, named: str, *, open_only: bool) -> Path:
    """The burn-in that is named, or the latest.

    Args:
        named: an id or a folder; empty: the latest.
        open_only: of those that are not over.

    Raises:
        Broken: there is none.
    """
    if named:
        for path in (Path(named), base / "runs" / named):
            if (path / PLAN).is_file():
                return path
        raise Broken(
            f"there is no burn-in {named}, neither as a folder nor in {base}/runs",
            hint=f"See `ls {base}/runs`",
        )
    found = unfinished(base) if open_only else all_of(base)
    if not found:
        kind = "unfinished burn-in" if open_only else "burn-in"
        raise Broken(
            f"there is no {kind} in {base}", hint="Start one with `gpu-acceptance burn-in --hours 24`"
        )
    return found[-1]


def is_over(folder: Path) -> bool:
    """Whether it has ended for good."""
    return not (folder / UNFINISHED).exists()


def is_detached(folder: Path) -> bool:
    """Whether systemd goes on with it."""
    with contextlib.suppress(OSError):
        return (folder / UNFINISHED).read_text(encoding="ascii").strip() == DETACHED
    return False


def finish(folder: Path) -> None:
    """It is over for good: nobody is to go on with it."""
    gone(folder / UNFINISHED)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the one process that is at it. The kernel takes this off a process that is killed.

    Raises:
        Broken: another process is at it.
    """
    handle = os.open(folder / PLAN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken(
                f"the burn-in {folder.name} is going on already",
                hint="See how it goes with `gpu-acceptance burn-in --status`",
            ) from None
        yield
    finally:
        os.close(handle)


def is_going(folder: Path) -> bool:
    """Whether a process is at it."""
    try:
        handle = os.open(folder / PLAN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
