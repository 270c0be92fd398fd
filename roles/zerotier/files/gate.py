# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a machine is in the mesh: the daemon, the kernel and the other members are asked. Changes nothing.

It waits for what takes a moment, the admission and the first packets to the others, but for the given seconds at most.

usage: python3 - '{"network": "db4344343b14b903", ...}' < gate.py
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HOME = Path("/var/lib/zerotier-one")
IPV6 = Path("/proc/sys/net/ipv6/conf")
UNIT = "zerotier-one.service"
AT_ONCE = 32
PINGS = 4
HEADERS = {4: 28, 6: 48}
MEANS = {
    "REQUESTING_CONFIGURATION": "the network's controller, node {controller}, does not answer: see that its zerotier-one runs "
    "and is reached on its UDP port, and that the network id is right",
    "ACCESS_DENIED": "the controller does not let it in: authorise node {node} (playbooks/mesh.yml, or zerotier_member); "
    "if it is authorised, another identity was there first under that node id",
    "NOT_FOUND": "the controller, node {controller}, has no such network",
    "PORT_ERROR": "no network interface could be made: see that /dev/net/tun is there, and 'journalctl -u zerotier-one'",
    "CLIENT_TOO_OLD": "the controller wants a newer zerotier-one: change zerotier_version",
    "": "it has not joined: run the role",
}

checks: list[dict[str, Any]] = []
warnings: list[str] = []
simulated: set[str] = set()


def check(name: str, ok: bool, says: str) -> bool:
    """Note one result; `says` is what is wrong and what to do about it."""
    checks.append({"name": name, "ok": bool(ok), "says": f"{name}: {says}"})
    return bool(ok)


def run(*command: str, seconds: float = 30) -> tuple[int, str]:
    """Exit status and everything said; 127 where the program is missing."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=seconds, env=environment
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within {seconds:.0f} seconds"
    return done.returncode, done.stdout + done.stderr


def api(path: str) -> tuple[Any, str]:
    """What the local API answers, None if nothing, and why not."""
    try:
        token = (HOME / "authtoken.secret").read_text(encoding="utf-8").strip()
        port_file = HOME / "zerotier-one.port"
        port = port_file.read_text(encoding="utf-8").strip() if port_file.is_file() else "9993"
    except OSError as error:
        return None, f"{error.strerror}: {error.filename}"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"X-ZT1-Auth": token})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            simulated.update(answer.headers.get_all("X-Gpumesh-Simulated", []))
            return json.load(answer), ""
    except urllib.error.HTTPError as error:
        return None, f"port {port} answers with {error.code}"
    except (OSError, ValueError) as error:
        return None, f"port {port}: {getattr(error, 'reason', error)}"


def until(deadline: float, look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Look again until it is enough or the time is over; the last look."""
    while True:
        seen = look()
        if enough(seen) or time.monotonic() >= deadline:
            return seen
        time.sleep(0.3)


def bare(texts: Iterable[str]) -> set[str]:
    """Addresses without the lengths of their prefixes, each in its one spelling."""
    return {str(ipaddress.ip_interface(text).ip) for text in texts}


def listening(status: dict[str, Any]) -> list[str]:
    """The addresses and ports it listens on, as 192.0.2.7/9993."""
    return list(status.get("config", {}).get("settings", {}).get("listeningOn", []))


def listens(status: dict[str, Any], port: int) -> bool:
    """Whether one of them is on a port."""
    return any(entry.endswith(f"/{port}") for entry in listening(status))


def daemon(wanted: dict[str, Any], deadline: float) -> dict[str, Any]:
    """The running daemon: that it is there, who it is, what it listens on. Its status; empty if it says none."""
    _status, said = run("systemctl", "show", "--property=ActiveState,UnitFileState", UNIT)
    runs = check(
        UNIT,
        "ActiveState=active" in said and "UnitFileState=enabled" in said,
        f"it is not running and enabled ({' '.join(said.split())}); see 'systemctl status zerotier-one'",
    )
    # A daemon that has just been started needs a moment, also to open its port; one that is stopped is not waited for.
    status, why = until(
        deadline if runs else 0,
        lambda: api("/status"),
        lambda seen: seen[0] is not None and listens(seen[0], wanted["port"]),
    )
    if not check("local API", status is not None, f"it does not answer ({why}); see 'journalctl -u {UNIT}'"):
        return {}
    check(
        "identity",
        status["address"] == wanted["node"],
        f"the daemon runs as node {status['address']}, and {HOME}/identity.public says {wanted['node'] or 'nothing'}; "
        "'systemctl restart zerotier-one' takes up the identity that is in the files",
    )
    check(
        "port",
        listens(status, wanted["port"]),
        f"it listens on {', '.join(listening(status)) or 'nothing'}, declared is {wanted['port']}; restart zerotier-one",
    )
    if wanted["controller"]:
        answer, why = api("/controller")
        check(
            "controller",
            answer is not None and answer.get("controller") is True,
            f"zerotier-one {status.get('version')} has no network controller ({why}); default packages are built without "
            "one from 1.16.0 on, so declare zerotier_version: 1.14.2, or install a build that has one",
        )
    return dict(status)


