# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach SSH on Compute Engine, as firewall rules. Pure.

Every instance carries two tags: one that all of the fleet in its network share, and one of its own. Sources for the
whole fleet are rules for the first; sources of a machine's own are rules for the second, which are looked at earlier. So
a machine gets sources of its own, or loses them, by its rules alone, and nothing of the instance has to change.

Google's firewall rules have no labels. Ours are known by their description, which names the fleet.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .gcp_models import GcpMachine
from .gcp_wire import last

Json = Mapping[str, Any]

_SSH = 22

ALLOW_PRIORITY = 900
"""Of the rule that opens SSH to declared sources; below Google's default of 1000, so it is looked at earlier."""

DENY_PRIORITY = ALLOW_PRIORITY + 1
"""Of the rule that closes it to all others, whatever else the network allows (``default-allow-ssh``)."""

_OWN = 10
"""How much earlier the rules of a single machine are looked at."""


@dataclass(frozen=True, slots=True)
class SshRule:
    """Who may reach the SSH port of which machines.

    Attributes:
        tag: network tag of the machines, and name of the rule.
        own: for one machine, and not for the fleet.
        network: VPC network it is for.
        sources: IPv4 networks. Machines are made without a public IPv6 address, so IPv6 sources do not matter.
        ports: of the SSH server: where images listen, and where it is to listen later.
    """

    tag: str
    network: str
    sources: tuple[str, ...]
    ports: tuple[int, ...]
    own: bool = False

    @property
    def priority(self) -> int:
        """Of the rule that allows; the one that denies comes next."""
        return ALLOW_PRIORITY - _OWN * self.own

    @property
    def open_to_all(self) -> bool:
        """Whether nobody is kept out."""
        return any(ipaddress.ip_network(source).prefixlen == 0 for source in self.sources)

    def firewalls(self, fleet: str) -> dict[str, dict[str, Any] | None]:
        """The firewall rules that make it so, by name; None: there must be no rule of that name.

        A rule with no source would be open to all, so without sources there is none that allows.
        """
        common = {
            "description": description(fleet),
            "network": f"global/networks/{self.network}",
            "direction": "INGRESS",
            "targetTags": [self.tag],
            "disabled": False,
        }
        ssh = [{"IPProtocol": "tcp", "ports": [str(port) for port in self.ports]}]
        allow = {
            **common,
            "name": self.tag,
            "priority": self.priority,
            "sourceRanges": list(self.sources),
            "allowed": ssh,
        }
        deny = {
            **common,
            "name": f"{self.tag}-deny",
            "priority": self.priority + 1,
            "sourceRanges": ["0.0.0.0/0"],
            "denied": ssh,
        }
        return {
            self.tag: allow if self.sources else None,
            f"{self.tag}-deny": None if self.open_to_all else deny,
        }


def description(fleet: str) -> str:
    """By which a firewall rule of a fleet is known."""
    return f"SSH to the machines of fleet {fleet}; kept by gpumesh.fleet."


def ssh_rule(fleet: str, machine: GcpMachine, sources: Sequence[str], ssh_port: int) -> SshRule:
    """The rule a machine is under: the fleet's, or its own where it declares its own sources."""
    own = machine.ssh_sources is not None
    v4 = sorted({source for source in sources if ipaddress.ip_network(source).version == 4})
    return SshRule(
        tags(fleet, machine)[own], machine.network, tuple(v4), tuple(sorted({_SSH, ssh_port})), own
    )


def tags(fleet: str, machine: GcpMachine) -> tuple[str, str]:
    """The network tags of a machine: the one all of the fleet share in that network, and its own."""
    return _tag(fleet, machine.network, ""), _tag(fleet, machine.network, machine.name)


