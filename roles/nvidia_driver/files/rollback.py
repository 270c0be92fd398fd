# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what was installed of the driver before each change, and go back to it or to no driver at all. As root.

usage: python3 - ACTION '{"files": [...], "to": "previous", "root": "/", ...}' < rollback.py

    note       before the first change: what there is
    settle     after the gate: what there is now, and what came with it
    plan       what going back would do, and every reason why it cannot be done; changes nothing
    prepare    put the repositories of then back and fetch the packages
    abandon    undo 'prepare'
    swap       exchange the packages in one transaction, then files, holds and marks; goes on where it was interrupted
    leftovers  what is still there of a driver, on a machine that is to have none

Prints one JSON object.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MEMORY = Path("/var/lib/gpumesh/nvidia_driver")
HISTORY = MEMORY / "history.json"
# What the installation notes there, and what it has built on trial.
HOLDS, TRIAL, SNAPSHOT = MEMORY / "holds.json", MEMORY / "trial", MEMORY / "before.json"
# A copy of apt's world, in which the repositories of then are tried. Not in /run: package lists are big.
SCRATCH = Path("/var/cache/gpumesh-nvidia-driver-rollback")
UNITS = Path("/etc/systemd/system")
DKMS, SOURCES, MODULES = Path("/var/lib/dkms"), Path("/usr/src"), Path("/lib/modules")
NO_BUILD = Path("/etc/dkms/no-autoinstall")
NO_BUILD_TEXT = (
    "The role nvidia_driver of gpumesh.fleet goes back to another driver; it builds the modules itself.\n"
)
KEPT = 10
TUNING = "gpumesh-gpu-tuning.service"
# The driver and CUDA, whatever suffix; the container toolkit is another layer's.
FAMILY = re.compile(
    r"(?!(lib)?nvidia-container)((lib)?nvidia-|libcuda1$|cuda(-|$)|libcudnn|cudnn|libnv(cuvid|fatbin|idia|jitlink|jpeg|optix)"
    r"|lib(cublas|cufft|cufile|curand|cusolver|cusparse|npp)[-\d]|gds-tools-|nsight-"
    r"|linux-(modules|objects|signatures)-nvidia-|firmware-nvidia-|xserver-xorg-video-nvidia)"
)
DRIVER = re.compile(r"(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)(?![\d.])")
MAIN = re.compile(r"libnvidia-(compute|ml1)|libcuda1$|nvidia-(utils|smi)")
READY = ("installed", "config-files", "not-installed")
LOADED = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia")
APT = (
    "apt-get",
    "--quiet=2",
    "--yes",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=3",
    "--allow-change-held-packages",
    "--allow-downgrades",
)
Asked = dict[str, Any]
Answer = dict[str, Any]
State = dict[str, Any]


class Failed(Exception):
    """What went wrong, and what to do about it."""


def run(*command: str, seconds: int = 3600) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    quiet = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "PATH": path}
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
            env={**os.environ, **quiet},
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {seconds} seconds"
    return done.returncode, done.stdout


def must(what: str, *command: str) -> str:
    """Run a command that has to succeed."""
    status, said = run(*command)
    if status != 0:
        raise Failed(
            f"{what}: {' / '.join([line.strip() for line in said.splitlines() if line.strip()][-6:])}"
        )
    return said


def now_text() -> str:
    """The time as it is noted."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- what there is -----------------------------------------------------------------------------------------------------


def statuses() -> dict[str, tuple[str, str]]:
    """Version and status of every package that dpkg knows."""
    _status, said = run("dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${db:Status-Status}\\n")
    rows = (line.split("\t") for line in said.splitlines() if line.count("\t") == 2)
    return {name: (version, status) for name, version, status in rows}


def installed() -> dict[str, str]:
    """The version of every installed package."""
    return {name: version for name, (version, status) in statuses().items() if status == "installed"}


def family(packages: dict[str, str]) -> dict[str, str]:
    """Those of the driver."""
    return {name: version for name, version in packages.items() if FAMILY.match(name)}


def driver_of(packages: dict[str, str]) -> str:
    """The driver's version; empty where there is none."""
    for name, version in sorted(packages.items()):
        found = DRIVER.match(version)
        if found and MAIN.match(name):
            return found[1]
    return ""


