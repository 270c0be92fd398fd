# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh addresses: equal to what running daemons reported, and a proper function of the ids."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import addresses
from hypothesis import assume, given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[4] / "fixtures"
VECTORS = json.loads((FIXTURES / "zerotier" / "address-vectors.json").read_text())["vectors"]

networks = st.integers(0, 2**64 - 1).map("{:016x}".format)
nodes = st.integers(1, 0xFEFFFFFFFF).map("{:010x}".format)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['network']}-{vector['node']}")
def test_as_the_daemons_report_them(vector: dict[str, str]) -> None:
    network, node = vector["network"], vector["node"]
    if "rfc4193" in vector:
        assert addresses.rfc4193(network, node) == ipaddress.ip_interface(vector["rfc4193"])
    if "sixplane" in vector:
        assert addresses.sixplane(network, node) == ipaddress.ip_interface(vector["sixplane"])


def test_the_address_the_documentation_names() -> None:
    address = addresses.rfc4193("db4344343b14b903", "8046d53400")
    assert address.ip.exploded == "fddb:4344:343b:14b9:0399:9380:46d5:3400"
    assert address.network.prefixlen == 88


def test_a_network_names_its_controller() -> None:
    assert addresses.controller("db4344343B14B903") == "db4344343b"


@given(networks, nodes)
def test_upper_case_is_the_same(network: str, node: str) -> None:
    assert addresses.rfc4193(network.upper(), node.upper()) == addresses.rfc4193(network, node)
    assert addresses.sixplane(network.upper(), node.upper()) == addresses.sixplane(network, node)


@given(networks, nodes, networks, nodes)
def test_no_two_nodes_share_an_rfc4193_address(network: str, node: str, network2: str, node2: str) -> None:
    assume((network, node) != (network2, node2))
    assert addresses.rfc4193(network, node).ip != addresses.rfc4193(network2, node2).ip


@given(networks, nodes, nodes)
def test_no_two_nodes_of_a_network_share_a_6plane_subnet(network: str, node: str, node2: str) -> None:
    assume(node != node2)
    mine, other = addresses.sixplane_subnet(network, node), addresses.sixplane_subnet(network, node2)
    assert not mine.overlaps(other)
    assert addresses.sixplane(network, node).ip in mine


@given(networks, nodes, nodes)
def test_nodes_of_a_network_share_its_prefix(network: str, node: str, node2: str) -> None:
    assert addresses.rfc4193(network, node).network == addresses.rfc4193(network, node2).network
    assert addresses.sixplane(network, node).network == addresses.sixplane(network, node2).network
    assert addresses.rfc4193(network, node).ip in ipaddress.ip_network("fd00::/8")
    assert addresses.sixplane(network, node).ip in ipaddress.ip_network("fc00::/8")


@given(networks, nodes)
def test_both_ids_can_be_read_back(network: str, node: str) -> None:
    digits = addresses.rfc4193(network, node).ip.exploded.replace(":", "")
    assert (digits[2:18], digits[22:]) == (network, node)


@given(st.text(alphabet="0123456789abcdefABCDEFg: \n٣", max_size=20))
def test_what_is_no_id_is_refused(text: str) -> None:
    fits_network = len(text) == 16 and set(text) <= set("0123456789abcdefABCDEF")
    if not fits_network:
        with pytest.raises(ValueError, match="16 hexadecimal digits"):
            addresses.rfc4193(text, "8046d53400")
    fits_node = len(text) == 10 and set(text) <= set("0123456789abcdefABCDEF")
    if not fits_node:
        with pytest.raises(ValueError, match="10 hexadecimal digits"):
            addresses.rfc4193("db4344343b14b903", text)


@pytest.mark.parametrize("node", ["0000000000", "ff00000000", "FFFFFFFFFF"])
def test_ids_no_node_can_have_are_refused(node: str) -> None:
    with pytest.raises(ValueError, match="does not begin with ff"):
        addresses.rfc4193("db4344343b14b903", node)
