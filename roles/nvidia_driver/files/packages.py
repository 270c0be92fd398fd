# SPDX-License-Identifier: GPL-3.0-or-later
"""Pin, install and hold the packages of the driver, and put the machine back as it was where that fails. As root.

usage: python3 - ACTION '{"packages": {...}, "wanted": "580", "kernels": [...], ...}' < packages.py

    snapshot  note the packages, the holds and our files of APT, before the first change
    plan      what 'install' would do, without doing it
    pin       install the vendor's pin of the branch, and take away any other
    install   install everything, and the modules that the trial has built
    hold      hold what is installed of the driver, and let go what was held before and is no more to be
    restore   put back what the snapshot has
    finish    forget the snapshot

Prints one JSON object: {"ok": ..., "changed": ..., "says": ...}. Where 'pin' or 'install' fail, they put the snapshot back.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# In /run: what a run that was killed has noted is of use until the machine is booted again.
SNAPSHOT = Path("/run/gpumesh-nvidia-driver-before.json")
TRIAL = Path("/var/lib/gpumesh/nvidia_driver/trial")
DKMS = Path("/var/lib/dkms")
# DKMS makes these for the signatures of its modules, wherever it is told to build.
KEYS = (
    "/var/lib/dkms/mok.key",
    "/var/lib/dkms/mok.pub",
    "/var/lib/shim-signed/mok/MOK.der",
    "/var/lib/shim-signed/mok/MOK.priv",
)
HOLDS = Path("/var/lib/gpumesh/nvidia_driver/holds.json")
# While it is there, dpkg builds no module: a build that fails inside of dpkg leaves every later apt broken.
NO_BUILD = Path("/etc/dkms/no-autoinstall")
NO_BUILD_TEXT = "The role nvidia_driver of gpumesh.fleet is installing; it builds the modules itself.\n"
DRIVER = re.compile(r"(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)(?![\d.])")
FAMILY = re.compile(
    r"(lib)?nvidia-(?!container)|libcuda1$|firmware-nvidia-|cuda-drivers|xserver-xorg-video-nvidia|linux-modules-nvidia-"
)
ERROR = re.compile(r"\S+:\d+(:\d+)?: (fatal )?error:|(.*: )?error: |Error! ")
DAEMON = "nvidia-persistenced.service"
TUNING = "gpumesh-gpu-tuning.service"
READY = ("installed", "config-files", "not-installed")
# Packages in whose name there is no version, and whose dependencies have one: they bring the next kernel.
KERNEL_META = re.compile(r"linux-(?!.*\d+\.\d+)")
APT = (
    "apt-get",
    "--quiet=2",
    "--yes",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Use-Pty=0",
    "--allow-change-held-packages",
    "--allow-downgrades",
)


class Failed(Exception):
    """What went wrong, and what to do about it, in one sentence."""


def run(*command: str, seconds: int = 3600, cwd: Path | None = None) -> tuple[int, str]:
    """Exit status and everything said."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            cwd=cwd,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {seconds} seconds"
    return done.returncode, done.stdout


def must(what: str, *command: str, cwd: Path | None = None) -> str:
    """Run a command that has to succeed."""
    status, said = run(*command, cwd=cwd)
    if status != 0:
        # From the first complaint on; what was done before it tells nothing.
        found = re.search(r"^(dpkg: error|E: )", said, re.MULTILINE)
        told = "\n".join(said[found.start() :].splitlines()[:8]) if found else last_lines(said, 6)
        raise Failed(f"{what}: {told}")
    return said


def errors(log: str) -> str:
    """What a build log says is wrong: the compiler's errors, or the end of it where there are none."""
    lines = [line.strip()[-200:] for line in log.splitlines() if ERROR.match(line.strip())][:5]
    return "\n".join(lines) or "\n".join(line[:200] for line in last_lines(log, 10).splitlines())


