# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider of Compute Engine and the module gcp_instance against the sandbox."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import clock, errors, spec, spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS, gcp, gcp_wire
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Operation, Progress
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import (
    GcpMachine,
    GcpSettings,
)
from ansible_collections.gpumesh.fleet.plugins.modules import gcp_instance
from ansible_collections.gpumesh.fleet.tests.compute import BOOT, FLEET, ZONE, machine
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

PROJECT = "sandbox-project"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1FR0FNRUdBTUVHQU1FR0FNRUdBTUVHQU1FR0FNRUdB me"
T4: dict[str, Any] = {"type": "n1-standard-8", "gpu": {"model": "t4", "count": 1}}


class Quick(clock.SystemClock):
    """The real clock, hurried: whoever sleeps is woken soon, and the clock says that all the time has passed."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return super().now() + self._skipped

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.02))
        self._skipped += max(0.0, seconds - 0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _fresh(server: Sandbox) -> None:
    server.clear_faults()
    server.reset()


def connect(server: Sandbox, *machines: GcpMachine, fleet: str = FLEET, **given: Any) -> gcp.GcpProvider:
    settings = GcpSettings(
        project=PROJECT, credentials_file=str(server.google_credentials), endpoint=server.compute
    )
    wish = spec.FleetSpec(
        fleet=fleet,
        providers={"gcp": settings},
        machines={m.name: m for m in machines},
        base_dir="/",
        known_hosts="/nowhere",
        **given,
    )
    return gcp.connect(wish, {}, Quick())


def ended(provider: gcp.GcpProvider, operations: Sequence[Operation]) -> dict[str, Progress]:
    """How they ended."""
    progress: dict[str, Progress] = {}
    while len(progress) < len(operations):
        waiting = [operation for operation in operations if operation.id not in progress]
        progress |= {name: found for name, found in provider.poll(waiting).items() if found.done}
    return progress


def end(provider: gcp.GcpProvider, operation: Operation | None) -> None:
    assert operation is not None
    (progress,) = ended(provider, [operation]).values()
    if progress.error:
        raise progress.error


def settle(provider: gcp.GcpProvider, wanted: GcpMachine, zone: str, state: State) -> Instance:
    while (found := provider.find(wanted, zone)) is None or found.state is not state:
        pass
    return found


def test_the_life_of_a_machine_with_a_t4(server: Sandbox) -> None:
    wanted = machine("scheelite", **T4, labels={"team": "geology"})
    provider = connect(server, wanted)
    assert provider.list().instances == ()
    assert provider.access([wanted]).notes == ()
    end(provider, provider.prepare([wanted]))
    assert provider.access([wanted]).changes == ()
    end(provider, provider.create(wanted, ZONE, BOOT))
    made = settle(provider, wanted, ZONE, State.RUNNING)
    assert (made.name, made.machine, made.fleet) == ("scheelite", "scheelite", FLEET)
    assert (made.zone, made.type) == (ZONE, "n1-standard-8")
    assert (made.gpu_model, made.gpu_count) == ("t4", 1)
    assert made.public_ip and made.private_ip and made.id.isdigit()
    assert made.labels["team"] == "geology"
    assert str(made.price.hourly) == "0.73000"
    assert provider.list().instances == (made,)

    end(provider, provider.relabel(made, {**made.labels, "team": "physics"}))
    assert settle(provider, wanted, ZONE, State.RUNNING).labels["team"] == "physics"
    end(provider, provider.stop(made))
    stopped = settle(provider, wanted, ZONE, State.STOPPED)
    assert stopped.price.hourly is None
    end(provider, provider.start(stopped))
    end(provider, provider.delete(settle(provider, wanted, ZONE, State.RUNNING)))
    assert provider.list().instances == ()
    assert provider.delete(made) is None
    assert server.machines() == []


@pytest.mark.parametrize(
    "given",
    [
        {"type": "g2-standard-8"},
        {"type": "a2-highgpu-1g"},
        {"type": "e2-standard-8", "image": "ubuntu-24.04"},
        {"type": "e2-standard-8", "spot": True, "max_run": "8h", "when_ended": "delete"},
        {"type": "e2-standard-4", "image": "debian-12", "disk_gb": 100, "disk_type": "pd-ssd"},
    ],
)
def test_the_cloud_takes_every_kind_of_machine_the_examples_need(
    server: Sandbox, given: dict[str, Any]
) -> None:
    wanted = machine(**given)
    provider = connect(server, wanted)
    provider.prepare([wanted])
    end(provider, provider.create(wanted, ZONE, BOOT))
    found = settle(provider, wanted, ZONE, State.RUNNING)
    assert (found.gpu_model, found.gpu_count) == wanted.gpus


def test_an_a100_on_n1_is_refused_before_anything_is_asked(server: Sandbox) -> None:
    before = server.requests(service="gce")
    text = f"""
