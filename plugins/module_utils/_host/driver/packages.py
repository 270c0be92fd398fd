# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg and apt know of packages: installed, half-way, held, marked, offered.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .family import is_driver
from .programs import must, run

_ROW = "${Package}\\t${Version}\\t${db:Status-Status}\\n"
# Everything else is half-way: half-installed, unpacked, half-configured, and what waits for a trigger.
READY = ("installed", "config-files", "not-installed")
# Packages in whose name there is no version, and whose dependencies have one: they bring the next kernel.
_KERNEL_META = re.compile(r"linux-(?!.*\d+\.\d+)")
_KERNEL = re.compile(r"linux-(image|headers)-\d")


def statuses() -> dict[str, tuple[str, str]]:
    """Version and status of every package that dpkg knows."""
    _status, said = run("dpkg-query", "-W", "-f", _ROW)
    rows = (line.split("\t") for line in said.splitlines() if line.count("\t") == 2)
    return {name: (version, status) for name, version, status in rows}


def installed() -> dict[str, str]:
    """The version of every installed package."""
    return {name: version for name, (version, status) in statuses().items() if status == "installed"}


def half_way(ours: Callable[[str], bool] = is_driver) -> list[str]:
    """Packages of the driver that dpkg has left half-way."""
    return [name for name, (_v, status) in statuses().items() if status not in READY and ours(name)]


def residues(ours: Callable[[str], bool]) -> list[str]:
    """Packages that are gone but for their configuration, or were left half-way."""
    gone = ("installed", "not-installed")
    return sorted(name for name, (_v, status) in statuses().items() if ours(name) and status not in gone)


def has_residue(name: str) -> bool:
    """Whether a package is gone but for its configuration."""
    return statuses().get(name, ("", ""))[1] == "config-files"


def purge_half_way(ours: Callable[[str], bool] = is_driver) -> bool:
    """Away with what of the driver is half-way, for nothing can be done with apt before; whether there was any."""
    names = half_way(ours)
    if names:
        run("dpkg", "--purge", "--force-remove-reinstreq", "--force-depends", *names)
    return bool(names)


def holds() -> list[str]:
    """What apt is told to leave alone."""
    return run("apt-mark", "showhold")[1].split()


def marked(what: str) -> set[str]:
    """Packages that are marked as `manual` or as `auto`."""
    return set(run("apt-mark", f"show{what}")[1].split())


def mark(what: str, names: Iterable[str]) -> None:
    """`hold` packages or `unhold` them, or mark them as asked for (`manual`) or not (`auto`)."""
    if listed := list(names):
        must(f"apt-mark {what} fails", "apt-mark", what, *listed)


def offered(names: Iterable[str], options: Iterable[str] = ()) -> dict[str, list[str]]:
    """Every version of each package that a repository has, newest first; no entry where none has any."""
    found: dict[str, list[str]] = {}
    for line in run("apt-cache", *options, "madison", *names)[1].splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[2].endswith("Packages"):
            found.setdefault(parts[0], []).append(parts[1])
    return found


def candidates(names: Iterable[str]) -> dict[str, str]:
    """The version of each package that apt's preferences choose."""
    found, name = {}, ""
    for line in run("apt-cache", "policy", *names)[1].splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":")
        candidate = re.match(r"\s+Candidate: (?!\(none\))(\S+)", line)
        if candidate:
            found[name] = candidate[1]
    return found


def installs(said: str) -> list[str]:
    """What a simulation of apt would install."""
    return re.findall(r"^Inst (\S+)", said, re.MULTILINE)


def removes(said: str) -> list[str]:
    """What a simulation of apt would remove or purge."""
    return re.findall(r"^(?:Remv|Purg) (\S+)", said, re.MULTILINE)


def next_kernel() -> list[str]:
    """The installed packages that would bring another kernel, with no module built for it."""
    _status, said = run("dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${Depends}\n", "linux-*")
    rows = [line.split("\t") for line in said.splitlines() if line.count("\t") == 2]
    return [
        name
        for name, status, depends in rows
        if status == "installed" and _KERNEL_META.match(name) and _KERNEL.search(depends)
    ]
