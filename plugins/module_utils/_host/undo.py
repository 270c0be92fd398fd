# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo a change by a timer unless somebody who could still log in calls it off.

A change that could shut its author out (SSH, firewall) is made like this: keep the present files, start a timer that
puts them back, change, prove with a new connection that the machine is still reachable, stop the timer. If the proof
fails, nobody needs to be there: the timer fires. The timer and what it puts back live in /run, so a reboot in between
keeps the new state; it is the running machine that is protected.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from .files import Run

DIRECTORY = Path("/run/gpumesh/undo")


class UndoError(Exception):
    """The timer could not be started, so nothing was changed."""


def script(paths: Iterable[Path], saved: Path, command: list[str]) -> str:
    """The shell script that puts the saved files back, removes those that did not exist, and runs a command."""
    lines = ["#!/bin/sh"]
    for path in paths:
        kept = saved / str(path).lstrip("/")
        source, target = shlex.quote(str(kept)), shlex.quote(str(path))
        lines.append(f"if [ -e {source} ]; then cp -a {source} {target}; else rm -f {target}; fi")
    lines.append(shlex.join(command))
    return "\n".join(lines) + "\n"


def unit(name: str) -> str:
    """The name of the timer, without its suffix."""
    return f"gpumesh-undo-{name}"


def disarm(name: str, run: Run) -> None:
    """Stop the timer; that it does not run is no error."""
    run(["systemctl", "stop", f"{unit(name)}.timer"])


def pending(name: str, run: Run) -> bool:
    """Whether a change waits to be undone, because nobody has proved it yet."""
    if shutil.which("systemctl") is None:
        return False
    return run(["systemctl", "is-active", "--quiet", f"{unit(name)}.timer"])[0] == 0


def postpone(name: str, after: int, run: Run, directory: Path = DIRECTORY) -> bool:
    """Give a change that still waits for its proof the whole time anew.

    Whoever made it died before the proof. Nothing differs any more, so without this the next run would find nothing to
    prove, and the timer would undo the change behind its back.

    Args:
        after: seconds from now; with 0 the timer runs on as it is.

    Returns:
        Whether there is such a change.
    """
    if not pending(name, run):
        return False
    if after:
        _start(name, after, directory / name, run)
    return True


def arm(
    name: str,
    after: int,
    paths: Iterable[Path],
    command: list[str],
    run: Run,
    directory: Path = DIRECTORY,
) -> bool:
    """Keep what is there and start the timer, `after` seconds from now.

    A timer still running from a change before is started anew, but what it kept stays: that is the last state which
    is known to have been reachable.

    Returns:
        Whether no timer ran before, so that a change that fails by itself may disarm it again.
    """
    paths = list(paths)
    saved = directory / name
    first = not pending(name, run)
    if first:
        shutil.rmtree(saved, ignore_errors=True)
        saved.mkdir(parents=True, mode=0o700)
        for path in paths:
            if path.is_file():
                kept = saved / str(path).lstrip("/")
                kept.parent.mkdir(parents=True, exist_ok=True)
                _must(run(["cp", "-a", str(path), str(kept)]), f"{path} could not be kept")
        (saved / "undo.sh").write_text(script(paths, saved, command), encoding="utf-8")
    _start(name, after, saved, run)
    return first


def _start(name: str, after: int, saved: Path, run: Run) -> None:
    """Start the timer, anew where it runs."""
    disarm(name, run)
    started = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit(name)}",
            f"--on-active={after}",
            "--timer-property=AccuracySec=1s",
            "/bin/sh",
            str(saved / "undo.sh"),
        ]
    )
    _must(started, "systemd-run could not start the timer that would undo the change")


def _must(ended: tuple[int, str, str], what: str) -> None:
    """Raise unless a command succeeded."""
    status, _out, err = ended
    if status != 0:
        raise UndoError(f"{what}: {err.strip()}")