def kept(path: str) -> dict[str, Any] | None:
    """A file as it is; None where there is none."""
    place = Path(path)
    if place.is_symlink():
        return {"link": str(place.readlink())}
    if not place.is_file():
        return None
    return {"content": base64.b64encode(place.read_bytes()).decode(), "mode": place.stat().st_mode & 0o7777}


def put(path: str, was: dict[str, Any] | None) -> bool:
    """Make a file as it was; whether that changed anything."""
    if kept(path) == was:
        return False
    place = Path(path)
    place.unlink(missing_ok=True)
    if was is None:
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    if "link" in was:
        place.symlink_to(was["link"])
        return True
    place.write_bytes(base64.b64decode(was["content"]))
    place.chmod(was["mode"])
    return True


def look(asked: Asked, by: str) -> State:
    """Everything of the machine that a way back needs."""
    packages = installed()
    manual = set(run("apt-mark", "showmanual")[1].split())
    held = run("apt-mark", "showhold")[1].split()
    return {
        "at": now_text(),
        "by": by,
        "driver": driver_of(packages),
        "packages": family(packages),
        "manual": sorted(manual & set(family(packages))),
        # What other layers hold, such as the container toolkit, comes and goes without the driver.
        "holds": sorted(name for name in held if FAMILY.match(name) or name.startswith("linux-")),
        "files": {path: kept(path) for path in [*asked["files"], str(HOLDS)]},
    }


def load() -> dict[str, Any]:
    """The history; a new one where there is none."""
    if HISTORY.exists():
        found: dict[str, Any] = json.loads(HISTORY.read_text(encoding="utf-8"))
        return found
    return {"format": 1, "states": [], "came": [], "open": None, "going": None}


def save(history: dict[str, Any]) -> None:
    """In one step, so that a killed run leaves the old or the new one. The files in it may hold what only root may read."""
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    states = history["states"]
    history["states"] = states if len(states) <= KEPT else [states[0], *states[1 - KEPT :]]
    new = HISTORY.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    new.replace(HISTORY)


def same(one: State, other: State) -> bool:
    """Whether two states have the same packages of the driver."""
    return bool(one["packages"] == other["packages"])


def note(asked: Asked) -> Answer:
    """What there is before a change, unless it is what an interrupted change has left."""
    history, present = load(), look(asked, "found")
    states = history["states"]
    if history["open"] and not (states and same(states[-1], present)):
        return {"changed": False}
    if not states or not same(states[-1], present):
        states.append(present)
    history["open"] = {"at": present["at"], "all": sorted(installed())}
    save(history)
    return {"changed": True}


def settle(asked: Asked) -> Answer:
    """What there is after a change that was proved."""
    history, present = load(), look(asked, "run")
    states, opened = history["states"], history["open"]
    before = json.dumps(history, sort_keys=True)
    if opened:
        history["came"] = sorted({*history["came"], *(set(installed()) - set(opened["all"]))})
    if states and same(states[-1], present):
        states[-1] = {**present, "at": states[-1]["at"], "by": states[-1]["by"]}
    else:
        states.append(present)
    history["open"] = history["going"] = None
    changed = json.dumps(history, sort_keys=True) != before
    if changed:
        save(history)
    return {"changed": changed}


# -- where to ----------------------------------------------------------------------------------------------------------


def nothing(history: dict[str, Any], asked: Asked) -> State:
    """The state of a machine with no driver of ours."""
    paths = {*asked["files"], str(HOLDS), *(path for state in history["states"] for path in state["files"])}
    mine = json.loads(HOLDS.read_text(encoding="utf-8")) if HOLDS.exists() else []
    held = set(run("apt-mark", "showhold")[1].split())
    return {
        "at": "",
        "by": "",
        "driver": "",
        "packages": {},
        "manual": [],
        "holds": sorted(held - set(mine)),
        "files": dict.fromkeys(sorted(paths)),
    }


