# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the base layer on a machine: what is declared against what the programs themselves say. Changes nothing.

usage: python3 - '{"admin": "admin", ...}' < gate.py
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ["openssh-server", "sudo", "ufw", "fail2ban", "unattended-upgrades", "systemd-timesyncd", "chrony"]

checks: list[dict[str, Any]] = []


def check(name: str, ok: bool, says: str) -> None:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})


def run(*command: str, stdin: str | None = None) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within 30 seconds"
    return done.returncode, done.stdout + done.stderr


def offered_methods(user: str, port: int) -> str:
    """What the running sshd offers a client without any credential, its host key checked against the one on disk."""
    known = f'awk \'{{print "[127.0.0.1]:{port} " $1 " " $2; print "127.0.0.1 " $1 " " $2}}\' /etc/ssh/ssh_host_*_key.pub'
    _status, said = run(
        "ssh", "-F", "none", "-p", str(port), "-o", "BatchMode=yes", "-o", "PreferredAuthentications=none",
        "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=none",
        "-o", "GlobalKnownHostsFile=none", "-o", "KnownHostsCommand=/bin/sh -c \"" + known.replace('"', '\\"') + "\"",
        f"{user}@127.0.0.1", "true",
    )  # fmt: skip
    refused = re.search(r"Permission denied \(([^)]*)\)", said)
    return refused[1] if refused else said.strip().splitlines()[-1] if said.strip() else "nothing"


def ssh(wanted: dict[str, Any]) -> None:
    """The running sshd, not its files."""
    status, said = run("sshd", "-T")
    effective: dict[str, list[str]] = {}
    for line in said.splitlines():
        key, _dummy, value = line.partition(" ")
        effective.setdefault(key, []).append(value)
    check("ssh configuration", status == 0, f"'sshd -T' fails: {said.strip()}")
    ports = sorted(int(port) for port in effective.get("port", []))
    check(
        "ssh ports",
        ports == sorted(wanted["ssh_ports"]),
        f"sshd is set to {ports}, declared are {sorted(wanted['ssh_ports'])}; look for other Port lines in /etc/ssh",
    )
    same = {"no": "no", "prohibit-password": "without-password"}
    root = effective.get("permitrootlogin", [""])[0]
    check(
        "ssh root login",
        root in (wanted["ssh_root_login"], same[wanted["ssh_root_login"]]),
        f"PermitRootLogin is '{root}', declared is '{wanted['ssh_root_login']}'",
    )
    for port in wanted["ssh_ports"]:
        offered = offered_methods(wanted["admin"], port)
        check(
            f"ssh keys only on port {port}",
            offered == "publickey",
            f"a client without a key is offered '{offered}', not 'publickey'",
        )


def accounts(wanted: dict[str, Any]) -> None:
    """Accounts, and what they may."""
    present = {account.pw_name for account in pwd.getpwall()}
    missing = [name for name in wanted["accounts"] if name not in present]
    check("accounts", not missing, f"these are declared and missing: {', '.join(missing)}")
    left = [name for name in wanted["absent"] if name in present]
    check("absent accounts", not left, f"these are to be absent and are there: {', '.join(left)}")
    for name in wanted["sudoers"]:
        _status, said = run("sudo", "-l", "-U", name)
        check(
            f"sudo of {name}", "ALL" in said.partition("may run")[2], f"sudo does not let it: {said.strip()}"
        )
    name = wanted["emergency"]
    if name:
        status, said = run("passwd", "-S", name)
        check(
            "emergency account",
            status == 0 and said.split()[1:2] == ["P"],
            f"it has no usable password: {said.strip()}",
        )
        _status, said = run("sshd", "-T", "-C", f"user={name},host=localhost,addr=127.0.0.1")
        check(
            "emergency account over ssh",
            f"denyusers {name}" in said,
            "sshd would let it in; base_ssh_enabled must be on",
        )


def firewall() -> None:
    """The rules in the kernel, not ufw's files."""
    for family, program in (("IPv4", "iptables"), ("IPv6", "ip6tables")):
        if family == "IPv6" and not Path("/proc/net/if_inet6").exists():
            continue
        _status, said = run(program, "-S", "INPUT")
        check(
            f"firewall {family}",
            "-P INPUT DROP" in said and "ufw" in said,
            f"what comes in is not denied by default ({said.strip().splitlines()[:1]}); run the role, or 'ufw enable'",
        )


def fail2ban(wanted: dict[str, Any]) -> None:
    """The jail in the running server."""
    for setting in ("maxretry", "bantime", "findtime"):
        declared = str(wanted[f"fail2ban_{setting}"])
        status, said = run("fail2ban-client", "get", "sshd", setting)
        ok = status == 0 and said.split()[-1:] == [declared if setting == "maxretry" else seconds(declared)]
        check(
            f"fail2ban jail sshd, {setting}",
            ok,
            f"the jail is not live with {declared}: {said.strip()}; run 'systemctl restart fail2ban', "
            "and if that does not help, see 'journalctl -u fail2ban'",
        )
        if status != 0:
            break


def seconds(period: str) -> str:
    """A period as fail2ban writes it, such as 10m or 1d 12h, by fail2ban's own reckoning."""
    return period if period.lstrip("-").isdigit() else run("fail2ban-client", "--str2sec", period)[1].strip()


def upgrades() -> None:
    """What apt will really do."""
    _status, said = run("apt-config", "dump")
    check(
        "unattended upgrades",
        'APT::Periodic::Unattended-Upgrade "1"' in said
        and re.search(r'Origins-Pattern:: "[^"]*security', said) is not None,
        "apt is not set to install security updates by itself; run the role",
    )


def clock(wanted: dict[str, Any]) -> None:
    """Time zone and locale."""
    zone = os.path.realpath("/etc/localtime").removeprefix("/usr/share/zoneinfo/")
    declared = os.path.realpath(f"/usr/share/zoneinfo/{wanted['timezone']}").removeprefix(
        "/usr/share/zoneinfo/"
    )
    check("time zone", zone == declared, f"it is {zone}, declared is {wanted['timezone']}")
    _status, said = run("locale", "-a")
    known = wanted["locale"].lower().replace("-", "") in said.lower().replace("-", "").split()
    set_to = (
        f"LANG={wanted['locale']}" in Path("/etc/default/locale").read_text(encoding="utf-8").splitlines()
    )
    check("locale", known and set_to, f"{wanted['locale']} is not {'the default' if known else 'generated'}")


def units(names: list[str]) -> None:
    """What runs now and after a reboot."""
    for name in names:
        _status, said = run("systemctl", "show", "--property=ActiveState,UnitFileState", name)
        check(
            name,
            "ActiveState=active" in said and "UnitFileState=enabled" in said,
            f"it is not running and enabled ({' '.join(said.split())}); see 'systemctl status {name}'",
        )


def versions() -> dict[str, str]:
    """The versions of the packages that make the layer."""
    _status, said = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *PACKAGES)
    installed = (line.split() for line in said.splitlines() if line.startswith("installed "))
    return {package: version for _state, package, version in installed}


def main() -> None:
    """Run the checks and print them with the versions as one JSON object."""
    wanted = json.loads(sys.argv[1])
    accounts(wanted)
    clock(wanted)
    units(wanted["units"])
    if wanted["ssh"]:
        ssh(wanted)
    if wanted["firewall"]:
        firewall()
    if wanted["fail2ban"]:
        fail2ban(wanted)
    if wanted["upgrades"]:
        upgrades()
    print(json.dumps({"checks": checks, "versions": versions()}))


if __name__ == "__main__":
    main()
