# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of the container back end is a real host: reached by verified SSH, stopped, started, removed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hcloud
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import firstboot
from hcloud.images import Image
from hcloud.server_types import ServerType

from sandbox.backends.base import BackendError, Machine
from sandbox.backends.container import ContainerBackend
from sandbox.private import read_token
from sandbox.testing import Sandbox, listen, serve

pytestmark = [pytest.mark.integration, pytest.mark.docker]
PATIENCE = 180
"""Seconds until a host that does not answer has failed; it takes 1 to 3."""


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    try:
        docker("image", "inspect", "gpumesh/host:debian-13")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")


@dataclass
class Ssh:
    """Connects as somebody who knows the host's key beforehand, and nothing else."""

    folder: Path
    public: str

    def run(
        self, address: str, host_key: str, command: str, user: str = "admin"
    ) -> subprocess.CompletedProcess[str]:
        """One attempt."""
        known = self.folder / "known_hosts"
        known.write_text(f"machine {host_key}\n")
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "machine",
            "IdentityFile": str(self.folder / "id"),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run(
            ["ssh", "-F", "none", *words, f"{user}@{address}", command],
            capture_output=True,
            text=True,
            check=False,
        )

    def wait(self, address: str, host_key: str, command: str, user: str = "admin") -> str:
        """The output, once the host answers."""
        limit = time.monotonic() + PATIENCE
        while (done := self.run(address, host_key, command, user)).returncode == 255:
            assert "Host key verification failed" not in done.stderr, done.stderr
            assert time.monotonic() < limit, done.stderr
            time.sleep(0.2)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    return Ssh(tmp_path, (tmp_path / "id.pub").read_text().strip())


@pytest.fixture
def identity() -> str:
    return f"test{uuid.uuid4().hex[:8]}"


@pytest.fixture
def containers(identity: str) -> Iterator[Callable[[], list[str]]]:
    """The sandbox's containers; none may be left at the end."""

    def left() -> list[str]:
        return docker("ps", "--all", "--quiet", f"--filter=label=gpumesh.sandbox={identity}").split()

    yield left
    found = left()
    if found:
        docker("rm", "--force", "--volumes", *found)
    assert found == []


@pytest.fixture
def sandbox(identity: str, containers: Callable[[], list[str]]) -> Iterator[Sandbox]:
    with serve(ContainerBackend(identity)) as running:
        yield running


@pytest.fixture
def cloud(sandbox: Sandbox) -> hcloud.Client:
    return hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner, poll_interval=0.05, timeout=120)


def test_a_created_server_is_a_host_with_a_known_key(
    cloud: hcloud.Client, sandbox: Sandbox, ssh: Ssh, containers: Callable[[], list[str]]
) -> None:
    planted = firstboot.new_host_key()
    user_data = firstboot.FirstBoot("admin", (ssh.public,), planted).cloud_config()
    created = cloud.servers.create(
        "web-1", ServerType(name="cx23"), Image(name="debian-13"), user_data=user_data
    )
    address = created.server.public_net.ipv4.ip
    for action in (created.action, *created.next_actions):
        action.wait_until_finished()

    assert ssh.wait(address, planted.public, "hostname; sudo id -un; cloud-init status --wait") == (
        "web-1\nroot\nstatus: done\n"
    )
    assert ssh.wait(address, planted.public, ". /etc/os-release; echo $ID-$VERSION_ID") == "debian-13\n"
    stranger = firstboot.new_host_key()
    assert "Host key verification failed" in ssh.run(address, stranger.public, "true").stderr
    assert ssh.run(address, planted.public, "true", user="root").returncode != 0
    # What it was told is nowhere but inside it.
    (container,) = containers()
    secret = planted.private.splitlines()[2]
    assert secret not in docker("inspect", container)
    assert (
        secret
        not in subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    )
    seed = "sudo stat -c '%a' /var/lib/cloud/seed/nocloud /var/lib/cloud/seed/nocloud/user-data"
    assert ssh.wait(address, planted.public, seed) == "700\n600\n"

    ssh.wait(address, planted.public, "sudo touch /kept")
    created.server.power_off().wait_until_finished()
    assert sandbox.machines()[0]["running"] is False
    created.server.power_on().wait_until_finished()
    assert ssh.wait(address, planted.public, "ls /kept") == "/kept\n"

    volumes = docker("inspect", "--format={{range .Mounts}}{{.Name}} {{end}}", container).split()
    assert len(volumes) == 1
    created.server.delete().wait_until_finished()
    assert containers() == []
    assert docker("volume", "ls", "--quiet", f"--filter=name={volumes[0]}") == ""


