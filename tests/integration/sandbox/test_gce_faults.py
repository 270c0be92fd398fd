# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Compute Engine when things go wrong, and when time passes.

Every exchange these tests have through ``google`` is held against the whole discovery document.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from google.auth.transport.requests import AuthorizedSession

from sandbox.backends.base import BackendError, Machine
from sandbox.backends.virtual import VirtualBackend
from sandbox.testing import Sandbox, serve
from sandbox.world import SystemClock
from tests.integration.sandbox.gce_client import (
    ZONE,
    body,
    gpu,
    make,
    refusal,
    signed_in,
    waited,
)

pytestmark = pytest.mark.integration


# Faults


def test_a_stock_out_ends_the_operation_and_leaves_nothing(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    sandbox.fault(kind="stockout", service="gce", zone=ZONE)
    done = waited(google, google.post(f"{zone}/instances", json=gpu("nvidia-tesla-t4", 1)))
    assert (done["httpErrorStatusCode"], done["httpErrorMessage"]) == (503, "SERVICE UNAVAILABLE")
    error = done["error"]["errors"][0]
    assert error["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    details = {key: value for detail in error["errorDetails"] for key, value in detail.items()}
    assert details["errorInfo"]["metadatas"]["zone"] == ZONE
    assert refusal(google.get(f"{zone}/instances/galena")) == (404, "notFound")
    assert sandbox.machines() == []
    make(google, zone)


def test_a_quota_fails_late_or_at_once(sandbox: Sandbox, google: AuthorizedSession, zone: str) -> None:
    sandbox.fault(kind="quota", service="gce")
    done = waited(google, google.post(f"{zone}/instances", json=gpu("nvidia-tesla-t4", 1)))
    error = done["error"]["errors"][0]
    assert (error["code"], done["httpErrorStatusCode"]) == ("QUOTA_EXCEEDED", 403)
    assert error["errorDetails"][0]["quotaInfo"]["metricName"] == "compute.googleapis.com/nvidia_t4_gpus"
    sandbox.fault(kind="quota", service="gce", code="quotaExceeded")
    assert refusal(google.post(f"{zone}/instances", json=body())) == (403, "quotaExceeded")
    assert sandbox.machines() == []


@pytest.mark.parametrize(
    ("verb", "state"), [("create", None), ("stop", "RUNNING"), ("start", "TERMINATED"), ("delete", "RUNNING")]
)
def test_an_operation_that_fails_late_changes_nothing(
    sandbox: Sandbox, google: AuthorizedSession, zone: str, verb: str, state: str | None
) -> None:
    if state:
        make(google, zone)
    if state == "TERMINATED":
        waited(google, google.post(f"{zone}/instances/galena/stop"))
    sandbox.fault(kind="failed_operation", service="gce", verb=verb)
    requests_: dict[str, Callable[[], requests.Response]] = {
        "create": lambda: google.post(f"{zone}/instances", json=body()),
        "delete": lambda: google.delete(f"{zone}/instances/galena"),
    }
    send = requests_.get(verb, lambda: google.post(f"{zone}/instances/galena/{verb}"))
    done = waited(google, send())
    assert done["error"]["errors"][0]["code"] == "INTERNAL_ERROR"
    assert google.get(f"{zone}/instances/galena").json().get("status") == state
    assert len(sandbox.machines()) == (1 if state else 0)
    assert "error" not in waited(google, send())


def test_a_list_may_lag_behind_a_create(
    sandbox: Sandbox, google: AuthorizedSession, url: str, zone: str
) -> None:
    sandbox.fault(kind="list_lag", service="gce", seconds=3600)
    make(google, zone)
    assert "items" not in google.get(f"{zone}/instances").json()
    assert "instances" not in google.get(f"{url}/aggregated/instances").json()["items"][f"zones/{ZONE}"]
    assert google.get(f"{zone}/instances/galena").status_code == 200


def test_an_unreachable_zone_is_named(
    sandbox: Sandbox, google: AuthorizedSession, url: str, zone: str
) -> None:
    make(google, zone)
    sandbox.fault(kind="unreachable", service="gce", zone=ZONE, times=2)
    answer = google.get(f"{url}/aggregated/instances", params={"returnPartialSuccess": "true"}).json()
    assert [scope.rpartition("/")[2] for scope in answer["unreachables"]] == [ZONE]
    assert answer["items"][f"zones/{ZONE}"]["warning"]["code"] == "UNREACHABLE"
    assert refusal(google.get(f"{url}/aggregated/instances")) == (503, "backendError")
    assert google.get(f"{url}/aggregated/instances").json()["items"][f"zones/{ZONE}"]["instances"]


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ({"kind": "rate_limit", "retry_after": 1}, 429, "rateLimitExceeded"),
        ({"kind": "error", "status": 403}, 403, "rateLimitExceeded"),
        ({"kind": "error"}, 500, "backendError"),
        ({"kind": "unavailable"}, 503, "backendError"),
    ],
)
def test_an_injected_error_is_worded_as_googles(
    sandbox: Sandbox, google: AuthorizedSession, url: str, fault: dict[str, Any], status: int, reason: str
) -> None:
    sandbox.fault(service="gce", path="/zones", **fault)
    # A plain request: the session would try a 503 again by itself.
    google.get(url)
    token = google.credentials.token
    answer = requests.get(f"{url}/zones", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert refusal(answer) == (status, reason)
    assert answer.headers.get("Retry-After") == ("1" if "retry_after" in fault else None)


class BrokenBackend(VirtualBackend):
    """Gives up on a machine when it is half made."""

    async def create(self, machine: Machine) -> None:
        await super().create(machine)
        raise BackendError("the sandbox has no room")


def test_a_machine_that_cannot_be_made_leaves_nothing() -> None:
    with serve(BrokenBackend()) as broken, signed_in(broken) as session:
        zone = f"{broken.compute}/projects/p1/zones/{ZONE}"
        done = waited(session, session.post(f"{zone}/instances", json=body()))
        assert done["error"]["errors"][0]["message"] == "the sandbox has no room"
        assert refusal(session.get(f"{zone}/instances/galena")) == (404, "notFound")
        assert broken.machines() == []


# Time


class Hurried(SystemClock):
    """Half a minute and more pass at once; and the time can be set forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


@pytest.mark.parametrize(("action", "state"), [("STOP", "TERMINATED"), ("DELETE", None)])
def test_a_limited_run_time_ends_by_itself(action: str, state: str | None) -> None:
    limit = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": action}
    with serve(clock=Hurried()) as hurried, signed_in(hurried) as session:
        path = f"{hurried.compute}/projects/p1/zones/{ZONE}/instances"
        waited(session, session.post(path, json=body(scheduling=limit)))
        for _ in range(500):
            now = session.get(f"{path}/galena").json().get("status")
            if now == state:
                break
            time.sleep(0.02)
        assert now == state


def test_a_token_expires() -> None:
    clock = Hurried()
    with serve(clock=clock) as hurried, signed_in(hurried) as session:
        url = f"{hurried.compute}/projects/p1/zones"
        assert session.get(url).status_code == 200
        headers = {"Authorization": f"Bearer {session.credentials.token}"}
        assert requests.get(url, headers=headers, timeout=30).status_code == 200
        clock.ahead = 3601
        assert refusal(requests.get(url, headers=headers, timeout=30)) == (401, "authError")