def target(history: dict[str, Any], asked: Asked, present: State) -> tuple[State | None, str]:
    """The state to go back to; or None, and why there is nothing to do. Failed where nothing is known."""
    states, going, to = history["states"], history["going"], asked["to"]
    if to != "previous":
        return nothing(history, asked), ""
    if not states and not present["packages"]:
        return None, "this machine has no driver, and none is recorded"
    if going and going["to"] == to:
        return dict(going["target"]), ""
    if states and states[-1]["by"] == "previous" and same(states[-1], present):
        what = states[-1]["driver"] or "no driver"
        return (
            None,
            f"this machine went back to {what} on {states[-1]['at']}, and still has it; 'none' goes further",
        )
    for state in reversed(states):
        if not same(state, present):
            return state, ""
    raise Failed(
        "no other driver than the present one is recorded on this machine, so there is none to go back to; 'none' removes "
        "the driver, nvidia_driver_version of the role installs the one you name"
    )


# -- apt ---------------------------------------------------------------------------------------------------------------


def try_out(state: State) -> tuple[str, ...]:
    """Options that give apt the repositories and preferences of then, with package lists of now."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(mode=0o755, parents=True)
    shutil.copytree("/etc/apt", SCRATCH / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (SCRATCH / "cache").mkdir()
    shutil.copytree(
        "/var/lib/apt/lists", SCRATCH / "lists", ignore=shutil.ignore_patterns("lock", "partial", "auxfiles")
    )
    (SCRATCH / "lists" / "partial").mkdir()
    for path, was in state["files"].items():
        if path.startswith("/etc/apt/"):
            place = SCRATCH / "etc" / path.removeprefix("/etc/apt/")
            put(str(place), was)
            if was and place.suffix in (".sources", ".list"):
                text = place.read_text(encoding="utf-8").replace(
                    "/etc/apt/keyrings/", f"{SCRATCH}/etc/keyrings/"
                )
                place.write_text(text, encoding="utf-8")
    return (
        f"--option=Dir::Etc={SCRATCH}/etc",
        f"--option=Dir::State::lists={SCRATCH}/lists",
        f"--option=Dir::Cache={SCRATCH}/cache",
        without_holds(),
    )


def without_holds() -> str:
    """An option that gives apt a copy of dpkg's notes as they are going to be when it is asked in earnest.

    Without holds of the driver: with them it finds no way, whatever it is allowed to change. And without packages of the
    driver that a killed run has left half-way: nothing can be done with apt before they are gone.
    """
    SCRATCH.mkdir(mode=0o755, parents=True, exist_ok=True)
    entries = []
    for entry in (
        Path("/var/lib/dpkg/status").read_text(encoding="utf-8", errors="surrogateescape").split("\n\n")
    ):
        name = entry.split("\n", 1)[0].removeprefix("Package: ")
        state = re.search(r"^Status: (\S+) \S+ (\S+)$", entry, re.MULTILINE)
        if FAMILY.match(name) and state:
            if state[2] not in READY:
                continue
            entry = entry.replace(state[0], state[0].replace("Status: hold ", "Status: install ", 1), 1)
        entries.append(entry)
    copy = SCRATCH / "status"
    copy.write_text("\n\n".join(entries), encoding="utf-8", errors="surrogateescape")
    return f"--option=Dir::State::status={copy}"


def offered(options: tuple[str, ...], names: Iterable[str]) -> dict[str, list[str]]:
    """Every version of each package that a repository has."""
    found: dict[str, list[str]] = {}
    for line in run("apt-cache", *options, "madison", *names)[1].splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[2].endswith("Packages"):
            found.setdefault(parts[0], []).append(parts[1])
    return found


def orders(present: State, wanted: State) -> tuple[list[str], list[str]]:
    """What apt is to install, each with its version, and what to remove, of the driver."""
    have, want = present["packages"], wanted["packages"]
    news = [f"{name}={version}" for name, version in sorted(want.items()) if have.get(name) != version]
    return news, sorted(set(have) - set(want))


def spare(history: dict[str, Any], gone: list[str]) -> list[str]:
    """What came with the driver and is needed by nothing else once it has gone; apt says so, in a copy of its notes."""
    present = installed()
    came = [name for name in history["came"] if name in present and not FAMILY.match(name)]
    if not came:
        return []
    SCRATCH.mkdir(mode=0o755, parents=True, exist_ok=True)
    marks = SCRATCH / "extended_states"
    original = Path("/var/lib/apt/extended_states")
    marks.write_bytes(original.read_bytes() if original.exists() else b"")
    option = f"--option=Dir::State::extended_states={marks}"
    must("apt-mark fails", "apt-mark", option, "auto", *came)
    said = must(
        "apt finds no way to remove the driver",
        *APT,
        option,
        "--option=APT::Protect-Kernels=false",
        "--option=APT::AutoRemove::SuggestsImportant=false",
        without_holds(),
        "--simulate",
        "--auto-remove",
        "purge",
        *gone,
    )
    # A kernel that came with its headers may be the one that runs.
    return sorted({name for name in removed(said) if name in came and not name.startswith("linux-image-")})


def removed(said: str) -> list[str]:
    """What a simulation would remove."""
    return re.findall(r"^(?:Remv|Purg) (\S+)", said, re.MULTILINE)


def foreign(said: str, mine: Iterable[str]) -> list[str]:
    """What would be removed and is none of ours."""
    listed = set(mine)
    return sorted(name for name in removed(said) if not FAMILY.match(name) and name not in listed)


def residues() -> list[str]:
    """Packages of the driver that are gone but for their configuration, or were left half-way."""
    ready = ("installed", "not-installed")
    return sorted(
        name for name, (_v, status) in statuses().items() if FAMILY.match(name) and status not in ready
    )


# -- what packages leave behind ----------------------------------------------------------------------------------------


def owned(path: Path) -> bool:
    """Whether a package has this file; also by its name before /lib became a link to /usr/lib."""
    other = (
        Path(str(path).removeprefix("/usr"))
        if str(path).startswith("/usr/lib/")
        else Path("/usr", str(path)[1:])
    )
    return any(run("dpkg-query", "-S", str(name))[0] == 0 for name in (path, other))


def trees(versions: set[str]) -> list[tuple[str, str]]:
    """What DKMS knows of the driver in other versions than these."""
    found = set()
    for conf in [*SOURCES.glob("nvidia*/dkms.conf"), *DKMS.glob("nvidia*/*/source/dkms.conf")]:
        name, version = (
            conf.parent.name.rsplit("-", 1)
            if conf.is_relative_to(SOURCES)
            else (conf.parts[-4], conf.parts[-3])
        )
        found.add((name, version))
    for place in DKMS.glob("nvidia*/[0-9]*"):
        found.add((place.parent.name, place.name))
    return sorted(pair for pair in found if pair[1] not in versions)


def dangling() -> list[Path]:
    """Links that enable a unit of the driver that is gone."""
    return sorted(link for link in UNITS.glob("*.wants/nvidia-*") if link.is_symlink() and not link.exists())


def strays(versions: set[str]) -> list[Path]:
    """Modules that no package and no DKMS has."""
    if versions:
        return []
    places = [path for folder in MODULES.glob("*/updates") for path in folder.rglob("nvidia*.ko*")]
    return sorted(path for path in places if not owned(path))


def clean(versions: set[str]) -> list[str]:
    """Remove what is left in DKMS and below /usr/src of other versions; what was removed."""
    gone = []
    for name, version in trees(versions):
        run("dkms", "remove", "-m", name, "-v", version, "--all")
        shutil.rmtree(DKMS / name / version, ignore_errors=True)
        if (DKMS / name).is_dir() and not [path for path in (DKMS / name).iterdir() if path.is_dir()]:
            shutil.rmtree(DKMS / name)
        source = SOURCES / f"{name}-{version}"
        if source.is_dir() and not owned(source):
            shutil.rmtree(source)
        gone.append(f"{name}/{version}")
    kernels = set()
    for path in strays(versions):
        path.unlink()
        kernels.add(path.relative_to(MODULES).parts[0])
        gone.append(str(path))
    for kernel in kernels:
        run("depmod", kernel)
    if not versions:
        for link in dangling():
            link.unlink()
    return gone


def build_modules(kernels: list[str]) -> None:
    """Have DKMS install the module for every kernel, as the trial has built it, or built now."""
    if shutil.which("dkms") is None:
        return
    for conf in sorted(SOURCES.glob("nvidia*/dkms.conf")):
        name, version = conf.parent.name.rsplit("-", 1)
        run("dkms", "add", "-m", name, "-v", version)
        for kernel in kernels:
            tried, place = TRIAL / "dkms" / name / version / kernel, DKMS / name / version / kernel
            if tried.is_dir() and not place.exists():
                shutil.copytree(tried, place, symlinks=True)
            must(
                f"DKMS does not install {name} {version} for the kernel {kernel}",
                "dkms", "install", "-m", name, "-v", version, "-k", kernel,
            )  # fmt: skip


def with_no_build(action: Callable[[], Any]) -> None:
    """Do something while dpkg builds no modules: a build that fails inside of dpkg leaves apt broken."""
    made = shutil.which("dkms") is not None and not NO_BUILD.exists()
    if made:
        NO_BUILD.parent.mkdir(parents=True, exist_ok=True)
        NO_BUILD.write_text(NO_BUILD_TEXT, encoding="utf-8")
    try:
        action()
    finally:
        # Also one that a killed run has left, but none of the administrator's.
        if NO_BUILD.exists() and NO_BUILD.read_text(encoding="utf-8") == NO_BUILD_TEXT:
            NO_BUILD.unlink()


def unload(root: Path) -> str:
    """Take the module out of the running kernel; why that cannot be, or nothing."""
    listed = root / "proc/modules"
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    loaded = [line.split()[0] for line in text.splitlines()]
    if "nvidia" not in loaded:
        return ""
    run("systemctl", "stop", "nvidia-persistenced.service")
    for name in LOADED:
        if name in loaded and run("rmmod", name)[0] != 0:
            return f"the module {name} is in use and stays loaded until the machine is rebooted"
    return ""


# -- actions -----------------------------------------------------------------------------------------------------------


def steps(present: State, wanted: State, news: list[str], gone: list[str], extra: list[str]) -> list[str]:
    """What going back does, a line each."""
    have = present["packages"]
    said = []
    for order in news:
        name, version = order.split("=", 1)
        said.append(f"install {name} {version}" + (f" in the place of {have[name]}" if name in have else ""))
    said += [f"remove {name} {have[name]}" for name in gone]
    said += [f"remove {name}, which came with the driver" for name in extra]
    for path, was in wanted["files"].items():
        if kept(path) != was and path != str(HOLDS):
            said.append(f"{'restore' if was else 'remove'} {path}")
    return said


def mine(history: dict[str, Any], present: State, wanted: State) -> set[str]:
    """Packages whose holds and marks are ours to change."""
    noted = set(json.loads(HOLDS.read_text(encoding="utf-8"))) if HOLDS.exists() else set()
    was = wanted["files"].get(str(HOLDS))
    then = set(json.loads(base64.b64decode(was["content"]))) if was else set()
    return {*noted, *then, *history["came"], *present["packages"], *wanted["packages"]}


def plan(asked: Asked) -> Answer:
    """Everything that can be known before the first change."""
    history, present = load(), look(asked, "found")
    wanted, why = target(history, asked, present)
    if wanted is None:
        return {
            "needed": False,
            "steps": [],
            "says": why,
            "driver": present["driver"],
            "packages": sorted(present["packages"]),
            "held": sorted(set(present["packages"]) & set(present["holds"])),
            "tuned": False,
        }
    news, gone = orders(present, wanted)
    try:
        extra = [] if wanted["packages"] else spare(history, gone)
        if news or gone or extra:
            check(wanted, news, gone, extra)
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    said = steps(present, wanted, news, gone, extra)
    # What goes with its package needs no line of its own.
    other = [] if wanted["packages"] or gone else leftovers(asked)["left"]
    going = bool(history["going"])
    # A package of the module in another version has to be compiled first, to see that it can be.
    module = [
        order
        for order in news
        if re.match(r"nvidia-(dkms|kernel|open-kernel)[^=]*=", order) and "dkms" in order
    ]
    return {
        "needed": bool(said or other or going),
        "steps": said + [f"remove {what}" for what in other if f"remove {what}" not in said],
        "says": "",
        "driver": wanted["driver"],
        "at": wanted["at"],
        "packages": sorted(wanted["packages"]),
        "held": sorted(set(wanted["packages"]) & set(wanted["holds"])),
        "tuned": wanted["files"].get(asked.get("unit", "")) is not None,
        "trial": module[0] if module else "",
    }


def check(wanted: State, news: list[str], gone: list[str], extra: list[str]) -> None:
    """Refuse what apt could not do, or would do to others."""
    if news:
        options = try_out(wanted)
        status, said = run(*APT, *options, "update")
        have = offered(options, [order.split("=")[0] for order in news])
        lost = [order for order in news if order.split("=", 1)[1] not in have.get(order.split("=")[0], [])]
        if lost:
            name = lost[0].split("=")[0]
            instead = f"; of {name} there is {', '.join(have[name])}" if have.get(name) else ""
            broken = (
                f" ('apt-get update' said: {' / '.join(said.strip().splitlines()[-2:])})" if status else ""
            )
            raise Failed(
                f"{wanted['driver'] or 'what was there before'} can no longer be had: no repository offers "
                f"{', '.join(lost)}{instead}{broken}. Nothing was changed. 'none' needs no download; the role installs what "
                "nvidia_driver_version names"
            )
        said = must(
            "apt finds no way back, and nothing was changed",
            *APT, *options, "--simulate", "install", *news, *(f"{name}-" for name in gone),
        )  # fmt: skip
    else:
        said = must(
            "apt finds no way to remove it", *APT, without_holds(), "--simulate", "purge", *gone, *extra
        )
    others = foreign(said, extra)
    if others:
        raise Failed(
            f"apt would also remove {', '.join(others)}, which need what would go; nothing was changed. Remove them first, "
            "if that is meant"
        )


def prepare(asked: Asked) -> Answer:
    """Everything that can fail for want of a network, with the machine's packages untouched."""
    history, present = load(), look(asked, "found")
    wanted, _why = target(history, asked, present)
    if wanted is None:
        return {"changed": False}
    if not history["going"] or history["going"]["to"] != asked["to"]:
        history["going"] = {
            "to": asked["to"],
            "at": now_text(),
            "target": wanted,
            "from": present["files"],
            "all": sorted(installed()),
        }
        save(history)
    news, gone = orders(present, wanted)
    if not news:
        return {"changed": False}
    for path, was in wanted["files"].items():
        if path.startswith("/etc/apt/") and was is not None:
            put(path, was)
    try:
        must("the package lists cannot be fetched", *APT, "update")
        must(
            "the packages cannot be fetched",
            *APT,
            "--download-only",
            "install",
            *news,
            *(f"{name}-" for name in gone),
        )
    except Failed:
        abandon(asked)
        raise
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    return {"changed": True}


