# SPDX-License-Identifier: GPL-3.0-or-later
"""The local ZeroTier Central when things go wrong, through both versions of its API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from sandbox.testing import Sandbox
from sandbox.zerotier_account import GROUP, NETWORK

pytestmark = pytest.mark.integration

NODE, OTHER = "8046d53400", "abcdef0123"


class V1:
    """API v1 in a few verbs."""

    service, kind = "zerotier", "v1"

    def __init__(self, sandbox: Sandbox) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {sandbox.zerotier_token}"
        self.base = f"{sandbox.url}/zerotier/api/{self.kind}"
        self.network = f"{self.base}/network/{NETWORK}"

    def call(self, method: str, url: str, body: object = None) -> requests.Response:
        return self.session.request(method, url, json=body, timeout=30)

    def add(self, node: str = NODE) -> requests.Response:
        return self.call("POST", f"{self.network}/member/{node}", {"name": "stibnite"})

    def authorize(self, node: str = NODE) -> requests.Response:
        return self.call("POST", f"{self.network}/member/{node}", {"config": {"authorized": True}})

    def get(self, node: str = NODE) -> requests.Response:
        return self.call("GET", f"{self.network}/member/{node}")

    def remove(self, node: str = NODE) -> requests.Response:
        return self.call("DELETE", f"{self.network}/member/{node}")

    def listed(self) -> list[str]:
        return [member["nodeId"] for member in self.call("GET", f"{self.network}/member").json()]

    def rename(self, name: str) -> requests.Response:
        return self.call("POST", self.network, {"config": {"name": name}})

    def name(self) -> str:
        return str(self.call("GET", self.network).json()["config"]["name"])

    def create(self) -> requests.Response:
        return self.call("POST", f"{self.base}/network", {"config": {"name": "lab"}})

    def networks(self) -> int:
        return len(self.call("GET", f"{self.base}/network").json())

    def authorized(self, member: dict[str, Any]) -> bool:
        return bool(member["config"]["authorized"])


class V2(V1):
    """API v2 in the same ones."""

    service, kind = "zerotier_v2", "v2"

    def add(self, node: str = NODE) -> requests.Response:
        return self.call("POST", f"{self.network}/member", [{"deviceId": node, "name": "stibnite"}])

    def authorize(self, node: str = NODE) -> requests.Response:
        return self.call("POST", f"{self.network}/member/{node}/authorize")

    def remove(self, node: str = NODE) -> requests.Response:
        return self.call("DELETE", f"{self.network}/member", [{"deviceId": node}])

    def listed(self) -> list[str]:
        return [member["deviceId"] for member in self.call("GET", f"{self.network}/member").json()]

    def rename(self, name: str) -> requests.Response:
        return self.call("POST", self.network, {"name": name})

    def name(self) -> str:
        return str(self.call("GET", self.network).json()["name"])

    def create(self) -> requests.Response:
        return self.call("POST", f"{self.base}/network-group/{GROUP}/network", {"name": "lab"})

    def networks(self) -> int:
        return len(self.call("GET", f"{self.base}/network").json()["items"])

    def authorized(self, member: dict[str, Any]) -> bool:
        return bool(member["status"] == "authorized")


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def api(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[V1]:
    client: V1 = request.param(sandbox)
    with client.session:
        yield client


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that is known to come."""
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"kind": "rate_limit"}, 429),
        ({"kind": "error"}, 500),
        ({"kind": "error", "status": 403}, 403),
        ({"kind": "error", "status": 400}, 400),
        ({"kind": "unavailable"}, 503),
    ],
)
def test_an_answer_instead_of_the_right_one(
    sandbox: Sandbox, api: V1, rule: dict[str, Any], status: int
) -> None:
    api.add()
    fault = sandbox.fault(service=api.service, name=NODE, zone=NETWORK, times=1, **rule)
    answer = api.authorize()
    assert answer.status_code == status
    assert "Retry-After" not in answer.headers
    if api.kind == "v1":
        assert answer.content == b"", "v1 describes no body of an error"
    else:
        body = answer.json()
        assert body.pop("code", 400) == 400
        assert list(body) == ["message"]
    assert sandbox.hits(fault) == 1
    assert not api.authorized(api.get().json())
    assert api.authorize().status_code == 200
    assert api.authorized(api.get().json())


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
def test_when_to_come_back_is_said_where_a_test_wants_it(sandbox: Sandbox, api: V1, kind: str) -> None:
    sandbox.fault(kind=kind, service=api.service, retry_after=2)
    assert api.call("GET", api.network).headers["Retry-After"] == "2"
    assert api.call("GET", api.network).status_code == 200


@pytest.mark.parametrize(("kind", "done"), [("reset", False), ("reset_after", True), ("hang", False)])
def test_no_answer_at_all(sandbox: Sandbox, api: V1, kind: str, done: bool) -> None:
    api.add()
    sandbox.fault(kind=kind, service=api.service, name=NODE, seconds=0.05)
    with pytest.raises(requests.ConnectionError):
        api.authorize()
    assert api.authorized(api.get().json()) is done


