# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials for Compute Engine, and what its errors mean."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp, gcp_api
from ansible_collections.gpumesh.fleet.tests.compute import (
    ZONE,
    Cloud,
    cloud,
    error,
    machine,
    raw_instance,
    routes,
    write_key,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Seen, closed_port

GALENA = f"GET zones/{ZONE}/instances/galena"


def found(seen: Seen) -> Answer:
    return Answer(200, raw_instance("galena"))


def ask(google: Cloud) -> None:
    assert google.connect().find(machine(), ZONE) is not None


def refusal(run: Callable[[], object]) -> errors.FleetError:
    with pytest.raises(errors.FleetError) as caught:
        run()
    return caught.value


@pytest.fixture(autouse=True)
def _no_firmware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gcp_api, "_GCE_PRODUCT", tmp_path / "product_name")


# Credentials


def test_without_credentials_the_user_is_told_how_to_sign_in(tmp_path: Path) -> None:
    told = refusal(lambda: gcp_api.find_credentials(None, {"HOME": str(tmp_path)}, FakeClock()))
    assert isinstance(told, errors.AuthError)
    assert "gcloud auth application-default login" in str(told) and "credentials_file" in str(told)


def test_application_default_credentials_are_looked_for_in_googles_order(tmp_path: Path) -> None:
    def user(folder: Path) -> Path:
        folder.mkdir(parents=True)
        path = folder / "application_default_credentials.json"
        person = {
            "type": "authorized_user",
            "client_id": folder.name,
            "client_secret": "s",
            "refresh_token": "r",
        }
        path.write_text(json.dumps(person))
        return path

    def who(credentials_file: str | None, **environ: str) -> str:
        got = gcp_api.find_credentials(
            credentials_file, {"HOME": str(tmp_path), **environ}, FakeClock()
        ).google
        return str(getattr(got, "client_id", None) or got.service_account_email)

    user(tmp_path / ".config" / "gcloud")
    assert who(None) == "gcloud"
    elsewhere = user(tmp_path / "elsewhere")
    assert who(None, CLOUDSDK_CONFIG=str(elsewhere.parent)) == "elsewhere"
    key = str(write_key(tmp_path, "https://oauth2.googleapis.com/token"))
    assert who(None, GOOGLE_APPLICATION_CREDENTIALS=key) == "robot@my-project.iam.gserviceaccount.com"
    assert who(str(elsewhere), GOOGLE_APPLICATION_CREDENTIALS=key) == "elsewhere"


