# SPDX-License-Identifier: GPL-3.0-or-later
"""How the machine was before an installation, so that one that fails leaves it as it was.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from typing import Any

from . import dkms, packages, paths
from .family import is_driver
from .kept_files import keep, put, read_note, write_note
from .programs import APT, Failed, run

_FORMAT = 2
Note = dict[str, Any]


def take(files: Iterable[str], carry_out: bool) -> bool:
    """Note what there is; whether that was done.

    What a run that was killed while it installed has noted stays: then that is the way back.
    """
    if _read() is not None and (dkms.builds_held_back() or packages.half_way()):
        return False
    if carry_out:
        note = {
            "format": _FORMAT,
            "packages": packages.installed(),
            "enabled": run("systemctl", "is-enabled", paths.DAEMON)[0] == 0,
            "active": run("systemctl", "is-active", paths.DAEMON)[0] == 0,
            "holds": packages.holds(),
            "built": dkms.installed(),
            "files": keep(files),
            "keys": [str(path) for path in paths.DKMS_KEYS if path.exists()],
        }
        write_note(paths.SNAPSHOT, note)
    return True


def exists() -> bool:
    """Whether there is a note of how the machine was."""
    return _read() is not None


def forget(carry_out: bool) -> bool:
    """All is as it should be, so there is no way back any more; whether anything was left of one."""
    there = paths.SNAPSHOT.exists() or paths.TRIAL.exists() or dkms.builds_held_back()
    if carry_out:
        dkms.allow_builds()
        paths.SNAPSHOT.unlink(missing_ok=True)
        shutil.rmtree(paths.TRIAL, ignore_errors=True)
    return there


def restore(before: Note) -> str:
    """Put the machine back as it was noted; what could not be put back, or nothing."""
    shutil.rmtree(paths.TRIAL, ignore_errors=True)
    _restore_packages(before)
    dkms.allow_builds()
    for path, was in before["files"].items():
        put(path, was)
    _restore_daemon(before)
    for path in paths.DKMS_KEYS:
        if str(path) not in before["keys"]:
            path.unlink(missing_ok=True)
    try:
        packages.mark("unhold", [name for name in packages.holds() if name not in before["holds"]])
        packages.mark("hold", before["holds"])
        # Headers that come in have DKMS build what is installed already, for a kernel that had no module.
        dkms.uninstall(sorted(set(dkms.installed()) - set(before["built"])))
        dkms.install(before["built"])
    except Failed as problem:
        return str(problem)
    was, now = before["packages"], packages.installed()
    wrong = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
    paths.SNAPSHOT.unlink()
    return f"not as before are {', '.join(wrong)}" if wrong else ""


def put_back() -> str:
    """Restore, and a sentence that says so."""
    before = _read()
    if before is None:
        return "There is no note of how the machine was, so nothing was put back."
    try:
        left = restore(before)
    except OSError as problem:
        left = str(problem)
    return f"The machine was put back as it was{', but ' + left if left else ''}."


def _read() -> Note | None:
    """The note; None where there is none, or one that was cut off or is of an earlier version of us."""
    found: Note = read_note(paths.SNAPSHOT) or {}
    return found if found.get("format") == _FORMAT else None


def _restore_packages(before: Note) -> None:
    """The packages of then, in their versions, and no others."""
    was = before["packages"]
    packages.purge_half_way()
    now = packages.installed()
    new = [name for name in now if name not in was]
    back = [f"{name}={version}" for name, version in was.items() if now.get(name) != version]
    away = [f"{name}-" for name in new]
    # While both repositories are still there, so that the old versions can be had; and again without whatever can not.
    for orders in (back, []):
        if not (away or orders):
            continue
        command = (*APT, "install", *orders, *away)
        # However long it takes: apt that is killed in the middle leaves packages half-way.
        status, _said = dkms.without_builds(partial(run, *command, seconds=None))
        if status == 0:
            break
    leftover = [
        name
        for name, (_version, status) in packages.statuses().items()
        if status != "not-installed" and name not in was and (name in new or is_driver(name))
    ]
    if leftover:
        run("dpkg", "--purge", *leftover, seconds=None)


def _restore_daemon(before: Note) -> None:
    """The persistence daemon as it was, enabled and running or not."""
    if before["enabled"]:
        # What is purged takes the enablement of its unit with it, also where another package has the same unit.
        run("systemctl", "enable", paths.DAEMON)
    if before["active"]:
        run("systemctl", "start", paths.DAEMON)
        # The driver has forgotten its settings with the daemon.
        if run("systemctl", "is-enabled", paths.TUNING)[0] == 0:
            run("systemctl", "restart", paths.TUNING)
    elif run("systemctl", "is-failed", paths.DAEMON)[0] == 0:
        # A package has started it, and there is no driver for it yet.
        run("systemctl", "reset-failed", paths.DAEMON)
