# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Compute Engine serves the unmodified clients of the real one, and keeps to its API description.

Every request these tests make through ``google`` and every answer is held against the whole discovery document.
"""

from __future__ import annotations

import json
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import google_auth_httplib2
import httplib2
import pytest
import requests
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account
from googleapiclient import discovery
from googleapiclient.errors import HttpError
from requests.adapters import HTTPAdapter

from sandbox.backends.base import BackendError, Machine
from sandbox.backends.virtual import VirtualBackend
from sandbox.gce import vendor
from sandbox.testing import Sandbox, serve
from sandbox.world import SystemClock
from tests.integration.sandbox.google_contract import GoogleContract, load

pytestmark = pytest.mark.integration
ZONE = "us-central1-a"
SCOPES = ["https://www.googleapis.com/auth/compute"]
IMAGE = "projects/debian-cloud/global/images/family/debian-13"


@pytest.fixture(scope="session")
def contract() -> GoogleContract:
    """The whole discovery document."""
    return GoogleContract(load())


@pytest.fixture
def google(sandbox: Sandbox, contract: GoogleContract) -> Iterator[AuthorizedSession]:
    """google-auth's session; at the end every exchange must have kept to the document."""
    problems: list[str] = []

    def check(response: requests.Response, **_: object) -> None:
        problems.extend(contract.problems(response.request, response))

    with signed_in(sandbox) as session:
        session.hooks["response"].append(check)
        yield session
    assert problems == []


def credentials(sandbox: Sandbox, scopes: list[str] = SCOPES) -> service_account.Credentials:
    return service_account.Credentials.from_service_account_file(
        str(sandbox.google_credentials), scopes=scopes
    )