plugin: gpumesh.fleet.fleet
fleet: {FLEET}
providers: {{gcp: {{project: {PROJECT}}}}}
machines:
  wrong: {{provider: gcp, type: n1-standard-8, zone: {ZONE}, gpu: {{model: a100, count: 1}}}}
"""
    with pytest.raises(errors.SpecError) as refusal:
        spec_file.parse([spec_file.Document("fleet.yml", text)], KINDS, {})
    assert "fleet.yml:6: wrong gpu: n1-standard-8 cannot take an A100" in str(refusal.value)
    assert "a2-highgpu-1g" in str(refusal.value)
    assert server.requests(service="gce") == before


def test_many_at_once_share_their_polls(server: Sandbox) -> None:
    wanted = [machine(f"m{n}") for n in range(40)]
    provider = connect(server, *wanted)
    provider.prepare(wanted)
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda one: provider.create(one, ZONE, BOOT), wanted)]
    before = server.requests(service="gce")
    progress = provider.poll(made)
    assert server.requests(service="gce") - before <= 4
    assert len(progress) == 40
    assert all(found.error is None for found in ended(provider, made).values())
    assert len(provider.list().instances) == len(server.machines()) == 40


@pytest.mark.parametrize(
    ("kind", "error"), [("stockout", errors.OutOfStock), ("quota", errors.QuotaExceeded)]
)
def test_no_capacity_and_no_quota_are_told_apart(
    server: Sandbox, kind: str, error: type[errors.FleetError]
) -> None:
    wanted = machine("scheelite", **T4)
    provider = connect(server, wanted)
    server.fault(kind=kind, service="gce", zone=ZONE)
    with pytest.raises(error) as told:
        end(provider, provider.create(wanted, ZONE, BOOT))
    assert told.value.code and told.value.hint
    assert provider.find(wanted, ZONE) is None
    end(provider, provider.create(wanted, "us-central1-a", BOOT))
    assert settle(provider, wanted, "us-central1-a", State.RUNNING)


def test_an_operation_that_fails_late(server: Sandbox) -> None:
    wanted = machine()
    provider = connect(server, wanted)
    server.fault(kind="failed_operation", service="gce")
    with pytest.raises(errors.FleetError) as told:
        end(provider, provider.create(wanted, ZONE, BOOT))
    assert told.value.machine == "galena"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rate_limit", "retry_after": 0},
        {"kind": "error", "status": 500},
        {"kind": "unavailable"},
        {"kind": "reset"},
        {"kind": "reset_after"},
        {"kind": "duplicate"},
    ],
)
def test_a_create_that_has_to_be_sent_again_makes_one_machine(server: Sandbox, fault: dict[str, Any]) -> None:
    wanted = machine()
    provider = connect(server, wanted)
    number = server.fault(service="gce", method="POST", path="/instances$", times=2, **fault)
    end(provider, provider.create(wanted, ZONE, BOOT))
    assert server.hits(number) >= 1
    settle(provider, wanted, ZONE, State.RUNNING)
    assert len(server.machines()) == 1


def test_a_second_create_meets_the_name_and_finds_its_own(server: Sandbox) -> None:
    wanted = machine()
    provider = connect(server, wanted)
    end(provider, provider.create(wanted, ZONE, BOOT))
    with pytest.raises(errors.Conflict):
        end(provider, provider.create(wanted, ZONE, BOOT))
    assert provider.find(wanted, ZONE)
    with pytest.raises(errors.Conflict, match=f"belongs to the fleet {FLEET} as "):
        connect(server, wanted, fleet="rocks").find(wanted, ZONE)
    assert connect(server, fleet="rocks").list().instances == ()


def test_a_list_that_lags_hides_what_asking_by_name_shows(server: Sandbox) -> None:
    wanted = machine()
    provider = connect(server, wanted)
    server.fault(kind="list_lag", service="gce", seconds=3600)
    end(provider, provider.create(wanted, ZONE, BOOT))
    assert provider.list().instances == ()
    assert provider.find(wanted, ZONE)


def test_a_zone_that_cannot_be_reached_is_named_and_the_others_are_listed(server: Sandbox) -> None:
    here, there = machine("galena"), machine("electrum", zone="us-central1-a")
    provider = connect(server, here, there)
    for one in (here, there):
        end(provider, provider.create(one, one.zone, BOOT))
    server.fault(kind="unreachable", service="gce", zone=ZONE)
    listing = provider.list()
    assert [found.name for found in listing.instances] == ["electrum"]
    assert listing.unreachable == (ZONE,)
    assert len(provider.list().instances) == 2


def test_ssh_is_open_to_declared_sources_only(server: Sandbox) -> None:
    wanted = machine(ssh_sources=("198.51.100.0/24",))
    provider = connect(server, wanted)
    provider.prepare([wanted])
    end(provider, provider.create(wanted, ZONE, BOOT))
    before = server.requests(service="gce", method="POST")
    assert provider.prepare([wanted]) is None
    assert server.requests(service="gce", method="POST") == before
    changed = machine(ssh_sources=("203.0.113.0/24",))
    provider = connect(server, changed)
    (change,) = provider.access([changed]).changes
    assert change.text.endswith("-ssh: SSH from 198.51.100.0/24 -> 203.0.113.0/24")
    end(provider, provider.prepare([changed]))
    assert server.requests(service="gce", method="PATCH") >= 1
    assert provider.access([changed]).changes == ()


def test_a_running_machine_gets_sources_of_its_own_and_loses_them(server: Sandbox) -> None:
    wide, narrow = machine(), machine(ssh_sources=("198.51.100.0/24",))
    provider = connect(server, wide)
    end(provider, provider.prepare([wide]))
    end(provider, provider.create(wide, ZONE, BOOT))
    provider = connect(server, narrow)
    opened = provider.access([narrow]).changes
    assert [(change.action, change.text.partition(": ")[2]) for change in opened] == [
        ("create", "SSH from 198.51.100.0/24"),
        ("create", "SSH closed to 0.0.0.0/0"),
    ]
    end(provider, provider.prepare([narrow]))
    provider = connect(server, wide)
    assert [change.action for change in provider.access([wide]).changes] == ["delete", "delete"]
    end(provider, provider.prepare([wide]))
    assert provider.access([wide]).changes == ()


def test_rules_of_the_fleet_go_and_those_of_others_stay(server: Sandbox) -> None:
    other = connect(server, machine(), fleet=f"{FLEET}-two")
    end(other, other.prepare([machine()]))
    provider = connect(server, machine())
    end(provider, provider.prepare([machine()]))
    assert [change.action for change in provider.access([]).changes] == ["delete"]
    end(provider, provider.prepare([]))
    assert provider.access([]).changes == () and provider.prepare([]) is None
    assert len(other.access([]).changes) == 1


def test_the_guest_agents_host_keys(server: Sandbox) -> None:
    wanted = machine()
    provider = connect(server, wanted)
    end(provider, provider.create(wanted, ZONE, BOOT))
    found = settle(provider, wanted, ZONE, State.RUNNING)
    while not (keys := provider.host_keys(found)):
        pass
    assert keys[0].startswith("ssh-ed25519 AAAA")


# The module

Run = Callable[..., dict[str, Any]]
NEW: dict[str, Any] = {**T4, "ssh_keys": [KEY], "labels": {"purpose": "build"}, "zone": ZONE}


@pytest.fixture
def run(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(gcp_instance, "SystemClock", Quick)

    def run(**params: Any) -> dict[str, Any]:
        return run_module(
            gcp_instance.main,
            **{
                "name": "build-1",
                "zone": ZONE,
                "project": PROJECT,
                "credentials_file": str(server.google_credentials),
                "endpoint": server.compute,
                **params,
            },
        )

    return run


def test_the_life_of_an_instance_by_the_module(run: Run, server: Sandbox) -> None:
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
        assert "failed" not in real, real
        assert (predicted["changed"], real["changed"]) == (changed, changed), wished
        assert predicted["diff"] == real["diff"]
    assert server.machines() == []


def test_what_the_module_returns(run: Run) -> None:
    instance = run(**NEW)["instance"]
    assert instance["labels"] == {
        "purpose": "build",
        "gpumesh-fleet": "standalone",
        "gpumesh-machine": "build-1",
    }
    assert (instance["state"], instance["gpu_model"], instance["price"]["hourly"]) == (
        "running",
        "t4",
        "0.73000",
    )


def test_the_module_takes_the_next_zone(run: Run, server: Sandbox) -> None:
    server.fault(kind="stockout", service="gce", zone=ZONE)
    result = run(**NEW, fallback_zones=["us-central1-a"])
    assert result["instance"]["zone"] == "us-central1-a"
    assert not run(**NEW, fallback_zones=["us-central1-a"])["changed"]
    assert len(server.machines()) == 1


def test_the_module_makes_one_machine_of_a_request_whose_answers_are_all_lost(
    run: Run, server: Sandbox
) -> None:
    server.fault(kind="reset_after", service="gce", method="POST", path="/instances$", times=1)
    assert run(**NEW)["instance"]["state"] == "running"
    assert len(server.machines()) == 1


@pytest.mark.parametrize(
    ("wished", "words"),
    [
        ({"gpu": {"model": "a100"}}, "a2-highgpu-1g"),
        ({"type": "n1-standart-8"}, "did you mean n1-standard-8"),
        ({"ssh_keys": []}, "without ssh_keys"),
        ({"type": None, "gpu": None}, "type must be given"),
        ({"zone": "us-centrl1-c"}, "did you mean us-central1-c"),
        ({"name": "../../x"}, "pattern"),
        ({"name": "../../x", "type": None, "gpu": None, "state": "absent"}, "pattern"),
        ({"fleet": "No Fleet"}, "fleet"),
    ],
)
def test_what_the_module_refuses_it_refuses_before_making_anything(
    run: Run, server: Sandbox, wished: dict[str, Any], words: str
) -> None:
    result = run(**{**NEW, **wished})
    assert result["failed"] and words in result["msg"], result
    assert result["failure"]["kind"] == "InvalidRequest"
    assert server.machines() == []


def test_the_module_does_not_change_what_cannot_be_changed(run: Run) -> None:
    run(**NEW)
    for wished in ({"type": "n1-standard-4"}, {"gpu": None}, {"gpu": {"model": "t4", "count": 2}}):
        result = run(**{**NEW, **wished})
        assert result["failed"] and "this module does not change that" in result["msg"]


def test_the_module_leaves_foreign_instances_alone(run: Run, server: Sandbox) -> None:
    wanted = machine("build-1")
    end(provider := connect(server, wanted), provider.create(wanted, ZONE, BOOT))
    result = run(state="absent")
    assert result["failed"] and result["failure"]["kind"] == "Conflict"
    assert len(server.machines()) == 1


@pytest.mark.docker
def test_the_startup_script_makes_the_account_once_and_never_again() -> None:
    script = gcp_wire.startup_script(FirstBoot("admin", ("ssh-ed25519 AAAA o'neil", "ssh-rsa BBBB two")))
    steps = """
        set -e
        rm -f /usr/bin/cloud-init
        cat > /script
        sh /script
        cat /home/admin/.ssh/authorized_keys
        stat -c '%U %a' /home/admin/.ssh /home/admin/.ssh/authorized_keys
        visudo -cq && su admin -c 'sudo -n id -u'
        echo mine > /home/admin/.ssh/authorized_keys
        sh /script
        cat /home/admin/.ssh/authorized_keys
    """
    command = ["docker", "run", "--rm", "-i", "--entrypoint", "sh", "gpumesh/host:debian-13", "-c", steps]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ssh-ed25519 AAAA o'neil",
        "ssh-rsa BBBB two",
        "admin 700",
        "admin 600",
        "0",
        "mine",
    ]