def last_lines(text: str, count: int) -> str:
    """The end of what a program said."""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def statuses() -> dict[str, tuple[str, str]]:
    """Version and status of every package that dpkg knows."""
    _status, said = run("dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${db:Status-Status}\\n")
    return {
        name: (version, status)
        for name, version, status in (line.split("\t") for line in said.splitlines() if line.count("\t") == 2)
    }


def installed() -> dict[str, str]:
    """The version of every installed package."""
    return {name: version for name, (version, status) in statuses().items() if status == "installed"}


def holds() -> list[str]:
    """What apt is told to leave alone."""
    return run("apt-mark", "showhold")[1].split()


def upstream(version: str) -> str:
    """The driver version in a package's version; empty where it has none."""
    found = DRIVER.match(version)
    return found[1] if found else ""


def fits(version: str, wanted: str) -> bool:
    """Whether a driver version is the wanted one or of the wanted branch."""
    return version == wanted or version.startswith(f"{wanted}.")


# -- versions ----------------------------------------------------------------------------------------------------------


def versions(names: list[str]) -> dict[str, list[str]]:
    """What apt could install of each package, newest first, and before those the one that its preferences choose."""
    _status, said = run("apt-cache", "madison", *names)
    offered: dict[str, list[str]] = {name: [] for name in names}
    for line in said.splitlines():
        name, version, source = (part.strip() for part in line.split("|"))
        if name in offered and source.endswith("Packages"):
            offered[name].append(version)
    _status, said = run("apt-cache", "policy", *names)
    name = ""
    for line in said.splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":")
        found = re.match(r"\s+Candidate: (?!\(none\))(\S+)", line)
        if found and name in offered:
            offered[name].insert(0, found[1])
    return offered


def chosen(asked: dict[str, Any]) -> list[str]:
    """Every package of the stack as apt is to install it, the driver's with one version for all."""
    packages = asked["packages"]
    # The module's comes first, as the trial wants to know its version.
    driver = sorted(packages["driver"], key=lambda name: name != packages["module"])
    names = list(dict.fromkeys([*driver, *asked["further"]]))
    offered, present, wanted = versions(names), installed(), asked["wanted"]
    absent = [name for name in names if not offered[name]]
    if absent:
        raise Failed(
            f"no repository of this machine offers {', '.join(absent)}; look at 'apt-cache policy {absent[0]}'"
        )
    # A package that got lost comes back in the version of the others, not with an upgrade of all.
    bound = [name for name in driver if name not in asked["loose"] and name in present]
    now = {upstream(present[name]) for name in bound if upstream(present[name])}
    keep = now.pop() if len(now) == 1 else ""
    orders = []
    for name in names:
        fitting = [version for version in offered[name] if fits(upstream(version), wanted)]
        kept = [version for version in fitting if upstream(version) == keep and fits(keep, wanted)]
        if name in driver and name not in asked["loose"] and any(map(upstream, offered[name])):
            if not fitting:
                raise Failed(f"{name}: {wanted} is wanted, and there is {', '.join(offered[name])}")
            orders.append(f"{name}={(kept or fitting)[0]}")
        else:
            orders.append(name)
    return orders


def simulated(orders: Iterable[str]) -> tuple[list[str], list[str]]:
    """What apt would install and remove."""
    said = must("apt finds no way to install it", *APT, "--simulate", "install", *orders)
    return re.findall(r"^Inst (\S+)", said, re.MULTILINE), re.findall(r"^Remv (\S+)", said, re.MULTILINE)


def stale(asked: dict[str, Any], keep: Iterable[str]) -> list[str]:
    """What is installed of another branch or source."""
    names = {order.split("=")[0] for order in keep}
    prebuilt = asked["build"] != "dkms"
    return [
        name
        for name, version in installed().items()
        if name not in names
        and FAMILY.match(name)
        and name not in asked["loose"]
        and not name.startswith("nvidia-driver-pinning-")
        and (
            (upstream(version) and not fits(upstream(version), asked["wanted"]))
            or (name.startswith("linux-modules-nvidia-") and not prebuilt)
        )
    ]


