# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of ZeroTier Central against the sandbox."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import clock, errors, mesh, spec

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


def call(sandbox: Sandbox, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the sandbox, on loopback
        f"{sandbox.url}/zerotier/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"token {sandbox.zerotier_token}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read() or "null")


@pytest.fixture
def network(sandbox: Sandbox) -> str:
    return str(call(sandbox, "POST", "api/v1/network", {"config": {"name": "test"}})["id"])


def plane(sandbox: Sandbox, network: str, token: str | None = None) -> Any:
    block = spec.Mesh(
        network=network, controller="central_v1", token=sandbox.zerotier_token, endpoint=sandbox.zerotier
    )
    fleet = spec.FleetSpec(
        fleet="minerals", providers={}, mesh=block, machines={}, base_dir="/", known_hosts="/nowhere"
    )
    return mesh.connect(fleet, {"token": token}, clock.SystemClock())


def test_members_authorised_seen_and_neither(sandbox: Sandbox, network: str) -> None:
    member = {"name": "stibnite", "config": {"authorized": True, "ipAssignments": ["10.147.17.33"]}}
    call(sandbox, "POST", f"api/v1/network/{network}/member/8046d53400", member)
    node = {"physicalAddress": "192.0.2.8", "version": "1.14.2"}
    call(sandbox, "POST", f"simulation/network/{network}/node/abcdef0123", node)
    declared, foreign = plane(sandbox, network).members()
    assert (declared.node_id, declared.name, declared.authorized) == ("8046d53400", "stibnite", True)
    assert declared.online is None, "it was never seen"
    assert "10.147.17.33" in declared.addresses
    assert (foreign.node_id, foreign.authorized, foreign.online) == ("abcdef0123", False, True)
    assert (foreign.physical_address, foreign.version) == ("192.0.2.8", "1.14.2")
    assert foreign.last_seen and foreign.last_seen.endswith("Z")


def test_two_hundred_members_in_one_request(sandbox: Sandbox, network: str) -> None:
    for number in range(200):
        call(sandbox, "POST", f"simulation/network/{network}/node/{number + 1:010x}", {})
    before = sandbox.requests(service="zerotier", method="GET")
    assert len(plane(sandbox, network).members()) == 200
    assert sandbox.requests(service="zerotier", method="GET") - before == 1


def test_a_bad_token_and_a_foreign_network_are_told_apart(sandbox: Sandbox, network: str) -> None:
    with pytest.raises(errors.AuthError, match="mesh: token:"):
        plane(sandbox, network, "wrong-token-1234567890").members()
    with pytest.raises(errors.NotFound, match="network id"):
        plane(sandbox, "8056c2e21c00ffff").members()


@pytest.mark.parametrize("kind", ["rate_limit", "error", "unavailable", "reset"])
def test_a_listing_survives(sandbox: Sandbox, network: str, kind: str) -> None:
    fault = sandbox.fault(kind=kind, service="zerotier", times=2)
    assert plane(sandbox, network).members() == ()
    assert sandbox.hits(fault) == 2
