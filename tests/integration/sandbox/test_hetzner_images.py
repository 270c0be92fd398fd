# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and the rescue system of the local Hetzner Cloud: by the hcloud library, and by the API's description."""

from __future__ import annotations

import base64

import hcloud
import pytest
import requests
from hcloud.images import Image
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer

from sandbox.testing import Sandbox
from tests.integration.sandbox.contract import Contract

pytestmark = pytest.mark.integration
KEY = "ssh-ed25519 " + base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(32)).decode()


@pytest.fixture
def server(cloud: hcloud.Client) -> BoundServer:
    answer = cloud.servers.create("a", ServerType(name="cx33"), Image(name="debian-13"))
    for action in (answer.action, *answer.next_actions):
        action.wait_until_finished()
    return cloud.servers.get_by_id(answer.server.id)


def test_a_snapshot_is_found_by_its_labels_and_makes_servers(
    cloud: hcloud.Client, server: BoundServer
) -> None:
    answer = server.create_image(description="golden", labels={"a": "1"})
    assert answer.image.status == "creating"
    answer.action.wait_until_finished()
    [found] = cloud.images.get_all(type="snapshot", label_selector="a==1")
    assert (found.id, found.status, found.description) == (answer.image.id, "available", "golden")
    assert (found.name, found.disk_size, found.created_from.id) == (None, 80, server.id)
    assert found.image_size > 0
    assert cloud.images.get_all(type="snapshot", label_selector="a==2") == []
    found.update(description="other", labels={"a": "2"})
    assert [one.description for one in cloud.images.get_all(label_selector="a==2")] == ["other"]

    made = cloud.servers.create("b", ServerType(name="cx33"), found)
    made.action.wait_until_finished()
    with pytest.raises(hcloud.APIException, match="'image'"):
        cloud.servers.create("c", ServerType(name="cx23"), found)
    found.delete()
    assert cloud.images.get_all(type="snapshot") == []
    image = cloud.servers.get_by_name("b").image
    assert image.labels == {"a": "2"}
    with pytest.raises(hcloud.APIException) as refused:
        cloud.images.get_by_id(found.id)
    assert refused.value.code == "not_found"


def test_a_snapshot_that_fails_leaves_nothing(
    cloud: hcloud.Client, sandbox: Sandbox, server: BoundServer
) -> None:
    sandbox.fault(kind="failed_operation", service="hetzner", name="a")
    answer = server.create_image()
    with pytest.raises(hcloud.actions.ActionFailedException):
        answer.action.wait_until_finished()
    assert cloud.images.get_all(type="snapshot") == []
    server.create_image().action.wait_until_finished()


def test_the_rescue_system_is_started_once(cloud: hcloud.Client, server: BoundServer) -> None:
    key = cloud.ssh_keys.create("me", KEY)
    answer = server.enable_rescue("linux64", [key.id])
    assert answer.root_password
    answer.action.wait_until_finished()
    assert cloud.servers.get_by_id(server.id).rescue_enabled
    server.reset().wait_until_finished()
    assert not cloud.servers.get_by_id(server.id).rescue_enabled
    server.enable_rescue("linux64", [key.id]).action.wait_until_finished()
    server.disable_rescue().wait_until_finished()
    assert not cloud.servers.get_by_id(server.id).rescue_enabled


def test_what_is_said_is_as_described(
    api: requests.Session, sandbox: Sandbox, server: BoundServer, hetzner_contract: Contract
) -> None:
    problems: list[str] = []
    seen = len(hetzner_contract.seen)

    def say(method: str, path: str, body: object = None) -> requests.Response:
        answer = api.request(method, f"{sandbox.hetzner}{path}", json=body, timeout=30)
        problems.extend(hetzner_contract.problems(answer.request, answer))
        return answer

    key = say("POST", "/ssh_keys", {"name": "me", "public_key": KEY}).json()["ssh_key"]["id"]
    action = say(
        "POST", f"/servers/{server.id}/actions/enable_rescue", {"type": "linux64", "ssh_keys": [key]}
    )
    assert action.status_code == 201
    while say("GET", f"/servers/{server.id}").json()["server"]["locked"]:
        pass
    made = say(
        "POST", f"/servers/{server.id}/actions/create_image", {"type": "snapshot", "labels": {"a": "b"}}
    )
    image = made.json()["image"]["id"]
    while say("GET", f"/images/{image}").json()["image"]["status"] == "creating":
        pass
    say("POST", f"/servers/{server.id}/actions/disable_rescue")
    say("GET", "/images?type=snapshot&label_selector=a==b")
    say("PUT", f"/images/{image}", {"description": "x", "labels": {}})
    assert say("DELETE", f"/images/{image}").status_code == 204
    assert say("DELETE", f"/images/{310557660}").status_code == 403
    assert problems == []
    assert len(hetzner_contract.seen) > seen