def transaction(asked: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """What to order from apt, what it would install, and what remove; refused where that is not the driver's."""
    orders = chosen(asked)
    leftover = stale(asked, orders)
    offered = versions(leftover) if leftover else {}
    # What the driver depends on goes to the same version, also down, and what the wanted branch has not goes away.
    for name in leftover:
        fitting = [version for version in offered[name] if fits(upstream(version), asked["wanted"])]
        orders.append(f"{name}={fitting[0]}" if fitting else f"{name}-")
    news, gone = simulated(orders)
    foreign = [name for name in gone if not FAMILY.match(name) and not ours(asked, name)]
    if foreign:
        raise Failed(
            f"apt would remove {', '.join(foreign)} for the driver; remove it yourself if that is meant"
        )
    return orders, news, gone


def ours(asked: dict[str, Any], name: str) -> bool:
    """Whether a package is of the stack."""
    return any(re.search(pattern, name) for pattern in asked["packages"]["hold_patterns"])


# -- modules -----------------------------------------------------------------------------------------------------------


def build_modules(kernels: list[str]) -> None:
    """Have every kernel's module installed by DKMS: as the trial has built it, or built now."""
    if shutil.which("dkms") is None:
        return
    for conf in sorted(Path("/usr/src").glob("nvidia*/dkms.conf")):
        name, version = conf.parent.name.rsplit("-", 1)
        run("dkms", "add", "-m", name, "-v", version)
        for kernel in kernels:
            tried, place = TRIAL / "dkms" / name / version / kernel, DKMS / name / version / kernel
            if tried.is_dir() and not place.exists():
                shutil.copytree(tried, place, symlinks=True)
            status, said = run("dkms", "install", "-m", name, "-v", version, "-k", kernel)
            if status != 0:
                logs = sorted((DKMS / name / version).glob("**/make.log"), key=os.path.getmtime)
                log = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else said
                raise Failed(
                    f"DKMS does not install {name} {version} for the kernel {kernel}; its log says:\n"
                    + errors(log)
                )


def built() -> list[str]:
    """The kernels that DKMS has installed a module of the driver for."""
    said = run("dkms", "status")[1]
    return sorted(set(re.findall(r"^nvidia[^,]*, ([^,]+), \S+: installed", said, re.MULTILINE)))


def with_no_build(action: Callable[[], Any]) -> Any:
    """Do something while dpkg builds no modules."""
    made = not NO_BUILD.exists()
    if made:
        NO_BUILD.parent.mkdir(parents=True, exist_ok=True)
        NO_BUILD.write_text(NO_BUILD_TEXT, encoding="utf-8")
    try:
        return action()
    finally:
        # Also one that a killed run has left, but none of the administrator's.
        if NO_BUILD.read_text(encoding="utf-8") == NO_BUILD_TEXT:
            NO_BUILD.unlink()
            if not made or not any(NO_BUILD.parent.iterdir()):
                run("rmdir", "--ignore-fail-on-non-empty", str(NO_BUILD.parent))


# -- the way back ------------------------------------------------------------------------------------------------------


def snapshot(asked: dict[str, Any]) -> dict[str, Any]:
    """Note what there is, unless a run that was killed while it installed has left its note: then that is the way back."""
    if not SNAPSHOT.exists() or not (NO_BUILD.exists() or broken()):
        kept = {
            path: base64.b64encode(Path(path).read_bytes()).decode() if Path(path).exists() else None
            for path in asked["files"]
        }
        note = {
            "packages": installed(),
            "enabled": run("systemctl", "is-enabled", DAEMON)[0] == 0,
            "active": run("systemctl", "is-active", DAEMON)[0] == 0,
            "holds": holds(),
            "built": built(),
            "files": kept,
            "keys": [path for path in KEYS if Path(path).exists()],
        }
        SNAPSHOT.write_text(json.dumps(note), encoding="utf-8")
    return {"changed": False}


def finish(_asked: dict[str, Any]) -> dict[str, Any]:
    """Forget the way back: all is as it should be."""
    SNAPSHOT.unlink(missing_ok=True)
    shutil.rmtree(TRIAL, ignore_errors=True)
    return {"changed": False}


def broken() -> list[str]:
    """Packages of the driver that dpkg has left half-way."""
    return [name for name, (_v, status) in statuses().items() if status not in READY and FAMILY.match(name)]


def purge_broken() -> None:
    """Away with what is half-way; nothing can be done with apt before."""
    if names := broken():
        run("dpkg", "--purge", "--force-remove-reinstreq", "--force-depends", *names)


def restore(asked: dict[str, Any]) -> dict[str, Any]:
    """Put the machine back as the snapshot has it, and say what could not be put back."""
    shutil.rmtree(TRIAL, ignore_errors=True)
    if not SNAPSHOT.exists():
        return {"changed": False, "says": "there is no note of how the machine was"}
    before = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    purge_broken()
    now = installed()
    new = [name for name in now if name not in before["packages"]]
    back = [f"{name}={version}" for name, version in before["packages"].items() if now.get(name) != version]
    # While both repositories are still there, so that the old versions can be had; and again without whatever can not.
    for orders in (back, []):
        if new or orders:
            status, _said = with_no_build(
                lambda orders=orders: run(*APT, "install", *orders, *(f"{name}-" for name in new))
            )
            if status == 0:
                break
    leftover = [
        name
        for name, (_v, status) in statuses().items()
        if status != "not-installed"
        and name not in before["packages"]
        and (name in new or FAMILY.match(name))
    ]
    if leftover:
        run("dpkg", "--purge", *leftover)
    for path, content in before["files"].items():
        if content is None:
            Path(path).unlink(missing_ok=True)
        else:
            Path(path).write_bytes(base64.b64decode(content))
    if before["enabled"]:
        # What is purged takes the enablement of its unit with it, also where another package has the same unit.
        run("systemctl", "enable", DAEMON)
    if before["active"]:
        run("systemctl", "start", DAEMON)
        # The driver has forgotten its settings with the daemon.
        if run("systemctl", "is-enabled", TUNING)[0] == 0:
            run("systemctl", "restart", TUNING)
    elif run("systemctl", "is-failed", DAEMON)[0] == 0:
        # A package has started it, and there is no driver for it yet.
        run("systemctl", "reset-failed", DAEMON)
    mark("unhold", [name for name in holds() if name not in before["holds"]])
    mark("hold", before["holds"])
    for path in KEYS:
        if path not in before["keys"]:
            Path(path).unlink(missing_ok=True)
    # Headers that come in have DKMS build what is installed already, for a kernel that had no module.
    for kernel in set(built()) - set(before["built"]):
        for conf in sorted(Path("/usr/src").glob("nvidia*/dkms.conf")):
            name, version = conf.parent.name.rsplit("-", 1)
            run("dkms", "remove", "-m", name, "-v", version, "-k", kernel)
    try:
        build_modules(before["built"])
    except Failed as problem:
        return {"changed": True, "says": str(problem)}
    after = installed()
    wrong = [
        name
        for name in sorted({*after, *before["packages"]})
        if after.get(name) != before["packages"].get(name)
    ]
    SNAPSHOT.unlink()
    return {"changed": True, "says": f"not as before are {', '.join(wrong)}" if wrong else ""}


# -- actions -----------------------------------------------------------------------------------------------------------


def plan(asked: dict[str, Any]) -> dict[str, Any]:
    """What an installation would do."""
    orders, news, gone = transaction(asked)
    return {"changed": bool(news or gone), "orders": orders, "installs": news, "removes": gone}


def pin(asked: dict[str, Any]) -> dict[str, Any]:
    """The vendor's pin, in a transaction of its own: it has to be in force while apt looks for the driver."""
    pins = asked["packages"]["pin"]
    others = [name for name in installed() if name.startswith("nvidia-driver-pinning-") and name not in pins]
    if all(name in installed() for name in pins) and not others:
        return {"changed": False}
    must("apt does not install the pin", *APT, "install", *pins, *(f"{name}-" for name in others))
    if others:
        # Its preferences are configuration, which a removal leaves in force.
        must("dpkg does not purge the former pin", "dpkg", "--purge", *others)
    return {"changed": True}


def install(asked: dict[str, Any]) -> dict[str, Any]:
    """Everything in one transaction, in which no module is built, and then the modules."""
    purge_broken()
    orders, news, gone = transaction(asked)
    if news or gone:
        # Ordering a version makes a package count as asked for by hand, and then nothing takes it away again.
        automatic = set(run("apt-mark", "showauto")[1].split()) & {order.split("=")[0] for order in orders}
        with_no_build(lambda: must("apt does not install the driver", *APT, "install", *orders))
        mark("auto", automatic & set(installed()))
        residues = [name for name in gone if statuses().get(name, ("", ""))[1] == "config-files"]
        if residues:
            must("dpkg does not purge the former driver", "dpkg", "--purge", *residues)
    if asked["build"] == "dkms":
        build_modules(asked["kernels"])
    if left := broken():
        raise Failed(f"dpkg has left {', '.join(left)} half-way")
    return {"changed": True, "installs": news, "removes": gone}


def mark(what: str, names: Iterable[str]) -> None:
    """Hold packages, or let them go."""
    if listed := list(names):
        must(f"apt-mark {what} fails", "apt-mark", what, *listed)


def kernel_packages() -> list[str]:
    """What would bring another kernel, with no module built for it."""
    _status, said = run("dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${Depends}\n", "linux-*")
    rows = [line.split("\t") for line in said.splitlines() if line.count("\t") == 2]
    return [
        name
        for name, status, depends in rows
        if status == "installed"
        and KERNEL_META.match(name)
        and re.search(r"linux-(image|headers)-\d", depends)
    ]


def hold(asked: dict[str, Any]) -> dict[str, Any]:
    """Hold every package of the driver, not the meta packages alone: each of them can move by itself."""
    wanted = [name for name in installed() if ours(asked, name)]
    if asked["kernel_held"]:
        wanted += kernel_packages()
    held = holds()
    mine = json.loads(HOLDS.read_text(encoding="utf-8")) if HOLDS.exists() else []
    add = [name for name in wanted if name not in held]
    # What somebody else holds is not in our note, and stays.
    drop = [name for name in mine if name in held and name not in wanted]
    note = sorted(set(wanted) & ({*mine, *add}))
    changed = bool(add or drop)
    if asked["check"]:
        return {"changed": changed, "holds": add, "lets_go": drop}
    mark("hold", add)
    mark("unhold", drop)
    if note != mine:
        HOLDS.parent.mkdir(parents=True, exist_ok=True)
        HOLDS.write_text(json.dumps(note), encoding="utf-8")
    return {"changed": changed, "holds": add, "lets_go": drop}


ACTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "snapshot": snapshot,
    "plan": plan,
    "pin": pin,
    "install": install,
    "hold": hold,
    "restore": restore,
    "finish": finish,
}


def main() -> None:
    """Do it and print what came of it."""
    action, asked = sys.argv[1], json.loads(sys.argv[2])
    try:
        done = ACTIONS[action](asked)
    except Failed as problem:
        says = str(problem)
        if action in ("pin", "install"):
            left = restore(asked)["says"]
            says += f"\nThe machine was put back as it was{', but ' + left if left else ''}."
        done = {"ok": False, "changed": False, "says": says}
    print(json.dumps({"ok": True, "says": "", **done}))


if __name__ == "__main__":
    main()