def membership(wanted: dict[str, Any], node: str, deadline: float) -> dict[str, Any]:
    """What the daemon says of the network, once it is let in or the time is over."""
    network, expected = wanted["network"], bare(wanted["addresses"])
    # A member that is shut out keeps its addresses, so both are needed.
    found, _why = until(
        deadline,
        lambda: api(f"/network/{network}"),
        lambda seen: (
            seen[0] is not None
            and seen[0].get("status") == "OK"
            and expected <= bare(seen[0].get("assignedAddresses", []))
        ),
    )
    found = found or {}
    status = found.get("status", "")
    means = MEANS.get(status, "see 'journalctl -u zerotier-one'").format(controller=network[:10], node=node)
    check(f"network {network}", status == "OK", f"its status is {status or 'not joined'}: {means}")
    differs = {name: found.get(name) for name, value in wanted["allow"].items() if found.get(name) != value}
    check("membership settings", not found or not differs, f"the daemon has {differs}; run the role")
    return dict(found)


def interface(wanted: dict[str, Any], found: dict[str, Any], deadline: float) -> int:
    """The network interface in the kernel, not what the daemon tells of it. Its MTU; 0 where there is none."""
    device = found.get("portDeviceName", "")
    assigned = bare(found.get("assignedAddresses", [])) if found.get("allowManaged") else set()
    expected = bare(wanted["addresses"])

    def look() -> tuple[int, str, set[str]]:
        status, said = run("ip", "-json", "address", "show", "dev", device)
        shown = json.loads(said)[0]["addr_info"] if status == 0 else []
        return status, said, bare(entry["local"] for entry in shown if entry["scope"] != "link")

    # The daemon says OK a moment before the kernel has the addresses.
    status, said, there = until(deadline, look, lambda seen: expected | assigned <= seen[2])
    if not check("interface", bool(device) and status == 0, f"there is no '{device}': {said.strip()}"):
        return 0
    link = json.loads(said)[0]
    check("interface is up", "UP" in link["flags"], f"{device} is down; 'ip link set {device} up' tries it")
    check(
        "mac address",
        link["address"] == found.get("mac"),
        f"{device} has {link['address']}, not {found.get('mac')}",
    )
    missing = sorted((expected | assigned) - there)
    check(
        "addresses",
        not missing and (bool(there) or not found.get("allowManaged")),
        f"{device} has {', '.join(sorted(there)) or 'none'}, and lacks {', '.join(missing) or 'any'}; "
        + remedy(device, missing, given=expected <= assigned),
    )
    strange = sorted(there - expected - assigned)
    if strange:
        warnings.append(f"{device} has addresses that the network did not give it: {', '.join(strange)}")
    check(
        "mtu", link["mtu"] == found.get("mtu"), f"{device} has {link['mtu']}, the network {found.get('mtu')}"
    )
    if wanted["mtu"]:
        check(
            "declared mtu",
            found.get("mtu") == wanted["mtu"],
            f"the network has {found.get('mtu')}, zerotier_mtu is {wanted['mtu']}; change the network or the variable",
        )
    return int(link["mtu"])


def remedy(device: str, missing: list[str], *, given: bool) -> str:
    """What to do about addresses that are missing."""
    if not given:
        return "the network does not give them: its addressing is another one than declared (mesh.addressing)"
    switch = IPV6 / device / "disable_ipv6"
    if any(":" in address for address in missing) and switch.is_file() and switch.read_text().strip() == "1":
        return (
            "IPv6 is switched off on this machine: set net.ipv6.conf.default.disable_ipv6 to 0 and restart zerotier-one, "
            "or have the network hand out IPv4 addresses (mesh.addressing: managed)"
        )
    return "'systemctl restart zerotier-one' sets them anew"


def secrets() -> None:
    """Who may read what must stay secret."""
    for name in ("identity.secret", "authtoken.secret"):
        path = HOME / name
        mode = path.stat().st_mode & 0o777 if path.is_file() else None
        check(
            name, mode is not None and not mode & 0o077, f"its mode is {mode and f'{mode:04o}'}; make it 0600"
        )


def openings(chain: str) -> set[tuple[str, str, str, str]]:
    """What a chain of ufw's lets in, from 'iptables -S': protocol, port, source, interface."""
    found = set()
    for line in chain.splitlines():
        words = shlex.split(line)
        if words[:1] != ["-A"] or words[-1] not in (
            "ACCEPT",
            "ufw-user-limit-accept",
            "ufw6-user-limit-accept",
        ):
            continue
        told = dict(itertools.pairwise(words))
        port = told.get("--dport") or told.get("--dports") or ""
        source = str(ipaddress.ip_network(told["-s"])) if "-s" in told else ""
        found.add((told.get("-p", ""), port, source, told.get("-i", "")))
    return found


