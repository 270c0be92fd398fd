# SPDX-License-Identifier: GPL-3.0-or-later
"""UFW openings: what is declared against what is there, as one list of ufw commands. Pure.

Rules are told apart by their comment, `gpumesh <owner>: <text>`. Each owner adds and removes only its own; a rule that
somebody typed by hand has no such comment and is left alone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from dataclasses import dataclass

OURS = re.compile(r"^gpumesh (?P<owner>[a-z0-9_]+): ")
COMMENT = re.compile(r"^[\w .,:;/@()+=-]*$")
INTERFACE = re.compile(r"^[\w.+@-]{1,15}$")


class FirewallError(Exception):
    """The wish cannot be carried out, and nothing was changed."""


@dataclass(frozen=True)
class Opening:
    """One way in. Without a port it opens everything to its source or interface."""

    port: str = ""
    protocol: str = "tcp"
    source: str = ""
    interface: str = ""
    limit: bool = False
    comment: str = ""

    @property
    def ports(self) -> range:
        """The ports it opens."""
        if not self.port:
            return range(65536)
        first, _dummy, last = self.port.partition(":")
        return range(int(first), int(last or first) + 1)

    def lets_in(self, address: str, port: int) -> bool:
        """Whether a new TCP connection from an address to a port passes. By an interface nobody can tell."""
        if self.interface or self.protocol == "udp" or port not in self.ports:
            return False
        if not self.source:
            return True
        caller = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(caller, "ipv4_mapped", None)
        network = ipaddress.ip_network(self.source, strict=False)
        return (mapped or caller) in network

    def rule(self) -> str:
        """The rule as `ufw show added` prints it."""
        action = "limit" if self.limit else "allow"
        protocol = "" if self.protocol == "any" else self.protocol
        if self.port and not self.source and not self.interface:
            return f"{action} {self.port}/{protocol}" if protocol else f"{action} {self.port}"
        words = [action]
        if self.interface:
            words += ["in", "on", self.interface]
        if self.source:
            words += ["from", self.source]
        if self.port:
            words += ["to", "any", "port", self.port]
            words += ["proto", protocol] if protocol else []
        return " ".join(words)


def opening(
    port: str = "",
    protocol: str = "tcp",
    source: str = "",
    interface: str = "",
    limit: bool = False,
    comment: str = "",
) -> Opening:
    """Check one declared opening and bring it into the form that ufw keeps."""
    port = str(port or "").replace("-", ":")
    shown = f"opening of port {port or 'any'} from {source or 'anywhere'}"
    if not (port or source or interface):
        raise FirewallError(
            "an opening names no port, no source and no interface: it would open the machine to everybody"
        )
    if port:
        numbers = port.split(":")
        if len(numbers) > 2 or not all(number.isdigit() and 0 < int(number) < 65536 for number in numbers):
            raise FirewallError(f"{shown}: a port is a number from 1 to 65535, a range is 6000:6010")
        if len(numbers) == 2 and int(numbers[0]) >= int(numbers[1]):
            raise FirewallError(f"{shown}: a range goes from the lower port to the higher")
        if len(numbers) == 2 and protocol == "any":
            raise FirewallError(f"{shown}: ufw wants a protocol for a range; declare it for tcp and for udp")
    if source:
        try:
            network = ipaddress.ip_network(source, strict=False)
        except ValueError as problem:
            raise FirewallError(
                f"{shown}: the source is an address or a network like 203.0.113.0/24"
            ) from problem
        whole = network.prefixlen == network.max_prefixlen
        source = "" if network.prefixlen == 0 else str(network.network_address) if whole else str(network)
        if not (port or source or interface):
            raise FirewallError(f"{shown}: it would open every port to everybody")
    if interface and not INTERFACE.match(interface):
        raise FirewallError(f"{shown}: '{interface}' is no name of a network interface")
    if not COMMENT.match(comment):
        raise FirewallError(f"{shown}: its comment may hold letters, digits, spaces and .,:;/@()+=- only")
    return Opening(port, protocol, source, interface, limit, comment)


@dataclass(frozen=True)
class Rule:
    """One rule that is there: its text, and whose it is."""

    text: str
    comment: str = ""

    @property
    def owner(self) -> str:
        """The owner by the comment; empty for a rule that is not ours."""
        found = OURS.match(self.comment)
        return found["owner"] if found else ""


def parse(shown: str) -> list[Rule]:
    """The rules in the output of `ufw show added`."""
    rules = []
    for line in shown.splitlines():
        if not line.startswith("ufw "):
            continue
        text, marker, comment = line[len("ufw ") :].partition(" comment ")
        rules.append(Rule(text, "".join(shlex.split(comment)) if marker else ""))
    return rules


def read(rule: Rule) -> Opening | None:
    """A rule as an opening, as far as it lets something in; None for what we do not understand."""
    words = rule.text.split()
    if not words or words[0] not in ("allow", "limit"):
        return None
    if len(words) == 2 and re.fullmatch(r"\d+(:\d+)?(/(tcp|udp))?", words[1]):
        port, _dummy, protocol = words[1].partition("/")
        return Opening(port=port, protocol=protocol or "any")
    found = re.fullmatch(
        r"(?:in on (?P<interface>\S+))? ?(?:from (?P<source>\S+))? ?"
        r"(?:to any port (?P<port>\d+(?::\d+)?))?(?: proto (?P<protocol>tcp|udp))?",
        " ".join(words[1:]),
    )
    if found is None:
        return None
    return Opening(
        port=found["port"] or "",
        protocol=found["protocol"] or "any",
        source="" if found["source"] in (None, "any") else found["source"],
        interface=found["interface"] or "",
    )


@dataclass(frozen=True)
class State:
    """What ufw is set to."""

    installed: bool = False
    enabled: bool = False
    incoming: str = ""
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to run, in this order: ways in are opened before anything is closed."""

    commands: tuple[tuple[str, ...], ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def plan(
    state: State,
    owner: str,
    openings: list[Opening],
    *,
    enable: bool,
    exclusive: bool,
    connection: tuple[str, int] | None,
) -> Plan:
    """What differs, as commands.

    Args:
        owner: whose openings these are.
        enable: make the firewall active and deny what is not opened; otherwise only the rules are looked after.
        exclusive: also remove rules that were typed by hand.
        connection: address and port of the connection in use, which must stay possible.
    """
    wished = {item.rule(): f"gpumesh {owner}: {item.comment or 'declared'}" for item in openings}
    elsewhere = {rule.text for rule in state.rules if rule.owner not in ("", owner)}
    there = {rule.text: rule.comment for rule in state.rules}
    add = [text for text in wished if text not in elsewhere and there.get(text) != wished[text]]
    drop = [
        rule
        for rule in state.rules
        if rule.text not in wished and (rule.owner == owner or (exclusive and not rule.owner))
    ]
    if enable and connection is not None:
        stays = [read(rule) for rule in state.rules if rule not in drop]
        ways = [*openings, *(item for item in stays if item is not None)]
        if not any(item.lets_in(*connection) for item in ways):
            raise FirewallError(
                f"the firewall would shut out the connection in use (from {connection[0]} to port {connection[1]}), "
                "so nothing was changed: declare an opening that lets it in"
            )
    commands: list[tuple[str, ...]] = [
        ("ufw", *text.split(), "comment", wished[text]) for text in wished if text in add
    ]
    if enable and state.incoming != "deny":
        commands.append(("ufw", "default", "deny", "incoming"))
    if enable and not state.enabled:
        commands.append(("ufw", "--force", "enable"))
    commands += [("ufw", "--force", "delete", *rule.text.split()) for rule in drop]

    before = [_line(rule.text, rule.comment) for rule in state.rules]
    kept = [rule for rule in state.rules if rule not in drop and rule.text not in add]
    after = [_line(rule.text, rule.comment) for rule in kept] + [_line(text, wished[text]) for text in add]
    active = enable or state.enabled
    return Plan(
        commands=tuple(commands),
        before=(_status(state.enabled, state.incoming), *sorted(before)),
        after=(_status(active, "deny" if enable else state.incoming), *sorted(after)),
    )


def _line(text: str, comment: str) -> str:
    return f"{text}  # {comment}" if comment else text


def _status(enabled: bool, incoming: str) -> str:
    return f"status: {'active' if enabled else 'inactive'}, incoming: {incoming or 'unknown'}"
