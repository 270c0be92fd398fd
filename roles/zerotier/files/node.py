# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a machine's ZeroTier node, let it join, let it leave, let it change its identity.

Runs on the machine, as root, and answers with one JSON object. It reads the local API's token itself, so the token never
leaves the machine and is in no command line; the same holds for identities.

usage: python3 - probe|join|leave|change|prove|keep '{"network": "db4344343b14b903", ...}' < node.py
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HOME = Path("/var/lib/zerotier-one")
PACKAGE = "zerotier-one"
UNIT = "zerotier-one.service"
OWN_IDENTITY = "gpumesh-own-identity"
NEXT_IDENTITY = "gpumesh-next-identity"
IDENTITY = ("identity.secret", "identity.public")
# The first identity while the second is not proved: gone with a reboot, after which there is nobody to put it back.
KEPT = Path("/run/gpumesh/zerotier-first-identity")
UNDO = "gpumesh-zerotier-undo"
FLAGS = ("allowManaged", "allowGlobal", "allowDefault", "allowDNS")


class Silent(Exception):
    """The local API does not answer; says why, and what to do."""


def text(path: Path) -> str:
    """What a file holds, without white space around it; empty where it is missing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def output(*command: str) -> str:
    """What a command says; empty where it is missing."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout


def api(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the local API answers; None for what it does not know.

    Raises:
        Silent: it does not answer, or does not let us in.
    """
    token = text(HOME / "authtoken.secret")
    if not token:
        raise Silent(
            f"{HOME}/authtoken.secret is missing: zerotier-one has not started yet; see 'systemctl status {UNIT}'"
        )
    port = text(HOME / "zerotier-one.port") or "9993"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-ZT1-Auth": token, "Content-Type": "application/json"},
    )
    # Never through a proxy that the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        why = (
            "it refuses the token in authtoken.secret; 'systemctl restart zerotier-one' reads it anew"
            if error.code == 401
            else f"it answers {method} {path} with {error.code}"
        )
        raise Silent(f"port {port} of this machine: {why}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Silent(
            f"nothing that speaks ZeroTier answers on port {port} of this machine ({reason}); see 'journalctl -u {UNIT}'"
        ) from None


def identity() -> str:
    """The node's public identity, from either of its files; empty where it has none yet."""
    return text(HOME / "identity.public") or ":".join(text(HOME / "identity.secret").split(":")[:3])


def version() -> str:
    """The installed package's version; empty where it is not installed."""
    said = output("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", PACKAGE).split()
    return said[1] if said[:1] == ["installed"] else ""


def reached_at() -> str:
    """The address of this machine that Ansible is connected to: what sshd told the topmost of our ancestors."""
    found, pid = "", os.getpid()
    while pid > 1:
        process = Path(f"/proc/{pid}")
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            pid = int((process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            break
        told = [entry for entry in environment if entry.startswith(b"SSH_CONNECTION=")]
        if told:
            found = told[0].decode().split(" ")[2]
    return found


def settings() -> dict[str, Any]:
    """The settings in local.conf; empty where there are none, or none that can be read."""
    try:
        found = json.loads(text(HOME / "local.conf") or "{}")["settings"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def keys(keyring: str) -> str:
    """The keys in a file, as gpg lists them for programs."""
    if not os.path.exists(keyring):
        return ""
    return output("gpg", "--batch", "--show-keys", "--with-colons", keyring)


def flags(membership: dict[str, Any]) -> dict[str, bool]:
    """What a network may do to this machine."""
    return {name: membership.get(name) is True for name in FLAGS}


def probe(wanted: dict[str, Any]) -> dict[str, Any]:
    """What the role has to know before it may change anything. Reads only."""
    unit = output("systemctl", "show", "--property=ActiveState,UnitFileState", UNIT)
    try:
        networks = api("GET", "/network") or []
    except Silent:
        networks = []
    addresses = {address.partition("/")[0] for entry in networks for address in entry["assignedAddresses"]}
    public = identity()
    return {
        "version": version(),
        "source": os.path.exists(wanted["source"]),
        "keys": keys(wanted["keyring"]),
        "package_lists": bool(glob.glob("/var/lib/apt/lists/*Release")),
        "python_apt": importlib.util.find_spec("apt") is not None,
        "firewall": shutil.which("ufw") is not None,
        "active": "ActiveState=active" in unit,
        "enabled": "UnitFileState=enabled" in unit,
        "identity": public,
        "node": public.partition(":")[0],
        "own_identity": text(HOME / OWN_IDENTITY),
        "unproved": output("systemctl", "is-active", f"{UNDO}.timer").strip() == "active",
        "remembered": bool(glob.glob(f"{HOME}/networks.d/*.conf")),
        "settings": settings(),
        "joined": {entry["nwid"]: flags(entry) for entry in networks},
        "over_mesh": reached_at() in addresses,
    }


def join(wanted: dict[str, Any]) -> dict[str, Any]:
    """Join the network, or change what it may do; the daemon may still be starting."""
    network, allowed = wanted["network"], wanted["allow"]
    if wanted["check"]:
        # The daemon may not even be installed yet, and the probe has found that something differs.
        return {"changed": True, "node": identity().partition(":")[0]}
    deadline = time.monotonic() + wanted["seconds"]
    while True:
        try:
            before = api("GET", f"/network/{network}")
            break
        except Silent:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    changed = before is None or flags(before) != allowed
    if changed:
        api("POST", f"/network/{network}", allowed)
    return {"changed": changed, "node": api("GET", "/status")["address"]}


def leave(wanted: dict[str, Any]) -> dict[str, Any]:
    """Leave every network, so that a later installation does not join them again by itself."""
    kept = list(HOME.glob("networks.d/*.conf"))
    try:
        networks = api("GET", "/network") or []
        for entry in [] if wanted["check"] else networks:
            api("DELETE", f"/network/{entry['nwid']}")
    except Silent:
        networks = []  # A daemon that does not run leaves by what it will not find when it starts.
    for path in [] if wanted["check"] else kept:
        path.unlink(missing_ok=True)
    return {"changed": bool(kept or networks)}


def later(unit: str, seconds: int, script: str) -> None:
    """Have systemd run a script after some time, whatever becomes of us and of our connection."""
    command = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={seconds}"]
    subprocess.run(
        [*command, "--timer-property=AccuracySec=100ms", "/bin/sh", "-c", script], check=True, timeout=30
    )


def put(folder: Path) -> str:
    """The shell script that puts the identity in a folder in its place; each file is there whole or not at all."""
    lines = ["set -e"]
    for name in IDENTITY:
        source, target = shlex.quote(str(folder / name)), shlex.quote(str(HOME / name))
        lines.append(
            f"if [ -e {source} ]; then cp -p {source} {target}.new; mv -f {target}.new {target}; else rm -f {target}; fi"
        )
    return "\n".join([*lines, f"systemctl restart {UNIT}"])


def change(wanted: dict[str, Any]) -> dict[str, Any]:
    """Take the next identity in a moment, when nobody is connected any more, and go back unless it is kept."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(mode=0o700, parents=True)
    # A node that was given its secret alone does without the public half.
    for name in (name for name in IDENTITY if (HOME / name).exists()):
        shutil.copy2(HOME / name, KEPT / name)
    later(UNDO, wanted["undo_after"], put(KEPT))
    later("gpumesh-zerotier-change", 1, put(HOME / NEXT_IDENTITY))
    return {"changed": True}


def prove(wanted: dict[str, Any]) -> dict[str, Any]:
    """Wait until the daemon is the node it is to be, and is let into the network as that."""
    deadline = time.monotonic() + wanted["seconds"]
    while True:
        try:
            node = api("GET", "/status")["address"]
            status = (api("GET", f"/network/{wanted['network']}") or {}).get("status", "not joined")
            if node == wanted["node"] and status == "OK":
                return {"changed": True, "node": node}
            seen = f"this machine is node {node}, and its status in the network is {status}"
        except Silent as problem:
            seen = str(problem)
        if time.monotonic() > deadline:
            raise Silent(
                f"the new identity, of node {wanted['node']}, was not proved, so it is not kept: {seen}"
            )
        time.sleep(0.3)


def keep(wanted: dict[str, Any]) -> dict[str, Any]:
    """Stay with the identity that was proved, and remember that nobody else has ever seen it."""
    subprocess.run(["systemctl", "stop", f"{UNDO}.timer"], check=True, timeout=30)
    # The timer may have been faster.
    answer = prove({**wanted, "seconds": 0})
    (HOME / OWN_IDENTITY).write_text(f"{wanted['node']}\n", encoding="utf-8")
    for folder in (HOME / NEXT_IDENTITY, KEPT):
        shutil.rmtree(folder, ignore_errors=True)
    return answer


ACTIONS = {"probe": probe, "join": join, "leave": leave, "change": change, "prove": prove, "keep": keep}


def main() -> None:
    """Do one of them; a problem is part of the answer."""
    action, wanted = sys.argv[1], json.loads(sys.argv[2])
    try:
        answer = ACTIONS[action](wanted)
    except Silent as problem:
        answer = {"changed": False, "problem": str(problem)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
