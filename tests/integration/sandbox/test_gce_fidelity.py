# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Compute Engine serves the unmodified clients of the real one, and keeps to its API description.

Every exchange these tests have through ``google`` is held against the whole discovery document.
"""

from __future__ import annotations

import uuid
from typing import Any

import google_auth_httplib2
import httplib2
import pytest
import requests
from google.auth.transport.requests import AuthorizedSession
from googleapiclient import discovery
from googleapiclient.errors import HttpError

from sandbox.gce import vendor
from sandbox.gce.description import description
from sandbox.testing import Sandbox
from tests.integration.sandbox.gce_client import (
    IMAGE,
    ZONE,
    body,
    credentials,
    make,
    refusal,
    waited,
)
from tests.integration.sandbox.google_contract import GoogleContract

pytestmark = pytest.mark.integration


# The unmodified client library


@pytest.fixture
def compute(sandbox: Sandbox, contract: GoogleContract) -> Any:
    """google-api-python-client, told only where the API is."""
    http = google_auth_httplib2.AuthorizedHttp(credentials(sandbox), http=httplib2.Http(timeout=30))
    return discovery.build_from_document(
        contract.document, http=http, client_options={"api_endpoint": f"{sandbox.compute}/"}
    )


def test_googles_own_client_creates_lists_waits_and_deletes(compute: Any) -> None:
    where = {"project": "gpumesh-sandbox", "zone": ZONE}
    names = ["galena", "scheelite", "stibnite"]
    for name in names:
        operation = (
            compute.instances().insert(**where, body=body(name), requestId=str(uuid.uuid4())).execute()
        )
        done = compute.zoneOperations().wait(**where, operation=operation["name"]).execute()
        assert (done["status"], done.get("error")) == ("DONE", None)
    seen = []
    request = compute.instances().list(**where, maxResults=2, filter="labels.gpumesh-fleet = minerals")
    while request is not None:
        answer = request.execute()
        seen += [item["name"] for item in answer["items"]]
        request = compute.instances().list_next(request, answer)
    assert seen == names
    operation = compute.instances().delete(**where, instance="galena").execute()
    compute.zoneOperations().wait(**where, operation=operation["name"]).execute()
    with pytest.raises(HttpError) as missing:
        compute.instances().get(**where, instance="galena").execute()
    assert missing.value.status_code == 404
    assert "projects/gpumesh-sandbox/zones/us-central1-a/instances/galena" in missing.value.reason


def test_googles_own_client_walks_the_aggregated_list(compute: Any) -> None:
    project = "gpumesh-sandbox"
    for name, place in (("a", ZONE), ("b", "europe-west4-a")):
        request = {
            **body(name),
            "machineType": f"zones/{place}/machineTypes/e2-small",
            "disks": body()["disks"],
        }
        request["disks"][0]["initializeParams"] = {"sourceImage": IMAGE}
        compute.instances().insert(project=project, zone=place, body=request).execute()
    found: dict[str, str] = {}
    request = compute.instances().aggregatedList(project=project, maxResults=1)
    while request is not None:
        answer = request.execute()
        for scope, content in answer["items"].items():
            found |= {item["name"]: scope for item in content.get("instances", ())}
        request = compute.instances().aggregatedList_next(request, answer)
    assert found == {"a": f"zones/{ZONE}", "b": "zones/europe-west4-a"}


# Instances


def test_an_instance_passes_through_its_states(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    sandbox.set_operation_seconds(0.6)
    operation = google.post(f"{zone}/instances", json=body()).json()
    assert (operation["status"], operation["progress"], operation["operationType"]) == (
        "PENDING",
        0,
        "insert",
    )
    seen: list[str] = []
    while operation["status"] != "DONE":
        state = google.get(f"{zone}/instances/galena").json()["status"]
        seen += [state] if seen[-1:] != [state] else []
        operation = google.get(operation["selfLink"]).json()
    instance = google.get(f"{zone}/instances/galena").json()
    assert [*seen, instance["status"]][-3:] in (
        ["PROVISIONING", "STAGING", "RUNNING"],
        ["STAGING", "RUNNING", "RUNNING"],
    )
    assert operation["targetId"] == instance["id"]
    assert operation["startTime"] <= operation["endTime"]
    assert instance["networkInterfaces"][0]["accessConfigs"][0]["natIP"] == sandbox.machines()[0]["ipv4"]
    assert instance["disks"][0]["diskSizeGb"] == "50"
    assert instance["lastStartTimestamp"]

    waited(google, google.post(f"{zone}/instances/galena/stop"))
    stopped = google.get(f"{zone}/instances/galena").json()
    assert stopped["status"] == "TERMINATED"
    assert "natIP" not in stopped["networkInterfaces"][0]["accessConfigs"][0]
    assert not sandbox.machines()[0]["running"]
    waited(google, google.post(f"{zone}/instances/galena/start"))
    assert google.get(f"{zone}/instances/galena").json()["status"] == "RUNNING"
    assert sandbox.machines()[0]["running"]
    waited(google, google.delete(f"{zone}/instances/galena"))
    assert refusal(google.get(f"{zone}/instances/galena")) == (404, "notFound")
    assert sandbox.machines() == []


def test_a_name_is_taken_once_in_a_zone(google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    assert refusal(google.post(f"{zone}/instances", json=body())) == (409, "alreadyExists")
    elsewhere = body() | {"machineType": "zones/us-central1-b/machineTypes/e2-small"}
    elsewhere["disks"][0]["initializeParams"].pop("diskType")
    waited(google, google.post(zone.replace(ZONE, "us-central1-b") + "/instances", json=elsewhere))


def test_the_repeat_of_a_request_is_the_same_operation(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    query = {"requestId": str(uuid.uuid4())}
    first = google.post(f"{zone}/instances", json=body(), params=query).json()
    again = google.post(f"{zone}/instances", json=body(), params=query).json()
    assert first["clientOperationId"] == query["requestId"]
    assert (again["name"], again["targetId"]) == (first["name"], first["targetId"])
    waited(google, google.post(f"{zone}/instances", json=body(), params=query))
    assert len(sandbox.machines()) == 1
    for bad in ("00000000-0000-0000-0000-000000000000", "again"):
        assert refusal(google.post(f"{zone}/instances", json=body("b"), params={"requestId": bad})) == (
            400,
            "invalid",
        )


def test_a_request_delivered_twice_makes_one_instance(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    sandbox.fault(kind="duplicate", service="gce", method="POST", path="/instances$")
    waited(google, google.post(f"{zone}/instances", json=body(), params={"requestId": str(uuid.uuid4())}))
    assert len(sandbox.machines()) == 1


def test_what_is_leaving_is_not_ready(sandbox: Sandbox, google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    sandbox.set_operation_seconds(1)
    going = google.delete(f"{zone}/instances/galena")
    assert refusal(google.delete(f"{zone}/instances/galena")) == (400, "resourceNotReady")
    assert refusal(google.post(f"{zone}/instances/galena/start")) == (400, "resourceNotReady")
    assert refusal(google.post(f"{zone}/instances", json=body())) == (409, "alreadyExists")
    waited(google, going)


def test_a_protected_instance_stays(google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    waited(google, google.post(f"{zone}/instances/galena/setDeletionProtection"))
    assert google.delete(f"{zone}/instances/galena").status_code == 400
    off = {"deletionProtection": "false"}
    waited(google, google.post(f"{zone}/instances/galena/setDeletionProtection", params=off))
    waited(google, google.delete(f"{zone}/instances/galena"))


# Guest attributes


def test_host_keys_are_published_where_that_is_allowed(google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    make(google, zone, "silent", metadata={"items": []})

    def ask(name: str, **query: str) -> requests.Response:
        return google.get(f"{zone}/instances/{name}/getGuestAttributes", params=query)

    items = ask("galena", queryPath="hostkeys/").json()["queryValue"]["items"]
    assert [(item["namespace"], item["key"]) for item in items] == [("hostkeys", "ssh-ed25519")]
    assert items[0]["value"].startswith("AAAAC3NzaC1lZDI1NTE5")
    assert ask("galena", variableKey="hostkeys/ssh-ed25519").json()["variableValue"] == items[0]["value"]
    missing = ask("silent", queryPath="hostkeys/")
    assert refusal(missing) == (404, "notFound")
    assert missing.json()["error"]["message"] == (
        "The resource 'hostkeys/' of type 'Guest Attribute' was not found."
    )
    assert refusal(ask("galena", queryPath="ci/")) == (404, "notFound")


def test_host_keys_are_not_there_before_the_machine(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    sandbox.set_operation_seconds(1)
    operation = google.post(f"{zone}/instances", json=body())
    query = {"queryPath": "hostkeys/"}
    path = f"{zone}/instances/galena/getGuestAttributes"
    assert refusal(google.get(path, params=query)) == (404, "notFound")
    waited(google, operation)
    assert google.get(path, params=query).status_code == 200


# Everything else that is served


def test_what_can_be_had_is_listed(
    google: AuthorizedSession, url: str, zone: str, contract: GoogleContract
) -> None:
    types = {item["name"]: item for item in google.get(f"{zone}/machineTypes").json()["items"]}
    assert (types["n1-standard-8"]["guestCpus"], types["n1-standard-8"]["memoryMb"]) == (8, 30720)
    assert types["a2-highgpu-1g"]["accelerators"] == [
        {"guestAcceleratorType": "nvidia-tesla-a100", "guestAcceleratorCount": 1}
    ]
    t4 = google.get(f"{zone}/acceleratorTypes/nvidia-tesla-t4").json()
    assert (t4["maximumCardsPerInstance"], "SIMULATED" in t4["description"]) == (4, True)
    every = google.get(f"{url}/aggregated/acceleratorTypes", params={"filter": "name=nvidia-l4"}).json()[
        "items"
    ]
    assert every[f"zones/{ZONE}"]["acceleratorTypes"][0]["name"] == "nvidia-l4"
    assert every["zones/us-central1-f"]["warning"]["code"] == "NO_RESULTS_ON_PAGE"
    assert google.get(f"{url}/aggregated/machineTypes").json()["nextPageToken"]
    assert google.get(f"{zone}/acceleratorTypes").json()["items"]
    assert google.get(f"{zone}/machineTypes/n1-custom-4-8192").json()["guestCpus"] == 4
    assert google.get(zone).json()["region"].endswith("/regions/us-central1")
    assert len(google.get(f"{url}/zones").json()["items"]) > 50
    assert google.get(f"{url}/regions").json()["items"]


@pytest.mark.parametrize(
    "path", ["debian-cloud/global/images/family/debian-12", "debian-cloud/global/images/family/debian-13",
             "ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"],
)  # fmt: skip
def test_images_are_found_by_family(sandbox: Sandbox, google: AuthorizedSession, path: str) -> None:
    image = google.get(f"{sandbox.compute}/projects/{path}").json()
    assert image["family"] == path.rpartition("/")[2]
    assert google.get(image["selfLink"]).json() == image


def test_nobody_makes_instances_in_an_image_project(sandbox: Sandbox, google: AuthorizedSession) -> None:
    answer = google.post(f"{sandbox.compute}/projects/debian-cloud/zones/{ZONE}/instances", json=body())
    assert refusal(answer) == (403, "forbidden")


def test_firewalls_are_made_changed_and_removed(google: AuthorizedSession, url: str) -> None:
    firewalls = f"{url}/global/firewalls"
    rule = {
        "name": "gpumesh-ssh", "network": "global/networks/default", "sourceRanges": ["192.0.2.0/24"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}], "targetTags": ["gpumesh-ssh"],
    }  # fmt: skip
    waited(google, google.post(firewalls, json=rule))
    assert refusal(google.post(firewalls, json=rule)) == (409, "alreadyExists")
    waited(google, google.patch(f"{firewalls}/gpumesh-ssh", json={"sourceRanges": ["198.51.100.0/24"]}))
    found = google.get(f"{firewalls}/gpumesh-ssh").json()
    assert (found["sourceRanges"], found["priority"], found["direction"]) == (
        ["198.51.100.0/24"],
        1000,
        "INGRESS",
    )
    anybody = {"name": "ping", "allowed": [{"IPProtocol": "icmp"}]}
    waited(google, google.post(firewalls, json=anybody))
    assert google.get(f"{firewalls}/ping").json()["sourceRanges"] == ["0.0.0.0/0"]
    names = [item["name"] for item in google.get(firewalls).json()["items"]]
    assert "gpumesh-ssh" in names
    assert "default-allow-ssh" in names
    waited(google, google.delete(f"{firewalls}/gpumesh-ssh"))
    assert refusal(google.delete(f"{firewalls}/gpumesh-ssh")) == (404, "notFound")
    bad_changes: tuple[dict[str, Any], ...] = (
        {"allowed": []}, {"denied": rule["allowed"]}, {"sourceRanges": ["192.0.2.1/24"]}, {"network": "x"},
        {"allowed": [{"IPProtocol": "tcp", "ports": ["70000"]}]}, {"priority": 65536}, {"name": "X"},
    )  # fmt: skip
    for change in bad_changes:
        assert google.post(firewalls, json=rule | change).status_code == 400, change


def test_operations_and_networks_are_listed(google: AuthorizedSession, url: str, zone: str) -> None:
    make(google, zone)
    rule = {"name": "x", "allowed": [{"IPProtocol": "icmp"}]}
    done = waited(google, google.post(f"{url}/global/firewalls", json=rule))
    assert google.get(done["selfLink"]).json() == done
    newest = {"orderBy": "creationTimestamp desc", "filter": "(operationType = insert) (status = DONE)"}
    assert len(google.get(f"{zone}/operations", params=newest).json()["items"]) == 1
    assert len(google.get(f"{url}/global/operations").json()["items"]) == 1
    assert google.get(f"{url}/regions/us-central1/operations").json().get("items") is None
    scopes = google.get(f"{url}/aggregated/operations").json()["items"]
    assert {scope for scope, content in scopes.items() if "operations" in content} == {
        "global",
        f"zones/{ZONE}",
    }
    networks = google.get(f"{url}/global/networks").json()["items"]
    assert [network["name"] for network in networks] == ["default"]
    assert google.get(networks[0]["selfLink"]).json() == networks[0]


def test_the_serial_port_tells_what_happened(google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    output = google.get(f"{zone}/instances/galena/serialPort").json()
    assert "booted" in output["contents"]
    rest = google.get(f"{zone}/instances/galena/serialPort", params={"start": output["next"]}).json()
    assert (rest["contents"], rest["start"]) == ("", output["next"])


def test_a_mask_keeps_only_what_was_asked_for(google: AuthorizedSession, url: str, zone: str) -> None:
    make(google, zone)
    fields = "nextPageToken,items/*(warning/code,instances(name,networkInterfaces/accessConfigs(natIP)))"
    answer = google.get(f"{url}/aggregated/instances", params={"fields": fields}).json()
    assert set(answer) == {"items"}
    found = answer["items"][f"zones/{ZONE}"]["instances"][0]
    assert set(found) == {"name", "networkInterfaces"}
    assert set(found["networkInterfaces"][0]["accessConfigs"][0]) == {"natIP"}
    assert answer["items"]["zones/us-east1-b"] == {"warning": {"code": "NO_RESULTS_ON_PAGE"}}


def test_the_sandbox_carries_what_the_document_says(contract: GoogleContract) -> None:
    carried = description()
    cut = vendor.cut(contract.document)
    for name, method in cut["methods"].items():
        assert (carried.methods[name].verb, carried.methods[name].path) == (
            method["httpMethod"],
            method["path"],
        )
    for name in ("Instance", "Operation", "Firewall", "Scheduling"):
        # Google only adds: what was there when the cut was made is there still.
        assert set(carried.schemas[name]["properties"]) <= set(
            contract.document["schemas"][name]["properties"]
        )
