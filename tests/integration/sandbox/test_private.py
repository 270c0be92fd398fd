# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox is its owner's alone: no other user of the machine and no page in a browser can use it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import requests

from sandbox.private import read_token, settle_token
from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

CONTROLS = [
    ("GET", "/admin/faults"),
    ("POST", "/admin/faults"),
    ("GET", "/admin/requests"),
    ("GET", "/admin/machines"),
    ("PUT", "/admin/settings"),
    ("POST", "/admin/reset"),
    ("POST", "/zerotier/simulation/network/8056c2e21c000001/node/0123456789"),
]


@pytest.fixture(autouse=True)
def no_given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDBOX_TOKEN", raising=False)


def test_the_token_is_random_kept_and_its_owners_alone(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    token = settle_token(one)
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert settle_token(two) != token
    (one / "token").chmod(0o644)
    assert settle_token(one) == read_token(one) == token
    assert stat.S_IMODE((one / "token").stat().st_mode) == 0o600


def test_a_token_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settle_token(tmp_path)
    monkeypatch.setenv("SANDBOX_TOKEN", "given")
    assert before != settle_token(tmp_path) == read_token(tmp_path) == "given"


@pytest.mark.parametrize(("method", "path"), CONTROLS)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x"])
def test_the_controls_need_the_token(sandbox: Sandbox, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.format(token=sandbox.token)}
    answer = requests.request(method, sandbox.url + path, headers=headers, data="{}", timeout=30)
    assert answer.status_code == 401
    assert sandbox.token not in answer.text


def test_one_sandboxs_token_opens_no_other(sandbox: Sandbox) -> None:
    with serve() as other:
        assert other.token != sandbox.token
        headers = {"Authorization": f"Bearer {other.token}"}
        for url in (f"{sandbox.url}/admin/machines", f"{sandbox.hetzner}/servers"):
            assert requests.get(url, headers=headers, timeout=30).status_code == 401


def test_a_reset_without_the_token_resets_nothing(sandbox: Sandbox) -> None:
    sandbox.fault(kind="rate_limit", service="hetzner")
    assert requests.post(f"{sandbox.url}/admin/reset", timeout=30).status_code == 401
    assert len(sandbox.admin("GET", "faults")["faults"]) == 1


def test_whether_it_runs_can_be_asked_by_anybody(sandbox: Sandbox) -> None:
    assert requests.get(f"{sandbox.url}/admin/health", timeout=30).json()["status"] == "ok"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "localhost@evil.example", "0.0.0.0", ""],  # noqa: S104
)
@pytest.mark.parametrize("path", ["/admin/health", "/admin/machines", "/hetzner/v1/servers"])
def test_another_hosts_name_is_refused_whatever_the_token(sandbox: Sandbox, host: str, path: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {sandbox.token}"}
    assert requests.get(sandbox.url + path, headers=headers, timeout=30).status_code == 421
    assert sandbox.requests() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LocalHost", "[::1]:8480"])
def test_loopback_by_any_of_its_names_is_served(sandbox: Sandbox, host: str) -> None:
    answer = requests.get(f"{sandbox.url}/admin/health", headers={"Host": host}, timeout=30)
    assert answer.status_code == 200
