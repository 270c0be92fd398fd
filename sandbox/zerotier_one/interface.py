# SPDX-License-Identifier: GPL-3.0-or-later
"""A member's network interface: a macvlan on the host's Ethernet, driven through ``ip``."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

log = logging.getLogger("zerotier-one")
_SECONDS = 10
_LIKELY = "eth0"


@dataclass(frozen=True, slots=True)
class Wish:
    """How the interface should be.

    Attributes:
        connected: whether it reaches the others. Where not, it is down but keeps its addresses.
        addresses: with prefix lengths.
        routes: target and next hop, which may be empty.
    """

    mtu: int
    connected: bool
    addresses: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


class Interface:
    """One interface, by its name.

    Attributes:
        mtu: what it really has; 0 while it does not exist.
    """

    def __init__(self, name: str, mac: str) -> None:
        self.name = name
        self.mtu = 0
        self._mac = mac
        self._applied: Wish | None = None

    def apply(self, wish: Wish) -> bool:
        """Make it so; False where the host has no Ethernet to put it on."""
        if wish == self._applied:
            return True
        if self._applied is None:
            # What a daemon left that was killed may be wrong in every way.
            self.remove()
            if not self._create():
                return False
        self._set_mtu(wish.mtu)
        present = self._present()
        for address in present - set(wish.addresses):
            _ip("address", "delete", address, "dev", self.name)
        for address in wish.addresses:
            if address not in present:
                # Nobody else can have it, so it is used at once.
                extra = ["nodad"] if ":" in address else []
                _ip("address", "add", address, "dev", self.name, *extra)
        _ip("link", "set", self.name, "up" if wish.connected else "down")
        if wish.connected:
            self._set_routes(wish)
        self._applied = wish
        return True

    def _create(self) -> bool:
        lower = parent()
        if not lower:
            log.error("no eth0 and no default route: %s is not made, its member has no interface", self.name)
            return False
        options = (
            "link",
            lower,
            "name",
            self.name,
            "address",
            self._mac,
            "type",
            "macvlan",
            "mode",
            "bridge",
        )
        if error := _ip("link", "add", *options):
            log.error("the macvlan %s on %s is not made: %s", self.name, lower, error)
            return False
        # A container has IPv6 switched off everywhere, and a host's own addresses are reached through lo.
        _set_ipv6("lo", "disable_ipv6", "0")
        for setting, value in (("disable_ipv6", "0"), ("accept_ra", "0"), ("keep_addr_on_down", "1")):
            _set_ipv6(self.name, setting, value)
        return True

    def _set_mtu(self, wanted: int) -> None:
        """As wanted, or as much as the Ethernet below takes."""
        lower = parent()
        most = _link(lower).get("mtu", wanted) if lower else wanted
        self.mtu = min(wanted, int(most))
        _ip("link", "set", self.name, "mtu", str(self.mtu))

    def _present(self) -> set[str]:
        found = _link(self.name, addresses=True).get("addr_info", [])
        return {f"{entry['local']}/{entry['prefixlen']}" for entry in found if entry.get("scope") != "link"}

    def _set_routes(self, wish: Wish) -> None:
        own = {ip_interface(address).network for address in wish.addresses}
        for family in ("-4", "-6"):
            _ip(family, "route", "flush", "dev", self.name, "proto", "static")
        for target, via in wish.routes:
            network = ip_network(target, strict=False)
            if network in own and not via:
                continue
            hop = ["via", via] if via else []
            if error := _ip("route", "replace", str(network), *hop, "dev", self.name, "proto", "static"):
                log.warning("the route to %s is not made: %s", network, error)

    def remove(self) -> None:
        """Take it away; does nothing where it is gone."""
        self._applied, self.mtu = None, 0
        if Path(f"/sys/class/net/{self.name}").exists():
            _ip("link", "delete", self.name)


def parent() -> str:
    """The host's Ethernet: eth0, or what the default route goes through; empty if there is neither."""
    if Path(f"/sys/class/net/{_LIKELY}").exists():
        return _LIKELY
    routes = _json("route", "show", "default")
    return str(routes[0].get("dev", "")) if routes else ""


def own_addresses() -> list[str]:
    """IPv4 addresses of this host that are not of a member's interface, nor of loopback."""
    links = _json("address", "show")
    return [
        entry["local"]
        for link in links
        if not str(link.get("ifname", "")).startswith(("lo", "zt", "tun", "tap"))
        for entry in link.get("addr_info", [])
        if entry.get("family") == "inet"
    ]


def _set_ipv6(device: str, setting: str, value: str) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{device}/{setting}").write_text(value, "ascii")


def _link(name: str, *, addresses: bool = False) -> dict[str, Any]:
    found = _json("address" if addresses else "link", "show", "dev", name)
    return found[0] if found else {}


def _json(*words: str) -> list[dict[str, Any]]:
    try:
        done = _run(["ip", "-json", *words])
        return [entry for entry in json.loads(done.stdout or "[]") if entry]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return []


def _ip(*words: str) -> str:
    """Run ``ip``; what it complains about, empty if it did it."""
    try:
        done = _run(["ip", *words])
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
