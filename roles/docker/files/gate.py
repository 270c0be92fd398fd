# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the Docker layer on a machine by running a container. What it makes for that, it removes.

usage: python3 - '{"daemon": {...}, ...}' < gate.py
"""

from __future__ import annotations

import grp
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from typing import Any

NAME = f"gpumesh-gate-{os.getpid()}"
IMAGE = f"gpumesh-gate:{os.getpid()}"
BUSYBOX = "/bin/busybox"
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

checks: list[dict[str, Any]] = []


def check(name: str, ok: bool, says: str) -> None:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})


def run(*command: str, stdin: bytes | None = None) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            command, input=stdin, check=False, capture_output=True, timeout=120, env=environment
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within 120 seconds"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def size(text: str) -> int:
    """Bytes of a size as Docker writes it, such as 1g or 512MB."""
    found = re.fullmatch(r"(\d+)\s*([bkmgt]?)b?", text.strip().lower())
    return int(found[1]) * UNITS[found[2] or "b"] if found else -1


def import_image() -> tuple[int, str]:
    """Make an image that holds one static program."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(BUSYBOX, arcname="bin/busybox")
    return run("docker", "import", "-", IMAGE, stdin=archive.getvalue())


def settings(name: str, declared: dict[str, Any]) -> None:
    """What the daemon gave a new container without being asked."""
    _status, said = run("docker", "container", "inspect", "--format", "{{json .HostConfig.LogConfig}}", name)
    if not said.startswith("{"):
        return
    given = json.loads(said)["Config"] or {}
    differs = {
        key: value for key, value in declared.get("log-opts", {}).items() if given.get(key) != str(value)
    }
    check("log-opts", not differs, f"a new container does not get {differs}, but {given}; restart Docker")


def container(wanted: dict[str, Any]) -> None:
    """Run a container, look at what the daemon gave it, and measure its shared memory from inside."""
    if wanted["image"]:
        try:
            status, said = run("docker", "run", "--name", NAME, wanted["image"], *wanted["command"])
            check("a container runs", status == 0, f"'docker run {wanted['image']}' fails: {said.strip()}")
            settings(NAME, wanted["daemon"])
        finally:
            run("docker", "rm", "--force", "--volumes", NAME)
        return
    status, said = (
        import_image() if os.path.exists(BUSYBOX) else (1, f"{BUSYBOX} is missing; install busybox-static")
    )
    if status != 0:
        check("a container runs", False, f"no image could be made for it: {said.strip()}")
        return
    try:
        script = "echo up; /bin/busybox df -k /dev/shm"
        status, said = run("docker", "run", "--name", NAME, IMAGE, BUSYBOX, "sh", "-c", script)
        settings(NAME, wanted["daemon"])
    finally:
        run("docker", "rm", "--force", "--volumes", NAME)
        run("docker", "image", "rm", "--force", IMAGE)
    check("a container runs", status == 0 and said.startswith("up"), f"'docker run' fails: {said.strip()}")
    found = re.search(r"^\S+\s+(\d+)\s.*/dev/shm$", said, re.MULTILINE)
    declared = wanted["daemon"].get("default-shm-size", "")
    measured = int(found[1]) * 1024 if found else 0
    check(
        "shared memory",
        not declared or measured == size(str(declared)),
        f"a container has {measured} bytes in /dev/shm, declared is {declared}; restart Docker if daemon.json was changed",
    )


def daemon(wanted: dict[str, Any]) -> None:
    """The options of the running daemon, not its file."""
    status, said = run("docker", "info", "--format", "{{json .}}")
    check("docker answers", status == 0, f"'docker info' fails: {said.strip()}; see 'journalctl -u docker'")
    if status != 0:
        return
    info = json.loads(said[said.index("{") :].splitlines()[0])
    for option, effective in reported(info).items():
        declared = wanted["daemon"].get(option)
        check(
            option,
            declared is None or holds(declared, effective),
            f"the daemon has {effective}, declared is {declared}; restart Docker",
        )


def reported(info: dict[str, Any]) -> dict[str, Any]:
    """The options of daemon.json that 'docker info' tells, under their names there."""
    return {
        "log-driver": info.get("LoggingDriver"),
        "live-restore": info.get("LiveRestoreEnabled"),
        "debug": info.get("Debug"),
        "experimental": info.get("ExperimentalBuild"),
        "data-root": info.get("DockerRootDir"),
        "default-runtime": info.get("DefaultRuntime"),
        "runtimes": list(info.get("Runtimes") or []),
        "labels": info.get("Labels") or [],
        "registry-mirrors": (info.get("RegistryConfig") or {}).get("Mirrors") or [],
    }


def holds(declared: Any, effective: Any) -> bool:
    """Whether all that is declared is in effect; the daemon adds to lists, and a slash to the address of a mirror."""
    if isinstance(declared, (list, dict)):
        return {str(item).rstrip("/") for item in declared} <= {str(item).rstrip("/") for item in effective}
    if isinstance(declared, str) and declared.startswith("/"):
        return bool(os.path.realpath(declared) == effective)
    return bool(declared == effective)


def firewall() -> None:
    """The chain in the kernel."""
    for tables in ("iptables", "ip6tables"):
        _status, jumps = run(tables, "-w", "-S", "DOCKER-USER")
        _status, chain = run(tables, "-w", "-S", "GPUMESH-PUBLISHED")
        first = [line for line in jumps.splitlines() if line.startswith("-A")][:1]
        check(
            f"published ports behind the firewall ({tables})",
            first == ["-A DOCKER-USER -j GPUMESH-PUBLISHED"] and chain.strip().endswith("-j DROP"),
            "the chain is not in place; run 'systemctl restart gpumesh-docker-firewall'",
        )


def main() -> None:
    """Run the checks and print them with the versions as one JSON object."""
    wanted = json.loads(sys.argv[1])
    for name in wanted["units"]:
        _status, said = run("systemctl", "show", "--property=ActiveState,UnitFileState", name)
        ok = "ActiveState=active" in said and "UnitFileState=enabled" in said
        check(
            name,
            ok,
            f"it is not running and enabled ({' '.join(said.split())}); see 'systemctl status {name}'",
        )
    daemon(wanted)
    container(wanted)
    if wanted["firewall"]:
        firewall()
    try:
        members = grp.getgrnam("docker").gr_mem
    except KeyError:
        members = []
    missing = [name for name in wanted["users"] if name not in members]
    check("group docker", not missing, f"these are not in it: {', '.join(missing)}")

    versions = {}
    for program, pattern in (
        ("docker", r"version ([\w.+~-]+)"),
        ("containerd", r" v?(\d[\w.+~-]*)"),
        ("runc", r"version ([\w.+~-]+)"),
    ):
        _status, said = run(program, "--version")
        found = re.search(pattern, said)
        if found:
            versions[program] = found[1].rstrip(",")
    print(json.dumps({"checks": checks, "versions": versions}))


if __name__ == "__main__":
    main()