class NotOutside(HTTPAdapter):
    """google-auth asks a host of Google's about every account, wherever its tokens come from; tests do not."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        raise requests.ConnectionError(f"{request.url} is not on loopback")


def signed_in(sandbox: Sandbox, scopes: list[str] = SCOPES) -> AuthorizedSession:
    inner = requests.Session()
    inner.mount("https://", NotOutside())
    return AuthorizedSession(credentials(sandbox, scopes), auth_request=Request(inner))


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return f"{sandbox.compute}/projects/gpumesh-sandbox"


@pytest.fixture
def zone(url: str) -> str:
    return f"{url}/zones/{ZONE}"


def body(name: str = "galena", **more: Any) -> dict[str, Any]:
    """An insert request as the collection sends it."""
    return {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/n1-standard-8",
        "labels": {"gpumesh-fleet": "minerals", "gpumesh-machine": name},
        "tags": {"items": ["gpumesh-ssh"]},
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": IMAGE,
                    "diskSizeGb": "50",
                    "diskType": f"zones/{ZONE}/diskTypes/pd-balanced",
                },
            }
        ],
        "networkInterfaces": [
            {"network": "global/networks/default", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}
        ],
        "metadata": {"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]},
        **more,
    }


def gpu(model: str, count: int, **more: Any) -> dict[str, Any]:
    """A request with GPUs that is good otherwise."""
    return body(
        guestAccelerators=[
            {"acceleratorType": f"zones/{ZONE}/acceleratorTypes/{model}", "acceleratorCount": count}
        ],
        scheduling={"onHostMaintenance": "TERMINATE"},
        **more,
    )


def machine_type(name: str) -> str:
    return f"zones/{ZONE}/machineTypes/{name}"


def waited(google: AuthorizedSession, answer: requests.Response) -> dict[str, Any]:
    """The operation an answer started, when it is done."""
    assert answer.status_code == 200, answer.text
    operation = answer.json()
    while operation["status"] != "DONE":
        operation = google.post(f"{operation['selfLink']}/wait").json()
    return dict(operation)


def make(google: AuthorizedSession, zone: str, name: str = "galena", **more: Any) -> dict[str, Any]:
    """A running instance."""
    done = waited(google, google.post(f"{zone}/instances", json=body(name, **more)))
    assert "error" not in done, done
    return dict(google.get(f"{zone}/instances/{name}").json())


def refusal(answer: requests.Response) -> tuple[int, str]:
    """HTTP status and reason of an answer that refuses."""
    error = answer.json()["error"]
    return answer.status_code, error["errors"][0]["reason"]


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


# Who may ask


def test_the_key_file_is_for_its_owner_only(sandbox: Sandbox) -> None:
    assert stat.S_IMODE(sandbox.google_credentials.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer ya29.guess"}, {"Authorization": "Bearer ya29.x.é"}]
)
def test_without_a_good_token_nothing_is_told(url: str, header: dict[str, str]) -> None:
    answer = requests.get(f"{url}/zones", headers={k: v.encode() for k, v in header.items()}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (401, 401, "UNAUTHENTICATED")
    assert error["errors"][0]["reason"] == ("authError" if header else "required")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_for_another_api_is_not_enough(sandbox: Sandbox, url: str) -> None:
    with signed_in(sandbox, ["https://www.googleapis.com/auth/pubsub"]) as session:
        assert refusal(session.get(f"{url}/zones")) == (403, "insufficientPermissions")
    with signed_in(sandbox, [f"{SCOPES[0]}.readonly"]) as session:
        assert session.get(f"{url}/zones").status_code == 200
        answer = session.post(f"{url}/zones/{ZONE}/instances", json=body())
        assert refusal(answer) == (403, "insufficientPermissions")


def test_a_jwt_signed_by_another_key_is_refused(sandbox: Sandbox, other_key: str) -> None:
    info = json.loads(sandbox.google_credentials.read_text()) | {"private_key": other_key}
    stranger = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    with AuthorizedSession(stranger) as session, pytest.raises(RefreshError, match="Invalid JWT Signature"):
        session.get(f"{sandbox.compute}/projects/gpumesh-sandbox/zones")


@pytest.fixture
def other_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"iat": -7200, "exp": -3600}, "reasonable timeframe"),
        ({"exp": 7200}, "reasonable timeframe"),
        ({"iss": "nobody@example.com"}, "account not found"),
        ({"aud": "https://example.com"}, "audience"),
        ({"scope": ""}, "Invalid OAuth scope"),
    ],
)
def test_a_jwt_that_says_something_wrong_is_refused(
    sandbox: Sandbox, change: dict[str, Any], error: str
) -> None:
    from google.auth import crypt, jwt

    info = json.loads(sandbox.google_credentials.read_text())
    now = int(time.time())
    claims = {
        "iss": info["client_email"],
        "aud": info["token_uri"],
        "scope": SCOPES[0],
        "iat": 0,
        "exp": 3600,
    }
    claims |= change
    claims |= {"iat": now + claims["iat"], "exp": now + claims["exp"]}
    assertion = jwt.encode(crypt.RSASigner.from_service_account_info(info), claims)
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = requests.post(info["token_uri"], data=grant, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_grant", "invalid_scope")
    assert error in answer.json()["error_description"]


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


# What is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schedulingg": {}}, "Unknown name \"schedulingg\""),
        ({"scheduling": {"onHostMaintenence": "TERMINATE"}}, "at 'scheduling'"),
        ({"scheduling": {"provisioningModel": "spot"}}, "provisioningModel"),
        ({"disks": [{"boot": True, "diskSizeGb": 50}]}, "diskSizeGb"),
        ({"name": "Galena"}, "regex"),
        ({"name": None}, "resource.name"),
        ({"labels": {"Fleet": "x"}}, "Label key 'Fleet'"),
        ({"labels": {"fleet": "X.y"}}, "Label value 'X.y'"),
        ({"labels": {"9": "x"}}, "Label key"),
        ({"labels": {f"l{n}": "" for n in range(65)}}, "64"),
        ({"machineType": machine_type("n1-standard-7")}, "does not exist in zone"),
        ({"machineType": "n1-standard-8"}, "malformed"),
        ({"machineType": "zones/us-east1-b/machineTypes/n1-standard-8"}, "same zone"),
        ({"disks": []}, "Boot disk"),
        ({"networkInterfaces": []}, "network interface"),
        ({"networkInterfaces": [{"network": "global/networks/other"}]}, "cannot be found"),
        ({"metadata": {"items": [{"key": "a b", "value": "x"}]}}, "regex"),
        ({"metadata": {"items": [{"key": "a", "value": "x"}] * 2}}, "duplicate"),
        ({"metadata": {"items": [{"key": "a", "value": "x" * 262_145}]}}, "262144"),
        ({"tags": {"items": ["-x"]}}, "regex"),
        ({"scheduling": {"maxRunDuration": {"seconds": "20"}, "instanceTerminationAction": "STOP"}}, "30 seconds"),
        ({"scheduling": {"maxRunDuration": {"seconds": "3600"}}}, "instanceTerminationAction"),
        ({"scheduling": {"provisioningModel": "SPOT", "automaticRestart": True}}, "AutomaticRestart"),
    ],
)  # fmt: skip
def test_a_request_that_breaks_a_rule_is_refused(
    sandbox: Sandbox, google: AuthorizedSession, zone: str, change: dict[str, Any], text: str
) -> None:
    answer = google.post(f"{zone}/instances", json=body() | change)
    assert answer.status_code == 400
    assert text in answer.json()["error"]["message"]
    assert answer.json()["error"]["errors"][0]["reason"] in ("invalid", "required", "badRequest")
    assert sandbox.machines() == []


def test_what_does_not_exist_is_not_found(
    sandbox: Sandbox, google: AuthorizedSession, url: str, zone: str
) -> None:
    unknown_image = body()
    unknown_image["disks"][0]["initializeParams"]["sourceImage"] = IMAGE.replace("13", "99")
    assert refusal(google.post(f"{zone}/instances", json=unknown_image)) == (404, "notFound")
    assert refusal(google.get(f"{url}/zones/mars-north1-a/instances")) == (404, "notFound")
    assert refusal(google.get(f"{url}/global/firewalls/none")) == (404, "notFound")
    assert refusal(google.post(f"{zone}/operations/none/wait")) == (404, "notFound")
    assert refusal(google.get(f"{zone}/machineTypes/none")) == (404, "notFound")
    other = requests.get(f"{sandbox.compute}/projects/p/nothing", timeout=30)
    assert (other.status_code, other.headers["Content-Type"].split(";")[0]) == (404, "text/html")


@pytest.mark.parametrize(
    "query", [{"pageSize": "5"}, {"maxResults": "501"}, {"maxResults": "many"}, {"pageToken": "x"}, {"orderBy": "zone"},
              {"filter": "metadata.x=y"}, {"filter": "colour=red"}, {"filter": "name=a OR"}, {"filter": "(name eq a"},
              {"filter": "a b"}, {"fields": "items(nome)"}, {"fields": "items(name"}],
)  # fmt: skip
def test_a_list_refuses_a_query_it_does_not_understand(
    sandbox: Sandbox, zone: str, query: dict[str, str]
) -> None:
    with signed_in(sandbox) as session:
        answer = session.get(f"{zone}/instances", params=query)
    assert answer.status_code == 400
    assert next(iter(query)) in json.dumps(answer.json()) or "field selection" in answer.text


def test_a_bad_mask_refuses_before_anything_is_done(
    sandbox: Sandbox, google: AuthorizedSession, zone: str
) -> None:
    assert google.post(f"{zone}/instances", json=body(), params={"fields": "nome"}).status_code == 400
    assert google.get(f"{zone}/instances").json().get("items") is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (gpu("nvidia-tesla-a100", 1), "badRequest"),
        (gpu("nvidia-tesla-t4", 1, machineType=machine_type("e2-standard-8")), "badRequest"),
        (gpu("nvidia-tesla-t4", 3), "invalid"),
        (gpu("nvidia-tesla-t4", 1, machineType=machine_type("n1-standard-64")), "badRequest"),
        (gpu("nvidia-l4", 1), "badRequest"),
        (gpu("nvidia-l4", 2, machineType=machine_type("g2-standard-8")), "invalid"),
        (gpu("nvidia-tesla-t4", 1) | {"scheduling": {"onHostMaintenance": "MIGRATE"}}, "badRequest"),
        (body(machineType=machine_type("g2-standard-8")), "badRequest"),
        (body(machineType=machine_type("a2-highgpu-1g")), "badRequest"),
        (gpu("nvidia-tesla-k80", 1), "notFound"),
    ],
)
def test_gpus_that_do_not_fit_are_refused(
    google: AuthorizedSession, zone: str, given: dict[str, Any], reason: str
) -> None:
    assert refusal(google.post(f"{zone}/instances", json=given))[1] == reason


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (gpu("nvidia-tesla-t4", 4), ("nvidia-tesla-t4", 4)),
        (gpu("nvidia-tesla-v100", 1), ("nvidia-tesla-v100", 1)),
        (body(machineType=machine_type("g2-standard-24"), scheduling={"onHostMaintenance": "TERMINATE"}),
         ("nvidia-l4", 2)),
        (body(machineType=machine_type("a2-highgpu-1g"), scheduling={"provisioningModel": "SPOT"}),
         ("nvidia-tesla-a100", 1)),
    ],
)  # fmt: skip
def test_gpus_that_fit_are_shown_and_called_simulated(
    google: AuthorizedSession, zone: str, given: dict[str, Any], shown: tuple[str, int]
) -> None:
    waited(google, google.post(f"{zone}/instances", json=given))
    instance = google.get(f"{zone}/instances/galena").json()
    accelerator = instance["guestAccelerators"][0]
    assert (accelerator["acceleratorType"].rpartition("/")[2], accelerator["acceleratorCount"]) == shown
    assert "SIMULATED" in instance["statusMessage"]


# Changes


@pytest.mark.parametrize(
    ("verb", "change", "member"),
    [
        ("setLabels", {"labels": {"a": "b"}}, "labels"),
        ("setMetadata", {"items": [{"key": "a", "value": "b"}]}, "metadata"),
        ("setTags", {"items": ["a"]}, "tags"),
    ],
)
def test_a_stale_fingerprint_is_refused(
    google: AuthorizedSession, zone: str, verb: str, change: dict[str, Any], member: str
) -> None:
    key = "labelFingerprint" if member == "labels" else "fingerprint"

    def current() -> str:
        instance = google.get(f"{zone}/instances/galena").json()
        return str(instance["labelFingerprint"] if member == "labels" else instance[member]["fingerprint"])

    make(google, zone)
    first = current()
    waited(google, google.post(f"{zone}/instances/galena/{verb}", json=change | {key: first}))
    instance = google.get(f"{zone}/instances/galena").json()
    assert (
        instance[member] if member == "labels" else instance[member]["items"] == next(iter(change.values()))
    )
    assert refusal(google.post(f"{zone}/instances/galena/{verb}", json=change | {key: first})) == (
        412,
        "conditionNotMet",
    )
    assert refusal(google.post(f"{zone}/instances/galena/{verb}", json=change)) == (412, "conditionNotMet")
    # Two at once, both with the current one: the later loses.
    now = current()
    both = [google.post(f"{zone}/instances/galena/{verb}", json=change | {key: now}) for _ in range(2)]
    ends = [
        waited(google, answer) if answer.ok else {"httpErrorStatusCode": answer.status_code}
        for answer in both
    ]
    assert [end.get("httpErrorStatusCode") for end in ends] == [None, 412]


def test_machine_type_and_gpus_change_only_while_stopped(google: AuthorizedSession, zone: str) -> None:
    make(google, zone)
    small = {"machineType": machine_type("n1-standard-4")}
    assert google.post(f"{zone}/instances/galena/setMachineType", json=small).status_code == 400
    waited(google, google.post(f"{zone}/instances/galena/stop"))
    waited(google, google.post(f"{zone}/instances/galena/setMachineType", json=small))
    t4 = {"guestAccelerators": gpu("nvidia-tesla-t4", 1)["guestAccelerators"]}
    assert refusal(google.post(f"{zone}/instances/galena/setMachineResources", json=t4)) == (
        400,
        "badRequest",
    )
    terminate = {"onHostMaintenance": "TERMINATE"}
    waited(google, google.post(f"{zone}/instances/galena/setScheduling", json=terminate))
    waited(google, google.post(f"{zone}/instances/galena/setMachineResources", json=t4))
    instance = google.get(f"{zone}/instances/galena").json()
    assert instance["machineType"].endswith("/n1-standard-4")
    assert instance["guestAccelerators"][0]["acceleratorCount"] == 1


def test_quotas_count_what_is_there(google: AuthorizedSession, url: str, zone: str) -> None:
    def used() -> dict[str, float]:
        quotas = google.get(f"{url}/regions/us-central1").json()["quotas"]
        return {quota["metric"]: quota["usage"] for quota in quotas if quota["usage"]}

    waited(google, google.post(f"{zone}/instances", json=gpu("nvidia-tesla-t4", 2)))
    assert used() == {"CPUS": 8, "INSTANCES": 1, "IN_USE_ADDRESSES": 1, "NVIDIA_T4_GPUS": 2}
    overall = {quota["metric"]: quota["usage"] for quota in google.get(url).json()["quotas"]}
    assert overall["GPUS_ALL_REGIONS"] == 2
    waited(google, google.delete(f"{zone}/instances/galena"))
    assert used() == {}


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
    waited(google, google.post(f"{url}/global/firewalls", json=rule))
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
    from sandbox.gce.description import description

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
