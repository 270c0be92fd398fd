# SPDX-License-Identifier: GPL-3.0-or-later
"""An apply under every fault the sandbox knows, and under a kill: exactly the declared machines, or a clear error.

What exists is asked of the sandbox's back end, which no fault can make lie.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import provision
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS
from ansible_collections.gpumesh.fleet.tests.fleets import gcp, hetzner, run_module, start_module, write_fleet

from sandbox.faults import SEMANTIC, TRANSPORT
from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

HETZNER = {f"h{n}": hetzner(fallback_locations=["nbg1"] if n % 2 else []) for n in range(10)}
GCP = {f"g{n}": gcp(fallback_zones=["us-central1-b"] if n % 2 else []) for n in range(10)}
NAMES = {*HETZNER, *GCP}

SETTINGS: dict[str, dict[str, Any]] = {
    "rate_limit": {"retry_after": 1, "every": 4},
    "error": {"every": 4},
    "unavailable": {"retry_after": 1, "every": 4},
    "reset": {"every": 4},
    "reset_after": {"every": 3},
    "hang": {"seconds": 1, "every": 5},
    "slow": {"seconds": 1, "every": 5},
    "duplicate": {"every": 3},
    "stockout": {"every": 3, "verb": "create"},
    "quota": {"every": 5, "verb": "create"},
    "slow_operation": {"seconds": 3, "every": 4},
    "failed_operation": {"every": 4},
    "list_lag": {"seconds": 3, "every": 2},
    "unreachable": {"service": "gce", "zone": "us-central1-b", "nth": 1},
}


@pytest.fixture(scope="module")
def the_sandbox() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.3) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(the_sandbox: Sandbox) -> Iterator[Sandbox]:
    the_sandbox.reset()
    yield the_sandbox
    the_sandbox.clear_faults()


@pytest.fixture
def folder(tmp_path: Path, sandbox: Sandbox) -> Path:
    write_fleet(tmp_path, sandbox, HETZNER | GCP)
    return tmp_path


def apply(folder: Path, **options: Any) -> provision.Report:
    request = provision.Request(
        str(folder / "fleet.yml"), carry_out=True, approve=True, wait_timeout=30, key_timeout=10, **options
    )
    return provision.run(request, KINDS, {}, SystemClock())


def existing(sandbox: Sandbox) -> list[str]:
    return sorted(str(machine["hostname"]) for machine in sandbox.machines())


def test_every_fault_is_tried() -> None:
    assert set(SETTINGS) == TRANSPORT | SEMANTIC


@pytest.mark.parametrize("method", ["POST", ""], ids=["changes", "any request"])
@pytest.mark.parametrize("kind", sorted(TRANSPORT))
def test_requests_that_go_wrong(sandbox: Sandbox, folder: Path, kind: str, method: str) -> None:
    fault = sandbox.fault(
        kind=kind, method=method, nth=2, times=8, path="(servers|instances)", **SETTINGS[kind]
    )
    first = apply(folder)
    assert sandbox.hits(fault) > 2
    check_and_heal(sandbox, folder, first)


@pytest.mark.parametrize("kind", sorted(SEMANTIC))
def test_work_that_goes_wrong(sandbox: Sandbox, folder: Path, kind: str) -> None:
    fault = sandbox.fault(kind=kind, times=8, **SETTINGS[kind])
    first = apply(folder)
    assert sandbox.hits(fault) > 2 or kind == "unreachable"
    check_and_heal(sandbox, folder, first, lag=3 if kind == "list_lag" else 0)


def test_a_zone_that_has_nothing_left(sandbox: Sandbox, folder: Path) -> None:
    sandbox.fault(kind="stockout", zone="fsn1|us-central1-a", times=0)
    report = apply(folder)
    with_fallback = {
        name
        for name, machine in (HETZNER | GCP).items()
        if any("fallback" in key and machine[key] for key in machine)
    }
    assert set(existing(sandbox)) == with_fallback
    assert {error.machine for error in report.errors} == NAMES - with_fallback
    assert {type(error).__name__ for error in report.errors} == {"OutOfStock"}
    check_and_heal(sandbox, folder, report)


def test_everything_fails_late_and_nothing_is_left(sandbox: Sandbox, folder: Path) -> None:
    sandbox.fault(kind="failed_operation", verb="create", times=0)
    report = apply(folder)
    assert len(report.errors) == 20
    assert existing(sandbox) == []
    check_and_heal(sandbox, folder, report)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_killed_in_the_middle(sandbox: Sandbox, folder: Path, share: float) -> None:
    sandbox.fault(kind="list_lag", times=0, seconds=3)
    process = start_module(folder, state="applied", approve=True, wait_timeout=30)
    while sandbox.requests(method="POST", path="(servers|instances)$") < 20 * share:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert set(existing(sandbox)) <= NAMES
    sandbox.clear_faults()
    second = run_module(folder, state="applied", approve=True, wait_timeout=30)
    assert not second.get("failed"), second.get("msg")
    assert existing(sandbox) == sorted(NAMES)
    time.sleep(3)
    third = run_module(folder, state="applied", approve=True)
    assert not third.get("failed") and not third["changed"], third.get("msg")


def test_killed_while_deleting(sandbox: Sandbox, folder: Path) -> None:
    apply(folder)
    sandbox.set_operation_seconds(1)
    process = start_module(folder, state="applied", approve=True, retire=["all"])
    while sandbox.requests(method="DELETE") < 10:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, 9)
    process.communicate()
    sandbox.set_operation_seconds(0.3)
    second = run_module(folder, state="applied", approve=True, retire=["all"])
    assert not second.get("failed"), second.get("msg")
    time.sleep(1)
    assert existing(sandbox) == []
    assert "gpumesh-" not in (folder / "known_hosts").read_text()


def check_and_heal(sandbox: Sandbox, folder: Path, first: provision.Report, *, lag: float = 0.0) -> None:
    """None twice, none undeclared, none reported that is not there, none missing without a word; then a quiet run."""
    there = existing(sandbox)
    assert len(set(there)) == len(there) and set(there) <= NAMES
    done = {outcome.machine for outcome in first.outcomes if outcome.status == "ok"}
    failed = {error.machine for error in first.errors}
    assert done <= set(there) and NAMES - set(there) <= failed
    for error in first.errors:
        assert error.what and str(error).endswith(".") and "unexpected" not in error.what, str(error)
    sandbox.clear_faults()
    second = apply(folder)
    assert not second.errors, [str(error) for error in second.errors]
    assert existing(sandbox) == sorted(NAMES)
    time.sleep(lag)
    third = apply(folder)
    assert not third.changed and not third.errors, third.table
    assert len((folder / "known_hosts").read_text().splitlines()) == 20
