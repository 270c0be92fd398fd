# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet machine with ``image: golden:NAME@VERSION``: resolved before anything is bought, and never a change afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_server
from ansible_collections.gpumesh.fleet.tests.fleets import PUBLIC_KEY, hetzner, run_module, write_fleet
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module as run_other

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

IMAGE = "golden:gpu-box@1.2.0"


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.reset()
    return running


def call(sandbox: Sandbox, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {sandbox.hetzner_token}"}
    answer = requests.request(method, f"{sandbox.hetzner}{path}", json=body, headers=headers, timeout=10)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def publish(sandbox: Sandbox, version: str = "1.2.0", server_type: str = "cx23", **labels: str) -> int:
    """A snapshot, as hetzner_image labels it; its number."""
    body = {"name": f"m{version}-{server_type}", "server_type": server_type, "image": "debian-13"}
    server = call(sandbox, "POST", "/servers", body)["server"]["id"]
    while call(sandbox, "GET", f"/servers/{server}")["server"]["locked"]:
        pass
    given = {"gpumesh-image": "gpu-box", "gpumesh-image-version": version, "gpumesh-image-os": "debian-13"}
    image = call(sandbox, "POST", f"/servers/{server}/actions/create_image", {"labels": {**given, **labels}})[
        "image"
    ]["id"]
    while call(sandbox, "GET", f"/images/{image}")["image"]["status"] != "available":
        pass
    call(sandbox, "DELETE", f"/servers/{server}")
    return int(image)


def test_a_machine_is_made_from_the_snapshot_and_stays_as_declared(sandbox: Sandbox, tmp_path: Path) -> None:
    image = publish(sandbox)
    publish(sandbox, "1.3.0")
    write_fleet(tmp_path, sandbox, {"opal": hetzner(image=IMAGE)})
    made = run_module(tmp_path, state="applied", approve=True)
    assert made["changed"], made
    assert call(sandbox, "GET", "/servers")["servers"][0]["image"]["id"] == image
    assert made["machines"]["opal"]["image"] == IMAGE
    again = run_module(tmp_path, state="applied", approve=True)
    assert not again["changed"]
    assert [change["action"] for change in again["plan"]] == ["keep"]


def test_a_machine_of_another_version_differs(sandbox: Sandbox, tmp_path: Path) -> None:
    publish(sandbox)
    publish(sandbox, "1.3.0")
    write_fleet(tmp_path, sandbox, {"opal": hetzner(image=IMAGE)})
    run_module(tmp_path, state="applied", approve=True)
    write_fleet(tmp_path, sandbox, {"opal": hetzner(image="golden:gpu-box@1.3.0")})
    [drift] = run_module(tmp_path, state="planned")["plan"]
    assert (drift["action"], drift["before"], drift["after"]) == (
        "drift",
        {"image": IMAGE},
        {"image": "golden:gpu-box@1.3.0"},
    )


def test_a_machine_outlives_its_snapshot(sandbox: Sandbox, tmp_path: Path) -> None:
    image = publish(sandbox)
    write_fleet(tmp_path, sandbox, {"opal": hetzner(image=IMAGE)})
    run_module(tmp_path, state="applied", approve=True)
    call(sandbox, "DELETE", f"/images/{image}")
    [keep] = run_module(tmp_path, state="planned")["plan"]
    assert keep["action"] == "keep"


@pytest.mark.parametrize(
    ("there", "fields", "said"),
    [
        ([], {}, "there is no golden image in the project"),
        ([{"version": "1.1.0"}, {"version": "1.3.0"}], {}, "there is golden:gpu-box@1.1.0, golden:gpu-box@1.3.0"),
        ([{}, {}], {}, "2 snapshots of Hetzner Cloud claim to be golden:gpu-box@1.2.0"),
        ([{}], {"type": "cax11"}, "no snapshot that is golden:gpu-box@1.2.0 for arm"),
        ([{"server_type": "cx33"}], {}, "needs a disk of 80 GB, and a cx23 has 40 GB"),
        ([{}], {"type": "cx99"}, "no server type cx99"),
    ],
)  # fmt: skip
def test_nothing_is_bought_where_an_image_is_not_there(
    sandbox: Sandbox, tmp_path: Path, there: list[dict[str, str]], fields: dict[str, str], said: str
) -> None:
    for snapshot in there:
        publish(sandbox, **snapshot)
    write_fleet(tmp_path, sandbox, {"agate": hetzner(), "opal": hetzner(image=IMAGE, **fields)})
    bought = sandbox.requests(service="hetzner", method="POST", path="/servers$")
    planned = run_module(tmp_path, state="planned")
    assert said in planned["refusal"]
    refused = run_module(tmp_path, state="applied", approve=True)
    assert refused["failed"]
    assert said in refused["msg"] and "opal" in refused["msg"]
    assert sandbox.requests(service="hetzner", method="POST", path="/servers$") == bought


def test_a_form_nobody_knows_is_a_problem_of_the_file(sandbox: Sandbox, tmp_path: Path) -> None:
    write_fleet(tmp_path, sandbox, {"opal": hetzner(image="golden:gpu-box@latest")})
    refused = run_module(tmp_path, state="planned")
    assert "opal image: golden:gpu-box@latest would be another image tomorrow" in refused["msg"]


def test_one_server_may_have_the_newest(sandbox: Sandbox) -> None:
    publish(sandbox, "1.9.0")
    newest = publish(sandbox, "1.10.0")
    made = run_other(
        hetzner_server.main,
        name="build-1",
        token=sandbox.hetzner_token,
        endpoint=sandbox.hetzner,
        type="cx23",
        location="fsn1",
        image="golden:gpu-box@latest",
        ssh_keys=[PUBLIC_KEY],
    )
    assert made["server"]["image"] == "golden:gpu-box@1.10.0", made
    assert call(sandbox, "GET", "/servers")["servers"][0]["image"]["id"] == newest
