# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of Compute Engine made from golden images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_wire
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import GcpMachine
from ansible_collections.gpumesh.fleet.tests.compute import (
    BOOT,
    FLEET,
    PROJECT,
    ZONE,
    check_body,
    cloud,
    error,
    machine,
    raw_instance,
    routes,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer
from pydantic import ValidationError

GOLDEN = "golden:gpu-box@1.2.0"
IMAGE = "GET global/images/gpu-box-v1-2-0"
READY: dict[str, Any] = {
    "name": "gpu-box-v1-2-0",
    "status": "READY",
    "diskSizeGb": "4",
    "architecture": "X86_64",
    "labels": {"gpumesh-image": "gpu-box", "gpumesh-image-version": "1-2-0"},
}


def golden(name: str = "galena", **given: Any) -> GcpMachine:
    return machine(name, **{"image": GOLDEN, **given})


def body(of: GcpMachine) -> dict[str, Any]:
    return gcp_wire.insert_body(of, ZONE, BOOT, fleet=FLEET, project=PROJECT, tags=())


def test_the_request_names_the_image_of_the_project_and_says_what_it_is() -> None:
    sent = body(golden())
    check_body("Instance", sent)
    assert sent["disks"][0]["initializeParams"]["sourceImage"] == (
        f"projects/{PROJECT}/global/images/gpu-box-v1-2-0"
    )
    assert sent["labels"]["gpumesh-image"] == "gpu-box"
    assert sent["labels"]["gpumesh-image-version"] == "1-2-0"
    # Ours has cloud-init, so nothing has to stand in for it.
    assert {item["key"] for item in sent["metadata"]["items"]} >= {"user-data", "ssh-keys"}
    assert "startup-script" not in {item["key"] for item in sent["metadata"]["items"]}


def test_secure_boot_is_on_where_no_module_of_dkms_is_needed() -> None:
    assert body(golden())["shieldedInstanceConfig"]["enableSecureBoot"] is True
    with_gpu = body(golden(type="n1-standard-8", gpu={"model": "t4", "count": 1}))
    assert with_gpu["shieldedInstanceConfig"] == {
        "enableSecureBoot": False,
        "enableVtpm": True,
        "enableIntegrityMonitoring": True,
    }


def test_user_data_is_taken() -> None:
    assert golden(user_data="x.yml").has_cloud_init


@pytest.mark.parametrize("image", ["golden:gpu-box", "golden:gpu-box@latest", "golden:Box@1.0.0"])
def test_a_golden_image_is_named_with_its_version(image: str) -> None:
    with pytest.raises(ValidationError, match=r"golden:\S+@1\.2\.0"):
        golden(image=image)


def test_an_instance_says_what_it_was_made_from_and_so_never_drifts() -> None:
    labels = body(golden())["labels"]
    found = gcp_wire.instance(raw_instance("galena", labels=labels))
    assert found.image == golden().image
    assert gcp_wire.instance(raw_instance("galena")).image is None


def test_each_image_is_asked_for_once(tmp_path: Path) -> None:
    labelled = {**READY, "labels": {**READY["labels"], "gpumesh-image-os": "ubuntu-24-04"}}
    with cloud(tmp_path, routes({IMAGE: Answer(200, labelled)})) as google:
        found = google.connect().golden([golden("a"), golden("b"), machine("c")])
    assert found == {"a": "ubuntu-24.04", "b": "ubuntu-24.04"} and google.calls == [IMAGE]


def test_an_image_need_not_say_what_system_it_has(tmp_path: Path) -> None:
    with cloud(tmp_path, routes({IMAGE: Answer(200, READY)})) as google:
        assert google.connect().golden([golden("a")]) == {"a": ""}


def test_an_image_that_is_not_published_is_named_with_the_command_that_does_it(tmp_path: Path) -> None:
    with cloud(tmp_path, routes({})) as google, pytest.raises(errors.NotFound) as refused:
        google.connect().golden([golden("a")])
    told = str(refused.value)
    assert told.startswith("a: ") and GOLDEN in told and "playbooks/image_publish.yml" in told
    assert "golden_image_version=1.2.0" in told


@pytest.mark.parametrize(
    ("changed", "given", "kind", "said"),
    [
        ({"status": "PENDING"}, {}, errors.Conflict, "it is PENDING"),
        ({"status": "FAILED"}, {}, errors.Conflict, "it is FAILED"),
        ({"deprecated": {"state": "OBSOLETE"}}, {}, errors.Conflict, "it is OBSOLETE"),
        ({"labels": {}}, {}, errors.Conflict, "labels do not say so"),
        ({"diskSizeGb": "30"}, {}, errors.InvalidRequest, "Set disk_gb to 30 or more"),
        ({}, {"type": "t2a-standard-4"}, errors.InvalidRequest, "is for X86_64"),
    ],
)
def test_an_image_that_does_not_fit(
    tmp_path: Path, changed: dict[str, Any], given: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with (
        cloud(tmp_path, routes({IMAGE: Answer(200, {**READY, **changed})})) as google,
        pytest.raises(kind, match=said),
    ):
        google.connect().golden([golden("a", **given)])


def test_a_deprecated_version_can_still_be_used_by_whoever_names_it(tmp_path: Path) -> None:
    old = {**READY, "deprecated": {"state": "DEPRECATED"}}
    with cloud(tmp_path, routes({IMAGE: Answer(200, old)})) as google:
        assert google.connect().golden([golden("a")]) == {"a": ""}


def test_a_create_whose_image_is_gone_says_how_to_publish_it(tmp_path: Path) -> None:
    gone = error(
        404, "notFound", f"The resource 'projects/{PROJECT}/global/images/gpu-box-v1-2-0' was not found"
    )
    answers = routes({f"POST zones/{ZONE}/instances": gone})
    with cloud(tmp_path, answers) as google, pytest.raises(errors.NotFound, match=r"image_publish\.yml"):
        google.connect(golden()).create(golden(), ZONE, BOOT)
