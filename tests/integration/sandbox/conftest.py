# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox with virtual machines for each test, and the hcloud library pointed at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hcloud
import pytest
import requests
from google.auth.transport.requests import AuthorizedSession

from sandbox.testing import Sandbox, serve
from tests.integration.sandbox.contract import Contract, patched_hetzner
from tests.integration.sandbox.gce_client import ZONE, signed_in
from tests.integration.sandbox.google_contract import GoogleContract, load


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """An empty sandbox."""
    running.reset()
    running.set_operation_seconds(0.02)
    running.switch(hetzner_datacenter=False, hetzner_rate_limit=3600)
    return running


@pytest.fixture
def cloud(sandbox: Sandbox) -> hcloud.Client:
    """The unmodified hcloud library."""
    return hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner, poll_interval=0.01, timeout=30)


@pytest.fixture
def api(sandbox: Sandbox) -> requests.Session:
    """A plain session with the token."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {sandbox.hetzner_token}"
    return session


@pytest.fixture(scope="session")
def hetzner_contract(root: Path) -> Contract:
    """The description of the Hetzner Cloud API."""
    path = root.parent / "shared" / "specs" / "hcloud-openapi-maximiliankoestler.json"
    if not path.exists():
        pytest.skip(f"the API description is not here: {path}")
    return Contract(patched_hetzner(json.loads(path.read_text())), "/hetzner/v1")


@pytest.fixture(scope="session")
def contract() -> GoogleContract:
    """The whole discovery document of Compute Engine."""
    return GoogleContract(load())


@pytest.fixture
def google(sandbox: Sandbox, contract: GoogleContract) -> Iterator[AuthorizedSession]:
    """google-auth's session; at the end every exchange must have kept to the document."""
    problems: list[str] = []

    def check(response: requests.Response, **_: object) -> None:
        problems.extend(contract.problems(response.request, response))

    with signed_in(sandbox) as session:
        session.hooks["response"].append(check)
        yield session
    assert problems == []


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return f"{sandbox.compute}/projects/gpumesh-sandbox"


@pytest.fixture
def zone(url: str) -> str:
    return f"{url}/zones/{ZONE}"
