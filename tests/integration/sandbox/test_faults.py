# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault does what it says, as often as it says, and to whom."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcloud
import pytest
import requests
from hcloud.actions.domain import ActionFailedException
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from sandbox.testing import Sandbox, listen

pytestmark = pytest.mark.integration


def post(api: requests.Session, sandbox: Sandbox, name: str, **change: Any) -> requests.Response:
    """Ask for a server."""
    body = {"name": name, "server_type": "cx23", "image": "debian-13", **change}
    return api.post(f"{sandbox.hetzner}/servers", json=body, timeout=30)


def names(api: requests.Session, sandbox: Sandbox) -> list[str]:
    answer = api.get(f"{sandbox.hetzner}/servers", timeout=30)
    return [server["name"] for server in answer.json()["servers"]]


# Transport


@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        ({"kind": "rate_limit", "retry_after": 7}, 429, "rate_limit_exceeded"),
        ({"kind": "error"}, 500, "server_error"),
        ({"kind": "error", "status": 502}, 502, "bad_gateway"),
        ({"kind": "unavailable", "retry_after": 7}, 503, "unavailable"),
    ],
)
def test_a_refusal_comes_in_the_services_own_words(
    api: requests.Session, sandbox: Sandbox, rule: dict[str, Any], status: int, code: str
) -> None:
    sandbox.fault(**rule, service="hetzner", times=2)
    for _ in range(2):
        answer = post(api, sandbox, "web")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers.get("Retry-After") == ("7" if "retry_after" in rule else None)
    assert sandbox.machines() == []
    assert post(api, sandbox, "web").status_code == 201


def test_a_reset_comes_before_the_work(api: requests.Session, sandbox: Sandbox) -> None:
    fault = sandbox.fault(kind="reset", service="hetzner", method="POST")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        post(api, sandbox, "web")
    assert sandbox.hits(fault) == 1
    assert names(api, sandbox) == []


def test_a_reset_after_comes_after_the_work(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="reset_after", service="hetzner", method="POST")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        post(api, sandbox, "web")
    assert names(api, sandbox) == ["web"]


def test_a_hang_lasts_until_the_client_gives_up(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="hang", service="hetzner", method="POST")
    with pytest.raises(requests.ReadTimeout):
        api.post(f"{sandbox.hetzner}/servers", json={}, timeout=0.1)
    assert names(api, sandbox) == []


def test_a_hang_may_end_in_a_reset(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="hang", service="hetzner", seconds=0.05)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        names(api, sandbox)


def test_a_slow_answer_comes(api: requests.Session, sandbox: Sandbox) -> None:
    fault = sandbox.fault(kind="slow", service="hetzner", seconds=0.05)
    assert post(api, sandbox, "web").status_code == 201
    assert sandbox.hits(fault) == 1


def test_a_duplicate_is_done_twice_and_answers_for_the_second_time(
    api: requests.Session, sandbox: Sandbox
) -> None:
    sandbox.fault(kind="duplicate", service="hetzner", method="POST")
    answer = post(api, sandbox, "web")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "uniqueness_error")
    assert names(api, sandbox) == ["web"]


# Whom it hits, and how often


def test_a_rule_hits_from_the_nth_every_so_often_and_then_is_spent(
    api: requests.Session, sandbox: Sandbox
) -> None:
    sandbox.fault(kind="error", service="hetzner", nth=2, every=3, times=2)
    statuses = [api.get(f"{sandbox.hetzner}/locations", timeout=30).status_code for _ in range(10)]
    assert statuses == [200, 500, 200, 200, 500, 200, 200, 200, 200, 200]


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "web"}, {"labels": {"role": "web"}}, {"zone": "hel1"}, {"type": "cx.*"}, {"path": "/servers$"},
        {"method": "post"}, {"service": "hetzner"}, {},
    ],
)  # fmt: skip
def test_a_rule_finds_what_a_create_is_about(
    api: requests.Session, sandbox: Sandbox, choice: dict[str, Any]
) -> None:
    sandbox.fault(kind="error", **choice)
    assert post(api, sandbox, "web", labels={"role": "web"}, location="hel1").status_code == 500


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "we"}, {"labels": {"role": "db"}}, {"zone": "fsn1"}, {"type": "ccx.*"}, {"path": "/actions"},
        {"method": "GET"}, {"service": "gce"},
    ],
)  # fmt: skip
def test_a_rule_spares_what_it_is_not_about(
    api: requests.Session, sandbox: Sandbox, choice: dict[str, Any]
) -> None:
    sandbox.fault(kind="error", **choice)
    assert post(api, sandbox, "web", labels={"role": "web"}, location="hel1").status_code == 201


def test_a_rule_finds_the_server_that_a_path_names(api: requests.Session, sandbox: Sandbox) -> None:
    servers = {name: post(api, sandbox, name).json()["server"]["id"] for name in ("web", "db")}
    sandbox.fault(kind="error", name="web", method="DELETE", times=0)
    assert api.delete(f"{sandbox.hetzner}/servers/{servers['web']}", timeout=30).status_code == 500
    assert api.delete(f"{sandbox.hetzner}/servers/{servers['db']}", timeout=30).status_code in (200, 423)


def test_rules_of_one_kind_take_turns(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="error", service="hetzner")
    sandbox.fault(kind="unavailable", service="hetzner")
    url = f"{sandbox.hetzner}/locations"
    assert [api.get(url, timeout=30).status_code for _ in range(3)] == [500, 503, 200]


# What a cloud does


