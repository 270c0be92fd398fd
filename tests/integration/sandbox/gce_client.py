# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tests of the local Compute Engine talk to it: with google-auth's session, and the collection's requests."""

from __future__ import annotations

from typing import Any

import requests
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from sandbox.testing import Sandbox

ZONE = "us-central1-a"
SCOPES = ["https://www.googleapis.com/auth/compute"]
IMAGE = "projects/debian-cloud/global/images/family/debian-13"


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
