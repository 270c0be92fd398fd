# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hetzner provider: what a fleet file says, what is made of answers, and scripted conversations on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import hcloud
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, firstboot, http, spec
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
    KINDS,
    hetzner,
    hetzner_api,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import hetzner_view as view
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Operation
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_models import (
    HetznerMachine,
    HetznerSettings,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Respond, Seen, Server, script
from hypothesis import given
from hypothesis import strategies as st

TOKEN = "planted-token-0123456789abcdef"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1FR0FNRUdBTUVHQU1FR0FNRUdBTUVHQU1FR0FNRUdB"
FINGERPRINT = "55:63:00:05:80:26:d4:2a:5e:a9:c9:cc:28:64:d4:6c"
BOOT = firstboot.FirstBoot("admin", (KEY,))


def machine(name: str = "a", **given: Any) -> HetznerMachine:
    return HetznerMachine(**{"name": name, "type": "cx23", "location": "fsn1", **given})


def refused(code: str, message: str = "no", details: Any = None, status: int = 422) -> Answer:
    body = {"error": {"code": code, "message": message, "details": details}}
    return Answer(status, body, {"X-Correlation-Id": "c0ffee"})


def server_json(number: int = 42, name: str = "a", **given: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "status": "running",
        "created": "2026-11-20T12:00:00+00:00",
        "public_net": {
            "ipv4": {"id": 1, "ip": "192.0.2.7", "blocked": False, "dns_ptr": ""},
            "ipv6": {"id": 2, "ip": "2001:db8:7::/64", "blocked": False, "dns_ptr": []},
            "floating_ips": [],
            "firewalls": [],
        },
        "private_net": [
            {"network": 1, "ip": "10.0.0.2", "alias_ips": [], "mac_address": "86:00:00:00:00:01"}
        ],
        "server_type": {"id": 114, "name": "cx23"},
        "location": {"id": 1, "name": "fsn1"},
        "image": {"id": 7, "name": "debian-13"},
        "labels": {"gpumesh-fleet": "minerals", "gpumesh-machine": name},
        **given,
    }


def listing(
    key: str, items: list[Any], page: int = 1, last: int | None = 1, total: int | None = None
) -> Answer:
    pagination = {"page": page, "per_page": 50, "previous_page": None, "next_page": None, "last_page": last}
    return Answer(200, {key: items, "meta": {"pagination": {**pagination, "total_entries": total}}})


def amount(net: str) -> dict[str, str]:
    return {"net": net, "gross": "99"}


PRICING = {
    "currency": "EUR",
    "server_types": [
        {
            "id": 114,
            "name": "cx23",
            "prices": [
                {"location": "fsn1", "price_hourly": amount("0.0088"), "price_monthly": amount("5.49")},
                {"location": "nbg1", "price_hourly": amount("0.0090"), "price_monthly": amount("5.50")},
            ],
        }
    ],
    "primary_ips": [
        {
            "type": "ipv4",
            "prices": [
                {"location": "fsn1", "price_hourly": amount("0.0008"), "price_monthly": amount("0.50")}
            ],
        },
        {
            "type": "ipv6",
            "prices": [{"location": "fsn1", "price_hourly": amount("0"), "price_monthly": amount("0")}],
        },
    ],
}
TARIFF = view.Tariff.from_pricing(PRICING, date(2026, 11, 20))


class Bench:
    """A scripted Hetzner Cloud, and a provider that talks to it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.clock = FakeClock()

    def __call__(self, *answers: Answer, respond: Respond | None = None) -> tuple[Server, hetzner.Hetzner]:
        server = self._stack.enter_context(Server(respond or script(*answers)).running())
        fleet = spec.FleetSpec(
            fleet="minerals",
            providers={"hetzner": HetznerSettings(token=TOKEN, endpoint=f"{server.url}/v1/")},
            machines={"a": machine()},
            base_dir="/",
            known_hosts="/nowhere",
        )
        return server, hetzner.connect(fleet, {}, self.clock)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


# What a fleet file says


@pytest.mark.parametrize("location", ["fsn1", "nbg1", "hel1", "ash", "hil", "sin", "fsn2", "muc1"])
def test_locations_known_and_new_are_accepted(location: str) -> None:
    assert machine(location=location).zone == location


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("fns1", "did you mean fsn1"),
        ("fsn", "did you mean fsn1"),
        ("ahs", "did you mean ash"),
        ("hell1", "did you mean hel1"),
        ("FSN1", "did you mean fsn1"),
        ("Falkenstein", "did you mean fsn1"),
        ("nbg1-dc3", "data centre.*give its location, nbg1"),
        ("eu-central", "those known are fsn1"),
        ("us central", "those known are fsn1"),
    ],
)
def test_a_location_that_is_none_is_refused_with_the_right_one(location: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        machine(location=location)
    with pytest.raises(ValueError, match=words):
        machine(fallback_locations=(location,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gpu": spec.Gpu(model="t4", count=2)}, "Hetzner Cloud has no GPUs; for 2 x t4 use provider: gcp"),
        ({"type": "n1-standard-8"}, "machine type of Compute Engine"),
        ({"type": "e2-standard-8"}, "machine type of Compute Engine"),
        ({"fallback_locations": ("nbg1", "fsn1")}, "fsn1 is named twice"),
        ({"labels": {"gpumesh-fleet": "x"}}, "gpumesh-"),
        ({"labels": {"a b": "x"}}, "label key 'a b'"),
        ({"labels": {"a": "x" * 64}}, "value '.*' of label a"),
        ({"labels": {"api.hetzner.cloud/a": "x"}}, "reserved"),
    ],
)
def test_what_hetzner_does_not_have_is_refused_in_a_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        machine(**given)


def test_all_problems_of_a_machine_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="3 validation errors"):
        machine(gpu=spec.Gpu(model="t4"), type="n1-standard-8", location="fns1")


@pytest.mark.parametrize("labels", [{}, {"a": ""}, {"example.org/a_b.c-D": "1_x.Y-z"}, {"a" * 63: "b" * 63}])
def test_labels_hetzner_takes(labels: dict[str, str]) -> None:
    assert machine(labels=labels).labels == labels


def test_zones_are_the_location_and_its_fallbacks(bench: Bench) -> None:
    _, provider = bench()
    assert tuple(provider.zones(machine(fallback_locations=("nbg1", "hel1")))) == ("fsn1", "nbg1", "hel1")


def test_the_registry_knows_hetzner() -> None:
    kind = KINDS["hetzner"]
    assert (kind.machine_model, kind.settings_model) == (HetznerMachine, HetznerSettings)
    assert kind.plants_host_key and kind.connect is hetzner.connect


def test_a_fleet_is_read_without_any_library_of_a_cloud(root: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['hcloud', 'requests', 'google', 'google.auth', 'cryptography']))\n"
        "from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import clock, errors, mesh, spec\n"
        "from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS\n"
        "try:\n"
        "    KINDS['hetzner'].connect(spec.FleetSpec.model_construct(providers={}), {'token': 'x'}, clock.SystemClock())\n"
        "except errors.MissingLibrary as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(root / ".ansible" / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("Hetzner Cloud needs the Python library"), done.stderr
    assert "pip install 'hcloud>=2.10,<3'" in done.stdout


# What is made of answers


def test_a_server_in_our_words() -> None:
    assert view.to_instance(server_json(), TARIFF) == Instance(
        provider="hetzner",
        id="42",
        name="a",
        state=State.RUNNING,
        cloud_state="running",
        zone="fsn1",
        type="cx23",
        image="debian-13",
        created="2026-11-20T12:00:00+00:00",
        public_ip="192.0.2.7",
        public_ipv6="2001:db8:7::1",
        private_ip="10.0.0.2",
        labels={"gpumesh-fleet": "minerals", "gpumesh-machine": "a"},
        price=Price(Decimal("0.0096"), "EUR", "Hetzner API, live, 2026-11-20", monthly_cap=Decimal("5.99")),
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("initializing", State.CREATING),
        ("starting", State.CREATING),
        ("running", State.RUNNING),
        ("stopping", State.STOPPING),
        ("off", State.STOPPED),
        ("deleting", State.DELETING),
        ("rebuilding", State.CREATING),
        ("migrating", State.UNKNOWN),
        ("unknown", State.UNKNOWN),
        ("something new", State.UNKNOWN),
    ],
)
def test_every_status_has_a_state(status: str, state: State) -> None:
    assert view.to_instance(server_json(status=status), TARIFF).state is state


def test_a_server_without_what_may_be_missing() -> None:
    bare = server_json(
        public_net={"ipv4": None, "ipv6": None}, private_net=[], image=None, labels={}, created=None
    )
    instance = view.to_instance(bare, TARIFF)
    assert (instance.public_ip, instance.public_ipv6, instance.private_ip, instance.image) == (None,) * 4
    assert instance.price.hourly == Decimal("0.0088"), "no IPv4, no charge for one"
    assert instance.machine == "a"
    snapshot = view.to_instance(server_json(image={"id": 7, "name": None}), TARIFF)
    assert snapshot.image == "7"


@pytest.mark.parametrize(
    ("told", "shown"), [("0.0088000000", "0.0088"), ("10.0000000000", "10"), ("0.0000", "0"), ("100", "100")]
)
def test_amounts_are_shown_without_filling(told: str, shown: str) -> None:
    rate = {"location": "fsn1", "price_hourly": amount(told), "price_monthly": amount(told)}
    free = {"location": "fsn1", "price_hourly": amount("0.0000"), "price_monthly": amount("0.0000")}
    pricing = {
        "currency": "EUR",
        "server_types": [{"name": "cx23", "prices": [rate]}],
        "primary_ips": [{"type": "ipv4", "prices": [free]}],
    }
    price = view.Tariff.from_pricing(pricing, date(2026, 11, 20)).price("cx23", "fsn1")
    assert (str(price.hourly), str(price.monthly_cap)) == (shown, shown)


@pytest.mark.parametrize(
    ("server_type", "location", "why"),
    [("cx99", "fsn1", "no price for cx99"), ("cx23", "nbg1", "no price for an IPv4 address in nbg1")],
)
def test_an_unknown_price_is_unknown(server_type: str, location: str, why: str) -> None:
    price = TARIFF.price(server_type, location)
    assert price.hourly is None
    assert why in price.source


def test_firewalls_for_a_fleet_of_one_mind() -> None:
    own = {"b": ("203.0.113.0/24",)}
    [one] = view.firewalls("minerals", ("203.0.113.0/24",), own, {22, 2222}, meshed=True)
    assert (one.name, one.selector) == ("gpumesh-minerals", "gpumesh-fleet==minerals")
    opened = [(rule["protocol"], rule.get("port"), rule["source_ips"]) for rule in one.rules]
    anywhere = ["0.0.0.0/0", "::/0"]
    assert opened == [
        ("tcp", "22", ["203.0.113.0/24"]),
        ("tcp", "2222", ["203.0.113.0/24"]),
        ("udp", "9993", anywhere),
        ("icmp", None, anywhere),
    ]


def test_without_sources_ssh_stays_shut() -> None:
    [one] = view.firewalls("minerals", (), {}, {22})
    assert [rule["protocol"] for rule in one.rules] == ["icmp"]


def test_the_port_of_the_mesh_is_open_only_where_there_is_one() -> None:
    for meshed in (True, False):
        [one] = view.firewalls("minerals", ("203.0.113.0/24",), {}, {22}, meshed=meshed)
        assert ("9993" in [rule.get("port") for rule in one.rules]) is meshed


NETWORKS = st.sampled_from(["0.0.0.0/0", "::/0", "203.0.113.0/24", "198.51.100.7/32", "2001:db8::/32"])
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)


@given(st.lists(NETWORKS), st.dictionaries(NAMES, st.lists(NETWORKS), max_size=6))
def test_every_machine_is_under_exactly_one_firewall_with_its_own_sources(
    default: list[str], own: dict[str, list[str]]
) -> None:
    wanted = view.firewalls("minerals", default, own, {22})
    assert len({firewall.name for firewall in wanted}) == len(wanted)

    def holds(selector: str, name: str) -> bool:
        _, _, rule = selector.partition(",")
        words = set(rule.partition("(")[2].rstrip(")").split(","))
        return not rule or (name in words) == (" in " in rule)

    for name, sources in [*own.items(), ("another", default)]:
        mine = [firewall for firewall in wanted if holds(firewall.selector, name)]
        assert len(mine) == 1
        ssh = [rule["source_ips"] for rule in mine[0].rules if rule["protocol"] == "tcp"]
        assert ssh == ([sorted(set(sources))] if sources else [])


def test_rules_are_the_same_however_they_are_written() -> None:
    [one] = view.firewalls("minerals", ("203.0.113.0/24", "::/0"), {}, {22})
    as_told = [
        {
            **rule,
            "description": None,
            "port": rule.get("port"),
            "destination_ips": [],
            "source_ips": rule["source_ips"][::-1],
        }
        for rule in reversed(one.rules)
    ]
    assert view.same_rules(as_told, one.rules)
    assert not view.same_rules(as_told[1:], one.rules)
    assert not view.same_rules([{**as_told[0], "source_ips": []}, *as_told[1:]], one.rules)


def test_a_firewall_in_words_is_the_same_however_it_is_written() -> None:
    [one] = view.firewalls("minerals", ("203.0.113.0/24",), {}, {22, 2222}, meshed=True)
    split = [{**rule, "source_ips": [source]} for rule in one.rules for source in rule["source_ips"]]
    assert (
        view.words(split, [one.selector])
        == one.words
        == {
            "SSH from": "203.0.113.0/24",
            "icmp from": "anywhere",
            "tcp 2222 from": "203.0.113.0/24",
            "udp 9993 from": "anywhere",
            "for servers with": "gpumesh-fleet==minerals",
        }
    )
    out = {"direction": "out", "protocol": "tcp", "port": "25", "destination_ips": ["192.0.2.0/24"]}
    assert view.words([out], []) == {"outgoing tcp 25 to": "192.0.2.0/24", "for servers with": "nothing"}


# The fleet's firewalls and keys


def firewall_json(*selectors: str) -> dict[str, Any]:
    applied = [{"type": "label_selector", "label_selector": {"selector": one}} for one in selectors]
    labels = {"gpumesh-fleet": "minerals"}
    return {"id": 9, "name": "gpumesh-minerals", "labels": labels, "rules": [], "applied_to": applied}


IN_USE = refused("resource_in_use", status=409)


def test_a_firewall_in_use_is_tried_again_for_a_while(bench: Bench) -> None:
    held = listing("firewalls", [firewall_json("gpumesh-fleet==minerals")])
    freed = listing("firewalls", [firewall_json()])
    key = {"id": 4, "name": "gpumesh-1", "fingerprint": FINGERPRINT}
    server, provider = bench(
        held,
        listing("ssh_keys", [key]),
        Answer(204),
        Answer(201, {"actions": []}),
        IN_USE,
        freed,
        listing("ssh_keys", []),
        Answer(204),
    )
    provider.prepare([])
    assert [(seen.method, seen.path.partition("?")[0].removeprefix("/v1")) for seen in server.seen] == [
        ("GET", "/firewalls"),
        ("GET", "/ssh_keys"),
        ("DELETE", "/ssh_keys/4"),
        ("POST", "/firewalls/9/actions/remove_from_resources"),
        ("DELETE", "/firewalls/9"),
        ("GET", "/firewalls"),
        ("GET", "/ssh_keys"),
        ("DELETE", "/firewalls/9"),
    ]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_firewall_that_stays_in_use_is_an_error_only_where_it_is_all_there_is_to_do(
    bench: Bench, wanted: bool
) -> None:
    [fleets] = view.firewalls("minerals", ("0.0.0.0/0", "::/0"), {}, {22})
    right = {**firewall_json(fleets.selector), "rules": list(fleets.rules)}
    stale = {**firewall_json(), "id": 10, "name": "gpumesh-minerals-old"}
    round_ = [listing("firewalls", [right, stale]), IN_USE]
    if not wanted:
        round_ = [listing("firewalls", [stale]), listing("ssh_keys", []), IN_USE]
    server, provider = bench(*round_ * 5)
    if wanted:
        provider.prepare([machine()])
    else:
        with pytest.raises(errors.Conflict):
            provider.prepare([])
    assert len(server.seen) == len(round_) * 5


# How the library is used


def test_the_library_repeats_nothing_itself(bench: Bench) -> None:
    server, provider = bench(refused("conflict", status=400))
    with pytest.raises(errors.Conflict):
        provider.find(machine(), "fsn1")
    assert len(server.seen) == 1


def test_every_request_has_a_time_out_and_says_who_asks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[Any] = []
    plain = http.HTTPAdapter.send

    def spy(self: http.HTTPAdapter, request: Any, stream: Any, timeout: Any, *rest: Any) -> Any:
        timeouts.append(timeout)
        return plain(self, request, stream, timeout, *rest)

    monkeypatch.setattr(http.HTTPAdapter, "send", spy)
    server, provider = bench(listing("servers", []), Answer(200, {"pricing": PRICING}))
    provider.find(machine(), "fsn1")
    assert timeouts == [http.TIMEOUT]
    assert server.seen[0].headers["user-agent"].startswith("gpumesh.fleet/")
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_library_built_differently_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, *args: object, **kwargs: object) -> None:
            pass

    monkeypatch.setattr(hcloud, "Client", Other)
    _, provider = bench()
    with pytest.raises(errors.MissingLibrary, match="hcloud library 2"):
        provider.find(machine(), "fsn1")


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_without_a_token_it_says_where_to_put_one(token: str | None) -> None:
    fleet = spec.FleetSpec(fleet="x", providers={}, machines={}, base_dir="/", known_hosts="/nowhere")
    with pytest.raises(errors.AuthError) as caught:
        hetzner.connect(fleet, {"token": token}, FakeClock())
    assert "HCLOUD_TOKEN" in str(caught.value)
    assert "token: \"{{ lookup('env', 'HCLOUD_TOKEN') }}\"" in str(caught.value)


def test_a_token_with_a_line_end_is_taken_and_a_broken_one_is_not_shown() -> None:
    fleet = spec.FleetSpec(fleet="x", providers={}, machines={}, base_dir="/", known_hosts="/nowhere")
    hetzner.connect(fleet, {"token": f"{TOKEN}\n"}, FakeClock())
    with pytest.raises(errors.AuthError) as caught:
        hetzner.connect(fleet, {"token": f"{TOKEN}\n{TOKEN}"}, FakeClock())
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"


# Errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unauthorized", errors.AuthError),
        ("forbidden", errors.Forbidden),
        ("token_readonly", errors.Forbidden),
        ("not_found", errors.NotFound),
        ("uniqueness_error", errors.Conflict),
        ("resource_unavailable", errors.OutOfStock),
        ("placement_error", errors.OutOfStock),
        ("resource_limit_exceeded", errors.QuotaExceeded),
        ("invalid_input", errors.InvalidRequest),
        ("protected", errors.InvalidRequest),
        ("maintenance", errors.Unavailable),
        ("server_error", errors.Unavailable),
        ("a_new_code", errors.ProviderError),
    ],
)
def test_every_code_has_its_kind(bench: Bench, code: str, kind: type[errors.ProviderError]) -> None:
    details = {"fields": [{"name": "location", "messages": ["unknown"]}]}
    _, provider = bench(
        listing("ssh_keys", [{"id": 1, "fingerprint": FINGERPRINT}]), refused(code, "no such thing", details)
    )
    with pytest.raises(errors.ProviderError) as caught:
        provider.create(machine(), "fsn1", BOOT)
    error = caught.value
    assert type(error) is kind
    assert str(error).startswith(
        f"a: creating the server in fsn1: Hetzner Cloud says no such thing (location: unknown) ({code})"
    )
    assert (error.machine, error.code, error.details, error.request_id) == ("a", code, details, "c0ffee")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html>proxy</html>"),
        Answer(200, {}),
        Answer(200, {"servers": [{"id": 1}]}),
        Answer(200, {"servers": None}),
        Answer(200, ["servers"]),
        Answer(400, {"error": "text"}),
        Answer(400, {"error": {}}),
        Answer(404, "<html>nothing here</html>"),
    ],
)
def test_answers_that_are_not_hetzners_are_one_clear_error(bench: Bench, answer: Answer) -> None:
    _, provider = bench(respond=lambda seen: answer)
    for ask in (provider.list, lambda: provider.find(machine(), "fsn1")):
        with pytest.raises(errors.ProviderError) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_locked_server_is_asked_again(bench: Bench) -> None:
    server, provider = bench(
        refused("locked", status=423), refused("conflict", status=409), Answer(200, {"action": {"id": 9}})
    )
    instance = view.to_instance(server_json(), TARIFF)
    assert provider.delete(instance) == Operation("9", "a", "delete", "fsn1")
    assert server.calls == ["DELETE /v1/servers/42"] * 3
    assert bench.clock.slept


def test_a_name_that_is_taken_is_not_asked_for_again(bench: Bench) -> None:
    server, provider = bench(
        listing("ssh_keys", [{"id": 1, "fingerprint": FINGERPRINT}]), refused("uniqueness_error", status=409)
    )
    with pytest.raises(errors.Conflict):
        provider.create(machine(), "fsn1", BOOT)
    assert server.calls == ["GET /v1/ssh_keys", "POST /v1/servers"]


# Requests


def test_what_a_create_asks_for(bench: Bench) -> None:
    key = firstboot.HostKey("PRIVATE", KEY)
    answer = {"server": server_json(), "action": {"id": 5}, "next_actions": [{"id": 6}, {"id": 7}]}
    server, provider = bench(
        listing("ssh_keys", [{"id": 3, "fingerprint": FINGERPRINT}]), Answer(201, answer)
    )
    boot = firstboot.FirstBoot("admin", (KEY,), key)
    operation = provider.create(machine(labels={"purpose": "test"}), "nbg1", boot)
    assert operation == Operation("5,6,7", "a", "create", "nbg1")
    assert server.seen[0].query == (("fingerprint", FINGERPRINT),)
    body = server.seen[1].body
    assert body.pop("user_data") == boot.cloud_config()
    assert body == {
        "name": "a",
        "server_type": "cx23",
        "image": "debian-13",
        "location": "nbg1",
        "ssh_keys": [3],
        "labels": {
            "purpose": "test",
            "gpumesh-fleet": "minerals",
            "gpumesh-machine": "a",
            "gpumesh-hostkey": firstboot.key_to_label(KEY, planted=True),
        },
        "public_net": {"enable_ipv4": True, "enable_ipv6": True},
        "start_after_create": True,
    }


def test_without_a_key_nothing_is_made(bench: Bench) -> None:
    server, provider = bench()
    with pytest.raises(errors.InvalidRequest, match="root password"):
        provider.create(machine(), "fsn1", firstboot.FirstBoot("admin", ()))
    assert server.seen == []


def test_too_much_user_data_is_refused_before_it_is_sent(bench: Bench) -> None:
    server, provider = bench(listing("ssh_keys", [{"id": 3, "fingerprint": FINGERPRINT}]))
    boot = firstboot.FirstBoot("admin", (KEY,), user_data=f"runcmd: ['{'x' * 33_000}']")
    with pytest.raises(errors.InvalidRequest, match="32 KiB"):
        provider.create(machine(), "fsn1", boot)
    assert server.calls == ["GET /v1/ssh_keys"]


@pytest.mark.parametrize("key", ["", "ssh-ed25519", "ssh-ed25519 !!!"])
def test_a_key_that_is_none_is_told(bench: Bench, key: str) -> None:
    _, provider = bench()
    with pytest.raises(errors.InvalidRequest, match="public SSH key"):
        provider.create(machine(), "fsn1", firstboot.FirstBoot("admin", (key,)))


def test_a_key_somebody_else_registers_meanwhile_is_taken(bench: Bench) -> None:
    created = {"server": server_json(), "action": {"id": 5}, "next_actions": []}
    server, provider = bench(
        listing("ssh_keys", []),
        refused("uniqueness_error", status=409),
        listing("ssh_keys", [{"id": 3, "fingerprint": FINGERPRINT}]),
        Answer(201, created),
    )
    provider.create(machine(), "fsn1", BOOT)
    assert server.seen[1].body == {
        "name": f"gpumesh-{FINGERPRINT.replace(':', '')}",
        "public_key": KEY,
        "labels": {"gpumesh-fleet": "minerals"},
    }
    assert server.seen[3].body["ssh_keys"] == [3]


def paged(pages: list[list[list[int]]], totals: list[int]) -> tuple[Respond, list[int]]:
    """Answers as a list that changes: one set of pages for each time page 1 is asked for."""
    rounds: list[int] = []

    def respond(seen: Seen) -> Answer:
        if seen.path == "/v1/pricing":
            return Answer(200, {"pricing": PRICING})
        number = int(dict(seen.query)["page"])
        if number == 1:
            rounds.append(1)
        which = min(len(rounds), len(pages)) - 1
        content = pages[which][number - 1]
        items = [server_json(i, f"m{i}") for i in content]
        return listing("servers", items, number, len(pages[which]), totals[which])

    return respond, rounds


def test_a_server_seen_on_two_pages_counts_once(bench: Bench) -> None:
    respond, rounds = paged([[[1, 2], [2, 3]]], [3])
    _, provider = bench(respond=respond)
    assert [instance.id for instance in provider.list().instances] == ["1", "2", "3"]
    assert len(rounds) == 1


def test_a_server_lost_between_pages_is_looked_for_again(bench: Bench) -> None:
    respond, rounds = paged([[[1, 2], [4]], [[2, 3], [4]]], [4, 3])
    _, provider = bench(respond=respond)
    assert [instance.id for instance in provider.list().instances] == ["2", "3", "4"]
    assert len(rounds) == 2


def test_a_list_that_never_settles_is_given_up_on(bench: Bench) -> None:
    respond, rounds = paged([[[1], [3]]], [3])
    _, provider = bench(respond=respond)
    assert len(provider.list().instances) == 2
    assert len(rounds) == 3


def test_pages_of_unknown_number_are_followed_one_by_one(bench: Bench) -> None:
    def respond(seen: Seen) -> Answer:
        if seen.path == "/v1/pricing":
            return Answer(200, {"pricing": PRICING})
        number = int(dict(seen.query)["page"])
        pagination = {"page": number, "last_page": None, "next_page": number + 1 if number < 3 else None}
        servers = [server_json(number, f"m{number}")]
        return Answer(200, {"servers": servers, "meta": {"pagination": pagination}})

    _, provider = bench(respond=respond)
    assert [instance.name for instance in provider.list().instances] == ["m1", "m2", "m3"]


def test_what_a_list_asks_for(bench: Bench) -> None:
    respond, _ = paged([[[]]], [0])
    server, provider = bench(respond=respond)
    assert provider.list().instances == ()
    [asked] = [seen for seen in server.seen if seen.path == "/v1/servers"]
    assert dict(asked.query) == {
        "label_selector": "gpumesh-fleet==minerals",
        "page": "1",
        "per_page": "50",
        "sort": "id:asc",
    }


# Operations


def action(number: int, status: str = "success", error: Any = None) -> dict[str, Any]:
    return {"id": number, "status": status, "error": error}


def test_a_create_is_done_when_all_of_its_actions_are(bench: Bench) -> None:
    operation = Operation("5,6", "a", "create")
    _, provider = bench(
        listing("actions", [action(5), action(6, "running")]), listing("actions", [action(5), action(6)])
    )
    assert not provider.poll([operation])["5,6"].done
    assert provider.poll([operation])["5,6"].done


def test_an_operation_nobody_knows_is_left_out(bench: Bench) -> None:
    _, provider = bench(listing("actions", []))
    assert provider.poll([Operation("5", "a", "create")]) == {}


@pytest.mark.parametrize(
    ("code", "kind"),
    [("resource_unavailable", errors.OutOfStock), ("action_failed", errors.OperationFailed)],
)
def test_a_failed_action_says_why(bench: Bench, code: str, kind: type[errors.ProviderError]) -> None:
    _, provider = bench(listing("actions", [action(5, "error", {"code": code, "message": "so it is"})]))
    progress = provider.poll([Operation("5", "a", "create")])["5"]
    assert progress.done and type(progress.error) is kind
    assert "a: the create failed: so it is" in str(progress.error)


def test_120_operations_take_three_requests(bench: Bench) -> None:
    def respond(seen: Seen) -> Answer:
        return listing("actions", [action(int(value)) for name, value in seen.query if name == "id"])

    server, provider = bench(respond=respond)
    progress = provider.poll([Operation(str(number), "a", "create") for number in range(120)])
    assert len(progress) == 120 and all(one.done for one in progress.values())
    assert len(server.seen) == 3


def test_a_guest_that_will_not_shut_down_is_switched_off(bench: Bench) -> None:
    off: list[str] = []
    finished = {8: "success", 9: "success"}

    def respond(seen: Seen) -> Answer:
        if seen.path == "/v1/servers/42/actions/shutdown":
            return Answer(201, {"action": action(8)})
        if seen.path == "/v1/servers/42/actions/poweroff":
            off.append("42")
            return Answer(201, {"action": action(9)})
        if seen.path == "/v1/servers":
            assert dict(seen.query)["status"] == "off"
            return listing("servers", [server_json(int(number)) for number in off])
        return listing("actions", [action(int(v), finished[int(v)]) for k, v in seen.query if k == "id"])

    server, provider = bench(respond=respond)
    operation = provider.stop(view.to_instance(server_json(), TARIFF))
    assert not provider.poll([operation])[operation.id].done, "the signal was sent, the server still runs"
    bench.clock.sleep(hetzner.SHUTDOWN_GRACE - 1)
    assert not provider.poll([operation])[operation.id].done
    assert off == []
    bench.clock.sleep(1)
    assert not provider.poll([operation])[operation.id].done
    assert off == ["42"]
    assert provider.poll([operation])[operation.id].done
    assert server.calls.count("POST /v1/servers/42/actions/poweroff") == 1


# Labels and host keys


def test_labels_are_set_exactly(bench: Bench) -> None:
    server, provider = bench(Answer(200, {"server": server_json()}))
    assert provider.relabel(view.to_instance(server_json(), TARIFF), {"a": "1"}) is None
    assert (str(server.seen[0]), server.seen[0].body) == ("PUT /v1/servers/42", {"labels": {"a": "1"}})


def test_publishing_a_key_that_is_there_changes_nothing(bench: Bench) -> None:
    labels = {"gpumesh-hostkey": firstboot.key_to_label(KEY, planted=False)}
    server, provider = bench(Answer(200, {"server": server_json(labels=labels)}))
    provider.publish_host_key(view.to_instance(server_json(), TARIFF), KEY)
    assert server.calls == ["GET /v1/servers/42"]


def test_only_ed25519_host_keys_are_published(bench: Bench) -> None:
    _, provider = bench()
    with pytest.raises(errors.InvalidRequest, match="ssh-ed25519"):
        provider.publish_host_key(view.to_instance(server_json(), TARIFF), "ssh-rsa AAAA")


def test_a_label_that_is_no_key_vouches_for_nothing() -> None:
    assert view.host_keys({"gpumesh-hostkey": "own.forged"}) == ((), False)


def test_fingerprints_are_those_of_ssh_keygen() -> None:
    assert hetzner_api.key_fingerprint(f"{KEY} someone") == FINGERPRINT
