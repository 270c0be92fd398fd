# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider of Compute Engine, against scripted conversations on loopback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
    KINDS,
    gcp,
    gcp_firewall,
    gcp_wire,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Operation
from ansible_collections.gpumesh.fleet.tests.compute import (
    BOOT,
    FLEET,
    ZONE,
    cloud,
    error,
    machine,
    operation,
    raw_instance,
    routes,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, Seen

LIST = "GET aggregated/instances"
FIREWALLS = "GET global/firewalls"
INSERT = f"POST zones/{ZONE}/instances"


def instance(name: str = "galena", **given: Any) -> Instance:
    return gcp_wire.instance(raw_instance(name, **given))


def scope(*instances: dict[str, Any], warning: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"instances": list(instances)} if instances else {}
    return {**found, "warning": {"code": warning}} if warning else found


# Listing


def test_a_list_is_one_request_for_all_zones_and_follows_pages(tmp_path: Path) -> None:
    pages = [
        Answer(200, {"items": {f"zones/{ZONE}": scope(raw_instance("galena"))}, "nextPageToken": "two"}),
        Answer(200, {"items": {"zones/x": scope(warning="NO_RESULTS_ON_PAGE")}, "nextPageToken": "three"}),
        Answer(
            200, {"items": {"zones/europe-west4-a": scope(raw_instance("scheelite", zone="europe-west4-a"))}}
        ),
    ]
    with cloud(tmp_path, routes({LIST: pages})) as google:
        listing = google.connect().list()
    assert [(found.name, found.zone) for found in listing.instances] == [
        ("galena", ZONE),
        ("scheelite", "europe-west4-a"),
    ]
    assert listing.unreachable == ()
    assert google.calls == [LIST] * 3
    queries = [dict(seen.query) for seen in google.requests]
    assert queries[0]["filter"] == f"labels.gpumesh-fleet={FLEET}"
    assert queries[0]["maxResults"] == "500"
    assert [query.get("pageToken") for query in queries] == [None, "two", "three"]


def test_a_zone_that_cannot_be_reached_is_never_read_as_empty(tmp_path: Path) -> None:
    answer = {
        "items": {
            "zones/us-east1-b": scope(warning="UNREACHABLE"),
            "zones/us-west1-a": scope(warning="NO_RESULTS_ON_PAGE"),
            f"zones/{ZONE}": scope(raw_instance("galena"), warning="PARTIAL_SUCCESS"),
        },
        "unreachables": ["projects/my-project/zones/us-east4-a"],
    }
    with cloud(tmp_path, routes({LIST: Answer(200, answer)})) as google:
        listing = google.connect().list()
    assert set(listing.unreachable) == {"us-east4-a", "us-east1-b", ZONE}
    assert len(listing.instances) == 1


def test_a_warning_about_the_whole_list_counts_too(tmp_path: Path) -> None:
    with cloud(tmp_path, routes({LIST: Answer(200, {"warning": {"code": "UNREACHABLE"}})})) as google:
        assert google.connect().list().unreachable == ("some zones",)


def test_a_list_lives_without_the_parameter_that_some_revisions_lack(tmp_path: Path) -> None:
    def respond(seen: Seen) -> Answer:
        if "returnPartialSuccess" in dict(seen.query):
            return error(400, "invalid", 'Unknown name "returnPartialSuccess"')
        return Answer(200, {"items": {f"zones/{ZONE}": scope(raw_instance("galena"))}})

    with cloud(tmp_path, respond) as google:
        provider = google.connect()
        assert len(provider.list().instances) == 1
        assert len(provider.list().instances) == 1
    assert len(google.requests) == 3


def test_instances_of_others_are_left_out_whatever_the_filter_did(tmp_path: Path) -> None:
    answer = {"items": {f"zones/{ZONE}": scope(raw_instance("other", labels={"gpumesh-fleet": "rocks"}))}}
    with cloud(tmp_path, routes({LIST: Answer(200, answer)})) as google:
        assert google.connect().list().instances == ()


def test_a_list_that_is_refused_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with (
        cloud(tmp_path, routes({LIST: error(403, "forbidden")})) as google,
        pytest.raises(errors.Forbidden, match="listing the instances of project my-project"),
    ):
        google.connect().list()


# Finding


def test_find_asks_by_name_and_knows_our_own(tmp_path: Path) -> None:
    path = f"GET zones/{ZONE}/instances/"
    table = {
        f"{path}galena": Answer(200, raw_instance("galena")),
        f"{path}quartz": Answer(200, raw_instance("quartz", labels={})),
        f"{path}beryl": Answer(
            200, raw_instance("beryl", labels={"gpumesh-fleet": "rocks", "gpumesh-machine": "beryl"})
        ),
        f"{path}topaz": Answer(
            200, raw_instance("topaz", labels={"gpumesh-fleet": FLEET, "gpumesh-machine": "ruby"})
        ),
    }
    with cloud(tmp_path, routes(table)) as google:
        provider = google.connect()
        found = provider.find(machine("galena"), ZONE)
        assert found is not None and found.public_ip == "203.0.113.7"
        assert provider.find(machine("opal"), ZONE) is None
        for name, owner in (
            ("quartz", "no label of a fleet"),
            ("beryl", "fleet rocks as beryl"),
            ("topaz", "fleet minerals as ruby"),
        ):
            with pytest.raises(errors.Conflict, match=f"named {name} in {ZONE} already.*{owner}"):
                provider.find(machine(name), ZONE)


# Creating


def test_a_create_keeps_its_request_id_over_retries_and_the_next_one_has_another(tmp_path: Path) -> None:
    answers = [
        error(503, "backendError"),
        Answer(0),
        error(403, "rateLimitExceeded"),
        operation("op-a"),
        operation("op-b"),
    ]
    with cloud(tmp_path, routes({INSERT: answers})) as google:
        provider = google.connect(machine())
        assert provider.create(machine(), ZONE, BOOT) == Operation("op-a", "galena", "create", ZONE)
        assert provider.create(machine(), ZONE, BOOT).id == "op-b"
    ids = [dict(seen.query)["requestId"] for seen in google.requests]
    assert len(ids) == 5
    assert len(set(ids[:4])) == 1
    assert ids[4] != ids[0]
    assert all(seen.headers["authorization"] == "Bearer ya29.token-number-1" for seen in google.requests)


def test_a_name_that_is_taken_is_a_conflict(tmp_path: Path) -> None:
    with (
        cloud(tmp_path, routes({INSERT: error(409, "alreadyExists", "It exists")})) as google,
        pytest.raises(errors.Conflict, match="making instance galena in us-central1-c: It exists"),
    ):
        google.connect(machine()).create(machine(), ZONE, BOOT)


def test_a_stock_out_tells_where_the_gpu_was_seen(tmp_path: Path) -> None:
    zone = "us-east1-c"
    wanted = machine("scheelite", type="a2-highgpu-1g", zone=zone)
    with cloud(tmp_path, routes({f"POST zones/{zone}/instances": operation()})) as google:
        provider = google.connect(wanted)
        made = provider.create(wanted, zone, BOOT)
        failed = {
            "name": made.id,
            "status": "DONE",
            "httpErrorStatusCode": 503,
            "error": {
                "errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "message": "None left."}]
            },
        }
        google._respond = routes({f"GET zones/{zone}/operations/{made.id}": Answer(200, failed)})
        progress = provider.poll([made])[made.id]
    assert progress.done
    assert isinstance(progress.error, errors.OutOfStock)
    assert progress.error.machine == "scheelite"
    assert "fallback_zones" in str(progress.error)
    assert "us-east1-b, not in us-east1-c" in str(progress.error)


def test_only_machines_of_compute_engine_can_be_made(tmp_path: Path) -> None:
    stranger = KINDS["baremetal"].machine_model(name="box", address="192.0.2.1")  # type: ignore[call-arg]
    with cloud(tmp_path, routes({})) as google, pytest.raises(errors.InvalidRequest):
        google.connect().create(stranger, ZONE, BOOT)


# Changing


def test_delete_start_and_stop_name_the_instance_and_carry_a_request_id(tmp_path: Path) -> None:
    path = f"zones/{ZONE}/instances/galena"
    table: dict[str, Answer | list[Answer]] = {
        f"DELETE {path}": [operation("d"), error(404, "notFound")],
        f"POST {path}/start": operation("s"),
        f"POST {path}/resume": operation("r"),
        f"POST {path}/stop": operation("t"),
    }
    with cloud(tmp_path, routes(table)) as google:
        provider = google.connect()
        assert provider.delete(instance()) == Operation("d", "galena", "delete", ZONE)
        assert provider.delete(instance()) is None
        assert provider.start(instance(status="TERMINATED")).id == "s"
        assert provider.start(instance(status="SUSPENDED")).id == "r"
        assert provider.stop(instance()) == Operation("t", "galena", "stop", ZONE)
    assert all("requestId" in dict(seen.query) for seen in google.requests)


def test_a_start_waits_until_the_machine_has_come_to_rest(tmp_path: Path) -> None:
    path = f"POST zones/{ZONE}/instances/galena/start"
    answers = [error(400, "resourceNotReady", "It is still stopping.")] * 2 + [operation("s")]
    with cloud(tmp_path, routes({path: answers})) as google:
        assert google.connect().start(instance(status="STOPPING")).id == "s"
        assert len(google.clock.slept) == 2


def test_labels_are_set_on_what_they_are_now(tmp_path: Path) -> None:
    path = f"zones/{ZONE}/instances/galena"
    table: dict[str, Answer | list[Answer]] = {
        f"GET {path}": [
            Answer(200, {"labels": {"a": "1"}, "labelFingerprint": "b25l"}),
            Answer(200, {"labels": {"a": "2"}, "labelFingerprint": "dHdv"}),
            Answer(200, {"labels": {"a": "3"}, "labelFingerprint": "dGhyZWU="}),
        ],
        f"POST {path}/setLabels": [error(412, "conditionNotMet"), operation("l")],
    }
    with cloud(tmp_path, routes(table)) as google:
        provider = google.connect()
        assert provider.relabel(instance(), {"a": "3"}) == Operation("l", "galena", "change", ZONE)
        assert provider.relabel(instance(), {"a": "3"}) is None
    bodies = [seen.body for seen in google.requests if seen.method == "POST"]
    assert [body["labelFingerprint"] for body in bodies] == ["b25l", "dHdv"]


def test_labels_that_keep_changing_end_in_a_conflict(tmp_path: Path) -> None:
    path = f"zones/{ZONE}/instances/galena"
    table = {
        f"GET {path}": Answer(200, {"labelFingerprint": "b25l"}),
        f"POST {path}/setLabels": error(412, "conditionNotMet"),
    }
    with cloud(tmp_path, routes(table)) as google, pytest.raises(errors.Conflict):
        google.connect().relabel(instance(), {"a": "3"})


# Watching operations


def ops(count: int, zone: str = ZONE, verb: str = "create") -> list[Operation]:
    return [Operation(f"op-{zone}-{n}", f"m{n}", verb, zone) for n in range(count)]


def test_a_few_operations_are_asked_one_by_one(tmp_path: Path) -> None:
    made = ops(2)
    table = {
        f"GET zones/{ZONE}/operations/{made[0].id}": operation(made[0].id, "DONE"),
        f"GET zones/{ZONE}/operations/{made[1].id}": operation(made[1].id),
    }
    with cloud(tmp_path, routes(table)) as google:
        progress = google.connect().poll(made)
    assert {name: found.done for name, found in progress.items()} == {made[0].id: True, made[1].id: False}
    assert all(found.error is None for found in progress.values())


def test_many_operations_are_one_request_a_zone(tmp_path: Path) -> None:
    here, there = ops(100), ops(100, "us-central1-a")
    table: dict[str, Answer | list[Answer]] = {
        f"GET zones/{zone}/operations": Answer(
            200,
            {
                "items": [{"name": o.id, "status": "DONE"} for o in part]
                + [{"name": "foreign", "status": "DONE"}]
            },
        )
        for zone, part in ((ZONE, here), ("us-central1-a", there))
    }
    with cloud(tmp_path, routes(table)) as google:
        progress = google.connect().poll([*here, *there])
    assert len(progress) == 200
    assert all(found.done for found in progress.values())
    assert sorted(google.calls) == sorted(table)
    assert dict(google.requests[0].query)["orderBy"] == "creationTimestamp desc"


def test_operations_the_list_does_not_show_are_asked_by_name_and_lost_ones_left_out(tmp_path: Path) -> None:
    made = ops(5)
    pages = [
        Answer(
            200, {"items": [{"name": o.id, "status": "RUNNING"} for o in made[:2]], "nextPageToken": "two"}
        ),
        Answer(200, {"items": [{"name": made[2].id, "status": "DONE"}]}),
    ]
    table: dict[str, Answer | list[Answer]] = {
        f"GET zones/{ZONE}/operations": pages,
        f"GET zones/{ZONE}/operations/{made[3].id}": operation(made[3].id, "DONE"),
    }
    with cloud(tmp_path, routes(table)) as google:
        progress = google.connect().poll(made)
    assert {name for name, found in progress.items() if found.done} == {made[2].id, made[3].id}
    assert made[4].id not in progress


def test_done_is_not_success(tmp_path: Path) -> None:
    (made,) = ops(1)
    failed = operation(made.id, "DONE", error={"errors": [{"code": "INTERNAL_ERROR", "message": "Oh."}]})
    with cloud(tmp_path, routes({f"GET zones/{ZONE}/operations/{made.id}": failed})) as google:
        progress = google.connect().poll([made])[made.id]
    assert progress.done
    assert isinstance(progress.error, errors.OperationFailed)
    assert str(progress.error) == "m0: to create instance m0 in us-central1-c: Oh (INTERNAL_ERROR)."


# Firewall


def test_ssh_is_opened_to_declared_sources_and_closed_to_others(tmp_path: Path) -> None:
    table = {FIREWALLS: Answer(200, {}), "POST global/firewalls": [operation("f1"), operation("f2")]}
    wanted = machine(ssh_sources=("198.51.100.0/24", "2001:db8::/32"))
    with cloud(tmp_path, routes(table)) as google:
        assert google.connect(wanted).access([wanted]).notes == ()
        assert google.connect(wanted).prepare([wanted]) == Operation("access", "", "access")
    allow, deny = (seen.body for seen in google.requests if seen.method == "POST")
    assert allow["sourceRanges"] == ["198.51.100.0/24"]
    assert allow["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert deny["sourceRanges"] == ["0.0.0.0/0"] and deny["denied"] == allow["allowed"]
    assert allow["priority"] < deny["priority"] < 1000
    assert allow["targetTags"] == deny["targetTags"]


def test_machines_share_a_rule_unless_they_declare_sources_of_their_own(tmp_path: Path) -> None:
    table = {FIREWALLS: Answer(200, {}), "POST global/firewalls": operation("f")}
    machines = [machine("galena"), machine("electrum"), machine("opal", ssh_sources=("198.51.100.7/32",))]
    with cloud(tmp_path, routes(table)) as google:
        google.connect(*machines).prepare(machines)
    names = [seen.body["name"] for seen in google.requests if seen.method == "POST"]
    assert len(names) == 3
    assert names[0] == f"gpumesh-{FLEET}-ssh"
    assert names[2] == f"{names[1]}-deny"
    assert all(len(name) <= 63 for name in names)


def test_rules_that_are_right_are_left_alone_and_others_corrected(tmp_path: Path) -> None:
    wanted = machine(ssh_sources=("198.51.100.0/24",))
    rule = gcp_firewall.ssh_rule(FLEET, wanted, wanted.ssh_sources or (), 22)
    allow, deny = rule.firewalls(FLEET).values()
    assert allow and deny
    network = {"network": "https://www.googleapis.com/compute/v1/projects/my-project/global/networks/default"}
    right = [{**allow, **network}, {**deny, **network}]
    wrong = [{**allow, **network, "sourceRanges": ["0.0.0.0/0"]}, {**deny, **network}]
    table: dict[str, Answer | list[Answer]] = {
        FIREWALLS: [Answer(200, {"items": right}), Answer(200, {"items": wrong})],
        f"PATCH global/firewalls/{rule.tag}": operation("f"),
    }
    with cloud(tmp_path, routes(table)) as google:
        provider = google.connect(wanted)
        provider.prepare([wanted])
        assert google.calls == [FIREWALLS]
        provider.prepare([wanted])
    assert google.calls[1:] == [FIREWALLS, f"PATCH global/firewalls/{rule.tag}"]


def test_without_an_ipv4_source_nothing_is_opened_and_the_user_is_told(tmp_path: Path) -> None:
    wanted = machine(ssh_sources=("2001:db8::/32",))
    rule = gcp_firewall.ssh_rule(FLEET, machine(ssh_sources=("0.0.0.0/0",)), ("0.0.0.0/0",), 22)
    allow = rule.firewalls(FLEET)[rule.tag]
    table = {
        FIREWALLS: Answer(200, {"items": [allow]}),
        f"DELETE global/firewalls/{rule.tag}": operation("f"),
        "POST global/firewalls": operation("g"),
    }
    with cloud(tmp_path, routes(table)) as google:
        (note,) = google.connect(wanted).access([wanted]).notes
        google.connect(wanted).prepare([wanted])
    assert "nobody can reach" in note
    assert google.calls[2:] == [f"DELETE global/firewalls/{rule.tag}", "POST global/firewalls"]
    assert "denied" in google.requests[-1].body


def test_a_rule_that_beats_ours_is_reported(tmp_path: Path) -> None:
    open_to_all = {
        "name": "let-me-in",
        "network": "global/networks/default",
        "direction": "INGRESS",
        "priority": 100,
        "sourceRanges": ["0.0.0.0/0"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["20-25"]}],
    }
    table = {FIREWALLS: Answer(200, {"items": [open_to_all]}), "POST global/firewalls": operation("f")}
    wanted = machine(ssh_sources=("198.51.100.0/24",))
    with cloud(tmp_path, routes(table)) as google:
        (note,) = google.connect(wanted).access([wanted]).notes
    assert "let-me-in" in note and "0.0.0.0/0" in note and "delete or narrow it" in note


def test_a_rule_made_meanwhile_is_brought_in_line(tmp_path: Path) -> None:
    table = {
        FIREWALLS: Answer(200, {}),
        "POST global/firewalls": error(409, "alreadyExists"),
        f"PATCH global/firewalls/gpumesh-{FLEET}-ssh": operation("f"),
    }
    with cloud(tmp_path, routes(table)) as google:
        google.connect(machine()).prepare([machine()])
    assert google.calls[-1] == f"PATCH global/firewalls/gpumesh-{FLEET}-ssh"


def test_a_create_has_not_ended_before_its_firewall_rule_has(tmp_path: Path) -> None:
    made = Operation("op-1", "galena", "create", ZONE)
    refused = {"error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "Too many rules."}]}}
    table: dict[str, Answer | list[Answer]] = {
        FIREWALLS: Answer(200, {}),
        "POST global/firewalls": operation("f"),
        "GET global/operations/f": [
            operation("f"),
            operation("f", "DONE"),
            operation("f", "DONE", **refused),
        ],
        f"GET zones/{ZONE}/operations/op-1": operation("op-1", "DONE"),
    }
    with cloud(tmp_path, routes(table)) as google:
        provider = google.connect(machine())
        provider.prepare([machine()])
        assert not provider.poll([made])[made.id].done
        assert provider.poll([made])[made.id] == gcp.Progress(done=True)
        provider.prepare([machine()])
        progress = provider.poll([made])[made.id]
    # A quota of firewall rules would send the machine to another zone, where it would be no better off.
    assert progress.done and type(progress.error) is errors.OperationFailed
    assert "Too many rules" in str(progress.error)


# Host keys and prices


def test_host_keys_come_from_guest_attributes(tmp_path: Path) -> None:
    path = f"GET zones/{ZONE}/instances/galena/getGuestAttributes"
    body = "A" * 68
    items = [
        {"namespace": "hostkeys", "key": "ssh-rsa", "value": "B" * 68},
        {"namespace": "hostkeys", "key": "ssh-ed25519", "value": body},
        {"namespace": "hostkeys", "key": "ssh-ed25519", "value": "x\n@cert-authority * ssh-rsa AAAA"},
        {"namespace": "hostkeys", "key": "{{ lookup('pipe', 'id') }}", "value": body},
        {"namespace": "elsewhere", "key": "ssh-ed25519", "value": body},
    ]
    answers = [
        error(404, "notFound"),
        Answer(200, {"queryPath": "hostkeys/", "queryValue": {"items": items}}),
    ]
    with cloud(tmp_path, routes({path: answers})) as google:
        provider = google.connect()
        assert provider.host_keys(instance()) == ()
        assert provider.host_keys(instance()) == (f"ssh-ed25519 {body}", f"ssh-rsa {'B' * 68}")
        provider.publish_host_key(instance(), "ssh-ed25519 AAAA")
    assert len(google.requests) == 2


def test_prices_of_what_is_declared(tmp_path: Path) -> None:
    wanted = machine("scheelite", type="n1-standard-8", gpu={"model": "t4", "count": 1})
    with cloud(tmp_path, routes({})) as google:
        provider = google.connect(wanted)
        assert str(provider.price(wanted, ZONE).hourly) == "0.73000"
        assert str(provider.price(machine(**{**wanted.model_dump(), "spot": True}), ZONE).hourly) == "0.27946"
        assert provider.stopped_price(wanted, ZONE).hourly is None
        assert provider.zones(machine(fallback_zones=("us-central1-a",))) == (ZONE, "us-central1-a")
    assert google.requests == []


def test_many_threads_share_one_token(tmp_path: Path) -> None:
    def respond(seen: Seen) -> Answer:
        return Answer(200, raw_instance(seen.path.rpartition("/")[2]))

    with cloud(tmp_path, respond) as google:
        provider = google.connect()
        with ThreadPoolExecutor(16) as pool:
            found = [*pool.map(lambda n: provider.find(machine(f"m{n}"), ZONE), range(64))]
    assert [one.name for one in found if one] == [f"m{n}" for n in range(64)]
    assert google.tokens == 1
    assert all(one and one.state is State.RUNNING for one in found)