def test_on_a_google_machine_its_own_account_is_used(tmp_path: Path) -> None:
    (tmp_path / "product_name").write_text("Google Compute Engine\n")
    got = gcp_api.find_credentials(None, {"HOME": str(tmp_path)}, FakeClock()).google
    assert type(got).__module__ == "google.auth.compute_engine.credentials"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("SECRET-not-json", "not a credentials file"),
        ("[]", "not a credentials file"),
        ('{"type": "service_account", "private_key": "SECRET"}', "not a credentials file"),
        (
            '{"type": "service_account", "private_key": "SECRET", "client_email": "a@b", "token_uri": "x"}',
            "not a credentials",
        ),
        ('{"type": "authorized_user", "refresh_token": "SECRET"}', "not a credentials file"),
        ('{"type": "external_account"}', "type 'external_account', which are not supported"),
    ],
)
def test_a_file_that_holds_no_credentials_is_told_without_quoting_it(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "key.json"
    if text is not None:
        path.write_text(text)
    told = refusal(lambda: gcp_api.find_credentials(str(path), {}, FakeClock()))
    assert isinstance(told, errors.AuthError)
    assert words in str(told) and str(path) in str(told)
    assert "SECRET" not in str(told)


def test_a_key_that_google_refuses_is_our_error(tmp_path: Path) -> None:
    with cloud(tmp_path, found) as google:
        google.token_answers = [
            Answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        ]
        told = refusal(lambda: ask(google))
    assert isinstance(told, errors.AuthError)
    assert told.code == "invalid_grant"
    assert "Invalid JWT Signature" in str(told)
    assert google.requests == []


def test_a_token_service_that_is_sick_is_asked_again_and_then_reported(tmp_path: Path) -> None:
    with cloud(tmp_path, found) as google:
        google.token_answers = [Answer(503, "oops"), Answer(500, "oops"), Answer(0)]
        told = refusal(lambda: ask(google))
        assert isinstance(told, errors.Unavailable)
        ask(google)
        google.token_answers = [Answer(503)] * 100
        told = refusal(lambda: ask(google))
    assert isinstance(told, errors.Unavailable)
    assert "token service" in str(told)


def test_a_token_service_that_cannot_be_reached(tmp_path: Path) -> None:
    with cloud(tmp_path, found) as google:
        write_key(tmp_path, f"http://127.0.0.1:{closed_port()}/token")
        told = refusal(lambda: ask(google))
    assert isinstance(told, errors.Unreachable)
    assert "looking for galena in us-central1-c" in str(told)
    assert "assertion" not in f"{told}{told.details}"


def test_a_token_that_is_no_longer_taken_is_renewed_once(tmp_path: Path) -> None:
    def respond(seen: Seen) -> Answer:
        return found(seen) if seen.headers["authorization"].endswith("2") else error(401, "authError")

    with cloud(tmp_path, respond) as google:
        ask(google)
        assert google.tokens == 2
    with cloud(tmp_path, routes({GALENA: error(401, "authError", "Invalid Credentials")})) as google:
        told = refusal(lambda: ask(google))
        assert google.tokens == 2
    assert isinstance(told, errors.AuthError)
    assert "gcloud auth application-default login" in str(told)


def test_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login someone password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with cloud(tmp_path, found) as google:
        ask(google)
    assert google.requests[0].headers["authorization"] == "Bearer ya29.token-number-1"


def test_nobody_but_the_named_endpoints_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth would like to ask iamcredentials.googleapis.com in a thread of its own, whoever gave the token."""
    asked: set[str] = set()
    resolve = socket.getaddrinfo

    def note(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.add(host)
        return resolve(host, *args, **kwargs)

    before = set(threading.enumerate())
    monkeypatch.setattr(socket, "getaddrinfo", note)
    with cloud(tmp_path, found) as google:
        ask(google)
        for thread in set(threading.enumerate()) - before:
            if isinstance(thread, threading.Thread) and "Boundary" in type(thread).__name__:
                thread.join(10)
    assert asked == {"127.0.0.1"}


def test_overrides_take_the_place_of_the_file(tmp_path: Path) -> None:
    with cloud(tmp_path, found) as google:
        spec = google.fleet().model_copy(update={"providers": {}})
        told = refusal(lambda: gcp.connect(spec, {}, google.clock))
        assert "no project of Google Cloud is named" in str(told)
        overrides = {
            "project": "my-project",
            "credentials_file": str(google.key_file),
            "endpoint": f"{google.server.url}/compute/v1/",
        }
        assert gcp.connect(spec, overrides, google.clock).find(machine(), ZONE)


# Errors of requests


@pytest.mark.parametrize(
    ("status", "reason", "kind", "hint"),
    [
        (400, "invalid", errors.InvalidRequest, "fleet file"),
        (400, "badRequest", errors.InvalidRequest, "fleet file"),
        (401, "authError", errors.AuthError, "gcloud auth"),
        (403, "forbidden", errors.Forbidden, "roles/compute.instanceAdmin.v1"),
        (403, "accessNotConfigured", errors.Forbidden, "gcloud services enable compute.googleapis.com"),
        (403, "SERVICE_DISABLED", errors.Forbidden, "gcloud services enable compute.googleapis.com"),
        (403, "quotaExceeded", errors.QuotaExceeded, "fallback_zones"),
        (403, "rateLimitExceeded", errors.RateLimited, "Wait a minute"),
        (404, "notFound", errors.NotFound, ""),
        (409, "alreadyExists", errors.Conflict, ""),
        (412, "conditionNotMet", errors.Conflict, ""),
        (400, "resourceNotReady", errors.Conflict, "come to rest"),
        (400, "resourceInUseByAnotherResource", errors.Conflict, ""),
        (429, "tooMany", errors.RateLimited, "Wait a minute"),
        (500, "internalError", errors.Unavailable, ""),
        (503, "backendError", errors.Unavailable, ""),
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED", errors.OutOfStock, "fallback_zones"),
    ],
)
def test_what_an_error_answer_means(
    status: int, reason: str, kind: type[errors.FleetError], hint: str
) -> None:
    body = {
        "error": {
            "code": status,
            "message": "So it is.",
            "errors": [{"reason": reason, "message": "So it is."}],
        }
    }
    told = gcp_api.error_of(status, body, "doing it")
    assert type(told) is kind
    assert told.code == reason
    assert told.what == "doing it: So it is"
    assert hint in (told.hint or "")


@pytest.mark.parametrize("body", [{}, {"error": "text"}, {"error": {"errors": ["x"]}}, {"error": {}}])
def test_an_error_answer_of_any_shape_is_an_error(body: dict[str, Any]) -> None:
    told = gcp_api.error_of(502, body, "doing it")
    assert isinstance(told, errors.Unavailable)
    assert str(told).startswith("doing it: HTTP 502")


def test_a_rate_limit_is_waited_out(tmp_path: Path) -> None:
    answers = [error(403, "rateLimitExceeded")] * 3 + [Answer(200, raw_instance("galena"))]
    with cloud(tmp_path, routes({GALENA: answers})) as google:
        ask(google)
        assert len(google.clock.slept) == 3


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with cloud(tmp_path, routes({GALENA: error(403, "forbidden")})) as google:
        assert isinstance(refusal(lambda: ask(google)), errors.Forbidden)
        assert len(google.requests) == 1


def test_what_looks_like_a_token_is_not_repeated(tmp_path: Path) -> None:
    leak = error(400, "invalid", "Bad header Authorization: Bearer ya29.abcdefghijklmnop")
    with cloud(tmp_path, routes({GALENA: leak})) as google:
        assert "ya29" not in str(refusal(lambda: ask(google)))


# Errors of operations


def failed(code: str, message: str = "So it is.", **more: Any) -> dict[str, Any]:
    return {
        "name": "op",
        "status": "DONE",
        "httpErrorStatusCode": 400,
        "error": {"errors": [{"code": code, "message": message, **more}]},
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", errors.OutOfStock),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", errors.OutOfStock),
        ("insufficientCapacity", errors.OutOfStock),
        ("UNSUPPORTED_OPERATION", errors.OutOfStock),
        ("QUOTA_EXCEEDED", errors.QuotaExceeded),
        ("RESOURCE_NOT_READY", errors.Conflict),
        ("RESOURCE_ALREADY_EXISTS", errors.Conflict),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", errors.RateLimited),
        ("RESOURCE_NOT_FOUND", errors.NotFound),
        ("INTERNAL_ERROR", errors.OperationFailed),
    ],
)
def test_what_the_error_of_an_operation_means(code: str, kind: type[errors.FleetError]) -> None:
    told = gcp_api.operation_error(failed(code), "to make it")
    assert type(told) is kind
    assert told is not None and told.code == code


def test_an_operation_without_error_has_none() -> None:
    assert gcp_api.operation_error({"status": "DONE"}, "to make it") is None


def test_of_several_errors_the_one_that_decides_is_told() -> None:
    both = failed("INTERNAL_ERROR")
    both["error"]["errors"].append({"code": "QUOTA_EXCEEDED", "message": "Too much."})
    assert isinstance(gcp_api.operation_error(both, "to make it"), errors.QuotaExceeded)


def test_an_operation_that_failed_without_saying_why() -> None:
    told = gcp_api.operation_error({"httpErrorStatusCode": 500, "httpErrorMessage": "BAD"}, "to make it")
    assert isinstance(told, errors.OperationFailed)
    assert "BAD" in str(told)


def test_a_quota_says_which_how_much_and_whether_elsewhere_helps() -> None:
    def told(name: str) -> errors.FleetError:
        info = {"metricName": "compute.googleapis.com/x", "limitName": name, "limit": 1}
        found = gcp_api.operation_error(
            failed("QUOTA_EXCEEDED", "Quota exceeded.", errorDetails=[{"quotaInfo": info}]), "to make it"
        )
        assert isinstance(found, errors.QuotaExceeded)
        return found

    regional = told("NVIDIA-T4-GPUS-per-project-region")
    assert "quota NVIDIA-T4-GPUS-per-project-region, limit 1" in str(regional)
    assert "fallback_zones" in str(regional)
    everywhere = told("GPUS-ALL-REGIONS-per-project")
    assert "another zone does not help" in str(everywhere)
