# SPDX-License-Identifier: GPL-3.0-or-later
"""`gpu-acceptance burn-in`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..._fleet.errors import FleetError
from ..._host.gpu_programs import run as run_program
from .. import files, store
from ..judgement import USAGE
from ..record import CUDA, DEVICES
from ..run_command import load_profile
from . import runs, service, status
from .burning import Burning, burn, profile_of
from .plan import LEAST_INTERVAL_S, MOST_INTERVAL_S, STOP, Plan, PlanError

_ABOUT = """\
Loads all GPUs at once for hours, with random data in most of their memory, compares every result, watches temperatures, power,
clocks and the kernel's log, and stops before a GPU gets too hot. What it sees is on the disk within an interval, so neither a
crash nor a loss of power takes it; started again it goes on with what is left."""
_STATUS = """\
exit status: 0 PASS, 1 FAIL, 2 the command or what it was given cannot be used, 3 WARN, 4 UNKNOWN (not all hours were burned, or
something was not looked at), 130 interrupted."""
_EXAMPLES = """\
examples:
  gpu-acceptance burn-in --hours 24 --detach     under systemd; it goes on by itself after a restart of the machine
  gpu-acceptance burn-in --status                how it goes
  gpu-acceptance burn-in --stop                  end it before its time; what it found is kept
  gpu-acceptance burn-in --hours 0.5             here, until its end or Ctrl-C
  gpu-acceptance burn-in --resume                go on with one that was interrupted"""

_ENDS_S = 90.0
"""For a burn-in that was asked to end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--detach", action="store_true", help="start it under systemd, and return at once")
    what.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with an unfinished one (the latest)"
    )
    what.add_argument("--status", nargs="?", const="", metavar="RUN", help="how one goes (the latest)")
    what.add_argument(
        "--stop", nargs="?", const="", metavar="RUN", help="end an unfinished one for good (the latest)"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="so long all GPUs burn (%(default)g)")
    parser.add_argument(
        "--interval",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help=f"from one look to the next, {LEAST_INTERVAL_S:g} to {MOST_INTERVAL_S:g} (%(default)g)",
    )
    parser.add_argument(
        "--memory", type=float, default=0.9, metavar="SHARE", help="of each GPU's memory (%(default)g)"
    )
    parser.add_argument(
        "--stop-margin",
        type=float,
        metavar="C",
        help="stop where a GPU is nearer than this to where it slows itself down (that of the profile)",
    )
    parser.add_argument(
        "--stop-temperature", type=float, metavar="C", help="stop where a GPU is hotter than this, too"
    )
    parser.add_argument("--device", choices=DEVICES, default=CUDA, help="on what (%(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=files.state(),
        metavar="FOLDER",
        help="where runs are kept (%(default)s)",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help=f"what is declared of the machine ({files.PROFILE}, if it is there)",
    )
    parser.add_argument("--json", action="store_true", help="with --status and --detach: as JSON")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="with --status: until it ends, but no longer than this",
    )
    parser.add_argument(
        "--service",
        action="store_true",
        help="with --resume, for the systemd unit: end with 0 once it is over, whatever came of it",
    )


def main(words: Sequence[str]) -> int:
    """What a user typed, to an exit status."""
    parser = argparse.ArgumentParser(
        prog="gpu-acceptance burn-in",
        description=_ABOUT,
        epilog=f"{_EXAMPLES}\n\n{_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    options = parser.parse_args(words)
    try:
        return _main(options)
    except PlanError as problem:
        sys.stderr.write(f"gpu-acceptance burn-in: {problem}\n")
        return USAGE


def _main(options: argparse.Namespace) -> int:
    base: Path = options.folder
    if options.status is not None:
        return status.show(base, options.status, wait_s=options.wait, as_json=options.json)
    if options.stop is not None:
        return _stop(base, options.stop)
    if options.resume is not None:
        folder = runs.find(base, options.resume, open_only=True)
        return burn(folder, runs.read(folder), as_service=options.service)
    plan = _plan(options)
    _refuse_beside_a_detached_one(base)
    if options.detach:
        return _detach(options, plan)
    _refuse(base, plan)
    folder, plan = runs.make(base, plan, detached=False)
    return burn(folder, plan, as_service=False)


def _plan(options: argparse.Namespace) -> Plan:
    path: Path | None = options.profile
    profile = load_profile(path)
    margin = profile.stop_margin_c if options.stop_margin is None else options.stop_margin
    return Plan(
        id="",
        seconds=options.hours * 3600,
        begin=time.time(),
        device=options.device,
        interval_s=options.interval,
        memory=options.memory,
        stop_margin_c=margin,
        stop_temperature_c=options.stop_temperature,
        profile="" if path is None else str(path.absolute()),
    ).checked()


def _refuse_beside_a_detached_one(base: Path) -> None:
    for folder in runs.unfinished(base):
        if runs.is_detached(folder):
            raise runs.Broken(
                f"the burn-in {folder.name} is not over, and systemd goes on with it",
                hint="See `gpu-acceptance burn-in --status`; `--stop` ends it",
            )


def _refuse(base: Path, plan: Plan) -> None:
    """What cannot burn is refused before there is a folder: systemd would try it for ever, and nobody would read why."""
    with store.alone():
        Burning(base, plan, profile_of(plan), quiet=True).refuse()


def _detach(options: argparse.Namespace, plan: Plan) -> int:
    if os.geteuid():
        raise service.ServiceError("only root can start a burn-in under systemd", hint="Run it with sudo")
    if options.folder != files.state():
        raise service.ServiceError(
            f"the unit looks for burn-ins in {files.state()}, not in {options.folder}",
            hint="Leave out --folder, or leave out --detach",
        )
    if not service.is_installed(run_program):
        raise service.ServiceError(
            "the systemd unit is not installed",
            hint="Install it with role validation, or leave out --detach and use tmux or systemd-run",
        )
    _refuse(options.folder, plan)
    folder, plan = runs.make(options.folder, plan, detached=True)
    try:
        service.start(plan.id, run_program)
    except FleetError:
        runs.finish(folder)
        raise
    sys.stdout.write(
        f"{plan.id}\n" if options.json else f"{plan.id} burns; see gpu-acceptance burn-in --status\n"
    )
    return 0


def _stop(base: Path, named: str) -> int:
    folder = runs.find(base, named, open_only=not named)
    if runs.is_over(folder):
        sys.stdout.write(f"{folder.name} is over already\n")
        return 0
    store.write_text(folder / STOP, "")
    deadline = time.monotonic() + _ENDS_S
    while runs.is_going(folder):
        if time.monotonic() > deadline:
            raise runs.Broken(
                f"{folder.name} did not end within {_ENDS_S:g} seconds",
                hint=f"See `journalctl -u {service.unit(folder.name)}`",
            )
        time.sleep(0.2)
    if not runs.is_over(folder):
        # Nobody is at it, so nobody would end it.
        burn(folder, runs.read(folder), as_service=True, quiet=True)
    sys.stdout.write(f"{folder.name} is over\n")
    return 0
