# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hetzner_server against the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_server
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1FR0FNRUdBTUVHQU1FR0FNRUdBTUVHQU1FR0FNRUdB me"
NEW: dict[str, Any] = {"type": "cx23", "location": "fsn1", "ssh_keys": [KEY], "labels": {"purpose": "build"}}

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture
def run(server: Sandbox) -> Run:
    server.reset()
    server.clear_faults()

    def run(**params: Any) -> dict[str, Any]:
        token, endpoint = server.hetzner_token, server.hetzner
        result: dict[str, Any] = run_module(
            hetzner_server.main, name="build-1", token=token, endpoint=endpoint, **params
        )
        return result

    return run


def test_the_life_of_a_server(run: Run, server: Sandbox) -> None:
    for wished, changed in (
        (NEW, True),
        ({**NEW, "state": "started"}, False),
        ({"state": "stopped"}, True),
        ({}, False),
        ({"labels": {"purpose": "test"}}, True),
        ({"state": "started"}, True),
        ({"state": "absent"}, True),
        ({"state": "absent"}, False),
    ):
        predicted = run(check=True, **wished)
        real = run(**wished)
        assert (predicted["changed"], real["changed"]) == (changed, changed), wished
        assert predicted["diff"] == real["diff"]
        assert "failed" not in real
    assert server.machines() == []


def test_what_it_returns(run: Run) -> None:
    made = run(**NEW)["server"]
    assert (made["name"], made["state"], made["zone"], made["type"]) == ("build-1", "running", "fsn1", "cx23")
    assert made["public_ip"] and made["labels"] == {"purpose": "build"}
    assert made["price"]["currency"] == "EUR"
    assert run(**NEW)["server"] == made


def test_check_mode_touches_nothing(run: Run, server: Sandbox) -> None:
    assert run(check=True, **NEW)["server"] is None
    assert server.machines() == []
    assert server.requests(service="hetzner", method="POST") == 0


def test_a_server_can_be_born_stopped(run: Run) -> None:
    assert run(state="stopped", **NEW)["server"]["state"] == "stopped"
    assert not run(state="stopped", **NEW)["changed"]


def test_a_stock_out_is_told_as_data(run: Run, server: Sandbox) -> None:
    server.fault(kind="stockout", service="hetzner")
    result = run(**NEW)
    assert result["failed"]
    assert (result["failure"]["kind"], result["failure"]["machine"]) == ("OutOfStock", "build-1")