def test_a_late_answer(sandbox: Sandbox, api: V1) -> None:
    api.add()
    fault = sandbox.fault(kind="slow", service=api.service, name=NODE, seconds=0.05)
    assert api.authorize().status_code == 200
    assert sandbox.hits(fault) == 1
    assert api.authorized(api.get().json())


def test_a_request_that_comes_twice_does_no_harm(sandbox: Sandbox, api: V1) -> None:
    sandbox.fault(kind="duplicate", service=api.service, times=0)
    assert api.add().status_code == 200
    assert api.authorize().status_code == 200
    assert api.listed() == [NODE]
    assert api.get().json()["name"] == "stibnite"
    # v1 has lost its member by the time of the second one; v2 is content when there is nothing to remove.
    assert api.remove().status_code == (404 if api.kind == "v1" else 200)
    assert api.listed() == []


def test_the_two_apis_fail_apart(sandbox: Sandbox) -> None:
    sandbox.fault(kind="unavailable", service="zerotier_v2", times=0)
    assert V1(sandbox).call("GET", V1(sandbox).network).status_code == 200
    assert V2(sandbox).call("GET", V2(sandbox).network).status_code == 503


def test_a_new_member_is_late_in_lists(sandbox: Sandbox, api: V1) -> None:
    sandbox.fault(kind="list_lag", service=api.service, name=NODE, seconds=0.3)
    api.add()
    api.add(OTHER)
    assert api.get().status_code == 200
    assert api.listed() == [OTHER]
    until(lambda: api.listed() == [NODE, OTHER])


def test_a_node_that_comes_by_itself_can_be_late_too(sandbox: Sandbox, api: V1) -> None:
    api.add(OTHER)
    sandbox.fault(kind="list_lag", service="zerotier", seconds=3600)
    path = f"{sandbox.url}/zerotier/simulation/network/{NETWORK}/node/{NODE}"
    api.call("POST", path, {})
    assert (api.get().status_code, api.listed()) == (200, [OTHER])


def test_a_change_that_is_accepted_and_never_comes(sandbox: Sandbox, api: V1) -> None:
    api.add()
    for verb in ("change", "delete", "create"):
        sandbox.fault(kind="failed_operation", service=api.service, verb=verb, name=f"{NODE}|{OTHER}")
    assert api.authorize().status_code == 200
    assert not api.authorized(api.get().json())
    assert api.remove().status_code == 200
    assert api.listed() == [NODE]
    assert api.add(OTHER).status_code == 200
    assert api.listed() == [NODE]
    sandbox.fault(kind="failed_operation", service=api.service, name=NETWORK)
    assert api.rename("minerals").status_code == 200
    assert api.name() == "sandbox_b903"
    assert api.authorize().status_code == api.rename("minerals").status_code == 200
    assert (api.authorized(api.get().json()), api.name()) == (True, "minerals")


def test_the_answer_is_that_of_a_change_that_came(sandbox: Sandbox, api: V1) -> None:
    api.add()
    sandbox.fault(kind="failed_operation", service=api.service, name=NODE)
    assert api.authorized(api.authorize().json())


def test_a_change_that_takes_its_time(sandbox: Sandbox, api: V1) -> None:
    sandbox.fault(kind="slow_operation", service=api.service, seconds=0.3)
    assert api.add().status_code == 200
    assert api.get().status_code == 404
    until(lambda: api.get().status_code == 200)
    sandbox.fault(kind="slow_operation", service=api.service, name=NODE, verb="delete", seconds=0.3)
    assert api.remove().status_code == 200
    assert api.listed() == [NODE]
    until(lambda: api.listed() == [])


def test_what_is_gone_when_its_change_comes_stays_gone(
    sandbox: Sandbox, api: V1, caplog: pytest.LogCaptureFixture
) -> None:
    api.add()
    sandbox.fault(kind="slow_operation", service=api.service, seconds=0.1, times=2)
    api.remove()
    api.rename("minerals")
    assert api.remove().status_code == 200
    api.add(OTHER)
    # It is asked for after the removal, and takes as long.
    until(lambda: api.name() == "minerals")
    assert api.listed() == [OTHER]
    assert caplog.records == [], "the removal that came too late is no failure"


def test_more_than_the_plan_allows(sandbox: Sandbox, api: V1) -> None:
    api.add()
    sandbox.fault(kind="quota", service=api.service, times=2)
    assert api.authorize().status_code == 200
    assert api.add(OTHER).status_code == 403
    assert api.create().status_code == 403
    assert (api.listed(), api.networks()) == ([NODE], 1)
    assert api.add(OTHER).status_code == 200
    assert api.create().status_code == 200


@pytest.mark.parametrize("kind", ["stockout", "unreachable"])
def test_what_has_no_meaning_here_strikes_nothing(sandbox: Sandbox, api: V1, kind: str) -> None:
    fault = sandbox.fault(kind=kind, service=api.service, times=0)
    assert api.add().status_code == 200
    assert api.listed() == [NODE]
    assert sandbox.hits(fault) == 0
