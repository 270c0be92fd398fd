# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of the role zerotier: what it finds, and what it tells to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.zerotier.conftest import ADDRESS, ALLOW, LINK, MEMBERSHIP, NETWORK, NODE, Daemon


def wanted(**different: Any) -> dict[str, Any]:
    """What the role declares to the gate."""
    return {
        "network": NETWORK,
        "node": NODE,
        "addresses": [ADDRESS],
        "allow": ALLOW,
        "port": 9993,
        "mtu": 0,
        "controller": False,
        "firewall": None,
        "peers": [],
        "latency_warn_ms": 200,
        "seconds": 0,
        **different,
    }


def failed(gate: ModuleType) -> list[str]:
    """What the checks say that did not pass."""
    return [check["says"] for check in gate.checks if not check["ok"]]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({}, []),
        ({"status": "ACCESS_DENIED"}, [f"authorise node {NODE}"]),
        ({"status": "REQUESTING_CONFIGURATION"}, ["controller, node 0537bdcc75, does not answer"]),
        ({"status": "NOT_FOUND"}, ["the controller, node 0537bdcc75, has no such network"]),
        ({"status": "SOMETHING_NEW"}, ["its status is SOMETHING_NEW: see 'journalctl"]),
        ({"allowDefault": True}, ["the daemon has {'allowDefault': True}; run the role"]),
    ],
)
def test_a_membership_is_proved_or_told_what_is_missing(
    gate: ModuleType, daemon: Daemon, found: dict[str, Any], says: list[str]
) -> None:
    # A member that is shut out keeps its addresses, so they prove nothing.
    daemon.networks[NETWORK] = {**MEMBERSHIP, **found}
    gate.membership(wanted(), NODE, 0)
    assert len(failed(gate)) == len(says)
    for said, part in zip(failed(gate), says, strict=True):
        assert part in said


def test_it_waits_for_the_admission_and_for_the_address(
    gate: ModuleType, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[dict[str, Any]] = [
        {"status": "ACCESS_DENIED"},
        {"status": "OK", "assignedAddresses": []},
        {"status": "OK", "assignedAddresses": ["10.147.17.150/24"]},
        {},
    ]

    def sleep(_seconds: float) -> None:
        daemon.networks[NETWORK] = {**MEMBERSHIP, **stages.pop(0)}

    monkeypatch.setattr(gate.time, "sleep", sleep)
    found = gate.membership(wanted(), NODE, gate.time.monotonic() + 600)
    assert stages == []
    assert failed(gate) == []
    assert f"{ADDRESS}/88" in found["assignedAddresses"]


def test_a_network_that_was_not_joined_is_told(gate: ModuleType) -> None:
    assert gate.membership(wanted(), NODE, 0) == {}
    assert failed(gate) == [f"network {NETWORK}: its status is not joined: it has not joined: run the role"]


@pytest.mark.parametrize(
    ("found", "link", "says"),
    [
        ({}, {}, []),
        ({}, {"mtu": 1500}, ["mtu: ztzfbl3tg7 has 1500, the network 2800"]),
        ({}, {"flags": ["BROADCAST"]}, ["interface is up: ztzfbl3tg7 is down"]),
        ({}, {"address": "aa:aa:aa:aa:aa:aa"}, ["mac address: ztzfbl3tg7 has aa:aa:aa:aa:aa:aa"]),
        ({}, {"addr_info": LINK["addr_info"][1:]}, ["'systemctl restart zerotier-one' sets them anew"]),
        ({}, {"addr_info": LINK["addr_info"][::2]}, ["lacks 10.147.17.150"]),
        (
            {"assignedAddresses": ["10.147.17.150/24"]},
            {"addr_info": LINK["addr_info"][1:]},
            [f"lacks {ADDRESS}; the network does not give them"],
        ),
    ],
)
def test_the_interface_of_the_kernel_is_compared(
    gate: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, Any],
    link: dict[str, Any],
    says: list[str],
) -> None:
    monkeypatch.setattr(gate, "run", lambda *_command: (0, json.dumps([{**LINK, **link}])))
    gate.interface(wanted(), {**MEMBERSHIP, **found}, 0)
    assert len(failed(gate)) == len(says), failed(gate)
    for said, part in zip(failed(gate), says, strict=True):
        assert part in said


