# SPDX-License-Identifier: GPL-3.0-or-later
"""What the local ZeroTier Central tells nodes: as a real controller (ZeroTier One 1.14.1) was recorded to do it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox import zerotier_addresses as addresses
from sandbox.backends.virtual import VirtualBackend
from sandbox.faults import Rule
from sandbox.world import World
from sandbox.zerotier_account import NETWORK, Central
from sandbox.zerotier_network import Network

pytestmark = pytest.mark.integration

NODE, OTHER = "8046d53400", "abcdef0123"
POOL = {"ipRangeStart": "10.147.17.100", "ipRangeEnd": "10.147.17.199"}
WIDE = {"ipRangeStart": "fd42:147:17::", "ipRangeEnd": "fd42:147:17:0:ffff:ffff:ffff:ffff"}
ROUTES = [{"target": "10.147.17.0/24", "via": None}, {"target": "fd42:147:17::/64", "via": None}]


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def time(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def central(tmp_path: Path, clock: Clock) -> Central:
    return World(VirtualBackend(), state_dir=tmp_path, clock=clock).store(Central)


@pytest.fixture
def network(central: Central) -> Network:
    return central.network(NETWORK)


def ask(central: Central, node: str = NODE, identity: str = "") -> dict[str, object]:
    return central.configuration(NETWORK, node, "10.77.0.5/9993", "1.14.2", identity)


def authorize(central: Central, node: str = NODE, **config: object) -> None:
    central.change_member(central.network(NETWORK), node, {"config": {"authorized": True, **config}})


def test_an_unknown_network_and_an_unknown_node(central: Central, network: Network) -> None:
    assert central.configuration("8056c2e21c00ffff", NODE, "10.77.0.5", "1.14.2")["status"] == "NOT_FOUND"
    assert ask(central)["status"] == "ACCESS_DENIED"
    assert ask(central)["addresses"] == []
    record = network.members[NODE].record
    assert (record["physicalAddress"], record["clientVersion"]) == ("10.77.0.5", "1.14.2")
    assert record["lastSeen"] == central.now()
    assert record["config"]["authorized"] is False


def test_what_a_member_is_told(central: Central, network: Network) -> None:
    modes = {"6plane": True, "rfc4193": True, "zt": True}
    central.change_network(
        network,
        {
            "config": {
                "name": "minerals",
                "mtu": 1400,
                "v6AssignMode": modes,
                "ipAssignmentPools": [POOL, WIDE],
                "routes": [*ROUTES, {"target": "192.168.77.0/24", "via": "10.147.17.77"}],
                "dns": {"domain": "zt", "servers": ["10.147.17.1"]},
            }
        },
    )
    authorize(central, "fa34221551")
    told = ask(central, "fa34221551")
    assert told["status"] == "OK"
    assert told["addresses"] == [
        "fddb:4344:343b:14b9:399:93fa:3422:1551/88",
        "fce0:57fd:37fa:3422:1551::1/40",
        "fd42:147:17::fa:3422:1551/64",
        "10.147.17.150/24",
    ], "in this order, and these pool addresses, a real controller gave the node of this id"
    assert (told["name"], told["mtu"], told["dns"]) == (
        "minerals",
        1400,
        {"domain": "zt", "servers": ["10.147.17.1"]},
    )
    assert told["routes"] == [*ROUTES, {"target": "192.168.77.0/24", "via": "10.147.17.77"}]
    assert (told["private"], told["broadcast"], told["bridge"]) == (True, True, False)
    revision = told["revision"]
    central.change_network(network, {"config": {"mtu": 1500}})
    assert isinstance(revision, int)
    assert ask(central, "fa34221551")["revision"] == revision + 1


def test_the_computed_addresses_of_all_recorded_nodes(root: Path) -> None:
    vectors = json.loads((root / "tests" / "fixtures" / "zerotier" / "address-vectors.json").read_text())
    assert len(vectors["vectors"]) > 20
    for vector in vectors["vectors"]:
        assert addresses.rfc4193(vector["network"], vector["node"]) == vector["rfc4193"]
        assert addresses.sixplane(vector["network"], vector["node"]) == vector["sixplane"]
    assert addresses.mac(NETWORK, NODE) == "02:39:52:ee:00:44"
    assert addresses.mac("0537bdcc750000aa", "fa34221551") == "aa:fa:34:57:d9:ec"


@pytest.mark.parametrize(
    ("node", "taken", "given"),
    [
        ("acd59acc21", (), "10.147.17.116"),
        ("fa34221551", (), "10.147.17.150"),
        ("fa34221551", ("10.147.17.150", "10.147.17.151"), "10.147.17.152"),
    ],
)
def test_the_recorded_choices_from_a_pool(node: str, taken: tuple[str, ...], given: str) -> None:
    targets = addresses.on_link(ROUTES)
    assert addresses.from_pools(node, [WIDE, POOL], targets, taken, 4) == given


@pytest.mark.parametrize(
    ("pool", "routes"),
    [
        ({"ipRangeStart": "10.147.17.199", "ipRangeEnd": "10.147.17.100"}, ROUTES),
        ({"ipRangeStart": "10.147.17.1", "ipRangeEnd": "fd00::1"}, ROUTES),
        ({"ipRangeStart": "nonsense"}, ROUTES),
        (POOL, []),
        (POOL, [{"target": "10.147.17.0/24", "via": "10.147.17.1"}]),
        (POOL, [{"target": "nonsense"}]),
        (POOL | {"ipRangeEnd": "10.147.17.102"}, [{"target": "10.147.18.0/24"}]),
    ],
)
def test_pools_that_give_nothing(pool: dict[str, str], routes: list[dict[str, str]]) -> None:
    assert addresses.from_pools(NODE, [pool], addresses.on_link(routes), (), 4) is None


def test_the_smallest_route_around_an_address_says_how_long_its_prefix_is() -> None:
    routes = [{"target": "10.0.0.0/8"}, {"target": "10.1.2.0/24"}, {"target": "10.1.0.0/16"}]
    targets = addresses.on_link(routes)
    lengths = [
        addresses.prefix_length(address, targets)
        for text in ("10.1.2.3", "10.1.3.3", "10.2.0.1", "11.0.0.1")
        if (address := addresses.parsed(text))
    ]
    assert lengths == [24, 16, 8, None]


def test_no_member_gets_an_address_that_ends_in_255() -> None:
    pool = {"ipRangeStart": "10.0.0.255", "ipRangeEnd": "10.0.1.1"}
    targets = addresses.on_link([{"target": "10.0.0.0/16"}])
    assert addresses.from_pools("0000000002", [pool], targets, (), 4) == "10.0.1.0"


def test_no_automatic_addresses_for_a_member_that_is_exempt(central: Central, network: Network) -> None:
    central.change_network(
        network, {"config": {"v6AssignMode": {"rfc4193": True, "6plane": True, "zt": False}}}
    )
    authorize(central, noAutoAssignIps=True, ipAssignments=["10.147.17.9"])
    assert ask(central)["addresses"] == ["10.147.17.9/24"]
    authorize(central, OTHER, noAutoAssignIps=True)
    assert ask(central, OTHER)["addresses"] == []


def test_no_pool_address_where_the_network_gives_none(central: Central, network: Network) -> None:
    central.change_network(network, {"config": {"v4AssignMode": {"zt": False}}})
    authorize(central)
    assert ask(central)["addresses"] == []
    assert network.members[NODE].config["ipAssignments"] == []


def test_an_address_outside_the_routes_is_kept_and_never_handed_out(
    central: Central, network: Network
) -> None:
    authorize(central, ipAssignments=["172.16.5.5"])
    assert ask(central)["addresses"] == ["10.147.17.169/24"]
    assert network.members[NODE].config["ipAssignments"] == ["172.16.5.5", "10.147.17.169"]


def test_put_out_deleted_and_back_again(central: Central, network: Network) -> None:
    authorize(central)
    assert ask(central)["status"] == "OK"
    central.change_member(network, NODE, {"config": {"authorized": False}})
    assert ask(central)["status"] == "ACCESS_DENIED"
    central.remove_member(network, network.members[NODE])
    assert NODE not in network.members
    assert ask(central)["status"] == "ACCESS_DENIED"
    back = network.members[NODE]
    assert (back.record["name"], back.config["authorized"], back.config["ipAssignments"]) == ("", False, [])
    central.remove_network(network)
    assert ask(central)["status"] == "NOT_FOUND"


def test_whoever_joined_a_public_network_stays(central: Central, network: Network) -> None:
    central.change_network(network, {"config": {"private": False}})
    assert ask(central)["status"] == "OK"
    central.change_network(network, {"config": {"private": True}})
    assert ask(central)["status"] == "OK"
    assert ask(central, OTHER)["status"] == "ACCESS_DENIED"


def test_the_first_identity_of_a_node_is_the_one(central: Central, network: Network) -> None:
    authorize(central)
    assert ask(central, identity=f"{NODE}:0:aa")["status"] == "OK"
    assert ask(central, identity=f"{NODE}:0:bb")["status"] == "ACCESS_DENIED"
    assert ask(central)["status"] == "OK", "without an identity there is nothing to compare"
    assert network.members[NODE].config["identity"] == f"{NODE}:0:aa"


def test_whoever_serves_the_nodes_hears_of_changes_at_once(central: Central, network: Network) -> None:
    heard: list[tuple[str, str | None, object]] = []

    def listen(network_id: str, node: str | None) -> None:
        heard.append((network_id, node, ask(central, node)["status"] if node else None))

    central.listeners.append(listen)
    authorize(central)
    central.change_member(network, NODE, {"config": {"authorized": False}})
    central.change_network(network, {"config": {"mtu": 1400}})
    central.remove_member(network, network.members[NODE])
    central.remove_network(network)
    assert heard == [
        (NETWORK, NODE, "OK"),
        (NETWORK, NODE, "ACCESS_DENIED"),
        (NETWORK, None, None),
        (NETWORK, NODE, "ACCESS_DENIED"),
        (NETWORK, None, None),
    ]


def test_nobody_hears_of_a_change_that_never_comes(central: Central, network: Network) -> None:
    heard: list[str | None] = []
    central.listeners.append(lambda network_id, node: heard.append(node))
    central.world.faults.add(Rule(kind="failed_operation"))
    change = {"config": {"authorized": True}}
    central.carry_out(
        "zerotier",
        NETWORK,
        NODE,
        "create",
        lambda: central.change_member(central.network(NETWORK), NODE, change),
    )
    assert (heard, network.members) == ([], {})


def test_an_address_is_free_again_when_its_member_is_gone(central: Central, network: Network) -> None:
    small = {"ipRangeStart": "10.147.17.1", "ipRangeEnd": "10.147.17.2"}
    central.change_network(network, {"config": {"ipAssignmentPools": [small]}})
    authorize(central)
    authorize(central, OTHER)
    assert ask(central)["addresses"] == ["10.147.17.1/24"]
    assert ask(central, OTHER)["addresses"] == []
    authorize(central, NODE, ipAssignments=["10.147.17.77"])
    assert ask(central, OTHER)["addresses"] == ["10.147.17.1/24"]
    assert sorted(network.taken.items()) == [("10.147.17.1", 1), ("10.147.17.77", 1)]


def test_who_is_online_is_a_matter_of_minutes(central: Central, network: Network, clock: Clock) -> None:
    ask(central)
    assert network.online(central.now()) == 1
    clock.seconds += 299
    assert network.online(central.now()) == 1
    clock.seconds += 1
    assert network.online(central.now()) == 0
