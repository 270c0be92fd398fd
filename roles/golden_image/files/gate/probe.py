# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the tests of an image want to know of a machine made of it, in one visit: an emulated one takes a second for
each. It only looks, but for one container, which it removes.

usage: sudo python3 -c "$(cat probe.py)" '{"modules": ["nvidia-current"], "container": true}'
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CONTAINER = "gpumesh-gate-image"
# As in the program that seals an image, which looks at it before it is booted.
PROXY = re.compile(
    r"(?:(?:https?|all|ftp)[_-]?proxy|Acquire::[\w:]*Proxy(?:::[\w.-]+)?(?![\w.:-])|(?<![\w-])Proxy(?=[ \t]+\"))"
    r"[\"']?[ \t]*[=:]?[ \t]*[\"']?([\w\[][^\s\"',;}]*[.:][^\s\"',;}]*)",
    re.IGNORECASE,
)
"""As the shell's variables, systemd, apt in both of its forms, and Docker's JSON have it; with its address."""
PROXY_FILES = (
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d/*",
    "etc/default/docker",
    "etc/docker/daemon.json",
    "etc/environment",
    "etc/environment.d/*",
    "etc/profile.d/*",
    "etc/systemd/system.conf.d/*",
    "etc/systemd/system/*.d/*.conf",
    "root/.docker/config.json",
)
TRACES = (
    "/root/.*_history",
    "/home/*/.*_history",
    "/root/.ansible",
    "/home/*/.ansible",
    "/root/.cache",
    "/root/.docker",
    "/etc/apt/apt.conf.d/*image-build*",
    "/usr/sbin/policy-rc.d",
    "/var/lib/dkms/mok.key",
    "/.dockerenv",
)


def run(*command: str, seconds: float = 120, stdin: bytes | None = None) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        done = subprocess.run(
            command, input=stdin, check=False, capture_output=True, timeout=seconds, env=environment
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within {seconds:.0f} seconds"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace").strip()


def text(path: str) -> str:
    """What is in a file; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def lines(name: str) -> list[str]:
    """Its lines that are no comments."""
    return [line.strip() for line in text(name).splitlines() if line.strip() and not line.startswith("#")]


def units() -> dict[str, Any]:
    """How systemd thinks the machine is, once all is started, and why what failed did."""
    _status, state = run("systemctl", "is-system-running", "--wait", seconds=1200)
    _status, said = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
    failed = [line.split()[0] for line in said.splitlines() if line.strip()]
    return {
        "state": state,
        "failed": {
            unit: run("journalctl", "--boot", "--no-pager", "--output=cat", "--lines=3", f"--unit={unit}")[1]
            for unit in failed
        },
    }


def disk() -> dict[str, int | None]:
    """What is left over, in bytes: of the disk behind the root's partition, and of the partition or mapping behind its file system."""
    _status, source = run("findmnt", "--noheadings", "--output=SOURCE", "/")
    _status, said = run(
        "lsblk", "--inverse", "--noheadings", "--bytes", "--list", "--output=KNAME,TYPE,SIZE", source
    )
    rows = [line.split() for line in said.splitlines()]
    sizes = {words[1]: int(words[2]) for words in reversed(rows) if len(words) == 3}
    start = next((text(f"/sys/class/block/{words[0]}/start") for words in rows if words[1:2] == ["part"]), "")
    found = dict(
        re.findall(r"^(Block count|Block size):\s*(\d+)$", run("dumpe2fs", "-h", source)[1], re.MULTILINE)
    )
    if not start or not rows or len(found) != 2:
        return {"behind_partition": None, "behind_files": None}
    return {
        "behind_partition": sizes["disk"] - int(start) * 512 - sizes["part"],
        "behind_files": int(rows[0][2]) - int(found["Block count"]) * int(found["Block size"]),
    }


def modules(names: list[str]) -> dict[str, Any]:
    """What the running kernel can load: how many modules in all, and of some, for which kernel they were made."""
    release = os.uname().release
    return {
        "listed": len(lines(f"/lib/modules/{release}/modules.dep")),
        "asked": {name: run("modinfo", "--field=vermagic", name)[1] for name in names},
    }