def abandon(_asked: Asked) -> Answer:
    """The repositories of now again; the packages were not touched."""
    history = load()
    if history["going"]:
        for path, was in history["going"]["from"].items():
            if path.startswith("/etc/apt/"):
                put(path, was)
        history["going"] = None
        save(history)
    return {"changed": True}


def swap(asked: Asked) -> Answer:
    """The change itself. Each step does only what is not done yet, so that a killed run can be run again."""
    history, present = load(), look(asked, "found")
    wanted, _why = target(history, asked, present)
    if wanted is None:
        return {"changed": False, "says": ""}
    news, gone = orders(present, wanted)
    says = "" if wanted["packages"] else unload(Path(asked["root"]))
    interrupted()
    try:
        extra = [] if wanted["packages"] else spare(history, gone)
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    held = sorted(
        set(run("apt-mark", "showhold")[1].split()) & {*gone, *(order.split("=")[0] for order in news)}
    )
    if held:
        # They come back with the marks; apt would find no way with them.
        must("apt-mark unhold fails", "apt-mark", "unhold", *held)
    if news:
        command = ("install", *news, *(f"{name}-" for name in gone))
        with_no_build(lambda: must("apt does not exchange the packages", *APT, *command))
    elif gone or extra:
        must("apt does not remove the packages", *APT, "purge", *gone, *extra)
    left = [name for name in residues() if name not in wanted["packages"]]
    if not wanted["packages"]:
        # A killed run may have removed them and not purged yet.
        left += [
            name
            for name in history["came"]
            if statuses().get(name, ("", ""))[1] == "config-files" and name not in left
        ]
    if left:
        must("dpkg does not purge what was removed", "dpkg", "--purge", *left)
    if wanted["packages"]:
        build_modules(asked["kernels"])
    mark(history, present, wanted)
    refresh([path for path, was in wanted["files"].items() if put(path, was)])
    clean({match[1] for version in wanted["packages"].values() if (match := DRIVER.match(version))})
    shutil.rmtree(TRIAL, ignore_errors=True)
    SNAPSHOT.unlink(missing_ok=True)
    finish(history, asked)
    return {"changed": True, "says": says}


