# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that every machine of the mesh is found by its name, and met under its known host key or not at all.

What it is told comes on standard input, since that of a large fleet is too long for an argument.

usage: python3 gate.py <<< '{"config": "/etc/ssh/ssh_config", "entries": [...], ...}'
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CONNECT_SECONDS = 10
AT_ONCE = 8
# Said by the server once it has been let past the check of its host key.
MET = re.compile(r"Permission denied \(")
MISTRUSTED = re.compile(r"Host key verification failed|host key is known for|IDENTIFICATION HAS CHANGED")

checks: list[dict[str, Any]] = []
warnings: list[str] = []


def check(name: str, wrong: list[str], hint: str) -> None:
    """Note one result: it is good if nothing is wrong."""
    checks.append({"name": name, "ok": not wrong, "says": f"{name}: {'; '.join(wrong)}. {hint}"})


def run(*command: str) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    environment.pop("SSH_AUTH_SOCK", None)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            timeout=3 * CONNECT_SECONDS,
            env=environment,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within {3 * CONNECT_SECONDS} seconds"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def addresses(name: str) -> set[str]:
    """What the system's resolver makes of a name."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def resolved(entries: list[dict[str, Any]], own: str) -> list[str]:
    """Names that are not the address they should be. A machine's own short name is left to it."""
    return [
        f"{name} is {' and '.join(sorted(addresses(name))) or 'unknown'} and not {entry['address']}"
        for entry in entries
        for name in entry["names"]
        if name != own and entry["address"] not in addresses(name)
    ]


def configured(config: str, entries: list[dict[str, Any]], known_hosts: str) -> list[str]:
    """Where ssh would go elsewhere, as somebody else, or trust another key."""
    asked = [(name, entry) for entry in entries for name in entry["names"]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda one: run("ssh", "-G", "-F", config, one[0]), asked)
        wrong = []
        for (name, entry), (status, said) in zip(asked, answers, strict=True):
            if status != 0:
                return [f"'ssh -G -F {config} {name}' fails: {said.strip()}"]
            options = dict(line.partition(" ")[::2] for line in said.splitlines())
            wrong += [
                f"for {name} its {key} is {options.get(key)} and not {value}"
                for key, value in wanted_of(entry, known_hosts).items()
                if options.get(key) != value
            ]
    return wrong


def wanted_of(entry: dict[str, Any], known_hosts: str) -> dict[str, str]:
    """The options of one entry, in the words of 'ssh -G'."""
    server = entry["server"]
    wanted = {
        "hostname": entry["address"],
        "port": str(server["port"]),
        "user": server["user"],
        "hostkeyalias": server["alias"],
        "stricthostkeychecking": "true",
        "updatehostkeys": "false",
    }
    if server["ours"]:
        wanted |= {"userknownhostsfile": known_hosts, "globalknownhostsfile": "/dev/null"}
    return wanted


def vouched(entries: list[dict[str, Any]], known_hosts: str) -> list[str]:
    """Machines whose keys the file does not have as the fleet has them."""
    found: dict[str, set[str]] = {}
    try:
        with open(known_hosts, encoding="utf-8", errors="replace") as file:
            for line in file:
                alias, *key = line.split()[:3] or [""]
                found.setdefault(alias, set()).add(" ".join(key))
    except FileNotFoundError:
        pass
    return [
        f"for {entry['names'][0]} it has {len(found.get(server['alias'], ()))} keys that are not the fleet's "
        f"{len(server['keys'])}"
        for entry in entries
        if (server := entry["server"])["ours"] and found.get(server["alias"], set()) != set(server["keys"])
    ]


def met(config: str, name: str) -> str:
    """What came of a connection: ok, mistrusted, or what else was said.

    It never logs in: offering nothing, it is turned away by a server that has proved to have the known host key.
    """
    _status, said = run(
        "ssh", "-F", config, "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "PreferredAuthentications=none",
        "-o", f"ConnectTimeout={CONNECT_SECONDS}", name, "true",
    )  # fmt: skip
    if MISTRUSTED.search(said):
        return "mistrusted"
    if MET.search(said):
        return "ok"
    return said.strip().splitlines()[-1] if said.strip() else "it said nothing"


def meet(config: str, peers: list[str], sure: list[str]) -> None:
    """Connect to peers. Those that are sure must be there, because this run has met them, too."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(peers, pool.map(lambda name: met(config, name), peers), strict=True))
    check(
        "host keys shown over the mesh",
        [
            f"{name} shows another key than the known one"
            for name, said in outcomes.items()
            if said == "mistrusted"
        ],
        "If its keys were changed by hand, put them back; playbooks/rotate_host_keys.yml changes them so that all know them",
    )
    lost = {name: said for name, said in outcomes.items() if said not in ("ok", "mistrusted")}
    check(
        "SSH over the mesh",
        [f"{name} is not reached ({said})" for name, said in lost.items() if name in sure],
        "See 'zerotier-cli peers' and the firewall on both machines",
    )
    warnings.extend(
        f"{name} is not reached over the mesh: {said}" for name, said in lost.items() if name not in sure
    )


def main() -> None:
    """Run the checks and print them as one JSON object."""
    wanted = json.load(sys.stdin)
    entries = wanted["entries"]
    servers = [
        entry for entry in entries if entry["server"] and (entry["server"]["ours"] or wanted["operator"])
    ]
    if wanted["hosts"] and entries:
        check(
            "names",
            resolved(entries, wanted["own"]),
            "Something else answers before /etc/hosts; see /etc/nsswitch.conf",
        )
    if servers:
        check(
            "SSH configuration",
            configured(wanted["config"], servers, wanted["known_hosts"]),
            "A file that is read earlier says otherwise; the first one counts",
        )
        check(
            "known host keys",
            vouched(servers, wanted["known_hosts"]),
            f"Somebody has changed {wanted['known_hosts']}",
        )
    if wanted["peers"]:
        meet(wanted["config"], wanted["peers"], wanted["sure"])
    if wanted["absent"]:
        left = [path for path in wanted["absent"] if os.path.lexists(path)]
        check("nothing is left", [f"{path} is there" for path in left], "Remove it")
    _status, version = run("ssh", "-V")
    found = re.match(r"OpenSSH_([\w.]+)", version)
    print(
        json.dumps(
            {"checks": checks, "warnings": warnings, "versions": {"openssh": found[1]} if found else {}}
        )
    )


if __name__ == "__main__":
    main()
