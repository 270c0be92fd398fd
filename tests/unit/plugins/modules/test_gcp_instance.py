# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gcp_instance: its documentation, and what it says without a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_api
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import GcpMachine
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_one import (
    Wish,
    declared,
    predict,
)
from ansible_collections.gpumesh.fleet.plugins.modules import gcp_instance
from ansible_collections.gpumesh.fleet.tests.compute import PROJECT, ZONE, cloud, error, write_key
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, closed_port
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

BOOT = FirstBoot("admin", ("ssh-ed25519 AAAA me",))
OURS = {"gpumesh-fleet": "standalone", "gpumesh-machine": "a"}
THERE: dict[str, Any] = {
    "state": "started",
    "type": "n1-standard-8",
    "zone": ZONE,
    "gpu": "1 x t4",
    "labels": {"purpose": "build", **OURS},
}
GONE = {"state": "absent"}
T4 = {"type": "n1-standard-8", "gpu": {"model": "t4", "count": 1}}


def wish(state: str = "present", machine: dict[str, Any] | None = None, **given: Any) -> Wish:
    plain: dict[str, Any] = {"labels": None, "boot": BOOT, "zones": (ZONE,), **given}
    return Wish("a", "standalone", state, machine=machine or {}, **plain)


def foretold(wanted: Wish, before: dict[str, Any]) -> dict[str, Any]:
    return predict(wanted, declared(wanted), before)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GCP_PROJECT", "GCP_ENDPOINT", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(gcp_api, "_GCE_PRODUCT", tmp_path / "product_name")


def test_the_documentation_is_yaml_and_has_its_parts() -> None:
    documentation = yaml.safe_load(gcp_instance.DOCUMENTATION)
    assert documentation["module"] == "gcp_instance"
    assert yaml.safe_load(gcp_instance.EXAMPLES) and yaml.safe_load(gcp_instance.RETURN)


def test_its_defaults_are_those_of_the_fleet_file() -> None:
    for name, option in gcp_instance.MACHINE.items():
        field = GcpMachine.model_fields[name]
        assert option.get("default") == (None if field.is_required() else field.default), name


def test_without_credentials_it_says_how_to_sign_in() -> None:
    result = run_module(gcp_instance.main, name="a", zone=ZONE, project=PROJECT)
    assert result["failed"]
    assert result["failure"]["kind"] == "AuthError"
    assert "gcloud auth application-default login" in result["msg"]
    assert "Traceback" not in str(result)


def test_without_a_project_it_says_so() -> None:
    result = run_module(gcp_instance.main, name="a", zone=ZONE)
    assert "no project of Google Cloud is named" in result["msg"]


def test_settings_are_found_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cloud(tmp_path, lambda _: error(403, "forbidden", "Not you.")) as google:
        monkeypatch.setenv("GCP_PROJECT", PROJECT)
        monkeypatch.setenv("GCP_ENDPOINT", f"{google.server.url}/compute/v1")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(google.key_file))
        result = run_module(gcp_instance.main, name="a", zone=ZONE)
    assert result["failure"]["kind"] == "Forbidden"
    assert result["failure"]["code"] == "forbidden"
    assert "Not you" in result["msg"]
    assert "ya29" not in str(result) and "PRIVATE KEY" not in str(result)


def test_an_answer_that_is_not_googles_is_reported_as_such(tmp_path: Path) -> None:
    with cloud(tmp_path, lambda _: Answer(404, "<html>")) as google:
        result = run_module(
            gcp_instance.main,
            name="a",
            zone=ZONE,
            type="e2-standard-8",
            ssh_keys=["ssh-ed25519 AAAA me"],
            project=PROJECT,
            credentials_file=str(google.key_file),
            endpoint=f"{google.server.url}/compute/v1",
        )
    assert result["failed"] and "HTTP 404" in result["msg"]
    assert "Traceback" not in str(result)


def test_a_token_service_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = write_key(tmp_path, f"http://127.0.0.1:{closed_port()}/token")
    monkeypatch.setattr(gcp_api.http.RetryPolicy, "repeats_failure", lambda *_: False)
    result = run_module(gcp_instance.main, name="a", zone=ZONE, project=PROJECT, credentials_file=str(key))
    assert result["failure"]["kind"] == "Unreachable"


@pytest.mark.parametrize(
    ("wanted", "before", "after"),
    [
        (wish(), THERE, THERE),
        (wish(machine=T4), THERE, THERE),
        (wish(machine={**T4, "image": "ubuntu-24.04"}), THERE, THERE),
        (wish("stopped"), THERE, {**THERE, "state": "stopped"}),
        (wish(), {**THERE, "state": "stopped"}, {**THERE, "state": "stopped"}),
        (wish("started"), {**THERE, "state": "stopped"}, THERE),
        (wish("absent"), THERE, GONE),
        (wish("absent"), GONE, GONE),
        (wish(labels={}), THERE, {**THERE, "labels": OURS}),
        (wish(labels={"b": "2"}), THERE, {**THERE, "labels": {"b": "2", **OURS}}),
        (wish(machine=T4, labels={"purpose": "build"}), GONE, THERE),
        (wish("stopped", machine=T4), GONE, {**THERE, "state": "stopped", "labels": OURS}),
        (
            wish(machine={"type": "g2-standard-8"}),
            GONE,
            {**THERE, "type": "g2-standard-8", "gpu": "1 x l4", "labels": OURS},
        ),
    ],
)
def test_what_will_be(wanted: Wish, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert foretold(wanted, before) == after


@pytest.mark.parametrize(
    ("wanted", "before", "words"),
    [
        (wish(), GONE, "type must be given"),
        (wish(machine=T4, boot=FirstBoot("admin", ())), GONE, "without ssh_keys nobody could log in"),
        (
            wish(machine={"type": "n1-standard-4"}),
            THERE,
            "its type is n1-standard-8, and n1-standard-4 is asked for",
        ),
        (wish(machine={"type": "n1-standard-8"}), THERE, "its gpu is 1 x t4, and none is asked for"),
        (wish(machine={**T4, "gpu": {"model": "a100"}}), GONE, "cannot take an A100"),
        (wish(machine={"type": "cx33", "disk_gb": 1}), GONE, "disk_gb"),
        (wish(machine={"type": "cx33", "disk_gb": 1}), GONE, "cx33 is not a Google machine type"),
        (wish(machine=T4, labels={"Big": "x"}), GONE, "label key 'Big'"),
        (wish(machine=T4, labels={"gpumesh-fleet": "x"}), GONE, "gpumesh-"),
        (wish(machine=T4, boot=FirstBoot("admin", ("k",), user_data="#cloud-config")), GONE, "no cloud-init"),
    ],
)
def test_what_cannot_be(wanted: Wish, before: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequest) as told:
        foretold(wanted, before)
    assert words in str(told.value)
    assert told.value.machine == "a"
