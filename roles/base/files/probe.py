# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - '{"timezone": "Etc/UTC", "locale": "C.UTF-8"}' < probe.py
"""

from __future__ import annotations

import glob
import grp
import hashlib
import importlib.util
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

KEY = re.compile(r"(?:^|\s)(?:ssh-|ecdsa-|sk-ssh-|sk-ecdsa-)\S+\s+AAAA")
MANAGED = Path("/etc/ssh/authorized_keys.d")


def connection() -> dict[str, Any] | None:
    """Who is connected over SSH, from where, to which port: what sshd told the topmost of our ancestors."""
    found = None
    pid = os.getpid()
    while pid > 1:
        process = Path(f"/proc/{pid}")
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            owner = process.stat().st_uid
            pid = int(re.search(r"^PPid:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)[1])
        except OSError:
            break
        told = [entry for entry in environment if entry.startswith(b"SSH_CONNECTION=")]
        if told:
            address, _port, _server, server_port = told[0].decode().partition("=")[2].split(" ")
            found = {"user": pwd.getpwuid(owner).pw_name, "address": address, "port": int(server_port)}
    return found


def keys(path: Path) -> int:
    """How many keys a file authorises."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(1 for line in lines if KEY.search(line) and not line.lstrip().startswith("#"))


def personal_keys() -> dict[str, int]:
    """For each account, the keys in its own home."""
    counted = {}
    for account in pwd.getpwall():
        home = Path(account.pw_dir) / ".ssh"
        count = keys(home / "authorized_keys") + keys(home / "authorized_keys2")
        if count:
            counted[account.pw_name] = count
    return counted


def password_digests() -> dict[str, str]:
    """For each account that has a password, the SHA-256 of its hash: enough to compare, and it says nothing by itself."""
    lines = Path("/etc/shadow").read_text(encoding="utf-8").splitlines()
    fields = [line.split(":") for line in lines if ":" in line]
    return {
        name: hashlib.sha256(word.encode()).hexdigest()
        for name, word, *_rest in fields
        if word.startswith("$")
    }


def output(*command: str) -> str:
    """What a command says; empty where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout


def other_key_sources() -> bool:
    """Whether sshd also accepts certificates or asks a program for keys, as clouds' own login services do."""
    effective = dict(line.partition(" ")[::2] for line in output("sshd", "-T").splitlines())
    return any(effective.get(key, "none") != "none" for key in ("trustedusercakeys", "authorizedkeyscommand"))


def time_service() -> str:
    """The service that keeps the clock, if the image has one."""
    for program, service in (("/usr/sbin/chronyd", "chrony"), ("/usr/sbin/ntpd", "ntp")):
        if os.path.exists(program):
            return service
    return "timesyncd" if os.path.exists("/usr/lib/systemd/systemd-timesyncd") else ""


def locale_known(name: str) -> bool:
    """Whether a locale has been generated; `locale -a` spells UTF-8 as utf8."""
    if name in ("C", "POSIX", "C.UTF-8"):
        return True
    return name.lower().replace("-", "") in output("locale", "-a").lower().replace("-", "").split()


def main() -> None:
    """Print what is."""
    wanted = json.loads(sys.argv[1])
    zones = Path("/usr/share/zoneinfo")
    print(
        json.dumps(
            {
                "connection": connection(),
                "accounts": {account.pw_name: account.pw_gecos for account in pwd.getpwall()},
                "password_digests": password_digests(),
                "groups": [group.gr_name for group in grp.getgrall()],
                "personal_keys": personal_keys(),
                "managed_keys": sorted(path.name for path in MANAGED.iterdir()) if MANAGED.is_dir() else [],
                "other_key_sources": other_key_sources(),
                "time_service": time_service(),
                "timezone_known": not zones.is_dir() or (zones / wanted["timezone"]).is_file(),
                "locale_known": locale_known(wanted["locale"]),
                "locale_file": os.path.realpath("/etc/default/locale"),
                "package_lists": bool(glob.glob("/var/lib/apt/lists/*Release")),
                "python_apt": importlib.util.find_spec("apt") is not None,
                "container": output("systemd-detect-virt", "--container").strip() not in ("", "none"),
            }
        )
    )


if __name__ == "__main__":
    main()
