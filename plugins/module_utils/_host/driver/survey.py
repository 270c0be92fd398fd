# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be known of a machine before its driver may be changed. Reads only.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import grp
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import packages, paths
from .family import PINNING, PREBUILT, is_driver, package_fits
from .programs import Failed, run

_TARGETS = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)|$(SOURCESENTRY)"
_TARGET = ("uri", "suite", "component", "signed_by", "entry")
_UNINSTALLER = Path("/usr/bin/nvidia-uninstall")
# Where the distribution has what the modules for apt need, whatever Python runs this.
_PYTHON_APT = Path("/usr/lib/python3/dist-packages/apt")


@dataclass(frozen=True)
class Wanted:
    """What is going to be asked for.

    Attributes:
        packages: all packages of the layer.
        wanted: a branch (580) or one driver (580.178.04).
        loose: those of the driver whose version is their own.
        prebuilt: whether modules come built, for each kernel a package, and not by DKMS.
        modules: from kernel to the driver of its module on the disk; empty where it has none.
    """

    packages: tuple[str, ...]
    wanted: str
    loose: frozenset[str]
    prebuilt: bool
    modules: Mapping[str, str]


def compare(wanted: Wanted) -> dict[str, list[str]]:
    """What an installation would have to do, and what stands in its way; all empty where nothing is to be done.

    Returns:
        `missing`: packages that are not there, or in another version. `stale`: what another branch or source has left, and
        what came in from elsewhere beside it. `unbuilt`: kernels without a module of this driver. `broken`: packages that
        dpkg has left half-way. `foreign`: those of them that are none of the driver's.
    """
    statuses = packages.statuses()
    present = {name: version for name, (version, status) in statuses.items() if status == "installed"}
    broken = sorted(name for name, (_version, status) in statuses.items() if status not in packages.READY)
    return {
        "missing": [
            name
            for name in wanted.packages
            if name not in present or not (name in wanted.loose or package_fits(present[name], wanted.wanted))
        ],
        "stale": [
            name
            for name, version in present.items()
            if name not in wanted.packages
            and name not in wanted.loose
            and (
                (is_driver(name) and not package_fits(version, wanted.wanted))
                or (name.startswith(PREBUILT) and not wanted.prebuilt)
                or name.startswith(PINNING)
            )
        ],
        "unbuilt": [
            kernel
            for kernel, driver in wanted.modules.items()
            if not driver or not package_fits(driver, wanted.wanted)
        ],
        "broken": broken,
        "foreign": [name for name in broken if not is_driver(name)],
    }


def look(source: Path, keyring: Path) -> dict[str, Any]:
    """How the machine is, whatever is wanted.

    Args:
        source: our file with the repository of the driver.
        keyring: our file with its key.

    Returns:
        `keys`: what gpg tells of the keyring. `repository`: whether the source is there. `package_lists`: whether apt has
        any. `python_apt`: whether there is what the modules for apt need. `groups`: from name to number. `offers`: the
        archives that apt is told of. `runfile`: whether the driver comes from NVIDIA's .run file.
    """
    return {
        "keys": _said("gpg", "--batch", "--show-keys", "--with-colons", str(keyring))
        if keyring.exists()
        else "",
        "repository": source.exists(),
        "package_lists": any(paths.APT_LISTS.glob("*Release")),
        "python_apt": _PYTHON_APT.is_dir() or importlib.util.find_spec("apt") is not None,
        "groups": {group.gr_name: group.gr_gid for group in grp.getgrall()},
        "offers": _offers(),
        "runfile": _UNINSTALLER.exists() and run("dpkg-query", "-S", str(_UNINSTALLER))[0] != 0,
    }


def _offers() -> list[dict[str, str]]:
    """The archives that apt is told of, without asking them."""
    lines = _said("apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages").splitlines()
    return [dict(zip(_TARGET, line.split("|"), strict=False)) for line in sorted(set(lines))]


def _said(*command: str) -> str:
    """What a program prints, without its warnings; empty where there is no such program."""
    status, said = run(*command, seconds=60, errors=False)
    # That is no answer, and not an empty one either.
    if status in (124, 126):
        raise Failed(said)
    return "" if status == 127 else said
