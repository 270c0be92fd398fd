# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared openings against what ufw has: idempotent, per owner, and never against the connection in use."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import firewall
from hypothesis import given
from hypothesis import strategies as st

# As ufw 0.36.2 prints it (Debian 13).
SHOWN = """Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp comment 'gpumesh base: SSH'
ufw allow from 10.0.0.0/8 to any port 80 proto tcp comment 'gpumesh base: web'
ufw allow in on eth0 to any port 5000:5010 proto udp comment 'gpumesh base: y'
ufw limit 2222/tcp comment 'gpumesh base: w'
ufw allow from 10.1.2.3 comment 'gpumesh zerotier: host'
ufw allow in on zt+ comment 'gpumesh base: mesh'
ufw allow 8080/tcp
ufw deny from 192.0.2.1
"""
SSH = firewall.opening(port="22", comment="SSH")


def state(*rules: str, enabled: bool = True) -> firewall.State:
    return firewall.State(
        True, enabled, "deny", tuple(firewall.parse("\n".join(f"ufw {rule}" for rule in rules)))
    )


def commands(
    present: firewall.State,
    *openings: firewall.Opening,
    exclusive: bool = False,
    connection: tuple[str, int] | None = None,
) -> list[str]:
    plan = firewall.plan(
        present, "base", list(openings), enable=True, exclusive=exclusive, connection=connection
    )
    return [" ".join(command) for command in plan.commands]


@pytest.mark.parametrize(
    ("opening", "rule"),
    [
        ({"port": "22"}, "allow 22/tcp"),
        ({"port": 22}, "allow 22/tcp"),
        ({"port": "53", "protocol": "any"}, "allow 53"),
        ({"port": "80", "source": "10.1.2.3/8"}, "allow from 10.0.0.0/8 to any port 80 proto tcp"),
        ({"port": "80", "source": "10.1.2.3/32"}, "allow from 10.1.2.3 to any port 80 proto tcp"),
        ({"port": "80", "source": "0.0.0.0/0"}, "allow 80/tcp"),
        (
            {"port": "5000-5010", "protocol": "udp", "interface": "eth0"},
            "allow in on eth0 to any port 5000:5010 proto udp",
        ),
        (
            {"port": "53", "protocol": "any", "source": "fd00::1/8", "interface": "eth0"},
            "allow in on eth0 from fd00::/8 to any port 53",
        ),
        ({"port": "2222", "limit": True}, "limit 2222/tcp"),
        ({"source": "10.1.2.3"}, "allow from 10.1.2.3"),
        ({"interface": "zt+"}, "allow in on zt+"),
    ],
)
def test_an_opening_is_written_as_ufw_prints_it(opening: dict[str, object], rule: str) -> None:
    assert firewall.opening(**opening).rule() == rule


@pytest.mark.parametrize(
    ("opening", "complaint"),
    [
        ({}, "no port, no source and no interface"),
        ({"source": "::/0"}, "every port to everybody"),
        ({"port": "0"}, "from 1 to 65535"),
        ({"port": "http"}, "from 1 to 65535"),
        ({"port": "20:10"}, "from the lower port"),
        ({"port": "10:20", "protocol": "any"}, "wants a protocol"),
        ({"port": "22", "source": "10.0.0"}, "an address or a network"),
        ({"port": "22", "interface": "eth0; reboot"}, "no name of a network interface"),
        ({"port": "22", "comment": "it's"}, "letters, digits"),
    ],
)
def test_an_impossible_opening_is_refused(opening: dict[str, str], complaint: str) -> None:
    with pytest.raises(firewall.FirewallError, match=complaint):
        firewall.opening(**opening)


def test_the_rules_are_read_with_their_owners() -> None:
    rules = firewall.parse(SHOWN)
    assert [rule.owner for rule in rules] == ["base", "base", "base", "base", "zerotier", "base", "", ""]
    assert rules[1] == firewall.Rule("allow from 10.0.0.0/8 to any port 80 proto tcp", "gpumesh base: web")


def test_a_second_run_changes_nothing() -> None:
    assert commands(state("allow 22/tcp comment 'gpumesh base: SSH'"), SSH) == []


def test_a_blank_machine_is_opened_before_it_is_closed() -> None:
    assert commands(firewall.State(), SSH) == [
        "ufw allow 22/tcp comment gpumesh base: SSH",
        "ufw default deny incoming",
        "ufw --force enable",
    ]


def test_what_is_no_longer_declared_is_closed_after_the_new_is_opened() -> None:
    present = state("allow 22/tcp comment 'gpumesh base: SSH'", "allow 80/tcp comment 'gpumesh base: web'")
    assert commands(present, SSH, firewall.opening(port="443")) == [
        "ufw allow 443/tcp comment gpumesh base: declared",
        "ufw --force delete allow 80/tcp",
    ]