def test_an_address_of_somebody_else_on_the_interface_is_a_warning(
    gate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"family": "inet", "local": "192.0.2.7", "prefixlen": 24, "scope": "global"}
    link = {**LINK, "addr_info": [*LINK["addr_info"], more]}
    monkeypatch.setattr(gate, "run", lambda *_command: (0, json.dumps([link])))
    gate.interface(wanted(), MEMBERSHIP, 0)
    assert failed(gate) == []
    assert gate.warnings == ["ztzfbl3tg7 has addresses that the network did not give it: 192.0.2.7"]


def test_a_machine_without_ipv6_is_told_so(
    gate: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "ztzfbl3tg7").mkdir()
    (home / "ztzfbl3tg7" / "disable_ipv6").write_text("1\n", encoding="utf-8")
    gate.IPV6 = home  # type: ignore[attr-defined]
    link = {**LINK, "addr_info": LINK["addr_info"][1:]}
    monkeypatch.setattr(gate, "run", lambda *_command: (0, json.dumps([link])))
    gate.interface(wanted(), MEMBERSHIP, 0)
    assert "IPv6 is switched off on this machine" in failed(gate)[0]


def test_a_declared_mtu_is_the_networks(gate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "run", lambda *_command: (0, json.dumps([LINK])))
    gate.interface(wanted(mtu=2800), MEMBERSHIP, 0)
    assert failed(gate) == []
    gate.interface(wanted(mtu=1400), MEMBERSHIP, 0)
    assert failed(gate) == [
        "declared mtu: the network has 2800, zerotier_mtu is 1400; change the network or the variable"
    ]


@pytest.mark.parametrize(
    ("different", "status", "says"),
    [
        ({}, {}, []),
        ({"node": "aaaaaaaaaa"}, {}, [f"the daemon runs as node {NODE}, and"]),
        ({"port": 9994}, {}, ["it listens on 10.99.0.11/9993, 10.99.0.11/29335, declared is 9994"]),
        ({"port": 993}, {}, ["declared is 993"]),
        ({"controller": True}, {}, []),
        ({"controller": True}, {"version": "1.16.0"}, ["zerotier-one 1.16.0 has no network controller"]),
    ],
)
def test_the_running_daemon_is_the_declared_one(
    gate: ModuleType,
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    different: dict[str, Any],
    status: dict[str, Any],
    says: list[str],
) -> None:
    daemon.status |= status
    daemon.controller = daemon.status["version"] == "1.14.1"
    monkeypatch.setattr(gate, "run", lambda *_command: (0, "ActiveState=active\nUnitFileState=enabled\n"))
    gate.daemon(wanted(**different), 0)
    assert len(failed(gate)) == len(says), failed(gate)
    for said, part in zip(failed(gate), says, strict=True):
        assert part in said


def test_a_daemon_that_is_stopped_is_not_asked_for_long(
    gate: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "zerotier-one.port").write_text("1", encoding="utf-8")
    monkeypatch.setattr(gate, "run", lambda *_command: (0, "ActiveState=inactive\nUnitFileState=enabled\n"))
    monkeypatch.setattr(
        gate.time, "sleep", lambda _seconds: pytest.fail("it waits for a daemon that nobody starts")
    )
    assert gate.daemon(wanted(), gate.time.monotonic() + 600) == {}
    assert [says.partition(":")[0] for says in failed(gate)] == ["zerotier-one.service", "local API"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, None])
def test_a_secret_that_others_can_read_is_found(gate: ModuleType, home: Path, mode: int | None) -> None:
    (home / "authtoken.secret").chmod(0o600)
    if mode is not None:
        (home / "identity.secret").touch(mode=0o600)
        (home / "identity.secret").chmod(mode)
    gate.secrets()
    assert [says.partition(":")[0] for says in failed(gate)] == ([] if mode == 0o600 else ["identity.secret"])


# As ufw 0.36 leaves them in the kernel of Debian 13.
CHAIN = """\
-N ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --rsource
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport 22 -j ufw-user-limit-accept
-A ufw-user-input -p udp -m udp --dport 9993 -j ACCEPT
-A ufw-user-input -i zt+ -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-user-input -i zt+ -p tcp -m multiport --dports 6000:6010 -j ACCEPT
-A ufw-user-input -s 192.0.2.0/24 -p tcp -m tcp --dport 9100 -j ACCEPT
-A ufw-user-input -s 192.0.2.9/32 -j ACCEPT
-A ufw-user-input -i zt+ -p tcp -m tcp --dport 80 -j DROP
"""


