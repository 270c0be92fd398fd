# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Compute Engine refuses what the real one refuses, in the same form.

Every exchange these tests have through ``google`` is held against the whole discovery document.
"""

from __future__ import annotations

import json
import stat
import time
from typing import Any

import pytest
import requests
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from sandbox.testing import Sandbox
from tests.integration.sandbox.gce_client import (
    IMAGE,
    SCOPES,
    ZONE,
    body,
    gpu,
    machine_type,
    make,
    refusal,
    signed_in,
    waited,
)

pytestmark = pytest.mark.integration


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
    region = f"{url}/regions/us-central1/operations/none"
    assert refusal(google.get(region)) == refusal(google.post(f"{region}/wait")) == (404, "notFound")
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