def _tag(fleet: str, network: str, machine: str) -> str:
    name = f"gpumesh-{fleet}"
    if machine or network != "default" or len(name) > 63 - len("-ssh-deny"):
        digest = hashlib.sha256(f"{fleet}/{network}/{machine}".encode()).hexdigest()[:8]
        name = f"{name[: 63 - len('-12345678-ssh-deny')].rstrip('-')}-{digest}"
    return f"{name}-ssh"


def words(rule: Json) -> dict[str, str]:
    """A firewall rule in words, as far as it is compared."""
    found = traffic(rule)
    for key in _FIREWALL_KEYS:
        if key not in ("sourceRanges", "allowed", "denied"):
            value = _comparable(rule, key)
            found[key] = ", ".join(value) if isinstance(value, list) else str(value)
    return found


def traffic(rule: Json) -> dict[str, str]:
    """What a firewall rule lets through, or does not, from where."""
    there = sorted(rule.get("sourceRanges") or ("0.0.0.0/0",))
    found = {}
    for verb, key in (("from", "allowed"), ("closed to", "denied")):
        for entry in rule.get(key) or ():
            protocol = str(entry.get("IPProtocol")).lower()
            for port in entry.get("ports") or ("",):
                what = "SSH" if (protocol, port) == ("tcp", str(_SSH)) else f"{protocol} {port}".rstrip()
                found[f"{what} {verb}"] = ", ".join(there)
    return dict(sorted(found.items()))


def same_firewall(actual: Json, wanted: Json) -> bool:
    """Whether a firewall rule that exists is the one wanted."""
    return all(_comparable(actual, key) == _comparable(wanted, key) for key in _FIREWALL_KEYS)


_FIREWALL_KEYS = (
    "network",
    "direction",
    "priority",
    "disabled",
    "sourceRanges",
    "targetTags",
    "allowed",
    "denied",
)


def _comparable(rule: Json, key: str) -> Any:
    value = rule.get(key)
    if key == "network":
        return last(value)
    if key in ("allowed", "denied"):
        return sorted(
            (str(entry.get("IPProtocol")).lower(), sorted(entry.get("ports") or ())) for entry in value or ()
        )
    return sorted(value or ()) if key in ("sourceRanges", "targetTags") else value or 0


def wider_rules(firewalls: Iterable[Json], rule: SshRule) -> list[str]:
    """Rules of others that open SSH to more than is declared, and that ours cannot overrule, in sentences."""
    declared = [ipaddress.ip_network(source) for source in rule.sources]
    notes = []
    for other in firewalls:
        if (
            other.get("name") == rule.tag
            or last(other.get("network")) != rule.network
            or other.get("direction", "INGRESS") != "INGRESS"
            or other.get("disabled")
            or int(other.get("priority", 1000)) > rule.priority
            or other.get("targetServiceAccounts")
            or (other.get("targetTags") and rule.tag not in other["targetTags"])
            or not any(_opens(entry, rule.ports) for entry in other.get("allowed") or ())
        ):
            continue
        wider = [
            source for source in other.get("sourceRanges") or ("0.0.0.0/0",) if not _inside(source, declared)
        ]
        if wider:
            notes.append(
                f"firewall rule {other.get('name')} of network {rule.network} opens SSH to {', '.join(wider)}, which is more "
                f"than ssh_sources says, and its priority {other.get('priority')} is above ours: delete or narrow it"
            )
    return notes


def _opens(entry: Json, ports: Iterable[int]) -> bool:
    protocol = str(entry.get("IPProtocol")).lower()
    if protocol not in ("tcp", "6", "all"):
        return False
    ranges = [str(text).partition("-")[::2] for text in entry.get("ports") or ()]
    return not ranges or any(int(low) <= port <= int(high or low) for low, high in ranges for port in ports)


def _inside(source: str, declared: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether all of a source is declared, or it is IPv6, over which our machines cannot be reached."""
    network = ipaddress.ip_network(source, strict=False)
    if isinstance(network, ipaddress.IPv6Network):
        return True
    return any(isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other) for other in declared)
