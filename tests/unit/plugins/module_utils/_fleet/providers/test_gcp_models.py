# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet file may say about Compute Engine."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import (
    GcpMachine,
    GcpSettings,
    seconds,
)
from ansible_collections.gpumesh.fleet.tests.compute import ZONE, machine
from pydantic import ValidationError


def test_the_registry_knows_it() -> None:
    kind = KINDS["gcp"]
    assert (kind.machine_model, kind.settings_model) == (GcpMachine, GcpSettings)
    assert kind.connect is not None
    assert not kind.plants_host_key


def test_the_machines_of_the_readme() -> None:
    galena = machine("galena", type="e2-standard-8")
    assert galena.gpus == (None, 0)
    scheelite = machine(
        "scheelite",
        type="n1-standard-8",
        fallback_zones=("us-central1-a", "us-central1-b"),
        gpu={"model": "t4", "count": 1},
        idle_stop="2h",
    )
    assert scheelite.zone == ZONE
    assert scheelite.zones == (ZONE, "us-central1-a", "us-central1-b")
    assert scheelite.gpus == ("t4", 1)
    assert scheelite.type_name == "n1-standard-8"


def test_a_type_with_gpus_built_in_names_them_itself() -> None:
    assert machine(type="g2-standard-24").gpus == ("l4", 2)
    assert machine(type="a2-highgpu-1g", gpu={"model": "nvidia-tesla-a100", "count": 1}).gpus == ("a100", 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"type": "n1-standard-8", "gpu": {"model": "a100"}}, "a2-highgpu-1g"),
        ({"type": "n1-standart-8"}, "did you mean n1-standard-8"),
        ({"type": "cx33"}, "not a Google machine type"),
        ({"type": "a2-highgpu-1g", "gpu": {"model": "a100", "count": 2}}, "a2-highgpu-2g"),
        ({"type": "a3-highgpu-1g"}, "spot: true"),
        ({"zone": "us-centrl1-c"}, "did you mean us-central1-c"),
        ({"fallback_zones": (ZONE,)}, "named twice"),
        ({"image": "debian-14"}, "did you mean debian-13"),
        ({"image": "Ubuntu 24.04"}, "did you mean ubuntu-24.04"),
        ({"image": "projects/x/y"}, "not an image known here"),
        ({"labels": {"Team": "x"}}, "label key 'Team'"),
        ({"labels": {"team": "X Y"}}, "value 'X Y' of label team"),
        ({"max_run": "8"}, "90m or 8h"),
        ({"max_run": "10s"}, "30s to 120d"),
        ({"max_run": "121d"}, "30s to 120d"),
        ({"idle_stop": "0h"}, "not a duration"),
        ({"user_data": "x.yml"}, "no cloud-init to run it"),
        ({"service_account": "robot"}, "not the e-mail address"),
        ({"disk_gb": 5}, "greater than or equal to 10"),
        ({"network": "projects/host/global/networks/x"}, "pattern"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        machine(**given)
    (problem,) = refusal.value.errors()
    assert words in problem["msg"]


def test_user_data_is_for_images_with_cloud_init() -> None:
    assert machine(image="ubuntu-24.04", user_data="x.yml").user_data == "x.yml"
    assert machine(image="golden", user_data="x.yml").user_data == "x.yml"


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("90m", 5400), ("8h", 28800), ("120d", 10368000)])
def test_durations(text: str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("project", ["my-project", "example.com:my-project", "sandbox-1"])
def test_project_ids(project: str) -> None:
    assert GcpSettings(project=project).project == project


@pytest.mark.parametrize("project", ["My Project", "12345", "x", "projects/my-project"])
def test_what_is_not_a_project_id(project: str) -> None:
    with pytest.raises(ValidationError, match="not a project id"):
        GcpSettings(project=project)
