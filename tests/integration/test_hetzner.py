# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hetzner provider against the sandbox."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hcloud
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, firstboot, spec
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import hetzner
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Operation, Progress
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_models import (
    HetznerMachine,
    HetznerSettings,
)

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration


def ssh_key(seed: str) -> str:
    raw = hashlib.sha256(seed.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(firstboot._WIRE_PREFIX + raw).decode()}"


HOST_KEY = firstboot.HostKey("PRIVATE", ssh_key("host"))
BOOT = firstboot.FirstBoot("admin", (ssh_key("operator") + " someone@example",), HOST_KEY)


class Quick(SystemClock):  # type: ignore[misc]
    """The real clock, hurried: retries and polls need not wait long for a sandbox."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.02))


def machine(name: str, **given: Any) -> HetznerMachine:
    return HetznerMachine(**{"name": name, "type": "cx23", "location": "fsn1", "enabled": True, **given})


def fleet_of(
    sandbox: Sandbox, *machines: HetznerMachine, fleet: str = "minerals", **given: Any
) -> spec.FleetSpec:
    return spec.FleetSpec(
        fleet=fleet,
        providers={"hetzner": HetznerSettings(token=sandbox.hetzner_token, endpoint=sandbox.hetzner)},
        machines={m.name: m for m in machines},
        base_dir="/",
        known_hosts="/nowhere",
        **given,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(server: Sandbox) -> Sandbox:
    server.reset()
    server.clear_faults()
    server.set_operation_seconds(0.02)
    return server


Connect = Callable[..., hetzner.Hetzner]


@pytest.fixture
def connect(sandbox: Sandbox) -> Connect:
    def connected(*machines: HetznerMachine, **given: Any) -> hetzner.Hetzner:
        return hetzner.connect(fleet_of(sandbox, *machines, **given), {}, Quick())

    return connected


@pytest.fixture
def library(sandbox: Sandbox) -> Any:
    """The unmodified library, to look at what came of our requests."""
    return hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner, timeout=10)


def finish(provider: hetzner.Hetzner, *operations: Operation | None) -> dict[str, Progress]:
    open_ones = {operation.id: operation for operation in operations if operation}
    ended: dict[str, Progress] = {}
    clock = Quick()
    while open_ones:
        for key, progress in provider.poll(list(open_ones.values())).items():
            if progress.done:
                ended[key] = progress
                del open_ones[key]
        clock.sleep(0.02)
    return ended


def made(provider: hetzner.Hetzner, *machines: HetznerMachine) -> list[Instance]:
    with ThreadPoolExecutor(8) as pool:
        operations = list(pool.map(lambda m: provider.create(m, m.location, BOOT), machines))
    assert not any(progress.error for progress in finish(provider, *operations).values())
    return sorted(provider.list().instances, key=lambda instance: instance.name)


def names(instances: Sequence[Instance]) -> list[str]:
    return [instance.name for instance in instances]


def test_twenty_machines_at_once(connect: Connect, sandbox: Sandbox, library: Any) -> None:
    machines = [machine(f"m{i:02}") for i in range(20)]
    provider = connect(*machines)
    provider.prepare(machines)
    instances = made(provider, *machines)
    assert names(instances) == [m.name for m in machines]
    one = instances[0]
    assert (one.state, one.zone, one.type, one.image) == (State.RUNNING, "fsn1", "cx23", "debian-13")
    assert (one.fleet, one.machine) == ("minerals", "m00")
    assert one.public_ip and one.public_ipv6 and one.public_ipv6.endswith("::1")
    assert one.host_keys == (HOST_KEY.public,) and one.host_keys_planted
    assert Instance.from_json(one.to_json()) == one
    assert len(library.ssh_keys.get_all()) == 1
    assert sandbox.requests(method="POST", path="/ssh_keys$") == 1, (
        "registered once, however many ask at once"
    )
    assert sandbox.requests(method="POST", path="/servers$") == 20


def test_a_key_is_registered_once_however_many_ask_at_once(connect: Connect, sandbox: Sandbox) -> None:
    provider = connect()
    sandbox.fault(kind="slow", service="hetzner", path="/ssh_keys$", seconds=0.05, times=0)
    made(provider, *[machine(f"m{i}") for i in range(8)])
    assert sandbox.requests(method="POST", path="/ssh_keys$") == 1


def test_what_is_made_is_deleted(connect: Connect, sandbox: Sandbox, library: Any) -> None:
    provider = connect(machine("a"))
    [instance] = made(provider, machine("a"))
    finish(provider, provider.delete(instance))
    assert provider.list().instances == ()
    assert provider.delete(instance) is None, "gone already is no error"
    assert sandbox.machines() == []
    assert library.primary_ips.get_all() == []


def test_every_page_is_read_and_only_our_fleet(connect: Connect, sandbox: Sandbox) -> None:
    ours, foreign = connect(), connect(fleet="others")
    made(ours, *[machine(f"m{i:03}") for i in range(120)])
    made(foreign, machine("x"))
    before = sandbox.requests(method="GET", path="/servers$")
    listing = ours.list()
    assert names(sorted(listing.instances, key=lambda i: i.name)) == [f"m{i:03}" for i in range(120)]
    assert sandbox.requests(method="GET", path="/servers$") - before == 3
    assert names(foreign.list().instances) == ["x"]


def test_stop_and_start(connect: Connect) -> None:
    provider = connect(machine("a"))
    [instance] = made(provider, machine("a"))
    finish(provider, provider.stop(instance))
    stopped = provider.find(machine("a"), "fsn1")
    assert stopped and stopped.state is State.STOPPED
    assert stopped.price == instance.price, "Hetzner charges for a server that is off"
    finish(provider, provider.start(instance))
    started = provider.find(machine("a"), "fsn1")
    assert started and started.state is State.RUNNING


def test_a_machine_sold_out_in_one_place_is_to_be_had_in_another(connect: Connect, sandbox: Sandbox) -> None:
    one = machine("a", fallback_locations=("nbg1",))
    provider = connect(one)
    sandbox.fault(kind="stockout", service="hetzner", zone="fsn1", times=0)
    assert tuple(provider.zones(one)) == ("fsn1", "nbg1")
    with pytest.raises(errors.OutOfStock) as caught:
        provider.create(one, "fsn1", BOOT)
    assert caught.value.machine == "a"
    finish(provider, provider.create(one, "nbg1", BOOT))
    found = provider.find(one, "fsn1")
    assert found and found.zone == "nbg1"


def test_a_quota_is_called_a_quota(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.fault(kind="quota", service="hetzner")
    with pytest.raises(errors.QuotaExceeded) as caught:
        connect().create(machine("a"), "fsn1", BOOT)
    assert "resource_limit_exceeded" in str(caught.value)


def test_a_second_create_is_refused_and_the_first_is_found(connect: Connect) -> None:
    provider = connect(machine("a"))
    [instance] = made(provider, machine("a"))
    with pytest.raises(errors.Conflict):
        provider.create(machine("a"), "nbg1", BOOT)
    found = provider.find(machine("a"), "nbg1")
    assert found and found.id == instance.id


def test_a_create_whose_answer_was_lost_is_found_by_name(connect: Connect, sandbox: Sandbox) -> None:
    provider = connect(machine("a"))
    sandbox.fault(kind="reset_after", service="hetzner", method="POST", path="/servers$")
    with pytest.raises(errors.Unavailable):
        provider.create(machine("a"), "fsn1", BOOT)
    found = provider.find(machine("a"), "fsn1")
    assert found and found.machine == "a"
    assert len(sandbox.machines()) == 1, "a create that may have arrived is not repeated blindly"


def test_a_server_of_that_name_that_is_not_ours_is_left_alone(connect: Connect) -> None:
    made(connect(fleet="others"), machine("a"))
    with pytest.raises(errors.Conflict) as caught:
        connect().find(machine("a"), "fsn1")
    assert "belongs to the fleet others" in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rate_limit", "retry_after": 1},
        {"kind": "rate_limit"},
        {"kind": "error"},
        {"kind": "unavailable"},
        {"kind": "reset"},
        {"kind": "reset_after"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_listing_survives(connect: Connect, sandbox: Sandbox, fault: dict[str, Any]) -> None:
    provider = connect(machine("a"))
    made(provider, machine("a"))
    number = sandbox.fault(service="hetzner", path="/servers$", times=3, **fault)
    assert names(provider.list().instances) == ["a"]
    assert sandbox.hits(number) == 3


def test_a_delete_of_a_busy_server_waits_for_it(connect: Connect, sandbox: Sandbox) -> None:
    provider = connect(machine("a"))
    sandbox.set_operation_seconds(0.2)
    provider.create(machine("a"), "fsn1", BOOT)
    instance = provider.find(machine("a"), "fsn1")
    assert instance and instance.state is State.CREATING
    finish(provider, provider.delete(instance))
    assert provider.list().instances == ()


def test_an_operation_that_fails_late_says_why(connect: Connect, sandbox: Sandbox) -> None:
    provider = connect(machine("a"))
    sandbox.fault(kind="failed_operation", service="hetzner", verb="create")
    [progress] = finish(provider, provider.create(machine("a"), "fsn1", BOOT)).values()
    assert isinstance(progress.error, errors.ProviderError)
    assert progress.error.machine == "a"


def test_many_operations_are_asked_about_in_one_request(connect: Connect, sandbox: Sandbox) -> None:
    provider = connect()
    sandbox.set_operation_seconds(5.0)
    operations = [provider.create(machine(f"m{i}"), "fsn1", BOOT) for i in range(30)]
    before = sandbox.requests(method="GET", path="/actions$")
    assert not any(progress.done for progress in provider.poll(operations).values())
    ids = {number for operation in operations for number in operation.id.split(",")}
    assert sandbox.requests(method="GET", path="/actions$") - before == -(-len(ids) // 50)


def test_firewalls_hold_by_label_and_follow_the_file(connect: Connect, library: Any) -> None:
    def firewalls() -> dict[str, tuple[list[str], list[str]]]:
        return {
            firewall.name: (
                [target.label_selector.selector for target in firewall.applied_to],
                sorted(source for rule in firewall.rules if rule.port == "22" for source in rule.source_ips),
            )
            for firewall in library.firewalls.get_all()
        }

    defaults = spec.Defaults(ssh_sources=("203.0.113.0/24",))
    plain = [machine("a"), machine("b")]
    provider = connect(*plain, defaults=defaults)
    for _ in range(2):
        provider.prepare(plain)
        assert firewalls() == {"gpumesh-minerals": (["gpumesh-fleet==minerals"], ["203.0.113.0/24"])}

    narrow = [machine("a"), machine("b", ssh_sources=("198.51.100.7/32",))]
    connect(*narrow, defaults=defaults).prepare(narrow)
    found = firewalls()
    own = next(name for name in found if name != "gpumesh-minerals")
    assert found == {
        "gpumesh-minerals": (["gpumesh-fleet==minerals,gpumesh-machine notin (b)"], ["203.0.113.0/24"]),
        own: (["gpumesh-fleet==minerals,gpumesh-machine in (b)"], ["198.51.100.7/32"]),
    }

    wide = spec.Defaults(ssh_sources=("203.0.113.0/24", "198.51.100.0/24"))
    connect(*plain, defaults=wide).prepare(plain)
    assert firewalls() == {
        "gpumesh-minerals": (["gpumesh-fleet==minerals"], ["198.51.100.0/24", "203.0.113.0/24"])
    }


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "duplicate", "method": "POST"},
        {"kind": "error", "method": "POST"},
        {"kind": "reset_after", "method": "POST"},
        {"kind": "unavailable", "method": "POST", "times": 2},
    ],
    ids=lambda fault: fault["kind"],
)
def test_firewalls_come_out_right_whatever_becomes_of_a_request(
    connect: Connect, sandbox: Sandbox, library: Any, fault: dict[str, Any]
) -> None:
    machines = [machine("a"), machine("b", ssh_sources=("198.51.100.7/32",))]
    sandbox.fault(service="hetzner", path="/firewalls", **fault)
    connect(*machines).prepare(machines)
    applied = sorted(
        firewall.applied_to[0].label_selector.selector for firewall in library.firewalls.get_all()
    )
    assert applied == [
        "gpumesh-fleet==minerals,gpumesh-machine in (b)",
        "gpumesh-fleet==minerals,gpumesh-machine notin (b)",
    ]


def test_a_firewall_of_that_name_that_is_not_ours_is_left_alone(connect: Connect, library: Any) -> None:
    library.firewalls.create(name="gpumesh-minerals", rules=[])
    with pytest.raises(errors.InvalidRequest, match="not of the fleet minerals"):
        connect(machine("a")).prepare([machine("a")])
    assert library.firewalls.get_by_name("gpumesh-minerals").rules == []


def test_a_server_is_born_under_its_firewall(connect: Connect, library: Any) -> None:
    provider = connect(machine("a"))
    provider.prepare([machine("a")])
    made(provider, machine("a"))
    [firewall] = library.servers.get_by_name("a").public_net.firewalls
    assert firewall.firewall.name == "gpumesh-minerals"


def test_a_host_key_is_replaced_without_a_moment_of_mistrust(connect: Connect) -> None:
    provider = connect(machine("a"))
    [instance] = made(provider, machine("a"))
    new = ssh_key("own")
    provider.publish_host_key(instance, new, pending=True)
    [both] = provider.list().instances
    assert (both.host_keys, both.host_keys_planted) == ((HOST_KEY.public, new), True)
    provider.publish_host_key(instance, new)
    [after] = provider.list().instances
    assert (after.host_keys, after.host_keys_planted) == ((new,), False)
    assert firstboot.NEXT_HOST_KEY_LABEL not in after.labels
    assert after.machine == "a", "the other labels are still there"


def test_prices_are_live_net_and_with_the_address(connect: Connect) -> None:
    provider = connect(machine("a"))
    [instance] = made(provider, machine("a"))
    price = provider.price(machine("a"), "fsn1")
    assert price == provider.stopped_price(machine("a"), "fsn1") == instance.price
    assert price.currency == "EUR" and price.source.startswith("Hetzner API, live, 20")
    assert price.monthly_cap is not None and price.hourly is not None
    assert str(price.monthly_cap.normalize()) == "5.99", "5.49 for the server, 0.50 for its IPv4"
    assert price.monthly == min(price.monthly_cap, price.hourly * 730)
    assert provider.price(machine("a", type="cx99"), "fsn1").hourly is None
    assert provider.price(machine("a"), "sin").hourly is None, "not sold there: unknown, not zero"


def test_without_a_price_list_the_listing_goes_on(connect: Connect, sandbox: Sandbox) -> None:
    made(connect(), machine("a"))
    sandbox.fault(kind="error", service="hetzner", path="/pricing$", times=0, status=501)
    [instance] = connect().list().instances
    assert instance.price.hourly is None
    assert "could not be read" in instance.price.source


def test_a_bad_token_is_an_auth_error_that_does_not_show_it(sandbox: Sandbox) -> None:
    provider = hetzner.connect(fleet_of(sandbox), {"token": "wrong-token-1234567890"}, Quick())
    with pytest.raises(errors.AuthError) as caught:
        provider.list()
    assert "HCLOUD_TOKEN" in str(caught.value)
    assert "wrong-token" not in f"{caught.value} {caught.value.as_failure()}"


def test_a_type_that_does_not_exist_is_refused(connect: Connect) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        connect().create(machine("a", type="cx99"), "fsn1", BOOT)
    assert "cx99" in str(caught.value) or "server_type" in str(caught.value)
