# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the GPUs of a host: its files, its programs, its packages. Changes nothing.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .._fleet.gpu import facts
from .._fleet.gpu.pci import PciGpu
from .._fleet.gpu.smi import SmiError, SmiLog, lost, parse
from . import gpu_files as files
from .gpu_programs import Ran, run

_SECONDS = 30.0
"""For programs that need no card and no network."""


def look(
    *,
    root: Path,
    system: Path = Path("/"),
    driver: bool = True,
    apt: bool = False,
    nvidia_smi: str = "nvidia-smi",
    seconds: float = 60.0,
) -> dict[str, Any]:
    """The facts.

    Args:
        root: where ``sys`` and ``proc`` are.
        system: where ``boot``, ``lib/modules`` and ``usr/lib`` are.
        driver: ask the driver and the packages, too.
        apt: also find out what apt would do next.
        nvidia_smi: the program.
        seconds: how long to wait for nvidia-smi, and for apt.
    """
    found: dict[str, Any] = {
        "pci": files.gpus(root),
        "simulated": files.simulated(root),
        "modules": files.modules(root),
        "running_kernel": files.running_kernel(root),
        "kernels": files.kernels(system),
        "secure_boot": files.secure_boot(root),
        "governors": files.governors(root),
        "asked": driver,
    }
    found["loaded_version"], found["loaded_flavour"] = files.loaded_module(root)
    found["libraries"], found["library"] = files.libraries(system)
    if not driver:
        return facts.facts(facts.Found(**{**found, "smi_says": "not asked"}))
    # Programs wait for disks and cards, not for each other.
    with ThreadPoolExecutor(max_workers=8) as pool:
        smi = pool.submit(_smi, nvidia_smi, found["pci"], seconds)
        modules = pool.submit(_on_disk, system, found["kernels"], found["running_kernel"])
        packages = pool.submit(_packages)
        dkms = pool.submit(run, ["dkms", "status"], _SECONDS)
        persistence = pool.submit(_persistence)
        next_run = pool.submit(_apt, seconds) if apt else None
        found["smi"], found["smi_says"], found["lost"], found["topology"], found["p2p"] = smi.result()
        found["on_disk"] = modules.result()
        found["packages"] = packages.result()
        found["dkms"] = facts.dkms(dkms.result().out)
        found["persistence"] = persistence.result()
        found["apt"] = next_run.result() if next_run else {}
    return facts.facts(facts.Found(**found))


def _smi(
    program: str, on_bus: list[PciGpu], seconds: float
) -> tuple[SmiLog | None, str, dict[str, str], list[dict[str, Any]], list[dict[str, Any]]]:
    """What the driver says of all cards; where one of them spoils the answer, what it says of each."""
    ran = run([program, "-q", "-x"], seconds)
    log, says = _parsed(ran)
    gone = lost(f"{ran.out}\n{ran.err}")
    if log is None and (gone or ran.status == 15) and len(on_bus) > 1:
        log, more = _one_by_one(program, [gpu.address for gpu in on_bus], seconds)
        gone |= more
    elif says == facts.OK and gone:
        says = ran.says
    topology: list[dict[str, Any]] = []
    p2p: list[dict[str, Any]] = []
    if log and len(log.gpus) > 1:
        topology = facts.pairs(run([program, "topo", "-m"], seconds).out, "link")
        p2p = facts.pairs(run([program, "topo", "-p2p", "r"], seconds).out, "read")
    return log, says, gone, topology, p2p


def _parsed(ran: Ran) -> tuple[SmiLog | None, str]:
    """The answer and ``ok``, or no answer and what is wrong."""
    if ran.status in (124, 126, 127):
        return None, ran.says
    try:
        log = parse(ran.out)
    except SmiError as problem:
        return None, ran.says if ran.status else str(problem)
    return log, facts.OK if ran.status == 0 else ran.says


def _one_by_one(program: str, addresses: list[str], seconds: float) -> tuple[SmiLog | None, dict[str, str]]:
    gone: dict[str, str] = {}
    logs: list[SmiLog] = []
    gpus: list[dict[str, Any]] = []
    for index, address in enumerate(addresses):
        ran = run([program, "-q", "-x", "-i", address], seconds)
        log, _why = _parsed(ran)
        if log:
            logs.append(log)
            # nvidia-smi counts cards in the order of their addresses; alone, each would be the first.
            gpus += [{**gpu, "index": index} for gpu in log.gpus]
        gone |= lost(f"{ran.out}\n{ran.err}")
    if not logs:
        return None, gone
    first = logs[0]
    return SmiLog(first.driver, first.cuda, None, first.simulated, tuple(gpus)), gone


def _on_disk(system: Path, kernels: list[str], running: str | None) -> dict[str, dict[str, str] | None]:
    """NVIDIA's module for each kernel, which need not be the one that is loaded."""
    wanted = [*kernels, *([running] if running and running not in kernels else [])]
    return {kernel: _module(system, kernel) for kernel in wanted}


def _module(system: Path, kernel: str) -> dict[str, str] | None:
    base = [] if system == Path("/") else ["-b", str(system)]
    # The name first: it is what modprobe is asked for, and Debian's packages make it an alias of the module they built.
    for name in dict.fromkeys(["nvidia", *files.module_names(system, kernel)]):
        ran = run(["modinfo", *base, "-k", kernel, name], _SECONDS)
        if ran.status == 0 and (module := facts.modinfo(ran.out)):
            return module
    return None


def _packages() -> dict[str, dict[str, Any]]:
    # Its status is 1 as soon as one pattern finds nothing.
    ran = run(
        ["dpkg-query", "--show", f"--showformat={facts.PACKAGE_FORMAT}", *facts.PACKAGE_PATTERNS], _SECONDS
    )
    native = run(["dpkg", "--print-architecture"], _SECONDS).out.strip() or "amd64"
    return facts.packages(ran.out, native)


def _persistence() -> dict[str, Any]:
    ran = run(
        ["systemctl", "show", "nvidia-persistenced.service", "--property=ActiveState,UnitFileState"], _SECONDS
    )
    told = dict(line.partition("=")[::2] for line in ran.out.splitlines())
    state = told.get("UnitFileState") or None
    return {
        "active": told.get("ActiveState") == "active",
        "enabled": state in ("enabled", "enabled-runtime"),
        "state": state,
    }


def _apt(seconds: float) -> Mapping[str, Any]:
    """What the next upgrade would do to the stack, and whether packages are broken now."""
    simulate = ["apt-get", "--simulate", "-o", "Debug::NoLocking=1", "-q"]
    audit = run(["dpkg", "--audit"], _SECONDS)
    broken = facts.audit(audit.out)
    change: dict[str, dict[str, str]] = {}
    remove: set[str] = set()
    for command in (["upgrade", "--with-new-pkgs"], ["dist-upgrade"]):
        ran = run([*simulate, *command], seconds)
        if ran.status:
            said = next((line for line in ran.err.splitlines() if line.startswith("E: ")), ran.says)
            broken.append(f"apt-get {command[0]}: {said.removeprefix('E: ')[:300]}")
            continue
        changes, removals = facts.apt_simulation(ran.out)
        change |= {entry["name"]: entry for entry in changes}
        remove |= set(removals)
    return {
        "checked": True,
        "broken": list(dict.fromkeys(broken)),
        "would_change": [change[name] for name in sorted(change)],
        "would_remove": sorted(remove),
    }
