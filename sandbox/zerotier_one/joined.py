# SPDX-License-Identifier: GPL-3.0-or-later
"""A network a node has joined: its status, its configuration, and what of that is on the host."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from .formulas import device_name, hardware_address, solicited_node
from .interface import Interface, Wish
from .values import Json, is_global

REFRESH_MS = 60_000
"""A configuration older than this is asked for again."""
_MTU = 2800
_GROUPS = ("01:00:5e:00:00:01", "33:33:00:00:00:01")


class Joined:
    """One network. The configuration outlives its withdrawal, as it does in the real daemon: only ``status`` tells."""

    def __init__(self, network: str, node: str, settings: dict[str, bool]) -> None:
        self.id = network
        self.settings = settings
        self.status = "REQUESTING_CONFIGURATION"
        self.updated = 0
        self.number = 0
        self._configuration: Json = {}
        self._connected = False
        self._created = False
        self._mac = hardware_address(network, node)
        self._interface = Interface(device_name(network), self._mac)

    @property
    def controller(self) -> str:
        """The node id of its controller."""
        return self.id[:10]

    def wants(self, now: int) -> bool:
        """Whether its configuration has to be asked for: there is none, or an old one."""
        return now - self.updated >= REFRESH_MS

    def take(self, reply: Json, now: int) -> bool:
        """Take over what the controller says; whether it is a configuration to remember."""
        self.status = str(reply.get("status"))
        self._connected = self.status == "OK"
        if not self._connected:
            return False
        changed = reply != self._configuration
        self._configuration, self.updated = reply, now
        return changed

    def remember(self, configuration: Json) -> None:
        """Begin with the configuration of the last run; it is asked for again at once."""
        self.status, self._configuration, self._connected = "OK", configuration, True

    def revoke(self) -> None:
        """The others have been told to drop its traffic. It does not notice before it asks again."""
        self._connected = False

    def apply(self) -> None:
        """Bring the host's interface in line."""
        addresses = [a for a in self._list("addresses") if self._may_have(a)]
        routes = [
            (str(route["target"]), str(route.get("via") or ""))
            for route in self._configuration.get("routes", [])
            if self._may_route(str(route["target"]))
        ]
        # Before its first configuration a member has an interface that is up and has no address.
        connected = self._connected or not self._configuration
        self._created = self._interface.apply(Wish(self._mtu, connected, tuple(addresses), tuple(routes)))

    def leave(self) -> None:
        """Take the interface off the host."""
        self._interface.remove()

    @property
    def _mtu(self) -> int:
        return int(self._configuration.get("mtu", _MTU))

    def _list(self, name: str) -> list[str]:
        return [str(value) for value in self._configuration.get(name, [])]

    def _may_have(self, address: str) -> bool:
        return self.settings["allowManaged"] and (self.settings["allowGlobal"] or not is_global(address))

    def _may_route(self, target: str) -> bool:
        if target.endswith("/0"):
            return self.settings["allowDefault"]
        return self._may_have(target)

    def as_json(self) -> Json:
        """As the local interface shows it."""
        known = self._configuration
        dns = known.get("dns") or {}
        return {
            **self.settings,
            "assignedAddresses": self._list("addresses"),
            "bridge": bool(known.get("bridge", False)),
            "broadcastEnabled": bool(known.get("broadcast", bool(known))),
            "dhcp": False,
            "dns": {"domain": dns.get("domain") or "", "servers": list(dns.get("servers") or [])},
            "id": self.id,
            "mac": self._mac,
            "mtu": self._interface.mtu or self._mtu,
            "multicastSubscriptions": self._groups(),
            "name": str(known.get("name", "")),
            "netconfRevision": int(known.get("revision", 0)),
            "nwid": self.id,
            "portDeviceName": self._interface.name,
            "portError": 0 if self._created else -1,
            "routes": [
                {"flags": 0, "metric": 0, "target": route["target"], "via": route.get("via") or None}
                for route in known.get("routes", [])
            ],
            "status": self.status,
            "type": str(known.get("type", "PRIVATE")),
        }

    def _groups(self) -> list[Json]:
        """The Ethernet groups its addresses bring with them."""
        if not self._created:
            return []
        octets = bytes(int(octet, 16) for octet in self._mac.split(":"))
        link_local = IPv6Address(
            b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
        )
        groups = {(group, 0) for group in (*_GROUPS, solicited_node(link_local))}
        for text in self._list("addresses"):
            address = ip_interface(text)
            if isinstance(address, IPv6Interface):
                groups.add((solicited_node(address.ip), 0))
            elif isinstance(address, IPv4Interface):
                groups.add(("ff:ff:ff:ff:ff:ff", int(address.ip)))
        return [{"adi": adi, "mac": mac} for mac, adi in sorted(groups)]