def test_keys_of_the_create_request_are_roots(
    cloud: hcloud.Client, ssh: Ssh, containers: Callable[[], list[str]]
) -> None:
    key = cloud.ssh_keys.create("me", ssh.public)
    created = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13"), ssh_keys=[key])
    for action in (created.action, *created.next_actions):
        action.wait_until_finished()
    (container,) = containers()
    docker("exec", container, "cloud-init", "status", "--wait")
    host_key = docker("exec", container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    assert ssh.wait(created.server.public_net.ipv4.ip, host_key, "id -un", user="root") == "root\n"


def test_a_server_reboots_and_shuts_down_from_inside(
    cloud: hcloud.Client, containers: Callable[[], list[str]]
) -> None:
    created = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13"))
    for action in (created.action, *created.next_actions):
        action.wait_until_finished()
    (container,) = containers()

    def wait_for(condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.1)

    def state() -> list[str]:
        return docker("inspect", "--format={{.State.Running}} {{.State.StartedAt}}", container).split()

    def status() -> str:
        created.server.reload()
        return str(created.server.status)

    def up() -> bool:
        words = ["docker", "exec", container, "systemctl", "is-system-running", "--wait"]
        return "running" in subprocess.run(words, capture_output=True, text=True, check=False).stdout

    _, first = state()
    wait_for(up)
    docker("exec", container, "systemctl", "reboot")
    wait_for(lambda: state()[0] == "true" and state()[1] != first)
    wait_for(up)
    assert status() == "running"
    docker("exec", container, "systemctl", "poweroff")
    wait_for(lambda: status() == "off")
    created.server.power_on().wait_until_finished()
    assert status() == "running"


def test_a_google_image_obeys_its_metadata(
    identity: str, containers: Callable[[], list[str]], ssh: Ssh
) -> None:
    """Accounts from ssh-keys, the startup script at each boot, and host keys the cloud can publish."""
    machine = Machine(
        "gce-1",
        "galena",
        "debian-13",
        startup_script="echo booted >>/booted\n",
        ssh_users={"admin": (ssh.public,)},
        guest_agent=True,
    )

    async def live() -> None:
        backend = ContainerBackend(identity)
        await backend.open()
        try:
            address = backend.reserve(machine.key).ipv4
            assert backend.reserve(machine.key).ipv4 == address
            await backend.create(machine)
            keys: dict[str, str] = {}
            limit = time.monotonic() + PATIENCE
            while not keys:
                assert time.monotonic() < limit
                keys = dict(await backend.host_keys(machine.key))
            assert {"ssh-ed25519", "ssh-rsa"} <= set(keys)
            host_key = f"ssh-ed25519 {keys['ssh-ed25519']}"
            ready = "until [ -e /booted ]; do sleep 0.1; done; sudo id -un; hostname; cat /booted"
            assert await asyncio.to_thread(ssh.wait, address, host_key, ready) == "root\ngalena\nbooted\n"
            await backend.stop(machine.key)
            assert backend.running(machine.key) is False
            assert await backend.host_keys(machine.key) == ()
            await backend.start(machine.key)
            again = "until [ $(wc -l </booted) = 2 ]; do sleep 0.1; done; cat /booted"
            assert await asyncio.to_thread(ssh.wait, address, host_key, again) == "booted\nbooted\n"
            await backend.delete(machine.key)
            await backend.delete(machine.key)
            assert containers() == []
        finally:
            await backend.close()

    asyncio.run(live())


def test_what_an_earlier_run_left_is_removed(identity: str, containers: Callable[[], list[str]]) -> None:
    async def killed_run() -> None:
        backend = ContainerBackend(identity)
        await backend.open()
        backend.reserve("hetzner-1")
        await backend.create(Machine("hetzner-1", "web", "debian-13"))

    async def next_run() -> None:
        backend = ContainerBackend(identity)
        await backend.open()
        assert containers() == []
        await backend.close()

    asyncio.run(killed_run())
    assert len(containers()) == 1
    asyncio.run(next_run())


def test_what_a_killed_sandbox_left_is_removed_by_the_command(tmp_path: Path) -> None:
    with listen() as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "--backend=container",
        f"--port={port}",
        f"--state-dir={tmp_path}",
    ]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert killed.stdout
    assert killed.stdout.readline() == f"sandbox ready at http://127.0.0.1:{port} (container machines)\n"
    cloud = hcloud.Client(
        read_token(tmp_path), api_endpoint=f"http://127.0.0.1:{port}/hetzner/v1", poll_interval=0.05
    )
    created = cloud.servers.create("web", ServerType(name="cx23"), Image(name="debian-13"))
    created.action.wait_until_finished()
    killed.kill()
    killed.communicate()
    address = created.server.public_net.ipv4.ip
    left = ["ps", "--all", "--quiet", f"--filter=label=gpumesh.address={address}"]
    assert len(docker(*left).split()) == 1
    subprocess.run([*command, "--remove"], check=True)
    assert docker(*left) == ""


def test_a_reset_in_the_middle_of_creates_leaves_nothing(
    cloud: hcloud.Client, sandbox: Sandbox, containers: Callable[[], list[str]]
) -> None:
    for number in range(3):
        cloud.servers.create(f"n{number}", ServerType(name="cx23"), Image(name="debian-13"))
    sandbox.reset()
    assert containers() == []
    assert cloud.servers.get_all() == []


def test_addresses_run_out_in_a_sentence(identity: str) -> None:
    backend = ContainerBackend(identity, subnet="10.78.0.0/29")
    given = {backend.reserve(f"hetzner-{number}").ipv4 for number in range(5)}
    assert given == {f"10.78.0.{number}" for number in range(2, 7)}
    with pytest.raises(BackendError, match="no address is left"):
        backend.reserve("hetzner-9")
