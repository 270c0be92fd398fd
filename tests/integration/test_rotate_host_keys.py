# SPDX-License-Identifier: GPL-3.0-or-later
"""Host keys are replaced on real hosts, and whenever the run is killed, every control machine still reaches them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpumesh.fleet.tests.fleets import gcp, hetzner, run_module, write_fleet

from sandbox.backends.container import ContainerBackend
from sandbox.testing import Sandbox, serve

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
ROTATE = "playbooks/rotate_host_keys.yml"
PROGRAMS = Path(sys.executable).parent
KILLED_AT = (
    "announce_host_key | Leave alone a machine whose next key nobody would know",
    "change_host_key | Let the SSH server show it",
    "change_host_key | Trust only the new key from now on",
    "forget_host_key | Remove the working copy",
)


@dataclass(frozen=True)
class Fleet:
    """A fleet of two machines, and a control machine."""

    folder: Path
    sandbox: Sandbox
    containers: dict[str, str]

    def command(self, *words: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start one of Ansible's programs in a process group of its own. No connection outlives it."""
        home = folder or self.folder
        return subprocess.Popen(
            [words[0], "-i", str(home / "fleet.yml"), "--private-key", str(self.folder / "key"), *words[1:]],
            cwd=ROOT,
            env={
                "PATH": f"{PROGRAMS}:/usr/bin:/bin",
                "HOME": str(home),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        """Run a playbook to its end."""
        process = self.command("ansible-playbook", playbook, *arguments)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said

    def killed_at(self, task: str) -> None:
        """Run the rotation, and kill it where this task begins."""
        process = self.command("ansible-playbook", ROTATE)
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("TASK [") and f": {task}]" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, said

    def answers(self, folder: Path | None = None, only: str = "running") -> None:
        """Machines are reached, their host keys verified, from this control machine or another."""
        process = self.command("ansible", only, "-m", "ansible.builtin.ping", folder=folder)
        said, _ = process.communicate(timeout=120)
        assert said.count("SUCCESS") == (len(self.containers) if only == "running" else 1), said

    def shown(self) -> dict[str, str]:
        """The Ed25519 host key in each machine."""
        return {name: self.on(name, "cat /etc/ssh/ssh_host_ed25519_key.pub") for name in self.containers}

    def on(self, name: str, command: str) -> str:
        """Run a command in a machine, by the back door."""
        return subprocess.run(
            ["docker", "exec", self.containers[name], "sh", "-c", command],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def known(self) -> dict[str, list[str]]:
        """The keys in the fleet's known_hosts, by machine."""
        found: dict[str, list[str]] = {}
        for line in (self.folder / "known_hosts").read_text().splitlines():
            match = re.match(r"gpumesh-minerals-(\w+)-\d+ (\S+ \S+) ", line)
            assert match, line
            found.setdefault(match[1], []).append(match[2])
        return found

    def another_control_machine(self, folder: Path) -> Path:
        """One that has nothing but access to the clouds."""
        folder.mkdir()
        (folder / "fleet.yml").write_text((self.folder / "fleet.yml").read_text())
        (folder / "key.pub").write_text((self.folder / "key.pub").read_text())
        result = run_module(folder, state="applied")
        assert not result.get("failed"), result
        return folder


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = subprocess.run(
        ["docker", "image", "inspect", "gpumesh/host:debian-13"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")
    folder = tmp_path_factory.mktemp("fleet")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    public = (folder / "key.pub").read_text()
    identity = f"test{uuid.uuid4().hex[:8]}"
    with serve(ContainerBackend(identity)) as sandbox:
        write_fleet(folder, sandbox, {"ore": hetzner(), "tin": gcp()})
        (folder / "key.pub").write_text(public)
        running = Fleet(folder, sandbox, {})
        status, said = running.play("playbooks/provision.yml", "-e", "fleet_auto_approve=true")
        assert status == 0, said
        names = {
            str(machine["hostname"]): f"gpumesh-{identity}-{machine['key']}" for machine in sandbox.machines()
        }
        yield Fleet(folder, sandbox, names)


def healed(fleet: Fleet) -> None:
    """Nobody trusts anything but what the machines show, and nothing is left over."""
    shown = fleet.shown()
    assert fleet.known() == {name: [" ".join(key.split()[:2])] for name, key in shown.items()}
    for name in fleet.containers:
        assert fleet.on(name, "ls /etc/ssh | grep gpumesh_next || true") == ""
    assert [path.name for path in fleet.folder.glob("known_hosts.*")] == []


def test_every_machine_gets_new_keys_and_check_mode_gives_none(fleet: Fleet) -> None:
    before = fleet.shown()
    rsa = fleet.on("tin", "cat /etc/ssh/ssh_host_rsa_key.pub")
    status, said = fleet.play(ROTATE, "--check")
    assert status == 0, said
    assert "A run would replace the host keys of this machine" in said
    assert fleet.shown() == before
    status, said = fleet.play(ROTATE, "-e", "rotate_serial=1")
    assert status == 0, said
    after = fleet.shown()
    assert all(after[name] != before[name] for name in fleet.containers)
    assert fleet.on("tin", "cat /etc/ssh/ssh_host_rsa_key.pub") != rsa
    healed(fleet)
    fleet.answers()


def test_only_the_named_machine_gets_a_new_key(fleet: Fleet) -> None:
    before = fleet.shown()
    status, said = fleet.play(ROTATE, "-e", "rotate=tin")
    assert status == 0, said
    after = fleet.shown()
    assert (after["ore"] == before["ore"], after["tin"] == before["tin"]) == (True, False)
    healed(fleet)


def test_a_run_that_is_killed_again_and_again_leaves_machines_that_are_reached(
    fleet: Fleet, tmp_path: Path
) -> None:
    before = fleet.shown()
    for number, task in enumerate(KILLED_AT):
        fleet.killed_at(task)
        fleet.answers()
        # Not tin: the sandbox's guest agent tells what lies in a machine's files, shown or not; Google's tells what it was told.
        fleet.answers(fleet.another_control_machine(tmp_path / str(number)), only="ore")
    status, said = fleet.play(ROTATE)
    assert status == 0, said
    after = fleet.shown()
    assert all(after[name] != before[name] for name in fleet.containers)
    healed(fleet)


def test_a_server_that_shows_another_key_is_refused_while_it_is_reached(fleet: Fleet) -> None:
    before = fleet.shown()
    fleet.on("tin", "echo HostKey /etc/ssh/ssh_host_rsa_key > /etc/ssh/sshd_config.d/99-rsa.conf")
    try:
        status, said = fleet.play(ROTATE, "-e", "rotate=tin")
    finally:
        fleet.on("tin", "rm /etc/ssh/sshd_config.d/99-rsa.conf")
    assert status != 0
    assert "its SSH server does not show /etc/ssh/ssh_host_ed25519_key" in " ".join(said.split())
    assert fleet.shown() == before
    fleet.answers()


def test_what_cannot_be_rotated_is_told(fleet: Fleet) -> None:
    """The machines stay as they are: nothing is changed before everything was looked at."""
    file = fleet.folder / "fleet.yml"
    text = file.read_text()
    content = yaml.safe_load(text)
    key = fleet.shown()["ore"].strip()
    content["machines"] |= {
        "bench": {"provider": "baremetal", "address": "127.0.0.1", "host_keys": [key]},
        "shelf": {"provider": "baremetal", "address": "127.0.0.1"},
    }
    file.write_text(yaml.safe_dump(content))
    try:
        status, said = fleet.play(ROTATE, "-e", "rotate=bench,shelf")
    finally:
        file.write_text(text)
    assert status != 0
    words = " ".join(said.split())
    assert "bench: its host keys are declared in the fleet file (host_keys)" in words
    assert "shelf: its host key is in your own known_hosts" in words
    status, said = fleet.play(ROTATE, "-e", "rotate=gold")
    assert status != 0
    assert "gold: no such machine runs" in said
    # The second leaves out the play that looks before anything else.
    for limit in ("ore,localhost", "ore"):
        status, said = fleet.play(ROTATE, "--limit", limit)
        assert status != 0
        assert f"-e rotate={limit} instead of --limit" in " ".join(said.split())
