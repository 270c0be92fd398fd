# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the kernel module for every kernel, beside the machine's own modules and before anything of the driver is installed.

A build that fails while dpkg installs a package leaves every later apt on the machine broken, and what fails to compile is
known from no table for every kernel there will be. What the trial builds, the installation uses. As root.

usage: python3 - '{"module": "nvidia-dkms-580-open", "order": "nvidia-dkms-580-open=580.178.04-1", "headers": [...], "kernels": [...]}' < trial.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TRIAL = Path("/var/lib/gpumesh/nvidia_driver/trial")
NOTE = TRIAL / "built.json"
SOURCES = re.compile(r"nvidia-.*(dkms|kernel|open)")
APT = (
    "apt-get",
    "--quiet=2",
    "--yes",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Use-Pty=0",
    "--option=APT::Sandbox::User=root",
    "--allow-change-held-packages",
    "--allow-downgrades",
)


ERROR = re.compile(r"\S+:\d+(:\d+)?: (fatal )?error:|(.*: )?error: |Error! ")
CACHE = ("apt-cache", "--quiet=2")


class Failed(Exception):
    """What went wrong, and what to do about it."""


def run(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit status and everything said."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=cwd,
    )
    return done.returncode, done.stdout


def last_lines(text: str, count: int) -> str:
    """The end of what a program said."""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def errors(log: str) -> str:
    """What a build log says is wrong: the compiler's errors, or the end of it where there are none."""
    lines = [line.strip()[-200:] for line in log.splitlines() if ERROR.match(line.strip())][:5]
    return "\n".join(lines) or "\n".join(line[:200] for line in last_lines(log, 10).splitlines())


def must(what: str, *command: str, cwd: Path | None = None) -> str:
    """Run a command that has to succeed."""
    status, said = run(*command, cwd=cwd)
    if status != 0:
        raise Failed(f"{what}: {last_lines(said, 6)}")
    return said


def tools(headers: list[str]) -> bool:
    """Headers of every kernel, a compiler and DKMS; whether something was installed for that."""
    absent = [name for name in headers if run("apt-cache", "show", "--no-all-versions", name)[0] != 0]
    if absent:
        raise Failed(
            f"no repository of this machine offers {', '.join(absent)}, so no module can be built for that kernel; "
            "remove the kernel, or boot a newer one first"
        )
    said = must(
        "the headers and DKMS cannot be installed", *APT, "--simulate", "install", "dkms", "kmod", *headers
    )
    if not re.search(r"^(Inst|Remv) ", said, re.MULTILINE):
        return False
    must("the headers and DKMS cannot be installed", *APT, "install", "dkms", "kmod", *headers)
    return True


def source(module: str, order: str) -> Path:
    """The source tree of the module, taken out of its packages without installing them."""
    said = must("apt does not know the module", *CACHE, "show", "--no-all-versions", order)
    version = re.search(r"^Version: (\S+)", said, re.MULTILINE)
    _status, present = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", module)
    if version and present == f"installed {version[1]}":
        # Another kernel is to get a module of the source that is here.
        return Path("/usr/src")
    depends = " ".join(re.findall(r"^Depends: (.+)$", said, re.MULTILINE))
    needed = re.findall(r"(\S+) \(= ([^)\s]+)\)", depends)
    orders = [order, *(f"{name}={exact}" for name, exact in needed if SOURCES.match(name))]
    folder = TRIAL / "packages"
    folder.mkdir()
    must(f"{module} cannot be fetched", *APT, "download", *orders, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        must(f"{package.name} cannot be read", "dpkg-deb", "--extract", str(package), str(TRIAL / "root"))
    shutil.rmtree(folder)
    return TRIAL / "root/usr/src"


def build(sources: Path, kernels: list[str]) -> dict[str, str]:
    """The version of what was built for each kernel."""
    found = sorted(sources.glob("nvidia*/dkms.conf"))
    if not found:
        raise Failed("the packages of the module hold no source that DKMS knows; nothing can be built")
    name, version = found[-1].parent.name.rsplit("-", 1)
    tree = TRIAL / "dkms"
    places = (f"--dkmstree={tree}", f"--sourcetree={sources}")
    tree.mkdir()
    must("DKMS does not take the source", "dkms", "add", *places, "-m", name, "-v", version)
    built = {}
    for kernel in kernels:
        status, said = run("dkms", "build", *places, "-m", name, "-v", version, "-k", kernel)
        modules = sorted((tree / name / version / kernel).glob("*/module/nvidia*.ko*"))
        if status != 0 or not modules:
            logs = sorted((tree / name / version).glob("**/make.log"), key=os.path.getmtime)
            log = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else said
            raise Failed(
                f"the module of {name} {version} does not build for the kernel {kernel}, so the driver was not "
                f"installed; another branch (nvidia_driver_branch) or kernel may do. Its make.log says:\n"
                + errors(log)
            )
        main_module = min(modules, key=lambda path: len(path.name))
        built[kernel] = must(
            "the module cannot be read", "modinfo", "-F", "version", str(main_module)
        ).strip()
    return built


def main() -> None:
    """Try it and print what came of it."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    wish = {"order": asked["order"], "kernels": asked["kernels"]}
    if NOTE.exists() and json.loads(NOTE.read_text(encoding="utf-8"))["wish"] == wish:
        print(json.dumps({"ok": True, "says": "", "changed": False, "built": {}}))
        return
    shutil.rmtree(TRIAL, ignore_errors=True)
    TRIAL.mkdir(parents=True)
    try:
        if not asked["kernels"]:
            raise Failed("no kernel is installed on this machine, so there is nothing to build a module for")
        changed = tools(asked["headers"])
        built = build(source(asked["module"], asked["order"]), asked["kernels"])
    except Failed as problem:
        shutil.rmtree(TRIAL, ignore_errors=True)
        print(json.dumps({"ok": False, "says": str(problem), "changed": False}))
        return
    shutil.rmtree(TRIAL / "root", ignore_errors=True)
    NOTE.write_text(json.dumps({"wish": wish, "built": built}), encoding="utf-8")
    print(json.dumps({"ok": True, "says": "", "changed": changed, "built": built}))


if __name__ == "__main__":
    main()