def test_a_stock_out_is_in_one_place(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="stockout", service="hetzner", zone="fsn1", times=0)
    answer = post(api, sandbox, "web", location="fsn1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (412, "resource_unavailable")
    assert post(api, sandbox, "web", location="nbg1").status_code == 201


def test_a_quota_is_exceeded(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.fault(kind="quota", service="hetzner", nth=2)
    assert post(api, sandbox, "one").status_code == 201
    answer = post(api, sandbox, "two")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "resource_limit_exceeded")
    assert answer.json()["error"]["details"] == {"limits": [{"name": "server_limit"}]}


def test_a_create_fails_late(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    sandbox.fault(kind="failed_operation", service="hetzner", verb="create", code="boom", message="It broke")
    answer = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13"))
    with pytest.raises(ActionFailedException) as caught:
        answer.action.wait_until_finished()
    assert caught.value.action.error == {"code": "boom", "message": "It broke"}
    for action in answer.next_actions:
        with pytest.raises(ActionFailedException):
            action.wait_until_finished()
    server = cloud.servers.get_by_name("web")
    assert server is not None
    assert (server.status, server.locked) == ("off", False)
    assert [machine["running"] for machine in sandbox.machines()] == [False]
    server.delete().wait_until_finished()
    assert sandbox.machines() == []


def test_a_delete_fails_late(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    answer = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13"))
    for action in (answer.action, *answer.next_actions):
        action.wait_until_finished()
    sandbox.fault(kind="failed_operation", service="hetzner", verb="delete")
    with pytest.raises(ActionFailedException):
        answer.server.delete().wait_until_finished()
    answer.server.reload()
    assert (answer.server.status, answer.server.locked) == ("running", False)


def test_an_operation_is_slow(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    sandbox.fault(kind="slow_operation", service="hetzner", name="web", seconds=3600)
    slow = cloud.servers.create(
        "web", ServerType(name="cx23"), Image(name="debian-13"), location=Location(name="fsn1")
    )
    quick = cloud.servers.create("db", ServerType(name="cx23"), Image(name="debian-13"))
    for action in (quick.action, *quick.next_actions):
        action.wait_until_finished()
    assert cloud.actions.get_by_id(slow.action.id).status == "running"


def test_a_list_lags_behind_a_create(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    sandbox.fault(kind="list_lag", service="hetzner", name="web", seconds=3600)
    sandbox.fault(kind="list_lag", service="hetzner", name="db", seconds=0)
    late = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13")).server
    cloud.servers.create("db", ServerType(name="cx23"), Image(name="debian-13"))
    assert [server.name for server in cloud.servers.get_all()] == ["db"]
    assert cloud.servers.get_by_id(late.id).name == "web"
    found = cloud.servers.get_by_name("web")
    assert found is not None
    assert found.id == late.id


# The admin endpoint


@pytest.mark.parametrize(
    "rule",
    [
        {}, {"kind": "earthquake"}, {"kind": "reset", "colour": "red"}, {"kind": "reset", "times": "1"},
        {"kind": "reset", "path": "("}, {"kind": "reset", "nth": 0}, {"kind": "reset", "times": True},
        {"kind": "error", "status": 200}, {"kind": "reset", "labels": "a=b"},
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(sandbox: Sandbox, rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="422"):
        sandbox.fault(**rule)
    assert sandbox.admin("GET", "faults") == {"faults": []}


def test_a_rule_can_be_ended(api: requests.Session, sandbox: Sandbox) -> None:
    fault = sandbox.fault(kind="error", times=0)
    assert api.get(f"{sandbox.hetzner}/locations", timeout=30).status_code == 500
    sandbox.admin("DELETE", f"faults/{fault}")
    assert api.get(f"{sandbox.hetzner}/locations", timeout=30).status_code == 200
    with pytest.raises(ValueError, match="404"):
        sandbox.admin("DELETE", f"faults/{fault}")


def test_requests_are_counted_without_their_secrets(api: requests.Session, sandbox: Sandbox) -> None:
    post(api, sandbox, "web", user_data="planted-secret")
    api.get(f"{sandbox.hetzner}/servers?name=web&access_token=planted-secret", timeout=30)
    assert sandbox.requests(service="hetzner") == 2
    assert sandbox.requests(method="POST", path="/servers$") == 1
    log = sandbox.admin("GET", "requests")
    assert [(entry["method"], entry["status"]) for entry in log["requests"]] == [("POST", 201), ("GET", 200)]
    assert "planted-secret" not in str(log)
    assert sandbox.hetzner_token not in str(log)


def test_a_reset_of_the_sandbox_leaves_an_empty_cloud(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.set_operation_seconds(3600)
    first = post(api, sandbox, "web").json()["server"]["id"]
    sandbox.fault(kind="error", times=0)
    sandbox.reset()
    assert names(api, sandbox) == []
    assert sandbox.machines() == []
    assert post(api, sandbox, "web").json()["server"]["id"] > first


# The command


def start(port: int, state_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sandbox", "--port", str(port), "--state-dir", str(state_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_says_that_it_is_ready_and_ends_in_peace(tmp_path: Path) -> None:
    with listen() as free:
        port = free.getsockname()[1]
    state = tmp_path / "state"
    first = start(port, state)
    assert first.stdout
    assert first.stdout.readline() == f"sandbox ready at http://127.0.0.1:{port} (virtual machines)\n"
    assert state.stat().st_mode & 0o777 == 0o700
    with requests.Session() as session:
        assert session.get(f"http://127.0.0.1:{port}/admin/health", timeout=30).json()["status"] == "ok"
    assert (state / "token").stat().st_mode & 0o777 == 0o600
    second = start(port, state)
    assert second.wait(60) == 1
    assert second.stderr
    assert second.stderr.read() == f"sandbox: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out, err) == (0, "", "")
    second.communicate()