def interrupted() -> None:
    """Have dpkg end what a killed run has left half-way; apt does nothing before."""
    halves = [name for name, (_v, status) in statuses().items() if FAMILY.match(name) and status not in READY]
    if halves:
        run("dpkg", "--purge", "--force-remove-reinstreq", "--force-depends", *halves)
    if halves or any(Path("/var/lib/dpkg/updates").glob("[0-9]*")):
        with_no_build(lambda: run("dpkg", "--configure", "-a"))


def mark(history: dict[str, Any], present: State, wanted: State) -> None:
    """Holds and marks as they were, of our packages only."""
    ours, here = mine(history, present, wanted), set(installed())
    held = set(run("apt-mark", "showhold")[1].split())
    then = set(wanted["holds"])
    for word, names in (("unhold", (held - then) & ours), ("hold", (then - held) & ours & here)):
        if names:
            must(f"apt-mark {word} fails", "apt-mark", word, *sorted(names))
    driver = set(wanted["packages"]) & here
    for word, names in (("manual", driver & set(wanted["manual"])), ("auto", driver - set(wanted["manual"]))):
        if names:
            must(f"apt-mark {word} fails", "apt-mark", word, *sorted(names))


def refresh(changed: list[str]) -> None:
    """Let those that read the files take them up; folders of ours that are empty now go."""
    for folder in {Path(path).parent for path in changed}:
        ours = folder.name in (
            "gpumesh",
            "nvidia-persistenced.service.d",
            "nvidia-persistenced.service.wants",
        )
        if ours and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if any(path.startswith("/etc/systemd/") for path in changed):
        run("systemctl", "daemon-reload")
        if not (UNITS / TUNING).exists():
            run("systemctl", "stop", TUNING)
            run("systemctl", "reset-failed", TUNING)
    if any(path.startswith("/etc/modprobe.d/") for path in changed) and shutil.which("update-initramfs"):
        must("the initial file systems cannot be made anew", "update-initramfs", "-u", "-k", "all")
    if any(path.startswith("/etc/apt/sources.list.d/") for path in changed):
        # So that nothing of a removed repository stays in the lists. Without a network this is for another time.
        run(*APT, "update")


