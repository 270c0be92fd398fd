# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's node without hosts: what Central sees of it, and what it is told. With hosts: test_zerotier_hosts.py."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from sandbox.testing import Sandbox
from sandbox.zerotier_account import NETWORK

pytestmark = pytest.mark.integration
NODE = "8046d53400"
RFC4193 = "fddb:4344:343b:14b9:399:9380:46d5:3400/88"


@pytest.fixture
def session(sandbox: Sandbox) -> requests.Session:
    made = requests.Session()
    made.headers["Authorization"] = f"Bearer {sandbox.zerotier_token}"
    return made


def operator(
    sandbox: Sandbox, session: requests.Session, method: str, content: object = None
) -> requests.Response:
    return session.request(method, f"{sandbox.url}/zerotier/simulation/operator", json=content, timeout=10)


def member(sandbox: Sandbox, session: requests.Session, node: str = NODE) -> requests.Response:
    return session.get(f"{sandbox.zerotier}/network/{NETWORK}/member/{node}", timeout=10)


def change(sandbox: Sandbox, session: requests.Session, path: str, config: dict[str, Any]) -> None:
    url = f"{sandbox.zerotier}/network/{NETWORK}{path}"
    session.post(url, json={"config": config}, timeout=10).raise_for_status()


def test_it_knocks_is_let_in_and_is_put_out_again(sandbox: Sandbox, session: requests.Session) -> None:
    assert operator(sandbox, session, "GET").json() == {}
    change(sandbox, session, "", {"v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False}})
    declared = operator(sandbox, session, "POST", {"node_id": NODE.upper(), "network": NETWORK}).json()
    assert declared == {
        "node_id": NODE, "network": NETWORK, "status": "ACCESS_DENIED", "addresses": [], "reachable": [],
    }  # fmt: skip
    seen = member(sandbox, session).json()
    assert seen["lastSeen"] > 0
    assert seen["config"]["authorized"] is False

    change(sandbox, session, f"/member/{NODE}", {"authorized": True})
    shown = operator(sandbox, session, "GET").json()
    assert shown["status"] == "OK"
    assert RFC4193 in shown["addresses"]
    assert shown["reachable"] == []  # there is no bridge without hosts
    change(sandbox, session, f"/member/{NODE}", {"authorized": False})
    assert operator(sandbox, session, "GET").json()["status"] == "ACCESS_DENIED"


def test_it_is_one_node_at_a_time_and_none_after_a_reset(sandbox: Sandbox, session: requests.Session) -> None:
    operator(sandbox, session, "POST", {"node_id": NODE, "network": NETWORK})
    other = {"node_id": "1122334455", "network": NETWORK}
    assert operator(sandbox, session, "POST", other).json()["node_id"] == "1122334455"
    assert operator(sandbox, session, "DELETE").status_code == 204
    assert operator(sandbox, session, "GET").json() == {}
    operator(sandbox, session, "POST", other)
    sandbox.reset()
    assert operator(sandbox, session, "GET").json() == {}
    assert member(sandbox, session, "1122334455").status_code == 404


def test_a_network_that_does_not_exist_or_whose_controller_nobody_knows(
    sandbox: Sandbox, session: requests.Session
) -> None:
    for network, status in (
        (f"{NETWORK[:10]}ffffff", "NOT_FOUND"),
        ("1122334455000001", "REQUESTING_CONFIGURATION"),
    ):
        assert (
            operator(sandbox, session, "POST", {"node_id": NODE, "network": network}).json()["status"]
            == status
        )


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"node_id": NODE},
        {"node_id": "ff00000001", "network": NETWORK},
        {"node_id": "0000000000", "network": NETWORK},
        {"node_id": NODE, "network": "db4344343b"},
    ],
)
def test_what_is_no_declaration_is_refused(
    sandbox: Sandbox, session: requests.Session, content: object
) -> None:
    assert operator(sandbox, session, "POST", content).status_code == 422
    assert operator(sandbox, session, "GET").json() == {}


def test_it_takes_the_sandboxs_token(sandbox: Sandbox) -> None:
    assert operator(sandbox, requests.Session(), "GET").status_code == 401
