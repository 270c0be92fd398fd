# SPDX-License-Identifier: GPL-3.0-or-later
"""`gpu-acceptance run`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .._fleet.errors import FleetError
from . import files, judgement, junit, limits, machine_words, profile_file, registry, store, table
from .document import to_document
from .interrupts import Interrupted, interruptible
from .machine import Machine
from .paint import Paint, is_coloured, width
from .profile import Profile
from .progress import Progress
from .record import CUDA, Run, State, label_of
from .runner import Runner
from .selection import Selected, SelectionError, select
from .telemetry import Telemetry


def run(options: argparse.Namespace) -> int:
    """Make a run, show it, and give the exit status that its verdict has."""
    try:
        selected = select(registry.CHECKS, options.suite, only=options.only, skip=options.skip)
    except SelectionError as problem:
        raise FleetError(str(problem), hint="See `gpu-acceptance list`") from problem
    profile = load_profile(options.profile)
    progress = Progress(sys.stderr)
    with interruptible(lambda: progress.say("ending what is running, please wait")), store.alone():
        folder = store.new_folder(options.folder, options.suite, time.time())
        try:
            done = make(profile, options.device, options.suite, folder, selected, progress)
        except Interrupted:
            # A folder without a run in it would be in the way of whoever looks for runs.
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        store.write_text(folder / store.JUNIT, junit.xml(done))
    if done.state is State.INTERRUPTED:
        try:
            show(done, folder, as_json=options.json)
        except OSError:
            _let_go()
        return judgement.INTERRUPTED
    show(done, folder, as_json=options.json)
    return judgement.EXIT_STATUS[judgement.overall(done.entries)]


def _let_go() -> None:
    """The terminal whose closing interrupted the run is gone, and the run is kept: Python must not complain of what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def load_profile(path: Path | None) -> Profile:
    """The profile that is named, or the machine's own, or one in which nothing is declared.

    Raises:
        FleetError: with everything that is wrong with it.
    """
    if path is None and not files.PROFILE.exists():
        return Profile()
    path = path or files.PROFILE
    try:
        return profile_file.parse(
            path.read_text(encoding="utf-8"), checks=registry.NAMES, limits=limits.NAMES
        )
    except OSError as problem:
        raise FleetError(
            f"the profile {path} cannot be read: {problem.strerror}",
            hint="Name another with --profile, or write one with role validation",
        ) from problem
    except UnicodeDecodeError as problem:
        raise FleetError(f"the profile {path} is no UTF-8", hint="Write it with role validation") from problem
    except profile_file.ProfileError as problem:
        count = len(problem.problems)
        head = f"the profile {path} has {count} problem{'s' if count > 1 else ''}"
        raise FleetError("\n".join([f"{head}:", *(f"  {one}" for one in problem.problems)])) from problem


def make(
    profile: Profile, device: str, suite: str, folder: Path, selected: Sequence[Selected], progress: Progress
) -> Run:
    """Look at the machine, and make the checks."""
    progress.say("looking at the machine")
    telemetry = Telemetry(profile.nvidia_smi, folder / store.SAMPLES) if device == CUDA else None
    machine = Machine(
        profile,
        device,
        suite,
        folder,
        telemetry=telemetry,
        on_event=progress.hear,
        on_tick=progress.tick,
    )
    begun = Run(
        id=folder.name,
        suite=suite,
        device=device,
        label=label_of(device=device, simulated=bool(machine.facts["simulated"])),
        state=State.RUNNING,
        begin=machine.began,
        machine=machine_words.machine(profile, machine.facts),
        versions={"gpumesh": machine_words.release(), **machine.versions},
        profile=profile_file.as_data(profile),
    )
    if telemetry and machine.workers:
        telemetry.start()
    try:
        return Runner(machine, begun, selected, progress).go()
    finally:
        if telemetry:
            telemetry.stop()


def show(done: Run, folder: Path, *, as_json: bool) -> None:
    """The run on standard output."""
    out = sys.stdout
    if as_json:
        out.write(json.dumps(to_document(done), indent=1, ensure_ascii=False) + "\n")
        return
    lines = table.lines(done, Paint(is_coloured(out)), width() if out.isatty() else 120)
    out.write("\n".join(["", *lines, "", f"kept in {folder}"]) + "\n")
