# SPDX-License-Identifier: GPL-3.0-or-later
"""Go back to the driver of before, or to none, with what can fail tried before the first change.

Each step does only what is not done yet, so that a run that was killed can be run again.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from . import apt_trial, dkms, kernel_module, packages, paths, trial
from . import history as notes
from .family import is_stack, upstream
from .history import History, State
from .installation import ours
from .kept_files import content, parsed, put
from .programs import APT, Failed, must, run, there
from .way_back import Exchange, Plan, Wish, dangling_links, exchange, target

_FOLDERS = ("gpumesh", "nvidia-persistenced.service.d", "nvidia-persistenced.service.wants")


def go(plan: Plan, wish: Wish) -> str:
    """The way back itself; why a module stays loaded until the machine is rebooted, or nothing.

    Raises:
        Failed: with the driver as it was, or half-way, and then it says that another run goes on from there.
    """
    _prepare(wish)
    if plan.exchange.module:
        # The kernel may be a newer one than that for which this driver was built the last time.
        headers = tuple(f"linux-headers-{kernel}" for kernel in wish.kernels)
        trying = trial.Trial(plan.exchange.module, headers, wish.kernels)
        try:
            if not trial.is_done(trying):
                trial.build(trying)
        except (Failed, OSError) as problem:
            _abandon()
            raise Failed(f"{problem}\nThe driver was left as it is") from problem
    try:
        return _swap(wish)
    except (Failed, OSError) as problem:
        raise Failed(f"{problem}; run it again, it goes on from there") from problem


def _prepare(wish: Wish) -> None:
    """Everything that can fail for want of a network, with the machine's packages untouched."""
    history, present = notes.load(), notes.look(wish.files, "found")
    wanted, _why = target(history, wish, present)
    if wanted is None:
        return
    if not history["going"] or history["going"]["to"] != wish.to:
        history["going"] = {
            "to": wish.to,
            "at": notes.now(),
            "target": wanted,
            "from": present["files"],
            "all": sorted(packages.installed()),
        }
        notes.save(history)
    if not wanted["packages"]:
        return
    change = exchange(history, present, wanted)
    if not change.news:
        return
    try:
        for path, was in wanted["files"].items():
            if apt_trial.is_apts(path) and was is not None:
                put(path, was)
        must("the package lists cannot be fetched", *APT, "update")
        must("the packages cannot be fetched", *APT, "--download-only", *change.arguments)
    except (Failed, OSError):
        _abandon()
        raise


def _abandon() -> None:
    """The repositories of now again; the packages were not touched."""
    history = notes.load()
    if history["going"]:
        for path, was in history["going"]["from"].items():
            if apt_trial.is_apts(path):
                put(path, was)
        history["going"] = None
        notes.save(history)


def _swap(wish: Wish) -> str:
    """The change itself; why a module stays loaded, or nothing."""
    history, present = notes.load(), notes.look(wish.files, "found")
    wanted, _why = target(history, wish, present)
    if wanted is None:
        return ""
    says = "" if wanted["packages"] else kernel_module.unload(kernel_module.Machine(wish.root))
    _end_what_was_killed()
    with apt_trial.scratch():
        change = exchange(history, present, wanted)
    _exchange(change)
    dkms.allow_builds()
    _purge_residues(history, wanted)
    if wanted["packages"]:
        dkms.install(wish.kernels)
    _mark(history, present, wanted)
    _take_up([path for path, was in wanted["files"].items() if put(path, was)])
    drivers = {upstream(version) for version in wanted["packages"].values()} - {""}
    dkms.clean(drivers)
    if not drivers:
        for link in dangling_links():
            link.unlink()
    shutil.rmtree(paths.TRIAL, ignore_errors=True)
    paths.SNAPSHOT.unlink(missing_ok=True)
    _write_down(history, wish)
    return says


def _end_what_was_killed() -> None:
    """Have dpkg end what a killed run has left half-way; apt does nothing before."""
    if packages.purge_half_way(is_stack) or any(paths.DPKG_UPDATES.glob("[0-9]*")):
        dkms.without_builds(lambda: run("dpkg", "--configure", "-a"))


def _exchange(change: Exchange) -> None:
    """The packages, in one transaction in which no module is built."""
    names = {*change.gone, *(order.split("=")[0] for order in change.news)}
    # They come back with the marks; apt would find no way with them.
    packages.mark("unhold", sorted(names & set(packages.holds())))
    if change.news:
        what = "apt does not exchange the packages"
        dkms.without_builds(lambda: must(what, *APT, *change.arguments))
    elif change:
        must("apt does not remove the packages", *APT, *change.arguments)


def _purge_residues(history: History, wanted: State) -> None:
    """The configuration of what was removed."""
    left = [name for name in packages.residues(is_stack) if name not in wanted["packages"]]
    if not wanted["packages"]:
        # A killed run may have removed them and not purged yet.
        left += [name for name in history["came"] if packages.has_residue(name) and name not in left]
    if left:
        must("dpkg does not purge what was removed", "dpkg", "--purge", *left)


def _mark(history: History, present: State, wanted: State) -> None:
    """Holds and marks as they were, of our packages only."""
    then_ours = parsed(content(wanted["files"].get(str(paths.HOLDS)))) or []
    may = {*ours(), *then_ours, *history["came"], *present["packages"], *wanted["packages"]}
    here, held, then = set(packages.installed()), set(packages.holds()), set(wanted["holds"])
    packages.mark("unhold", sorted((held - then) & may))
    packages.mark("hold", sorted((then - held) & may & here))
    driver, manual = set(wanted["packages"]) & here, set(wanted["manual"])
    packages.mark("manual", sorted(driver & manual))
    packages.mark("auto", sorted(driver - manual))


def _take_up(changed: Iterable[str]) -> None:
    """Let those that read the files take them up; folders of ours that are empty now go."""
    changed = list(changed)
    for folder in {Path(path).parent for path in changed}:
        if folder.name in _FOLDERS and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if any(path.startswith("/etc/systemd/") for path in changed):
        run("systemctl", "daemon-reload")
        if not (paths.UNITS / paths.TUNING).exists():
            run("systemctl", "stop", paths.TUNING)
            run("systemctl", "reset-failed", paths.TUNING)
    if any(path.startswith("/etc/modprobe.d/") for path in changed) and there("update-initramfs"):
        must("the initial file systems cannot be made anew", "update-initramfs", "-u", "-k", "all")
    if any(path.startswith("/etc/apt/sources.list.d/") for path in changed):
        # So that nothing of a removed repository stays in the lists. Without a network this is for another time.
        run(*APT, "update")


def _write_down(history: History, wish: Wish) -> None:
    """That the machine is there; a purge leaves no note."""
    # Its package starts it where there is no driver, and systemd remembers the failure of a unit that is gone.
    if not (paths.PACKAGED_UNITS / paths.DAEMON).exists():
        run("systemctl", "reset-failed", paths.DAEMON)
    if wish.to == "absent":
        shutil.rmtree(paths.MEMORY, ignore_errors=True)
        folder = paths.MEMORY.parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return
    going = history["going"]
    history["states"].append(notes.look(wish.files, wish.to))
    history["open"] = history["going"] = None
    if wish.to == "none":
        history["came"] = []
    elif going:
        notes.add_what_came(history, going["all"])
    notes.save(history)
