# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's kernel modules in DKMS: built and installed for every kernel, by us and never inside of dpkg.

A build that fails while dpkg installs a package leaves every later apt on the machine broken.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from . import paths
from .programs import Failed, compiler_errors, run, there

NO_BUILD_TEXT = "The role nvidia_driver of gpumesh.fleet is at work; it builds the modules itself.\n"
# How every version of ours has begun it.
_OURS = "The role nvidia_driver of gpumesh.fleet "
Result = TypeVar("Result")


def sources() -> list[tuple[str, str]]:
    """Name and version of every module of the driver whose source is unpacked for DKMS."""
    return [split(conf.parent) for conf in sorted(paths.SOURCES.glob("nvidia*/dkms.conf"))]


def split(source: Path) -> tuple[str, str]:
    """Name and version in the name of a source tree."""
    name, version = source.name.rsplit("-", 1)
    return name, version


def build_log(tree: Path, said: str) -> str:
    """What the newest log below a tree of DKMS says is wrong; where there is none, what DKMS said."""
    logs = sorted(tree.glob("**/make.log"), key=os.path.getmtime)
    return compiler_errors(logs[-1].read_text(encoding="utf-8", errors="replace") if logs else said)


def install(kernels: Iterable[str]) -> bool:
    """Have DKMS install every module for every kernel: as the trial has built it, or built now; whether that changes anything."""
    if not there("dkms"):
        return False
    kernels, before = list(kernels), run("dkms", "status")
    for name, version in sources():
        run("dkms", "add", "-m", name, "-v", version)
        for kernel in kernels:
            tried = paths.TRIAL / "dkms" / name / version / kernel
            place = paths.DKMS / name / version / kernel
            if tried.is_dir() and not place.exists():
                shutil.copytree(tried, place, symlinks=True)
            status, said = run("dkms", "install", "-m", name, "-v", version, "-k", kernel)
            if status != 0:
                raise Failed(
                    f"DKMS does not install {name} {version} for the kernel {kernel}; its log says:\n"
                    + build_log(paths.DKMS / name / version, said)
                )
    return run("dkms", "status") != before


def installed() -> list[str]:
    """The kernels that DKMS has installed a module of the driver for."""
    said = run("dkms", "status")[1]
    return sorted(set(re.findall(r"^nvidia[^,]*, ([^,]+), \S+: installed", said, re.MULTILINE)))


def unbuilt(kernels: Iterable[str]) -> list[str]:
    """The kernels that DKMS would have to install a module of ours for."""
    if not there("dkms"):
        return []
    rows = re.findall(r"^(\S+)/(\S+), ([^,]+), \S+: installed", run("dkms", "status")[1], re.MULTILINE)
    modules = sources()
    return [kernel for kernel in kernels if not {(*module, kernel) for module in modules} <= set(rows)]


def uninstall(kernels: Iterable[str]) -> None:
    """Take the driver's modules of these kernels out of DKMS."""
    for kernel in kernels:
        for name, version in sources():
            run("dkms", "remove", "-m", name, "-v", version, "-k", kernel)


def builds_held_back() -> bool:
    """Whether dpkg builds no modules because of us; the administrator's own word is no trace of a run."""
    file = paths.NO_BUILD
    return file.exists() and file.read_text(encoding="utf-8", errors="replace").startswith(_OURS)


def without_builds(action: Callable[[], Result]) -> Result:
    """Do something while dpkg builds no modules."""
    file = paths.NO_BUILD
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(NO_BUILD_TEXT, encoding="utf-8")
    try:
        return action()
    finally:
        allow_builds()


def allow_builds() -> None:
    """Let dpkg build modules again: also where a killed run has left it otherwise, but not where the administrator has."""
    file = paths.NO_BUILD
    if builds_held_back():
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()


# -- what packages leave behind ----------------------------------------------------------------------------------------


def owned(path: Path) -> bool:
    """Whether a package has this file; also by its name before /lib became a link to /usr/lib."""
    text = str(path)
    other = text.removeprefix("/usr") if text.startswith("/usr/lib/") else f"/usr{text}"
    return any(run("dpkg-query", "-S", name)[0] == 0 for name in (text, other))


def trees(drivers: set[str]) -> list[tuple[str, str]]:
    """Name and version of what DKMS knows of other drivers than these."""
    found = set(sources())
    for conf in paths.DKMS.glob("nvidia*/*/source/dkms.conf"):
        found.add((conf.parts[-4], conf.parts[-3]))
    for place in paths.DKMS.glob("nvidia*/[0-9]*"):
        found.add((place.parent.name, place.name))
    return sorted(pair for pair in found if pair[1] not in drivers)


def strays() -> list[Path]:
    """Modules of the driver that no package and no DKMS has."""
    places = [path for folder in paths.MODULES.glob("*/updates") for path in folder.rglob("nvidia*.ko*")]
    return sorted(path for path in places if not owned(path))


def clean(drivers: set[str]) -> list[str]:
    """Remove what is left in DKMS and of source trees of other drivers than these, and without any also stray modules.

    Returns:
        What was removed: NAME/VERSION of a tree, and the paths of modules.
    """
    gone = []
    for name, version in trees(drivers):
        run("dkms", "remove", "-m", name, "-v", version, "--all")
        shutil.rmtree(paths.DKMS / name / version, ignore_errors=True)
        folder = paths.DKMS / name
        if folder.is_dir() and not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder)
        source = paths.SOURCES / f"{name}-{version}"
        if source.is_dir() and not owned(source):
            shutil.rmtree(source)
        gone.append(f"{name}/{version}")
    kernels = set()
    for path in [] if drivers else strays():
        path.unlink()
        kernels.add(path.relative_to(paths.MODULES).parts[0])
        gone.append(str(path))
    for kernel in kernels:
        run("depmod", kernel)
    return gone
