# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with an identity made beforehand is in the mesh before anybody has connected to it. ZeroTier is SIMULATED."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import hcloud
import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import addresses
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot, new_host_key
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.identity import parse
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh_birth import MeshBirth, Repository
from hcloud.images import Image
from hcloud.server_types import ServerType

from sandbox.backends.container import ContainerBackend
from sandbox.packages import signing_key
from sandbox.testing import Sandbox, serve
from sandbox.zerotier_account import NETWORK
from sandbox.zerotier_root import PORT_ABOVE
from tests.integration.sandbox.test_container_backend import Ssh

pytestmark = [pytest.mark.integration, pytest.mark.docker]
GATEWAY = "10.77.0.1"
OPERATOR = "c0ffee1234"
IDENTITY = parse((Path(__file__).parents[1] / "fixtures/zerotier/identities/node.secret").read_text())
ADDRESS = str(addresses.rfc4193(NETWORK, IDENTITY.node_id).ip)
HOME = "/var/lib/zerotier-one"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    image = ["docker", "image", "inspect", "gpumesh/host:debian-13"]
    try:
        subprocess.run(image, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")
    with serve(ContainerBackend(f"birth{uuid.uuid4().hex[:8]}")) as running:
        yield running


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    return Ssh(tmp_path, (tmp_path / "id.pub").read_text().strip())


def authorise(sandbox: Sandbox, *nodes: str) -> None:
    """Let nodes into the network, which computes their addresses."""
    network = f"{sandbox.zerotier}/network/{NETWORK}"
    with requests.Session() as session:
        session.headers["Authorization"] = f"token {sandbox.zerotier_token}"
        mode = {"v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False}}
        session.post(network, json={"config": mode}, timeout=10).raise_for_status()
        for node in nodes:
            member = session.post(
                f"{network}/member/{node}", json={"config": {"authorized": True}}, timeout=10
            )
            member.raise_for_status()


def test_the_first_connection_to_a_machine_is_over_the_mesh(sandbox: Sandbox, ssh: Ssh) -> None:
    port = int(sandbox.url.rpartition(":")[2]) + PORT_ABOVE
    key = signing_key(sandbox.state_dir).public()
    birth = MeshBirth(
        NETWORK, IDENTITY, Repository(f"http://{GATEWAY}:{port}/zerotier/debian", key, "1.14.*"), "trixie"
    )
    planted = new_host_key()
    boot = FirstBoot("admin", (ssh.public,), planted, "packages: [jq]\n", birth)
    authorise(sandbox, IDENTITY.node_id, OPERATOR)
    operator = requests.post(
        f"{sandbox.url}/zerotier/simulation/operator",
        json={"node_id": OPERATOR, "network": NETWORK},
        headers={"Authorization": f"Bearer {sandbox.token}"},
        timeout=30,
    )
    operator.raise_for_status()

    cloud = hcloud.Client(
        sandbox.hetzner_token, api_endpoint=sandbox.hetzner, poll_interval=0.05, timeout=120
    )
    created = cloud.servers.create(
        "newborn", ServerType(name="cx23"), Image(name="debian-13"), user_data=boot.cloud_config()
    )
    created.action.wait_until_finished()

    # Its address was known before it existed, and so was its host key. Nothing else of it is needed.
    assert ssh.wait(ADDRESS, planted.public, "hostname") == "newborn\n"
    assert ssh.wait(ADDRESS, planted.public, "cloud-init status --wait") == "status: done\n"
    assert f"200 info {IDENTITY.node_id} " in ssh.wait(ADDRESS, planted.public, "sudo zerotier-cli info")
    status = f"sudo zerotier-cli get {NETWORK} status"
    assert ssh.wait(ADDRESS, planted.public, status) == "OK\n"
    files = f"sudo stat -c '%a %n' {HOME}/identity.secret {HOME}/identity.public"
    assert ssh.wait(ADDRESS, planted.public, files) == (
        f"600 {HOME}/identity.secret\n644 {HOME}/identity.public\n"
    )
    assert ssh.wait(ADDRESS, planted.public, f"sudo cat {HOME}/identity.public") == IDENTITY.public
    # What was told is what cloud-init knows, from the signed repository, and the user's own package came along.
    assert ssh.wait(ADDRESS, planted.public, "sudo cloud-init schema --system").startswith("Valid schema")
    assert "Pin-Priority: 1001" in ssh.wait(
        ADDRESS, planted.public, "cat /etc/apt/preferences.d/gpumesh-zerotier.pref"
    )
    policy = ssh.wait(ADDRESS, planted.public, "apt-cache policy zerotier-one; command -v jq")
    assert f"500 http://{GATEWAY}:{port}/zerotier/debian/trixie trixie/main" in policy
    assert re.search(r"^ \*\*\* 1\.14\.\d+ 1001$", policy, re.MULTILINE)
    assert policy.endswith("/usr/bin/jq\n")
    # Only root can read what was told.
    for path in ("/var/lib/cloud/instance/user-data.txt", f"{HOME}/identity.secret"):
        assert ssh.run(ADDRESS, planted.public, f"cat {path}").returncode != 0
