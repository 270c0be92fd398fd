# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that containers see every GPU, by each route, also after a daemon-reload. What it makes for that, it removes.

usage: python3 - '{"gpu": {...}, "gpus": [...], "docker": true, ...}' < gate.py

The image of the containers holds the machine's shell, loader and C library and nothing of NVIDIA's, so whatever of a GPU is
seen in a container was put there by the runtime.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

MARK = f"gpumesh-gate-gpu-{os.getpid()}"
SPEC = Path("/var/run/cdi/nvidia.yaml")
OTHER_SPECS = "/etc/cdi/*"
CONFIG = Path("/etc/nvidia-container-runtime/config.toml")
UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
# Every GPU is listed, and every node can be opened: what a container lost is listed on, but cannot be opened.
LOOK = (
    "nvidia-smi -L; "
    'for node in /dev/nvidia[0-9]*; do : <"$node" || { echo "$node cannot be opened"; exit 1; }; done'
)
REFRESH = "run 'systemctl restart nvidia-cdi-refresh', and see 'journalctl -u nvidia-cdi-refresh'"

checks: list[dict[str, Any]] = []


def check(name: str, ok: bool, says: str) -> bool:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})
    return bool(ok)


def run(*command: str, stdin: bytes | None = None) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    environment = {**os.environ, "LC_ALL": "C", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            command, input=stdin, check=False, capture_output=True, timeout=120, env=environment
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within 120 seconds"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def last_line(text: str) -> str:
    """What a program said last, which is its reason where it failed."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def reason(text: str) -> str:
    """Why a container does not start: engines end with how to get help, and the error stands before it."""
    return next((line.strip() for line in text.splitlines() if "rror" in line), last_line(text))


def packages(wanted: dict[str, Any]) -> dict[str, str]:
    """The four packages, in one version, held."""
    _status, said = run(
        "dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n", *wanted["packages"]
    )
    found = [line.split() for line in said.splitlines()]
    there = {words[0]: words[2] for words in found if len(words) == 3 and words[1] == "installed"}
    differs = [
        f"{name} is {there.get(name, 'not installed')}"
        for name in wanted["packages"]
        if there.get(name) != wanted["version"]
    ]
    check(
        "packages of the toolkit",
        not differs,
        f"{', '.join(differs)}, wanted is {wanted['version']} for all four; run the role without '--tags gate'",
    )
    _status, said = run("apt-mark", "showhold")
    loose = [name for name in wanted["packages"] if name not in said.split()]
    check(
        "held packages",
        not loose,
        f"the next upgrade may move {', '.join(loose)}; 'apt-mark hold {' '.join(loose)}', or run the role again",
    )
    return there


def gpus(wanted: dict[str, Any]) -> set[str]:
    """Every GPU of the machine answers the driver. Their UUIDs, with those of MIG devices."""
    gpu = wanted["gpu"]
    devices, smi = gpu["devices"], gpu["driver"]["smi"]
    for entry in wanted["gpus"]:
        count = int(entry.get("count", 1))
        there = sum(device["model"] == entry["model"] for device in devices)
        check(
            f"declared {entry['model']}",
            there >= count,
            f"{there} are in the machine and {count} are declared; look for the missing ones with 'lspci -d 10de:' and in "
            "the firmware, or correct the declaration",
        )
    check("GPUs on the PCI bus", bool(devices), "there is none; see 'lspci -d 10de:'")
    lost = [device for device in devices if device["state"] != "ok"]
    names = ", ".join(f"{device['pci_address']} ({device['model'] or device['pci_id']})" for device in lost)
    if smi != "ok" and len(lost) == len(devices):
        cause = f"nvidia-smi fails: {last_line(str(smi))}; mend the driver first (--tags nvidia-drivers)"
    else:
        cause = (
            f"the driver has lost {names} of {len(devices)}, so no container can see it; look for Xid lines in "
            "'journalctl -k', then power the machine off and on (a reboot is not always enough) and reseat the card"
        )
    check("every GPU answers the driver", not lost, cause)
    # With a lost card it fails, and lists the others.
    _status, said = run("nvidia-smi", "-L")
    return set(UUID.findall(said))


def specification(uuids: set[str], version: str) -> None:
    """The CDI specification names what the driver has, and will be kept so."""
    text = SPEC.read_text(encoding="utf-8", errors="replace") if SPEC.exists() else ""
    if check("CDI specification", bool(text), f"there is no {SPEC}; {REFRESH}"):
        named = set(UUID.findall(text))
        check(
            "CDI specification, devices",
            named == uuids and bool(uuids),
            f"it names {len(named)} devices, and the driver has {len(uuids)}, not the same; {REFRESH}",
        )
        made_for = set(re.findall(r"/lib(?:nvidia-ml|cuda)\.so\.(\d+\.\d+[\d.]*)", text))
        check(
            "CDI specification, driver",
            bool(version) and made_for <= {version},
            f"it was made for driver {', '.join(sorted(made_for))}, and {version or 'none'} is there; {REFRESH}",
        )
    for path in glob(OTHER_SPECS):
        if "nvidia.com/gpu" in Path(path).read_text(encoding="utf-8", errors="replace"):
            check(
                "a single CDI specification",
                False,
                f"{path} speaks of nvidia.com/gpu, too, and nobody keeps it up to date; remove it",
            )
    units()


def units() -> None:
    """What keeps the specification up to date."""
    for unit, wanted in (
        ("nvidia-cdi-refresh.path", ("ActiveState=active", "UnitFileState=enabled")),
        ("nvidia-cdi-refresh.service", ("UnitFileState=enabled",)),
    ):
        _status, said = run("systemctl", "show", "--property=ActiveState,UnitFileState", unit)
        check(
            unit,
            all(state in said.split() for state in wanted),
            f"it is not {' and '.join(state.split('=')[1] for state in wanted)} ({' '.join(said.split())}); "
            f"'systemctl reset-failed {unit}', then 'systemctl enable --now {unit}'",
        )


def mode() -> None:
    """The runtime does not go behind the engine's back."""
    text = CONFIG.read_text(encoding="utf-8") if CONFIG.exists() else ""
    found = re.search(r'^\s*mode\s*=\s*"(\w[\w-]*)"', text, re.MULTILINE)
    check(
        "runtime mode",
        not found or found[1] != "legacy",
        "with the mode legacy, containers lose their GPUs at the next 'systemctl daemon-reload'; run the role, or "
        "'nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto'",
    )


def daemon(wanted: dict[str, Any]) -> None:
    """The running Docker daemon, not its file."""
    status, said = run("docker", "info", "--format", "{{json .}}")
    if not check("Docker answers", status == 0, f"{last_line(said)}; see 'journalctl -u docker'"):
        return
    info = json.loads(said[said.index("{") :].splitlines()[0])
    restart = "restart it ('systemctl restart docker'), or run the role with gpu_runtime_restart_allowed"
    runtimes = info.get("Runtimes") or {}
    check("runtime nvidia in Docker", "nvidia" in runtimes, f"the running daemon does not know it; {restart}")
    if wanted["default_runtime"]:
        default = info.get("DefaultRuntime")
        check(
            "default runtime of Docker",
            default == "nvidia",
            f"it is {default}, declared is nvidia; {restart}",
        )
    if wanted["docker_cdi"]:
        check("CDI in Docker", bool(info.get("CDISpecDirs")), f"it is off in the running daemon; {restart}")


def containerd() -> None:
    """The runtime in the configuration that containerd makes of all its files."""
    status, said = run("containerd", "config", "dump")
    if status == 127:
        return
    check(
        "runtime nvidia in containerd",
        "nvidia-container-runtime" in said,
        "its configuration has no runtime nvidia; see that /etc/containerd/config.toml imports /etc/containerd/conf.d/*.toml",
    )


def image() -> bytes:
    """A shell with what it needs to run, as an archive."""
    _status, said = run("ldd", "/bin/sh")
    libraries = set(re.findall(r"(/\S+\.so\S*) \(0x", said))
    for library in list(libraries):
        # What the real nvidia-smi loads beside the C library; stubs, since glibc 2.34.
        for name in ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"):
            beside = Path(library).parent / name
            if beside.exists():
                libraries.add(str(beside))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for path in ("/bin/sh", *sorted(libraries)):
            tar.add(path, arcname=path.lstrip("/"))
        for name, text in (("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n"), ("tmp/.keep", "")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()


@dataclass(frozen=True)
class Route:
    """One way in which a container gets its GPUs."""

    name: str
    engine: str
    options: tuple[str, ...]
    #: How many of them; all where this is zero.
    only: int = 0

    @property
    def container(self) -> str:
        return f"{MARK}-{re.sub('[^a-z0-9]+', '-', self.name.lower())}"

    def start(self, what: str) -> tuple[int, str]:
        """A container that waits for us to look into it."""
        options = ["--detach", "--interactive", "--network=none", f"--name={self.container}", *self.options]
        return run(self.engine, "run", *options, "--entrypoint=/bin/sh", what, "-c", "read line")

    def looked(self, uuids: set[str]) -> tuple[bool, str]:
        """Whether it sees them all now, and what it says otherwise."""
        status, said = run(self.engine, "exec", self.container, "/bin/sh", "-c", LOOK)
        seen = set(UUID.findall(said))
        right = len(seen) == self.only and seen <= uuids if self.only else seen == uuids
        if status == 0 and right:
            return True, ""
        return False, f"it sees {len(seen)} of {self.only or len(uuids)} and says: {last_line(said)}"


def routes(wanted: dict[str, Any]) -> list[Route]:
    """Those that the machine is to offer."""
    found = []
    if wanted["docker"]:
        found.append(
            Route(
                "Docker with the runtime nvidia",
                "docker",
                ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all"),
            )
        )
        if wanted["docker_cdi"]:
            found.append(Route("Docker with CDI", "docker", ("--device=nvidia.com/gpu=all",)))
            found.append(Route("Docker with CDI, one GPU", "docker", ("--device=nvidia.com/gpu=0",), only=1))
        else:
            # Docker before 25 reads no specification, so the runtime does it in its stead.
            by_name = ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all")
            found.append(Route("Docker with CDI names through the runtime", "docker", by_name))
    if wanted["podman"]:
        options = ("--device=nvidia.com/gpu=all", "--security-opt=label=disable")
        found.append(Route("Podman with CDI", "podman", options))
    return found


def containers(wanted: dict[str, Any], uuids: set[str]) -> None:
    """Look into a container of every route, before and after systemd reads all its files again."""
    found = routes(wanted)
    images: dict[str, str] = {}
    running = []
    try:
        for route in found:
            if route.engine not in images:
                images[route.engine] = prepared(route.engine, wanted["image"])
            status, said = route.start(images[route.engine])
            if status != 0:
                check(route.name, False, f"the container does not start: {reason(said)}")
                continue
            good, says = route.looked(uuids)
            if check(route.name, good, f"a container does not see every GPU: {says}"):
                running.append(route)
        status, said = run("systemctl", "daemon-reload")
        for route in running:
            good, says = route.looked(uuids)
            check(
                f"{route.name}, after a daemon-reload",
                good and status == 0,
                f"a running container has lost its GPUs to 'systemctl daemon-reload': {says or last_line(said)}; its devices "
                "are not a part of its own configuration, see that the runtime's mode is auto or cdi and use CDI",
            )
    finally:
        for route in found:
            run(route.engine, "rm", "--force", "--volumes", route.container)
        if not wanted["image"]:
            for engine in images:
                run(engine, "image", "rm", "--force", MARK)


def prepared(engine: str, given: str) -> str:
    """The name of the image."""
    if given:
        return given
    status, said = run(engine, "import", "-", MARK, stdin=image())
    check(f"an image for {engine}", status == 0, f"none could be made: {last_line(said)}")
    return MARK


def main() -> None:
    """Run the checks and print them with the versions as one JSON object."""
    wanted = json.loads(sys.argv[1])
    there = packages(wanted)
    mode()
    if wanted["docker"]:
        daemon(wanted)
    if wanted["containerd"]:
        containerd()
    uuids: set[str] = set()
    if wanted["deferred"]:
        units()
    else:
        uuids = gpus(wanted)
        specification(uuids, str(wanted["gpu"]["driver"]["library"] or ""))
        if uuids:
            containers(wanted, uuids)
        else:
            check("containers", False, "none was run, because the driver lists no GPU; mend the driver first")
    versions = {"toolkit": there.get("nvidia-container-toolkit", "")}
    for engine in ("docker", "podman"):
        _status, said = run(engine, "--version") if wanted[engine] else (0, "")
        found = re.search(r"version ([\w.+~-]+)", said)
        if found:
            versions[engine] = found[1].rstrip(",")
    print(
        json.dumps(
            {
                "checks": checks,
                "versions": versions,
                "gpus": len(uuids),
                "simulated": bool(wanted["gpu"].get("simulated")),
            }
        )
    )


if __name__ == "__main__":
    main()
