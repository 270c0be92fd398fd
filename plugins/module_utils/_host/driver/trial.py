# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the kernel module for every kernel, beside the machine's own modules and before anything of the driver is installed.

What fails to compile is known from no table for every kernel there will be. What the trial builds, the installation uses.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import dkms, packages, paths
from .kept_files import read_note, write_note
from .programs import APT, Failed, must, run

_PARTS = re.compile(r"nvidia-.*(dkms|kernel|open)")
_SHOW = ("apt-cache", "--quiet=2", "show", "--no-all-versions")


@dataclass(frozen=True)
class Trial:
    """What is to be built.

    Attributes:
        order: the package of the module's source as apt takes it: NAME=VERSION.
        headers: packages of the kernels' headers.
        kernels: the kernels, as `uname -r` tells them.
    """

    order: str
    headers: tuple[str, ...]
    kernels: tuple[str, ...]

    @property
    def module(self) -> str:
        """The name of the package."""
        return self.order.split("=", maxsplit=1)[0]


def is_done(trial: Trial) -> bool:
    """Whether just this was built already, to the end, and is still there."""
    return bool((read_note(_note()) or {}).get("wish") == _wish(trial))


def build(trial: Trial) -> dict[str, str]:
    """Build it; the module's version for each kernel.

    Raises:
        Failed: where it cannot be done for every kernel. Nothing is left of the trial then.
    """
    shutil.rmtree(paths.TRIAL, ignore_errors=True)
    try:
        paths.TRIAL.mkdir(parents=True)
        if not trial.kernels:
            raise Failed("no kernel is installed on this machine, so there is nothing to build a module for")
        _install_tools(trial.headers)
        versions = _compile(_source(trial), trial.kernels)
        shutil.rmtree(paths.TRIAL / "root", ignore_errors=True)
        write_note(_note(), {"wish": _wish(trial), "built": versions})
    except (Failed, OSError):
        shutil.rmtree(paths.TRIAL, ignore_errors=True)
        raise
    return versions


def _note() -> Path:
    """Written last: a trial that was killed is made anew."""
    return paths.TRIAL / "built.json"


def _wish(trial: Trial) -> dict[str, object]:
    """What tells one trial from another."""
    return {"order": trial.order, "kernels": list(trial.kernels)}


def _install_tools(headers: Iterable[str]) -> None:
    """Headers of every kernel, a compiler and DKMS."""
    absent = [name for name in headers if run(*_SHOW, name)[0] != 0]
    if absent:
        raise Failed(
            f"no repository of this machine offers {', '.join(absent)}, so no module can be built for that kernel; "
            "remove the kernel, or boot a newer one first"
        )
    what, names = "the headers and DKMS cannot be installed", ("dkms", "kmod", *headers)
    said = must(what, *APT, "--simulate", "install", *names)
    if packages.installs(said) or packages.removes(said):
        must(what, *APT, "install", *names)


def _source(trial: Trial) -> Path:
    """The folder with the module's source tree, taken out of its packages without installing them."""
    said = must("apt does not know the module", *_SHOW, trial.order)
    version = re.search(r"^Version: (\S+)", said, re.MULTILINE)
    _status, present = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", trial.module)
    if version and present == f"installed {version[1]}":
        # Another kernel is to get a module of the source that is here.
        return paths.SOURCES
    depends = " ".join(re.findall(r"^Depends: (.+)$", said, re.MULTILINE))
    needed = re.findall(r"(\S+) \(= ([^)\s]+)\)", depends)
    orders = [trial.order, *(f"{name}={exact}" for name, exact in needed if _PARTS.match(name))]
    folder = paths.TRIAL / "packages"
    folder.mkdir()
    # As root, for the folder is nobody else's.
    command = (*APT, "--option=APT::Sandbox::User=root", "download", *orders)
    must(f"{trial.module} cannot be fetched", *command, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        must(
            f"{package.name} cannot be read",
            "dpkg-deb",
            "--extract",
            str(package),
            str(paths.TRIAL / "root"),
        )
    shutil.rmtree(folder)
    return paths.TRIAL / "root/usr/src"


def _compile(sources: Path, kernels: Iterable[str]) -> dict[str, str]:
    """The version of what was built for each kernel."""
    found = sorted(sources.glob("nvidia*/dkms.conf"))
    if not found:
        raise Failed("the packages of the module hold no source that DKMS knows; nothing can be built")
    name, version = dkms.split(found[-1].parent)
    tree = paths.TRIAL / "dkms"
    tree.mkdir()
    which = (f"--dkmstree={tree}", f"--sourcetree={sources}", "-m", name, "-v", version)
    must("DKMS does not take the source", "dkms", "add", *which)
    built = {}
    for kernel in kernels:
        # On a small machine it takes as long as it takes.
        status, said = run("dkms", "build", *which, "-k", kernel, seconds=None)
        modules = sorted((tree / name / version / kernel).glob("*/module/nvidia*.ko*"))
        if status != 0 or not modules:
            raise Failed(
                f"the module of {name} {version} does not build for the kernel {kernel}, so the driver was not "
                "installed; another branch (nvidia_driver_branch) or kernel may do. Its make.log says:\n"
                + dkms.build_log(tree / name / version, said)
            )
        main = min(modules, key=lambda path: len(path.name))
        built[kernel] = must("the module cannot be read", "modinfo", "-F", "version", str(main)).strip()
    return built
