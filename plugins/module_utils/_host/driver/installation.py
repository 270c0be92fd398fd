# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's packages: chosen in one version, pinned, installed in one transaction, held.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from . import dkms, packages, paths
from .family import PINNING, PREBUILT, fits, is_driver, upstream
from .kept_files import read_note, write_note
from .programs import APT, Failed, must


@dataclass(frozen=True)
class Order:
    """What is to be installed.

    Attributes:
        packages: the driver's own, all to be of one version.
        module: the one among them that brings the kernel module; empty where that is built elsewhere.
        further: beside them, in any version, such as CUDA.
        wanted: a branch (580) or one driver (580.178.04).
        loose: packages of the driver whose version is their own.
        prebuilt: whether modules come built, for each kernel a package, and not by DKMS.
        kernels: those that DKMS is to have a module for.
        patterns: regular expressions of the names that an installation may also remove.
    """

    packages: tuple[str, ...]
    module: str
    further: tuple[str, ...]
    wanted: str
    loose: frozenset[str]
    prebuilt: bool
    kernels: tuple[str, ...]
    patterns: tuple[str, ...]

    def one_version(self, name: str) -> bool:
        """Whether a package has to be of the same driver as the others."""
        return name in self.packages and name not in self.loose


@dataclass(frozen=True)
class Transaction:
    """What is ordered from apt, and what it would install and remove for that.

    The first order is that of the module.
    """

    orders: list[str]
    installs: list[str]
    removes: list[str]

    def __bool__(self) -> bool:
        return bool(self.installs or self.removes)


def plan(order: Order) -> Transaction:
    """What an installation would do; Failed where apt has no way, or one that removes what is not the driver's."""
    orders = _chosen(order)
    leftover = _stale(order, orders)
    offered = _versions(leftover) if leftover else {}
    # What the driver depends on goes to the same version, also down, and what the wanted branch has not goes away.
    for name in leftover:
        fitting = [version for version in offered[name] if fits(upstream(version), order.wanted)]
        orders.append(f"{name}={fitting[0]}" if fitting else f"{name}-")
    said = must("apt finds no way to install it", *APT, "--simulate", "install", *orders)
    transaction = Transaction(orders, packages.installs(said), packages.removes(said))
    foreign = [
        name for name in transaction.removes if not is_driver(name) and not _named(order.patterns, name)
    ]
    if foreign:
        raise Failed(
            f"apt would remove {', '.join(foreign)} for the driver; remove it yourself if that is meant"
        )
    return transaction


def foresee(order: Order) -> tuple[Transaction, bool]:
    """What `install` would return; Failed where `plan` is."""
    transaction = plan(order)
    unbuilt = [] if order.prebuilt else dkms.unbuilt(order.kernels)
    return transaction, bool(transaction or packages.half_way() or unbuilt)


def install(order: Order) -> tuple[Transaction, bool]:
    """Everything in one transaction, in which no module is built, and then the modules.

    Returns:
        The transaction, and whether anything was changed, be it modules alone.
    """
    changed = packages.purge_half_way()
    transaction = plan(order)
    if transaction:
        orders = transaction.orders
        # Ordering a version makes a package count as asked for by hand, and then nothing takes it away again.
        automatic = packages.marked("auto") & {one.split("=")[0] for one in orders}
        dkms.without_builds(lambda: must("apt does not install the driver", *APT, "install", *orders))
        packages.mark("auto", sorted(automatic & set(packages.installed())))
        residues = [name for name in transaction.removes if packages.has_residue(name)]
        if residues:
            must("dpkg does not purge the former driver", "dpkg", "--purge", *residues)
    dkms.allow_builds()
    if not order.prebuilt:
        changed |= dkms.install(order.kernels)
    if left := packages.half_way():
        raise Failed(f"dpkg has left {', '.join(left)} half-way")
    return transaction, changed or bool(transaction)