def finish(history: dict[str, Any], asked: Asked) -> None:
    """Write down that the machine is there; a purge leaves no note."""
    # Its package starts it where there is no driver, and systemd remembers the failure of a unit that is gone.
    if not Path("/usr/lib/systemd/system/nvidia-persistenced.service").exists():
        run("systemctl", "reset-failed", "nvidia-persistenced.service")
    if asked["to"] == "absent":
        shutil.rmtree(MEMORY, ignore_errors=True)
        for folder in (MEMORY.parent,):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return
    before = (history["going"] or {}).get("all")
    history["states"].append(look(asked, asked["to"]))
    history["open"] = history["going"] = None
    if asked["to"] == "none":
        history["came"] = []
    elif before:
        history["came"] = sorted({*history["came"], *(set(installed()) - set(before))})
    save(history)


def leftovers(asked: Asked) -> Answer:
    """What is still there of a driver."""
    present = family(installed())
    left = [f"the package {name} {version}" for name, version in sorted(present.items())]
    left += [f"the configuration of {name}" for name in residues()]
    left += [path for path in [*asked["files"], str(HOLDS)] if kept(path) is not None]
    left += [f"{name} {version} in DKMS" for name, version in trees(set())]
    left += [str(path) for path in [*strays(set()), *dangling()]]
    if asked["to"] == "absent" and MEMORY.exists():
        left.append(str(MEMORY))
    return {"left": left}


ACTIONS: dict[str, Callable[[Asked], Answer]] = {
    "note": note,
    "settle": settle,
    "plan": plan,
    "prepare": prepare,
    "abandon": abandon,
    "swap": swap,
    "leftovers": leftovers,
}


def main() -> None:
    """Do it and print what came of it."""
    action, asked = sys.argv[1], json.loads(sys.argv[2])
    try:
        done = {"ok": True, "says": "", **ACTIONS[action](asked)}
    except Failed as problem:
        again = "; run it again, it goes on from there" if action == "swap" else ""
        done = {
            "ok": False,
            "changed": action == "swap",
            "needed": False,
            "steps": [],
            "says": f"{problem}{again}.",
        }
    print(json.dumps(done))


if __name__ == "__main__":
    main()