def firewall(declared: list[dict[str, Any]]) -> None:
    """The rules in the kernel, where ufw is what closes the machine."""
    _status, said = run("ufw", "status")
    if "Status: active" not in said:
        return
    for family, program, chain in ((4, "iptables", "ufw-user-input"), (6, "ip6tables", "ufw6-user-input")):
        status, said = run(program, "-w", "-S", chain)
        if status != 0 and family == 6:
            continue  # ufw leaves IPv6 alone if it is told to.
        there = openings(said)
        missing = []
        for opening in declared:
            source = ipaddress.ip_network(opening["source"], strict=False) if opening.get("source") else None
            if source is not None and source.prefixlen == 0:
                source = None
            if source is not None and source.version != family:
                continue
            protocol, port = (
                opening.get("protocol") or "tcp",
                str(opening.get("port") or "").replace("-", ":"),
            )
            protocols = [""] if not port else ["tcp", "udp"] if protocol == "any" else [protocol]
            for one in protocols:
                rule = (one, port, str(source or ""), opening.get("interface") or "")
                if rule not in there:
                    missing.append(" ".join(filter(None, rule)))
        check(
            f"firewall IPv{family}",
            not missing,
            f"these ways in are declared and are not in the kernel: {'; '.join(missing)}; run the role, or 'ufw reload'",
        )


def latency(said: str) -> float | None:
    """Milliseconds to a peer: of the packets after the first, which may have had to find the way."""
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]
    later = times[1:] or times
    return round(sum(later) / len(later), 2) if later else None


def ping(peer: dict[str, Any], device: str, mtu: int, deadline: float) -> dict[str, Any]:
    """How long a peer takes to answer over the mesh, None if it does not, and whether packets of full size arrive."""
    address = ipaddress.ip_address(peer["address"])
    options = ["ping", "-n", "-I", device, "-W", "2", "-i", "0.2"]
    milliseconds = until(
        deadline,
        lambda: latency(run(*options, "-c", str(PINGS), str(address))[1]),
        lambda seen: seen is not None,
    )
    full = None
    if milliseconds is not None:
        size = str(mtu - HEADERS[address.version])
        full = latency(run(*options, "-c", "2", "-M", "do", "-s", size, str(address))[1]) is not None
    return {**peer, "ms": milliseconds, "full": full}


def peers(wanted: dict[str, Any], device: str, mtu: int, deadline: float) -> dict[str, float]:
    """The other members, all at once. Milliseconds to each that answers."""
    reached = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda peer: ping(peer, device, mtu, deadline), wanted["peers"]))
    for peer in answers:
        name, says = f"peer {peer['name']}", f"it does not answer at {peer['address']} over {device}"
        if peer["ms"] is None and not peer.get("required", True):
            warnings.append(f"{name}: {says}; its own firewall may drop pings, and nobody configures it here")
            continue
        if not check(
            name, peer["ms"] is not None, f"{says}; see 'zerotier-cli peers' here and there, and its firewall"
        ):
            continue
        reached[peer["name"]] = peer["ms"]
        if peer.get("required", True):
            check(
                f"full packets to {peer['name']}",
                peer["full"] is True,
                f"it answers, but not to packets of {mtu} bytes: something between drops them; lower the network's MTU",
            )
        if peer["ms"] > wanted["latency_warn_ms"]:
            warnings.append(
                f"{name}: {peer['ms']:.0f} ms, which is more than {wanted['latency_warn_ms']}; "
                "a relayed path is slow: 'zerotier-cli peers' shows RELAY where the UDP port is not reached"
            )
    return reached


def main() -> None:
    """Run the checks and print them with what was measured as one JSON object."""
    wanted = json.loads(sys.argv[1])
    reached: dict[str, float] = {}
    deadline = time.monotonic() + wanted["seconds"]
    status = daemon(wanted, deadline)
    found: dict[str, Any] = {}
    if status:
        found = membership(wanted, status["address"], deadline)
    if found.get("status") == "OK":
        mtu = interface(wanted, found, deadline)
        if mtu:
            # The wait for the admission is no wait of the peers'.
            reached = peers(wanted, found["portDeviceName"], mtu, time.monotonic() + wanted["seconds"])
    secrets()
    if wanted["firewall"] is not None:
        firewall(wanted["firewall"])
    status_of_package, installed = run("dpkg-query", "-W", "-f", "${Version}", "zerotier-one")
    print(
        json.dumps(
            {
                "checks": checks,
                "warnings": warnings,
                "versions": {"zerotier-one": installed.strip()} if status_of_package == 0 else {},
                "node": status.get("address", ""),
                "interface": found.get("portDeviceName", ""),
                "addresses": sorted(found.get("assignedAddresses", [])),
                "mtu": found.get("mtu"),
                "latency_ms": reached,
                "simulated": bool(simulated),
            }
        )
    )


if __name__ == "__main__":
    main()
