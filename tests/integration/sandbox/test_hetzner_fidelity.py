# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Hetzner Cloud serves the unmodified clients of the real one, and keeps to its API description."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hcloud
import pytest
import requests
from hcloud.firewalls import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer

from sandbox.testing import Sandbox
from tests.integration.sandbox.contract import Contract

pytestmark = pytest.mark.integration
KEY = "ssh-ed25519 " + base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(32)).decode()


def create(cloud: hcloud.Client, name: str, **options: Any) -> BoundServer:
    """A server that has finished booting."""
    given = {"server_type": ServerType(name="cx23"), "image": Image(name="debian-13"), **options}
    answer = cloud.servers.create(name, **given)
    for action in (answer.action, *answer.next_actions):
        action.wait_until_finished()
    return cloud.servers.get_by_id(answer.server.id)


def refused(session: requests.Session, method: str, url: str, **options: Any) -> tuple[int, str]:
    """Status and code of a request that fails."""
    answer = session.request(method, url, timeout=30, **options)
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert answer.headers["X-Correlation-Id"]
    return answer.status_code, body["error"]["code"]


# The hcloud library


def test_a_server_lives_and_dies(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    key = cloud.ssh_keys.create("me", KEY)
    answer = cloud.servers.create(
        "web-1",
        ServerType(name="cx33"),
        Image(name="debian-13"),
        location=Location(name="nbg1"),
        ssh_keys=[key],
        labels={"a": "b"},
    )
    assert answer.server.status == "initializing"
    assert answer.root_password is None
    assert [action.command for action in (answer.action, *answer.next_actions)] == [
        "create_server",
        "start_server",
    ]
    for action in (answer.action, *answer.next_actions):
        action.wait_until_finished()
    server = cloud.servers.get_by_name("web-1")
    assert server is not None
    assert (server.status, server.location.name, server.server_type.name) == ("running", "nbg1", "cx33")
    assert server.data_model.image.name == "debian-13"
    assert [machine["ipv4"] for machine in sandbox.machines()] == [server.public_net.ipv4.ip]

    server.power_off().wait_until_finished()
    server.reload()
    assert server.status == "off"
    assert sandbox.machines()[0]["running"] is False
    server.change_type(ServerType(name="cx43"), upgrade_disk=False).wait_until_finished()
    server.power_on().wait_until_finished()
    server.reload()
    assert (server.status, server.server_type.name, server.primary_disk_size) == ("running", "cx43", 80)
    assert server.update(labels={"c": "d"}).labels == {"c": "d"}

    server.delete().wait_until_finished()
    assert cloud.servers.get_by_name("web-1") is None
    assert cloud.servers.get_all() == []
    assert sandbox.machines() == []


def test_actions_take_their_time_and_lock_the_server(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    sandbox.set_operation_seconds(60)
    answer = cloud.servers.create("slow", ServerType(name="cx23"), Image(name="debian-13"))
    assert answer.root_password
    assert cloud.actions.get_by_id(answer.action.id).status == "running"
    assert cloud.servers.get_by_id(answer.server.id).locked
    with pytest.raises(hcloud.APIException) as caught:
        answer.server.delete()
    assert caught.value.code == "locked"
    with pytest.raises(hcloud.APIException) as caught:
        cloud.servers.create("slow", ServerType(name="cx23"), Image(name="debian-13"))
    assert caught.value.code == "uniqueness_error"
    assert caught.value.details == {"fields": [{"name": "name"}]}


def test_a_server_may_be_created_without_being_started(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    assert create(cloud, "web", start_after_create=False).status == "off"
    assert [machine["running"] for machine in sandbox.machines()] == [False]


def test_many_actions_are_polled_at_once(cloud: hcloud.Client) -> None:
    servers = [create(cloud, f"n{number}") for number in range(3)]
    deletions = [server.delete() for server in servers]
    numbers = {action.id for action in deletions}
    for action in deletions:
        action.wait_until_finished()
    polled = cloud.request("GET", "/actions", params={"id": sorted(numbers), "per_page": 50})["actions"]
    assert {action["id"]: action["status"] for action in polled} == dict.fromkeys(numbers, "success")


def test_lists_come_in_pages_of_at_most_50(
    cloud: hcloud.Client, api: requests.Session, sandbox: Sandbox
) -> None:
    for number in range(53):
        cloud.request(
            "POST", "/servers", json={"name": f"n{number:02}", "server_type": "cx23", "image": "debian-13",
                                      "labels": {"odd": str(number % 2)}}
        )  # fmt: skip
    assert len(cloud.servers.get_all()) == 53
    assert [server.name for server in cloud.servers.get_all(name="n07")] == ["n07"]
    assert len(cloud.servers.get_all(label_selector="odd in (1), odd")) == 26
    answer = api.get(f"{sandbox.hetzner}/servers?per_page=100&sort=name:desc&label_selector=odd", timeout=30)
    assert answer.json()["meta"]["pagination"] == {
        "page": 1, "per_page": 50, "previous_page": None, "next_page": 2, "last_page": 2, "total_entries": 53
    }  # fmt: skip
    assert [server["name"] for server in answer.json()["servers"]][:2] == ["n52", "n51"]
    following = api.get(answer.links["next"]["url"], timeout=30).json()
    assert [server["name"] for server in following["servers"]] == ["n02", "n01", "n00"]
    assert len(api.get(f"{sandbox.hetzner}/servers", timeout=30).json()["servers"]) == 25


def test_ssh_keys_have_their_real_fingerprint(cloud: hcloud.Client) -> None:
    key = cloud.ssh_keys.create("me", f"{KEY} me@home", labels={"a": "b"})
    digest = hashlib.md5(base64.b64decode(KEY.split()[1]), usedforsecurity=False).digest()
    assert key.fingerprint == ":".join(f"{byte:02x}" for byte in digest)
    assert cloud.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
    with pytest.raises(hcloud.APIException) as caught:
        cloud.ssh_keys.create("again", KEY)
    assert caught.value.code == "uniqueness_error"
    assert key.update(name="renamed").name == "renamed"
    key.delete()
    assert cloud.ssh_keys.get_all() == []


def test_a_firewall_covers_servers_by_label(cloud: hcloud.Client) -> None:
    ssh = FirewallRule(
        direction="in", protocol="tcp", port="22", source_ips=["192.0.2.0/24", "2001:db8::/32"]
    )
    selector = FirewallResource(
        "label_selector", label_selector=FirewallResourceLabelSelector("fleet=minerals")
    )
    firewall = cloud.firewalls.create("fw", [ssh], resources=[selector]).firewall
    inside, outside = create(cloud, "in", labels={"fleet": "minerals"}), create(cloud, "out")
    assert [entry.firewall.id for entry in inside.public_net.firewalls] == [firewall.id]
    assert outside.public_net.firewalls == []
    for action in firewall.apply_to_resources([FirewallResource("server", server=outside)]):
        action.wait_until_finished()
    firewall.reload()
    assert {resource.type for resource in firewall.applied_to} == {"label_selector", "server"}
    firewall.set_rules([])
    with pytest.raises(hcloud.APIException) as caught:
        firewall.delete()
    assert caught.value.code == "resource_in_use"
    firewall.remove_from_resources([selector, FirewallResource("server", server=outside)])
    firewall.reload()
    assert firewall.rules == []
    firewall.delete()
    assert cloud.firewalls.get_by_name("fw") is None


def test_a_server_joins_a_network(cloud: hcloud.Client) -> None:
    subnet = NetworkSubnet(type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24")
    network = cloud.networks.create("net", "10.0.0.0/16", [subnet])
    server = create(cloud, "web", networks=[network])
    assert [attached.ip for attached in server.private_net] == ["10.0.1.2"]
    server.detach_from_network(network).wait_until_finished()
    server.reload()
    assert server.private_net == []


def test_what_is_for_sale_has_prices_and_stock(cloud: hcloud.Client, sandbox: Sandbox) -> None:
    sandbox.fault(kind="stockout", service="hetzner", zone="hel1", type="cx23", times=0)
    kind = next(
        kind for kind in cloud.request("GET", "/server_types")["server_types"] if kind["name"] == "cx23"
    )
    assert (kind["cores"], kind["memory"], kind["disk"]) == (2, 4, 40)
    assert {place["name"]: place["available"] for place in kind["locations"]} == {
        "fsn1": True,
        "nbg1": True,
        "hel1": False,
    }
    prices = {price["location"]: price for price in kind["prices"]}
    assert prices["nbg1"]["price_hourly"]["net"] == "0.0088000000"
    assert prices["nbg1"]["price_monthly"]["net"] == "5.4900000000"
    assert cloud.images.get_by_name_and_architecture("debian-13", "arm").architecture == "arm"
    assert {place.name for place in cloud.locations.get_all()} == {
        "fsn1",
        "nbg1",
        "hel1",
        "ash",
        "hil",
        "sin",
    }


# Refusals


def test_a_token_is_needed(sandbox: Sandbox) -> None:
    url = f"{sandbox.hetzner}/servers"
    with requests.Session() as session:
        assert refused(session, "GET", url) == (401, "unauthorized")
        assert refused(session, "GET", url, headers={"Authorization": "Bearer wrong"}) == (
            401,
            "unauthorized",
        )
        assert refused(session, "PATCH", url) == (401, "unauthorized")
        assert refused(session, "GET", f"{sandbox.hetzner}/nothing") == (404, "not_found")
        reader = {"Authorization": f"Bearer {sandbox.hetzner_read_only_token}"}
        assert session.get(url, headers=reader, timeout=30).status_code == 200
        assert refused(session, "POST", url, headers=reader, json={}) == (403, "token_readonly")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "under_score"}, "name"),
        ({"name": "-dash"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": None}, "name"),
        ({"server_type": "cx99"}, "server_type"),
        ({"image": "windows"}, "image"),
        ({"image": 114690389}, "image"),
        ({"location": "mars1"}, "location"),
        ({"datacenter": "nbg1-dc3"}, "datacenter"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"user_data": "x" * 32769}, "user_data"),
    ],
)
def test_a_create_that_makes_no_sense_is_refused_by_field(
    api: requests.Session, sandbox: Sandbox, change: dict[str, Any], field: str
) -> None:
    body = {"name": "web", "server_type": "cx23", "image": "debian-13", **change}
    answer = api.post(f"{sandbox.hetzner}/servers", json=body, timeout=30)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_input"
    assert [entry["name"] for entry in answer.json()["error"]["details"]["fields"]] == [field]
    assert sandbox.machines() == []


def test_other_refusals(api: requests.Session, cloud: hcloud.Client, sandbox: Sandbox) -> None:
    url = sandbox.hetzner
    server = create(cloud, "web")
    assert refused(api, "GET", f"{url}/datacenters") == (410, "deprecated_api_endpoint")
    assert refused(api, "GET", f"{url}/servers/1") == (404, "not_found")
    assert refused(api, "PATCH", f"{url}/servers") == (405, "method_not_allowed")
    assert refused(api, "POST", f"{url}/servers", data="{") == (400, "json_error")
    assert refused(api, "GET", f"{url}/servers?label_selector=a,,b") == (422, "invalid_input")
    assert refused(api, "GET", f"{url}/servers?sort=colour") == (422, "invalid_input")
    assert refused(api, "GET", f"{url}/servers?page=0") == (422, "invalid_input")
    assert refused(api, "GET", f"{url}/actions") == (422, "invalid_input")
    change = {"server_type": "cx33", "upgrade_disk": False}
    assert refused(api, "POST", f"{url}/servers/{server.id}/actions/change_type", json=change) == (
        422,
        "server_not_stopped",
    )
    server.change_protection(delete=True, rebuild=True).wait_until_finished()
    assert refused(api, "DELETE", f"{url}/servers/{server.id}") == (423, "protected")
    rule = {"direction": "in", "protocol": "tcp", "source_ips": ["10.0.0.1/24"], "port": "22"}
    assert refused(api, "POST", f"{url}/firewalls", json={"name": "fw", "rules": [rule]}) == (
        422,
        "invalid_input",
    )


def test_the_rate_limit_is_announced(api: requests.Session, sandbox: Sandbox) -> None:
    headers = api.get(f"{sandbox.hetzner}/locations", timeout=30).headers
    assert headers["RateLimit-Limit"] == "3600"
    assert headers["RateLimit-Remaining"] == "3599"
    assert int(headers["RateLimit-Reset"]) >= int(time.time()) - 1


def test_the_rate_limit_is_kept(api: requests.Session, sandbox: Sandbox) -> None:
    sandbox.switch(hetzner_rate_limit=2)
    url = f"{sandbox.hetzner}/locations"
    assert [api.get(url, timeout=30).status_code for _ in range(2)] == [200, 200]
    assert refused(api, "GET", url) == (429, "rate_limit_exceeded")
    for wrong in ({"hetzner_rate_limit": True}, {"hetzner_colour": 1}, {"operation_seconds": -1}):
        with pytest.raises(ValueError, match="422"):
            sandbox.admin("PUT", "settings", wrong)


# The API description


def test_every_exchange_is_in_the_api_description(
    cloud: hcloud.Client, api: requests.Session, sandbox: Sandbox, hetzner_contract: Contract
) -> None:
    problems: list[str] = []

    def check(answer: requests.Response, **_: object) -> None:
        problems.extend(hetzner_contract.problems(answer.request, answer))

    # The library has no public way to its session.
    cloud._client._session.hooks["response"].append(check)
    api.hooks["response"].append(check)
    key = cloud.ssh_keys.create("me", KEY)
    selector = FirewallResource("label_selector", label_selector=FirewallResourceLabelSelector("fleet"))
    rule = FirewallRule(
        direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0"], description="ssh"
    )
    firewall = cloud.firewalls.create("fw", [rule], labels={"a": "b"}, resources=[selector]).firewall
    network = cloud.networks.create(
        "net", "10.0.0.0/16", [NetworkSubnet("10.0.1.0/24", type="cloud", network_zone="eu-central")]
    )
    server = create(
        cloud, "web", location=Location(name="hel1"), ssh_keys=[key], labels={"fleet": "x"}, user_data="#cloud-config",
        firewalls=[firewall], networks=[network],
    )  # fmt: skip
    for collection in (
        cloud.servers, cloud.ssh_keys, cloud.firewalls, cloud.networks, cloud.images, cloud.server_types,
        cloud.locations, cloud.primary_ips,
    ):  # fmt: skip
        for found in collection.get_all():
            collection.get_by_id(found.id)
    server.update(name="web-2", labels={})
    server.power_off().wait_until_finished()
    server.power_on().wait_until_finished()
    server.reset().wait_until_finished()
    server.shutdown()
    server.get_actions()
    cloud.servers.actions.get_by_id(server.get_actions()[0].id)
    firewall.set_rules([rule])
    firewall.get_actions()
    cloud.pricing = api.get(f"{sandbox.hetzner}/pricing", timeout=30)
    for path in ("servers/1", "servers?sort=colour", "actions?id=1&id=2"):
        api.get(f"{sandbox.hetzner}/{path}", timeout=30)
    api.post(f"{sandbox.hetzner}/servers", json={"name": "_"}, timeout=30)
    server.delete().wait_until_finished()
    key.delete()
    assert problems == []
    assert len(hetzner_contract.seen) >= 30


# The inventory plugin of hetzner.hcloud


def test_the_inventory_plugin_of_hetzner_hcloud_lists_the_servers(
    cloud: hcloud.Client, sandbox: Sandbox, root: Path, tmp_path: Path
) -> None:
    collections = root / ".ansible" / "collections"
    if not (collections / "ansible_collections" / "hetzner" / "hcloud").exists():
        pytest.skip("hetzner.hcloud is not installed here: make venv")
    # Before 6.x this plugin reads a field of servers that the service has dropped; it fails against today's API.
    manifest = json.loads((collections / "ansible_collections/hetzner/hcloud/MANIFEST.json").read_text())
    version = int(manifest["collection_info"]["version"].split(".")[0])
    sandbox.switch(hetzner_datacenter=version < 6)
    network = cloud.networks.create(
        "net", "10.0.0.0/16", [NetworkSubnet("10.0.1.0/24", type="cloud", network_zone="eu-central")]
    )
    web = create(cloud, "web", labels={"role": "web"}, location=Location(name="nbg1"), networks=[network])
    create(cloud, "db", labels={"role": "db"}, server_type=ServerType(name="cx33"))
    (tmp_path / "all.hcloud.yml").write_text(
        "plugin: hetzner.hcloud.hcloud\nkeyed_groups:\n  - {key: hcloud_labels.role, prefix: role}\n"
        "  - {key: hcloud_location, prefix: location}\n"
    )
    (tmp_path / "web.hcloud.yml").write_text(
        "plugin: hetzner.hcloud.hcloud\nlabel_selector: role in (web)\nnetwork: net\nconnect_with: private_ipv4\n"
        "status: [running]\nlocations: [nbg1]\n"
    )

    def inventory(name: str) -> dict[str, Any]:
        process = subprocess.run(
            [Path(sys.executable).parent / "ansible-inventory", "-i", tmp_path / name, "--list"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "HCLOUD_TOKEN": sandbox.hetzner_token,
                "HCLOUD_ENDPOINT": sandbox.hetzner,
                "ANSIBLE_COLLECTIONS_PATH": str(collections),
                "ANSIBLE_INVENTORY_ENABLED": "hetzner.hcloud.hcloud",
                "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        found: dict[str, Any] = json.loads(process.stdout, object_hook=_trusted)
        return found

    everything = inventory("all.hcloud.yml")
    assert set(everything["_meta"]["hostvars"]) == {"web", "db"}
    assert everything["role_web"]["hosts"] == ["web"]
    assert everything["location_nbg1"]["hosts"] == ["web"]
    assert everything["_meta"]["hostvars"]["web"]["ansible_host"] == web.public_net.ipv4.ip
    chosen = inventory("web.hcloud.yml")["_meta"]["hostvars"]
    assert {name: variables["ansible_host"] for name, variables in chosen.items()} == {"web": "10.0.1.2"}


def _trusted(value: dict[str, Any]) -> Any:
    """What ``ansible-inventory --list`` wraps, because it came from outside."""
    return value.get("__ansible_unsafe", value)
