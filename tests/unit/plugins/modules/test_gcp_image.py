# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gcp_image: its documentation, and what it says without a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
    gcp_api,
    gcp_image,
    gcp_image_work,
)
from ansible_collections.gpumesh.fleet.plugins.modules import gcp_image as module
from ansible_collections.gpumesh.fleet.tests.compute import PROJECT, cloud, document, error
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "GCP_PROJECT",
        "GCP_ENDPOINT",
        "GCP_STORAGE_ENDPOINT",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(gcp_api, "_GCE_PRODUCT", tmp_path / "product_name")


def test_the_documentation_is_yaml_and_has_its_parts() -> None:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == "gcp_image"
    assert yaml.safe_load(module.EXAMPLES) and yaml.safe_load(module.RETURN)
    assert documentation["options"]["guest_os_features"]["choices"] == module.FEATURES
    notes = " ".join(documentation["notes"])
    for feature in gcp_image.FEATURES:
        assert f"V({feature})" in notes


def test_the_features_are_googles() -> None:
    known = document()["schemas"]["GuestOsFeature"]["properties"]["type"]["enum"]
    assert set(gcp_image.FEATURES) <= set(module.FEATURES) <= set(known)


def test_without_credentials_it_says_how_to_sign_in() -> None:
    result = run_module(module.main, name="a", project=PROJECT)
    assert result["failure"]["kind"] == "AuthError"
    assert "gcloud auth application-default login" in result["msg"]


def test_without_a_project_it_says_so() -> None:
    assert "no project of Google Cloud is named" in run_module(module.main, name="a")["msg"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "golden:gpu-box"}, "has no version"),
        ({"name": "a", "labels": {"Version": "1"}}, "the label Version: 1 is not valid"),
        ({"name": "a", "state": "deprecated"}, "cannot be deprecated"),
        ({"name": "a", "bucket": "images"}, "source must be given"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with cloud(tmp_path, lambda _: error(404, "notFound")) as google:
        result = run_module(
            module.main,
            project=PROJECT,
            credentials_file=str(google.key_file),
            endpoint=f"{google.server.url}/compute/v1",
            storage_endpoint=google.server.url,
            **given,
        )
    assert result["failed"] and said in result["msg"], result
    assert "Traceback" not in str(result)


def test_settings_are_found_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cloud(tmp_path, lambda _: error(403, "forbidden", "Not you.")) as google:
        monkeypatch.setenv("GCP_PROJECT", PROJECT)
        monkeypatch.setenv("GCP_ENDPOINT", f"{google.server.url}/compute/v1")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(google.key_file))
        result = run_module(module.main, name="a", state="absent")
    assert result["failure"]["kind"] == "Forbidden" and "Not you" in result["msg"]
    assert "ya29" not in str(result) and "PRIVATE KEY" not in str(result)


def test_what_the_token_is_for(tmp_path: Path) -> None:
    with cloud(tmp_path, lambda _: error(404, "notFound")) as google:
        api, _storage = gcp_image_work.connect(
            {"project": PROJECT, "credentials_file": str(google.key_file)}, google.clock
        )
    scopes = api._signed._credentials.google.scopes
    # No more than it takes: neither cloud-platform nor devstorage.full_control.
    assert {scope.rpartition("/")[2] for scope in scopes} == {"compute", "devstorage.read_write"}