@pytest.mark.parametrize(
    ("opening", "there"),
    [
        ({"port": "22", "limit": True}, True),
        ({"port": "9993", "protocol": "udp"}, True),
        ({"port": "9993"}, False),
        ({"port": "9993", "protocol": "any"}, False),
        ({"port": "22", "interface": "zt+"}, True),
        ({"port": "22", "interface": "eth0"}, False),
        ({"port": "6000-6010", "interface": "zt+"}, True),
        ({"port": "9100", "source": "192.0.2.0/24"}, True),
        ({"port": "9100"}, False),
        ({"port": "9100", "source": "192.0.2.0/24", "protocol": "any"}, False),
        ({"source": "192.0.2.9"}, True),
        ({"port": "22", "interface": "zt+", "source": "0.0.0.0/0"}, True),
        ({"port": "80", "interface": "zt+"}, False),
    ],
)
def test_an_opening_is_looked_for_in_the_kernel(
    gate: ModuleType, monkeypatch: pytest.MonkeyPatch, opening: dict[str, Any], there: bool
) -> None:
    def run(program: str, *_arguments: str) -> tuple[int, str]:
        return (
            (0, {"ufw": "Status: active\n", "iptables": CHAIN}[program])
            if program != "ip6tables"
            else (1, "")
        )

    monkeypatch.setattr(gate, "run", run)
    gate.firewall([opening])
    assert [check["ok"] for check in gate.checks] == [there]


def test_a_firewall_that_is_off_closes_nothing(gate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "run", lambda *_command: (0, "Status: inactive\n"))
    gate.firewall([{"port": "22"}])
    assert gate.checks == []


def test_the_first_packet_may_have_had_to_find_the_way(gate: ModuleType) -> None:
    line = "64 bytes from fd00::1: icmp_seq={} ttl=64 time={} ms\n"
    assert gate.latency("".join(line.format(*at) for at in [(1, 900), (2, 12.5), (3, 11.5)])) == 12.0
    assert gate.latency(line.format(1, 3.2)) == 3.2
    assert gate.latency("4 packets transmitted, 0 received, 100% packet loss") is None


class Pings:
    """The program ping: some addresses answer, after some time, and some not to large packets."""

    def __init__(self, answers: dict[str, float], too_small: tuple[str, ...] = ()) -> None:
        self.answers, self.too_small, self.sizes = answers, too_small, set[str]()

    def __call__(self, *command: str) -> tuple[int, str]:
        address = command[-1]
        if "-s" in command:
            self.sizes.add(command[command.index("-s") + 1])
            if address in self.too_small:
                return 1, "ping: sendmsg: Message too long"
        found = self.answers.get(address)
        return (1, "") if found is None else (0, f"time={found} ms\ntime={found} ms\n")


def peer(name: str, address: str, **more: Any) -> dict[str, Any]:
    """As the role declares one."""
    return {"name": name, "address": address, **more}


def test_every_peer_is_reached_and_measured(gate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pings = Pings(
        {"fd00::1": 0.4, "fd00::2": 250.0, "10.0.0.3": 1.0, "fd00::5": 1.0}, too_small=("10.0.0.3", "fd00::5")
    )
    monkeypatch.setattr(gate, "run", pings)
    peers = [
        peer("agate", "fd00::1"),
        peer("beryl", "fd00::2"),
        peer("garnet", "10.0.0.3"),
        peer("topaz", "fd00::4"),
        peer("laptop", "fd00::5", required=False),
        peer("phone", "fd00::6", required=False),
    ]
    reached = gate.peers(wanted(peers=peers), "ztzfbl3tg7", 2800, 0)
    assert reached == {"agate": 0.4, "beryl": 250.0, "garnet": 1.0, "laptop": 1.0}
    assert pings.sizes == {"2752", "2772"}
    assert [says.partition(":")[0] for says in failed(gate)] == ["full packets to garnet", "peer topaz"]
    assert [warning.partition(":")[0] for warning in gate.warnings] == ["peer beryl", "peer phone"]
    assert "250 ms, which is more than 200" in gate.warnings[0]