def docker(container: bool) -> dict[str, Any]:
    """Whether it runs a container. The image is the machine's own program `true`, since no registry can be reached."""
    status, said = run("docker", "info", "--format={{.ServerVersion}} {{.Driver}}")
    found: dict[str, Any] = {"status": status, "says": said, "images": [], "container": None}
    if status:
        return found
    found["images"] = run("docker", "image", "ls", "--quiet")[1].split()
    if container:
        files = ["/usr/bin/true", *re.findall(r"(/\S+) \(0x", run("ldd", "/usr/bin/true")[1])]
        archive = subprocess.run(
            ["tar", "--create", "--dereference", "--absolute-names", *files], capture_output=True, check=False
        ).stdout
        status, said = run("docker", "import", "-", CONTAINER, stdin=archive)
        if status == 0:
            status, said = run("docker", "run", "--rm", "--network=none", CONTAINER, "/usr/bin/true")
        run("docker", "image", "rm", "--force", CONTAINER)
        found["container"] = {"status": status, "says": said}
    return found


def keys() -> dict[str, list[str]]:
    """Every key that opens an account, by its file."""
    places = ("/root/.ssh/authorized_keys*", "/home/*/.ssh/authorized_keys*", "/etc/ssh/authorized_keys.d/*")
    found = {path: lines(path) for place in places for path in glob.glob(place)}
    return {path: entries for path, entries in found.items() if entries}


def proxies(text: str) -> list[str]:
    """The addresses of the proxies that a file names, but for its comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "//"))]
    return [found[1].rstrip("/") for line in lines for found in PROXY.finditer(line)]


def main() -> None:
    """Say it."""
    wanted = json.loads(sys.argv[1])
    # First, because it waits until all is started.
    started = units()
    shadow = [line.split(":") for line in lines("/etc/shadow")]
    packages = run(
        "dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}:${Architecture} ${Version}\n"
    )[1]
    layers = json.loads(text("/etc/ansible/facts.d/gpumesh.fact") or "{}").get("layers", {})
    print(
        json.dumps(
            {
                "units": started,
                "kernel": os.uname().release,
                "boot": "uefi" if os.path.isdir("/sys/firmware/efi") else "bios",
                "packages": {
                    words[1]: words[2]
                    for words in (line.split() for line in packages.splitlines())
                    if words[:1] == ["installed"]
                },
                "layers": {
                    name: {key: value for key, value in facts.items() if key != "when"}
                    for name, facts in layers.items()
                },
                "modules": modules(wanted["modules"]),
                "disk": disk(),
                "fstab": [
                    line.split()[1] for line in lines("/etc/fstab") if not os.path.ismount(line.split()[1])
                ],
                "sshd": run("sshd", "-T")[1].lower().splitlines(),
                "ufw": run("ufw", "status", "verbose")[1],
                "fail2ban": run("fail2ban-client", "status", "sshd")[1],
                "docker": docker(wanted["container"]),
                "keys": keys(),
                "passwords": [
                    words[0]
                    for words in shadow
                    if words[1] not in ("*", "!", "!*", "!!") and not words[1].startswith("!")
                ],
                "traces": [path for place in TRACES for path in glob.glob(place)],
                "proxies": {
                    path: found
                    for pattern in PROXY_FILES
                    for path in glob.glob(f"/{pattern}")
                    if (found := proxies(text(path)))
                },
                "image": json.loads(text("/etc/gpumesh/image.json") or "{}"),
                "motd": "".join(text(path) for path in sorted(glob.glob("/etc/motd.d/*"))),
                "cloud": json.loads(run("cloud-init", "status", "--format=json")[1] or "{}"),
                "first_boot": json.loads(text("/var/lib/gpumesh/first-boot.json") or "{}"),
                "hostname": os.uname().nodename,
                "resolv": os.path.realpath("/etc/resolv.conf"),
                "hosts": text("/etc/hosts"),
            }
        )
    )


if __name__ == "__main__":
    main()