def test_others_rules_stay() -> None:
    present = state(
        "allow 22/tcp comment 'gpumesh base: SSH'",
        "allow 8080/tcp",
        "allow 9993/udp comment 'gpumesh zerotier: mesh'",
    )
    assert commands(present, SSH) == []
    assert commands(present, SSH, exclusive=True) == ["ufw --force delete allow 8080/tcp"]


def test_what_another_owner_has_opened_is_not_taken_over() -> None:
    present = state(
        "allow 22/tcp comment 'gpumesh base: SSH'", "allow 9993/udp comment 'gpumesh zerotier: mesh'"
    )
    assert commands(present, SSH, firewall.opening(port="9993", protocol="udp")) == []


def test_the_connection_in_use_is_never_shut_out() -> None:
    only_office = firewall.opening(port="22", source="203.0.113.0/24")
    assert commands(state(enabled=False), only_office, connection=("203.0.113.9", 22))
    with pytest.raises(firewall.FirewallError, match=r"from 198\.51\.100\.7 to port 22"):
        commands(state(enabled=False), only_office, connection=("198.51.100.7", 22))
    with pytest.raises(firewall.FirewallError, match="port 2222"):
        commands(state(enabled=False), SSH, connection=("203.0.113.9", 2222))


def test_a_rule_typed_by_hand_may_be_what_lets_us_in_unless_it_goes() -> None:
    present = state("allow from 198.51.100.0/24 to any port 22 proto tcp")
    office = firewall.opening(port="22", source="203.0.113.0/24")
    assert commands(present, office, connection=("198.51.100.7", 22))
    with pytest.raises(firewall.FirewallError):
        commands(present, office, connection=("198.51.100.7", 22), exclusive=True)


@pytest.mark.parametrize(
    ("address", "passes"),
    [("10.9.9.9", True), ("::ffff:10.9.9.9", True), ("11.0.0.1", False), ("fe80::1%eth0", False)],
)
def test_who_is_let_in_by_a_source(address: str, passes: bool) -> None:
    assert firewall.opening(port="22", source="10.0.0.0/8").lets_in(address, 22) is passes


OPENINGS = st.builds(
    firewall.opening,
    port=st.integers(1, 65535).map(str),
    protocol=st.sampled_from(["tcp", "udp", "any"]),
    source=st.sampled_from(["", "10.0.0.0/8", "192.0.2.7", "fd00::/8"]),
    interface=st.sampled_from(["", "eth0", "zt+"]),
    limit=st.booleans(),
    comment=st.text("ab c:", max_size=5).map(str.strip),
)


@given(st.lists(OPENINGS, max_size=6), st.lists(OPENINGS, max_size=6))
def test_after_the_commands_nothing_is_left_to_do(
    before: list[firewall.Opening], wanted: list[firewall.Opening]
) -> None:
    rules = {item.rule(): f"gpumesh base: {item.comment or 'declared'}" for item in before}
    first = firewall.plan(
        firewall.State(
            True, True, "deny", tuple(firewall.Rule(text, comment) for text, comment in rules.items())
        ),
        "base",
        wanted,
        enable=True,
        exclusive=False,
        connection=None,
    )
    for command in first.commands:
        if command[:3] == ("ufw", "--force", "delete"):
            del rules[" ".join(command[3:])]
        else:
            rules[" ".join(command[1:-2])] = command[-1]
    there = firewall.State(
        True, True, "deny", tuple(firewall.Rule(text, comment) for text, comment in rules.items())
    )
    again = firewall.plan(there, "base", wanted, enable=True, exclusive=False, connection=None)
    assert again.commands == ()
    assert again.before == again.after == first.after


@given(OPENINGS)
def test_a_rule_is_read_back_as_the_opening_it_was(opening: firewall.Opening) -> None:
    read = firewall.read(firewall.Rule(opening.rule()))
    assert read is not None
    assert (read.port, read.protocol, read.source, read.interface) == (
        opening.port,
        opening.protocol,
        opening.source,
        opening.interface,
    )


def test_the_whole_internet_in_both_families_is_everybody_and_one_rule() -> None:
    everybody = [firewall.opening(port="22", source=net, comment="SSH") for net in ("0.0.0.0/0", "::/0")]
    assert commands(state(), *everybody, connection=("2001:db8::1", 22)) == [
        "ufw allow 22/tcp comment gpumesh base: SSH"
    ]
    there = state("allow 22/tcp comment 'gpumesh base: SSH'")
    assert commands(there, *everybody, connection=("198.51.100.1", 22)) == []