def _versions(names: list[str]) -> dict[str, list[str]]:
    """What apt could install of each package, newest first, and before those the one that its preferences choose."""
    offered, candidates = packages.offered(names), packages.candidates(names)
    return {name: [*filter(None, [candidates.get(name)]), *offered.get(name, [])] for name in names}


def _chosen(order: Order) -> list[str]:
    """Every package as apt is to install it, the driver's with one version for all."""
    driver = sorted(order.packages, key=lambda name: name != order.module)
    names = list(dict.fromkeys([*driver, *order.further]))
    offered, present = _versions(names), packages.installed()
    absent = [name for name in names if not offered[name]]
    if absent:
        raise Failed(
            f"no repository of this machine offers {', '.join(absent)}; look at 'apt-cache policy {absent[0]}'"
        )
    # A package that got lost comes back in the version of the others, not with an upgrade of all.
    now = {upstream(present[name]) for name in driver if order.one_version(name) and name in present} - {""}
    keep = now.pop() if len(now) == 1 else ""
    orders = []
    for name in names:
        if not order.one_version(name) or not any(map(upstream, offered[name])):
            orders.append(name)
            continue
        fitting = [version for version in offered[name] if fits(upstream(version), order.wanted)]
        if not fitting:
            raise Failed(f"{name}: {order.wanted} is wanted, and there is {', '.join(offered[name])}")
        kept = [version for version in fitting if upstream(version) == keep]
        orders.append(f"{name}={(kept or fitting)[0]}")
    return orders


def _stale(order: Order, orders: Iterable[str]) -> list[str]:
    """What is installed of another branch or source."""
    names = {one.split("=")[0] for one in orders}
    return [
        name
        for name, version in packages.installed().items()
        if name not in names
        and is_driver(name)
        and name not in order.loose
        and not name.startswith(PINNING)
        and (
            (upstream(version) and not fits(upstream(version), order.wanted))
            or (name.startswith(PREBUILT) and not order.prebuilt)
        )
    ]


def _named(patterns: Iterable[str], name: str) -> bool:
    """Whether one of these regular expressions is in a package's name."""
    return any(re.search(pattern, name) for pattern in patterns)


# -- pin and holds -----------------------------------------------------------------------------------------------------


def pin(pins: Iterable[str], carry_out: bool) -> bool:
    """The vendor's packages that pin the branch, and no others; whether that changes anything.

    In a transaction of its own: a pin has to be in force while apt looks for the driver.
    """
    pins, present = list(pins), packages.installed()
    others = [name for name in present if name.startswith(PINNING) and name not in pins]
    if all(name in present for name in pins) and not others:
        return False
    if carry_out:
        must("apt does not install the pin", *APT, "install", *pins, *(f"{name}-" for name in others))
        if others:
            # Its preferences are configuration, which a removal leaves in force.
            must("dpkg does not purge the former pin", "dpkg", "--purge", *others)
    return True


@dataclass(frozen=True)
class Holding:
    """Packages that are held anew, and those that are no more."""

    add: list[str]
    drop: list[str]

    def __bool__(self) -> bool:
        return bool(self.add or self.drop)


def hold(patterns: Iterable[str], kernel: bool, carry_out: bool) -> Holding:
    """Hold every package of the driver, not the meta packages alone: each of them can move by itself.

    Args:
        patterns: regular expressions of their names.
        kernel: whether to hold what would bring another kernel as well.
    """
    patterns = tuple(patterns)
    wanted = [name for name in packages.installed() if _named(patterns, name)]
    if kernel:
        wanted += packages.next_kernel()
    held, mine = packages.holds(), ours()
    # What somebody else holds is not in our note, and stays.
    holding = Holding(
        [name for name in wanted if name not in held],
        [name for name in mine if name in held and name not in wanted],
    )
    if carry_out:
        packages.mark("hold", holding.add)
        packages.mark("unhold", holding.drop)
        note = sorted(set(wanted) & {*mine, *holding.add})
        if note != mine:
            write_note(paths.HOLDS, note)
    return holding


def ours() -> list[str]:
    """What is held by this layer."""
    return list(read_note(paths.HOLDS) or [])
