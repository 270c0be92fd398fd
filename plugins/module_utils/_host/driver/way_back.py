# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a machine can go back to, what that takes, and every reason why it cannot be done. Changes nothing.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import apt_trial, dkms, packages, paths
from . import history as notes
from .family import is_stack, stack_of
from .history import History, State
from .installation import ours
from .kept_files import kept
from .programs import APT, Failed, must, run

_MODULE = re.compile(r"nvidia-(dkms|kernel|open-kernel)[^=]*=")


@dataclass(frozen=True)
class Wish:
    """Where to.

    Attributes:
        to: `previous`: the driver of before; `none`: no driver; `absent`: no driver, and no notes for a way back either.
        files: all files of this layer.
        kernels: those that DKMS is to have a module for.
        root: where /proc is, which simulated GPUs put elsewhere.
    """

    to: str
    files: tuple[str, ...]
    kernels: tuple[str, ...] = ()
    root: Path = Path("/")


@dataclass(frozen=True)
class Exchange:
    """What apt installs, each with its version (NAME=VERSION), and what it removes, of the driver and beside it."""

    news: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.news or self.gone or self.extra)

    @property
    def arguments(self) -> list[str]:
        """As apt-get takes it."""
        if self.news:
            return ["install", *self.news, *(f"{name}-" for name in self.gone)]
        return ["purge", *self.gone, *self.extra]

    @property
    def module(self) -> str:
        """The package among the news that has to be compiled first, to see that it can be; empty where there is none."""
        return next((one for one in self.news if _MODULE.match(one) and "dkms" in one), "")


@dataclass(frozen=True)
class Plan:
    """The way back.

    Attributes:
        needed: whether there is anything to do.
        steps: what is done, a line each.
        says: why there is nothing to do, if that has to be said; no full stop.
        state: the state that the machine goes to, or is in already.
        exchange: the packages.
    """

    needed: bool
    steps: list[str]
    says: str
    state: State
    exchange: Exchange

    @property
    def held(self) -> list[str]:
        """The driver's packages that are to be held."""
        return sorted(set(self.state["packages"]) & set(self.state["holds"]))


def target(history: History, wish: Wish, present: State) -> tuple[State | None, str]:
    """The state to go back to; or None, and why there is nothing to do. Failed where nothing is known."""
    states, going = history["states"], history["going"]
    if wish.to != "previous":
        return notes.nothing(history, wish.files, ours()), ""
    if not states and not present["packages"]:
        return None, "this machine has no driver, and none is recorded"
    if going and going["to"] == wish.to:
        return dict(going["target"]), ""
    if states and states[-1]["by"] == "previous" and notes.same(states[-1], present):
        what = states[-1]["driver"] or "no driver"
        return (
            None,
            f"this machine went back to {what} on {states[-1]['at']}, and still has it; 'none' goes further",
        )
    for state in reversed(states):
        if not notes.same(state, present):
            return state, ""
    raise Failed(
        "no other driver than the present one is recorded on this machine, so there is none to go back to; 'none' removes "
        "the driver, nvidia_driver_version of the role installs the one you name"
    )


def exchange(history: History, present: State, wanted: State) -> Exchange:
    """What is to be installed and removed of the driver, and what else goes with the last one; needs apt's scratch."""
    have, want = present["packages"], wanted["packages"]
    news = [f"{name}={version}" for name, version in sorted(want.items()) if have.get(name) != version]
    gone = sorted(set(have) - set(want))
    return Exchange(news, gone, [] if want else apt_trial.spare(history["came"], gone))


def plan(wish: Wish) -> Plan:
    """Everything that can be known before the first change."""
    history, present = notes.load(), notes.look(wish.files, "found")
    wanted, why = target(history, wish, present)
    if wanted is None:
        return Plan(False, [], why, present, Exchange())
    with apt_trial.scratch():
        packages_of_then = exchange(history, present, wanted)
        if packages_of_then:
            _check(wanted, packages_of_then)
    said = _steps(present, wanted, packages_of_then)
    # What goes with its package needs no line of its own.
    other = [] if wanted["packages"] or packages_of_then.gone else leftovers(wish)
    said += [line for line in (f"remove {what}" for what in other) if line not in said]
    return Plan(bool(said or history["going"]), said, "", wanted, packages_of_then)


def leftovers(wish: Wish) -> list[str]:
    """What is still there of a driver, on a machine that is to have none."""
    left = [
        f"the package {name} {version}" for name, version in sorted(stack_of(packages.installed()).items())
    ]
    left += [f"the configuration of {name}" for name in packages.residues(is_stack)]
    left += [path for path in [*wish.files, str(paths.HOLDS)] if kept(path) is not None]
    left += [f"{name} {version} in DKMS" for name, version in dkms.trees(set())]
    left += [str(path) for path in [*dkms.strays(), *dangling_links()]]
    if wish.to == "absent" and paths.MEMORY.exists():
        left.append(str(paths.MEMORY))
    return left


def dangling_links() -> list[Path]:
    """Links that enable a unit of the driver that is gone."""
    links = paths.UNITS.glob("*.wants/nvidia-*")
    return sorted(link for link in links if link.is_symlink() and not link.exists())


def _steps(present: State, wanted: State, change: Exchange) -> list[str]:
    """What going back does, a line each."""
    have: dict[str, Any] = present["packages"]
    said = []
    for order in change.news:
        name, version = order.split("=", 1)
        said.append(f"install {name} {version}" + (f" in the place of {have[name]}" if name in have else ""))
    said += [f"remove {name} {have[name]}" for name in change.gone]
    said += [f"remove {name}, which came with the driver" for name in change.extra]
    for path, was in wanted["files"].items():
        if kept(path) != was and path != str(paths.HOLDS):
            said.append(f"{'restore' if was else 'remove'} {path}")
    return said


def _check(wanted: State, change: Exchange) -> None:
    """Refuse what apt could not do, or would do to others; needs its scratch."""
    if change.news:
        options = apt_trial.with_files(wanted["files"])
        status, said = run(*APT, *options, "update")
        _refuse_what_is_lost(wanted, change.news, options, said.strip() if status else "")
        what = "apt finds no way back, and nothing was changed"
    else:
        options, what = (apt_trial.without_holds(),), "apt finds no way to remove it"
    said = must(what, *APT, *options, "--simulate", *change.arguments)
    others = sorted(
        name for name in packages.removes(said) if not is_stack(name) and name not in change.extra
    )
    if others:
        raise Failed(
            f"apt would also remove {', '.join(others)}, which need what would go; nothing was changed. Remove them first, "
            "if that is meant"
        )


def _refuse_what_is_lost(wanted: State, news: list[str], options: tuple[str, ...], problem: str) -> None:
    """Versions that no repository of then has any more."""
    have = packages.offered([order.split("=")[0] for order in news], options)
    lost = [order for order in news if order.split("=", 1)[1] not in have.get(order.split("=")[0], [])]
    if not lost:
        return
    name = lost[0].split("=")[0]
    instead = f"; of {name} there is {', '.join(have[name])}" if have.get(name) else ""
    broken = f" ('apt-get update' said: {' / '.join(problem.splitlines()[-2:])})" if problem else ""
    raise Failed(
        f"{wanted['driver'] or 'what was there before'} can no longer be had: no repository offers "
        f"{', '.join(lost)}{instead}{broken}. Nothing was changed. 'none' needs no download; the role installs what "
        "nvidia_driver_version names"
    )
