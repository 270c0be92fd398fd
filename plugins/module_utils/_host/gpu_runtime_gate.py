# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that containers see every GPU, by each route, also after a daemon-reload. What it makes for that, it removes.

The daemon-reload is left out, and told as not proved, where it could take GPUs from other people's containers.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from .gpu_containers import UUID, ContainerError, Containers, Route, Run, last_line
from .gpu_programs import Ran

SPEC = Path("/var/run/cdi/nvidia.yaml")
OTHER_SPECS = "/etc/cdi/*"
CONFIG = Path("/etc/nvidia-container-runtime/config.toml")
LABEL = "gpumesh.gate.gpu"
"""On everything that is made here; its value is the process that made it."""
_SECONDS = 120.0
_REFRESH = "run 'systemctl restart nvidia-cdi-refresh', and see 'journalctl -u nvidia-cdi-refresh'"
# An image of somebody else's may have no more than a shell; it waits for a line that nobody writes.
_WAITS = ("/bin/sh", "-c", "read line")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was declared, and what gpu_info has found.

    Attributes:
        version: of the packages.
        packages: their names.
        gpus: each with ``model``, and ``count`` where it is more than one.
        docker_cdi: whether Docker itself reads the CDI specification.
        default_runtime: whether Docker gives every container the runtime.
        image: run by the containers; empty: one that is made of the machine's own shell.
        deferred: the driver comes up only at the next boot, so no container is run.
        gpu: what gpu_info returned.
    """

    version: str
    packages: Sequence[str]
    gpus: Sequence[Mapping[str, Any]]
    docker: bool
    docker_cdi: bool
    containerd: bool
    podman: bool
    default_runtime: bool
    image: str
    deferred: bool
    gpu: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """A route that the machine is to offer.

    Attributes:
        only: how many of the GPUs a container gets by it; all where this is zero.
    """

    route: Route
    engine: str
    only: int = 0


def reason(ran: Ran) -> str:
    """Why a container does not start: engines end with how to get help, and the error stands before it."""
    lines = f"{ran.out}\n{ran.err}".splitlines()
    return next((line.strip() for line in lines if "rror" in line), last_line(ran))


def ways(wanted: Wanted) -> list[Way]:
    """Those that the machine is to offer."""
    found = []
    runtime = ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all")
    every = "--device=nvidia.com/gpu=all"
    if wanted.docker:
        found.append(Way(Route("Docker with the runtime nvidia", runtime), "docker"))
        if wanted.docker_cdi:
            found.append(Way(Route("Docker with CDI", (every,)), "docker"))
            one = Route("Docker with CDI, one GPU", ("--device=nvidia.com/gpu=0",))
            found.append(Way(one, "docker", only=1))
        else:
            # Docker before 25 reads no specification, so the runtime does it in its stead.
            by_name = ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all")
            found.append(Way(Route("Docker with CDI names through the runtime", by_name), "docker"))
    if wanted.podman:
        # Podman waits ten seconds for a process that ignores SIGTERM, as the first one of a container does.
        options = (every, "--security-opt=label=disable", "--stop-signal=SIGKILL")
        found.append(Way(Route("Podman with CDI", options), "podman"))
    return found


class Gate:
    """The checks, one after the other.

    Args:
        run: runs a program.
        folder: where the archive of an image is put for a moment.

    Attributes:
        checks: each with ``name``, ``ok`` and ``says``: what is wrong and what to do about it.
        unproved: what could not be looked at, and is no failure for that; each with ``name`` and ``says``.
    """

    def __init__(self, wanted: Wanted, run: Run, folder: Path) -> None:
        self._wanted = wanted
        self._run = run
        self._folder = folder
        self.checks: list[dict[str, Any]] = []
        self.unproved: list[dict[str, str]] = []

    def evidence(self) -> dict[str, Any]:
        """Carry out all checks; what they found, with the versions and how many GPUs there are."""
        wanted = self._wanted
        there = self.packages()
        self.mode()
        if wanted.docker:
            self.daemon()
        if wanted.containerd:
            self.containerd()
        uuids: frozenset[str] = frozenset()
        if wanted.deferred:
            self.units()
        else:
            uuids = self.gpus()
            self.specification(uuids, str(wanted.gpu["driver"]["library"] or ""))
            if uuids:
                self.containers(uuids)
            else:
                says = "none was run, because the driver lists no GPU; mend the driver first"
                self._check("containers", False, says)
        versions = {"toolkit": there.get("nvidia-container-toolkit", "")}
        for engine, here in (("docker", wanted.docker), ("podman", wanted.podman)):
            found = re.search(r"version ([\w.+~-]+)", self._said(engine, "--version") if here else "")
            if found:
                versions[engine] = found[1]
        return {
            "checks": self.checks,
            "unproved": self.unproved,
            "versions": versions,
            "gpus": len(uuids),
            "simulated": bool(wanted.gpu.get("simulated")),
        }

    def _check(self, name: str, ok: bool, says: str) -> bool:
        self.checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})
        return bool(ok)

    def _ask(self, *command: str) -> Ran:
        return self._run(command, _SECONDS)

    def _said(self, *command: str) -> str:
        """Everything that a program says."""
        ran = self._ask(*command)
        return f"{ran.out}\n{ran.err}"

    def packages(self) -> dict[str, str]:
        """The four packages, in one version, held. The versions that are there."""
        names, version = self._wanted.packages, self._wanted.version
        listed = self._said("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n", *names)
        found = [line.split() for line in listed.splitlines()]
        there = {words[0]: words[2] for words in found if len(words) == 3 and words[1] == "installed"}
        differs = [
            f"{name} is {there.get(name, 'not installed')}" for name in names if there.get(name) != version
        ]
        self._check(
            "packages of the toolkit",
            not differs,
            f"{', '.join(differs)}, wanted is {version} for all four; run the role without '--tags gate'",
        )
        held = self._said("apt-mark", "showhold").split()
        loose = [name for name in names if name not in held]
        self._check(
            "held packages",
            not loose,
            f"the next upgrade may move {', '.join(loose)}; 'apt-mark hold {' '.join(loose)}', or run the role again",
        )
        return there

    def gpus(self) -> frozenset[str]:
        """Every GPU of the machine answers the driver. Their UUIDs, with those of MIG devices."""
        devices, smi = self._wanted.gpu["devices"], self._wanted.gpu["driver"]["smi"]
        for entry in self._wanted.gpus:
            count = int(entry.get("count", 1))
            there = sum(device["model"] == entry["model"] for device in devices)
            self._check(
                f"declared {entry['model']}",
                there >= count,
                f"{there} are in the machine and {count} are declared; look for the missing ones with 'lspci -d 10de:' and "
                "in the firmware, or correct the declaration",
            )
        self._check("GPUs on the PCI bus", bool(devices), "there is none; see 'lspci -d 10de:'")
        lost = [device for device in devices if device["state"] != "ok"]
        names = ", ".join(
            f"{device['pci_address']} ({device['model'] or device['pci_id']})" for device in lost
        )
        if smi != "ok" and len(lost) == len(devices):
            said = (str(smi).strip().splitlines() or ["it said nothing"])[-1]
            cause = f"nvidia-smi fails: {said}; mend the driver first (--tags nvidia-drivers)"
        else:
            cause = (
                f"the driver has lost {names} of {len(devices)}, so no container can see it; look for Xid lines in "
                "'journalctl -k', then power the machine off and on (a reboot is not always enough) and reseat the card"
            )
        self._check("every GPU answers the driver", not lost, cause)
        # With a lost card it fails, and lists the others.
        return frozenset(UUID.findall(self._said("nvidia-smi", "-L")))

    def specification(self, uuids: frozenset[str], version: str) -> None:
        """The CDI specification names what the driver has, and will be kept so."""
        text = SPEC.read_text(encoding="utf-8", errors="replace") if SPEC.exists() else ""
        if self._check("CDI specification", bool(text), f"there is no {SPEC}; {_REFRESH}"):
            named = set(UUID.findall(text))
            self._check(
                "CDI specification, devices",
                named == uuids and bool(uuids),
                f"it names {len(named)} devices, and the driver has {len(uuids)}, not the same; {_REFRESH}",
            )
            made_for = set(re.findall(r"/lib(?:nvidia-ml|cuda)\.so\.(\d+\.\d+[\d.]*)", text))
            self._check(
                "CDI specification, driver",
                bool(version) and made_for <= {version},
                f"it was made for driver {', '.join(sorted(made_for))}, and {version or 'none'} is there; {_REFRESH}",
            )
        for path in glob(OTHER_SPECS):
            if "nvidia.com/gpu" in Path(path).read_text(encoding="utf-8", errors="replace"):
                self._check(
                    "a single CDI specification",
                    False,
                    f"{path} speaks of nvidia.com/gpu, too, and nobody keeps it up to date; remove it",
                )
        self.units()

    def units(self) -> None:
        """What keeps the specification up to date."""
        for unit, states in (
            ("nvidia-cdi-refresh.path", ("ActiveState=active", "UnitFileState=enabled")),
            ("nvidia-cdi-refresh.service", ("UnitFileState=enabled",)),
        ):
            said = self._said("systemctl", "show", "--property=ActiveState,UnitFileState", unit).split()
            self._check(
                unit,
                all(state in said for state in states),
                f"it is not {' and '.join(state.split('=')[1] for state in states)} ({' '.join(said)}); "
                f"'systemctl reset-failed {unit}', then 'systemctl enable --now {unit}'",
            )

    def mode(self) -> None:
        """The runtime does not go behind the engine's back."""
        text = CONFIG.read_text(encoding="utf-8") if CONFIG.exists() else ""
        found = re.search(r'^\s*mode\s*=\s*"(\w[\w-]*)"', text, re.MULTILINE)
        self._check(
            "runtime mode",
            not found or found[1] != "legacy",
            "with the mode legacy, containers lose their GPUs at the next 'systemctl daemon-reload'; run the role, or "
            "'nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto'",
        )

    def daemon(self) -> None:
        """The running Docker daemon, not its file."""
        ran = self._ask("docker", "info", "--format", "{{json .}}")
        if not self._check(
            "Docker answers", ran.status == 0, f"{last_line(ran)}; see 'journalctl -u docker'"
        ):
            return
        info = json.loads(ran.out)
        restart = "restart it ('systemctl restart docker'), or run the role with gpu_runtime_restart_allowed"
        runtimes = info.get("Runtimes") or {}
        self._check(
            "runtime nvidia in Docker",
            "nvidia" in runtimes,
            f"the running daemon does not know it; {restart}",
        )
        if self._wanted.default_runtime:
            default = info.get("DefaultRuntime")
            self._check(
                "default runtime of Docker",
                default == "nvidia",
                f"it is {default}, declared is nvidia; {restart}",
            )
        if self._wanted.docker_cdi:
            folders = bool(info.get("CDISpecDirs"))
            self._check("CDI in Docker", folders, f"it is off in the running daemon; {restart}")

    def containerd(self) -> None:
        """The runtime in the configuration that containerd makes of all its files."""
        ran = self._ask("containerd", "config", "dump")
        if ran.status == 127:
            return
        self._check(
            "runtime nvidia in containerd",
            "nvidia-container-runtime" in f"{ran.out}\n{ran.err}",
            "its configuration has no runtime nvidia; see that /etc/containerd/config.toml imports /etc/containerd/conf.d/*.toml",
        )

    def containers(self, uuids: frozenset[str]) -> None:
        """Look into a container of every route, before and after systemd reads all its files again."""
        found = ways(self._wanted)
        running: list[tuple[Way, Containers, str]] = []
        engines: dict[str, Containers] = {}
        with ExitStack() as stack:
            for way in found:
                if way.engine not in engines:
                    made = Containers(self._run, self._folder, engine=way.engine, label=LABEL)
                    engines[way.engine] = stack.enter_context(made)
                    self._prepare(way.engine, made)
                made = engines[way.engine]
                try:
                    name = self._start(made, way.route)
                except ContainerError as problem:
                    why = reason(problem.ran) if problem.ran else str(problem)
                    self._check(way.route.name, False, f"the container does not start: {why}")
                    continue
                says = self._lacking(made, name, way, uuids)
                if self._check(way.route.name, not says, f"a container does not see every GPU: {says}"):
                    running.append((way, made, name))
            asked = engines.get("docker") or Containers(self._run, self._folder, label=LABEL)
            if others := asked.in_danger():
                self._leave_out_reload([way.route.name for way, _made, _name in running], others)
                return
            reload = self._ask("systemctl", "daemon-reload")
            for way, made, name in running:
                says = self._lacking(made, name, way, uuids)
                self._check(
                    f"{way.route.name}, after a daemon-reload",
                    not says and reload.status == 0,
                    f"a running container has lost its GPUs to 'systemctl daemon-reload': {says or last_line(reload)}; its "
                    "devices are not a part of its own configuration, see that the runtime's mode is auto or cdi and use CDI",
                )

    def _leave_out_reload(self, names: Sequence[str], others: Sequence[str]) -> None:
        """Say why nothing is known of what a daemon-reload does."""
        says = (
            f"not proved, because {', '.join(others)} {'has' if len(others) == 1 else 'have'} GPUs now and could lose them to the "
            "'systemctl daemon-reload' that this check makes; run '--tags gate' when no other container uses a GPU"
        )
        for name in names:
            entry = f"{name}, after a daemon-reload"
            self.unproved.append({"name": entry, "says": f"{entry}: {says}"})

    def _prepare(self, engine: str, made: Containers) -> None:
        """Make the image, unless one was given."""
        if self._wanted.image:
            return
        why = ""
        try:
            made.image()
        except ContainerError as problem:
            why = last_line(problem.ran) if problem.ran else str(problem)
        self._check(f"an image for {engine}", not why, f"none could be made: {why}")

    def _start(self, made: Containers, route: Route) -> str:
        if not self._wanted.image:
            return made.start(route)
        waiting = Route(route.name, ("--interactive", *route.options))
        return made.start(waiting, self._wanted.image, _WAITS, fetched=True)

    def _lacking(self, made: Containers, name: str, way: Way, uuids: frozenset[str]) -> str:
        """What a container does not see, in words; empty: it sees what it is to see."""
        look = made.look(name)
        right = len(look.uuids) == way.only and look.uuids <= uuids if way.only else look.uuids == uuids
        if right and not look.problem:
            return ""
        return f"it sees {len(look.uuids)} of {way.only or len(uuids)} and says: {look.says}"
