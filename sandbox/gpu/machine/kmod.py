# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for ``modprobe`` and ``rmmod``: they handle the driver's modules, and leave all others to the real ones.

SIMULATED.
"""

from __future__ import annotations

import os
import sys

from . import driver, tree
from .places import Machine

_OURS = ("nvidia", "nouveau")
_FLAGS_WITH_VALUE = ("-S", "--set-version", "-C", "--config", "-d", "--dirname")


def modprobe(arguments: list[str] | None = None, machine: Machine | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    names, flags = _split(words)
    if not names or not names[0].startswith(_OURS):
        return _real("modprobe", words)
    machine = machine or Machine()
    several = bool({"-a", "--all", "-r", "--remove"} & flags)
    quiet = bool({"-q", "--quiet"} & flags)
    for name in names if several else names[:1]:
        try:
            _modprobe(machine, name, flags)
        except driver.LoadError as error:
            if not quiet:
                print(f"modprobe: {error}", file=sys.stderr)
            return 1
    return 0


def _modprobe(machine: Machine, name: str, flags: set[str]) -> None:
    loaded = tree.loaded(machine)
    if {"-r", "--remove"} & flags:
        if name not in loaded:
            return
        # modprobe takes what a module needed away with it, where nobody else needs it.
        try:
            driver.unload(machine, name)
        except driver.LoadError as error:
            raise driver.LoadError(f"FATAL: {error}.") from None
        return
    if name in loaded:
        return
    if {"-n", "--dry-run", "--show", "-D", "--show-depends"} & flags:
        return
    try:
        if name == "nouveau":
            driver.load_nouveau(machine)
        else:
            driver.load(machine, name)
    except driver.LoadError as error:
        text = str(error)
        raise driver.LoadError(
            f"FATAL: {text}" if "not found" in text else f"ERROR: could not insert '{name}': {text}"
        ) from None


def rmmod(arguments: list[str] | None = None, machine: Machine | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    names, _ = _split(words)
    if not names or not names[0].startswith(_OURS):
        return _real("rmmod", words)
    machine = machine or Machine()
    for name in names:
        try:
            driver.unload(machine, name)
        except driver.LoadError as error:
            print(f"rmmod: ERROR: {error}", file=sys.stderr)
            return 1
    return 0


def _split(words: list[str]) -> tuple[list[str], set[str]]:
    names: list[str] = []
    flags: set[str] = set()
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            flags.add(word)
            skip = word in _FLAGS_WITH_VALUE
        else:
            names.append(word.replace("-", "_"))
    return [name for name in names if "=" not in name], flags


def _real(program: str, words: list[str]) -> int:
    for folder in ("/usr/sbin", "/sbin", "/usr/bin"):
        if os.access(f"{folder}/{program}", os.X_OK):
            os.execv(f"{folder}/{program}", [program, *words])  # noqa: S606
    print(f"{program}: no real {program} is installed", file=sys.stderr)
    return 127
