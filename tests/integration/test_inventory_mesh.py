# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory with a mesh, through the real command line: on ZeroTier Central, and on a controller of the fleet's own.

The own controller is the sandbox's stand-in, in a network namespace. ``ssh`` is a shim that goes there in ssh's place, so that
all but the encryption is real: who is asked for, with which options, and what runs at the far end. All of it is SIMULATED.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hcloud
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import mesh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from sandbox.testing import Sandbox, serve
from sandbox.zerotier_account import NETWORK
from tests.integration import zerotier_lab
from tests.integration.zerotier_lab import Member, lab

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LAPTOP, ORE, INTRUDER, KNOCKER = "8046d53400", "1d7196c3a9", "eeeeeeeeee", "dddddddddd"
FLEET = """\
plugin: gpumesh.fleet.fleet
fleet: minerals
providers: {{hetzner: {{endpoint: "{hetzner}", token: "{token}"}}}}
mesh: {{network: {network}, controller: {controller}{more}}}
defaults: {{ssh_keys: [key.pub]}}
known_hosts: known_hosts
machines:
  ore: {{provider: hetzner, type: cx23, location: fsn1, enabled: true}}
  tin: {{provider: hetzner, type: cx23, location: fsn1}}
  laptop: {{provider: external, node_id: {laptop}}}
"""


@dataclass
class Ansible:
    """Runs Ansible's commands as a user would, with nothing of the developer's environment."""

    home: Path
    variables: dict[str, Any] = field(default_factory=dict)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": f"{self.home / 'bin'}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    def graph(self, fleet: Path) -> tuple[dict[str, set[str]], str]:
        """The groups with their hosts, and what was said on the way."""
        done = self.run("ansible-inventory", "-i", str(fleet), "--list")
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        self.variables = data["_meta"]["hostvars"]
        groups = {name: set(group.get("hosts", ())) for name, group in data.items() if name != "_meta"}
        return groups, " ".join(done.stderr.split())


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    (tmp_path / "home" / "bin").mkdir(parents=True)
    return Ansible(tmp_path / "home")


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear_faults()
    running.reset()
    return running


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, sandbox: Sandbox) -> Write:
    def write(more: str = "", **fields: str) -> Path:
        known = {
            "hetzner": sandbox.hetzner,
            "token": sandbox.hetzner_token,
            "network": NETWORK,
            "controller": "central_v1",
            "laptop": LAPTOP,
        }
        path = tmp_path / "fleet.yml"
        path.write_text(FLEET.format(**known | fields, more=more))
        return path

    return write


def central(sandbox: Sandbox, more: str = "") -> str:
    """What the mesh block says besides."""
    return f", endpoint: '{sandbox.zerotier}', token: '{sandbox.zerotier_token}'{more}"


def appears(sandbox: Sandbox, node: str) -> None:
    """Let a node ask for its configuration."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=30)
    path = f"/zerotier/simulation/network/{NETWORK}/node/{node}"
    try:
        connection.request("POST", path, "{}", {"Authorization": f"token {sandbox.zerotier_token}"})
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def admit(sandbox: Sandbox, node: str, name: str) -> None:
    plane = mesh.open_plane("central_v1", NETWORK, sandbox.zerotier_token, sandbox.zerotier, SystemClock())
    plane.save_member(MemberWish(node, name=name, authorized=True))
    plane.close()


def buy(sandbox: Sandbox, name: str) -> str:
    """Make a server of the fleet; its address."""
    client = hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner)
    created = client.servers.create(
        name=name,
        server_type=ServerType(name="cx23"),
        image=Image(name="debian-13"),
        location=Location(name="fsn1"),
        labels={"gpumesh-fleet": "minerals", "gpumesh-machine": name},
    )
    created.action.wait_until_finished()
    return str(client.servers.get_by_name(name).public_net.ipv4.ip)


class TestCentral:
    @pytest.fixture
    def members(self, sandbox: Sandbox) -> None:
        for node, name in ((LAPTOP, "laptop"), (ORE, "ore"), (INTRUDER, "intruder")):
            admit(sandbox, node, name)
        for node in (ORE, INTRUDER, KNOCKER):
            appears(sandbox, node)

    def test_members_are_hosts_with_groups_and_variables(
        self, ansible: Ansible, sandbox: Sandbox, write: Write, members: None
    ) -> None:
        public = buy(sandbox, "ore")
        groups, said = ansible.graph(write(central(sandbox)))
        assert "WARNING" not in said
        assert groups["mesh"] == {"laptop", "ore"} and groups["mesh_online"] == {"ore"}
        assert groups["mesh_undeclared"] == {f"mesh_{INTRUDER}", f"mesh_{KNOCKER}"}
        ore = ansible.variables["ore"]
        assert ore["ansible_host"] == ore["fleet_mesh_ip"] == "fddb:4344:343b:14b9:399:931d:7196:c3a9"
        assert (ore["fleet_public_ip"], ore["fleet_mesh"]["name"]) == (public, "ore.zt")
        member = ore["fleet_mesh_member"]
        assert (member["authorized"], member["online"], member["simulated"]) == (True, True, True)
        assert member["version"] and member["last_seen"] and member["physical_address"]
        assert ansible.variables["tin"]["fleet_mesh_member"] is None
        assert sandbox.requests(service="zerotier", path=".*/member$") == 1, "one listing"

    def test_another_form_of_address_and_another_way(
        self, ansible: Ansible, sandbox: Sandbox, write: Write, members: None
    ) -> None:
        public = buy(sandbox, "ore")
        ansible.graph(write(central(sandbox, ", addressing: managed")))
        ore = ansible.variables["ore"]
        assert ore["ansible_host"] == ore["fleet_mesh_member"]["addresses"][0]
        ansible.graph(write(central(sandbox, ", addressing: 6plane, connect: public")))
        ore = ansible.variables["ore"]
        assert (ore["ansible_host"], ore["fleet_mesh_ip"]) == (public, "fce0:57fd:371d:7196:c3a9::1")

    def test_a_play_refuses_a_member_nobody_declared(
        self, ansible: Ansible, sandbox: Sandbox, write: Write, members: None, tmp_path: Path
    ) -> None:
        (tmp_path / "play.yml").write_text("- {hosts: all, gather_facts: false, tasks: [{raw: id}]}\n")
        path = write(central(sandbox, ", strict: true"))
        done = ansible.run(
            "ansible-playbook", "-i", str(path), "-l", f"mesh_{INTRUDER}", str(tmp_path / "play.yml")
        )
        assert done.returncode != 0 and "unreachable=1" in done.stdout
        text = " ".join(f"{done.stdout} {done.stderr}".split())
        assert (
            f"mesh_{INTRUDER} is the node {INTRUDER} of the mesh that the fleet minerals does not declare"
            in text
        )
        assert f"provider: external, node_id: {INTRUDER}" in text
        done = ansible.run(
            "ansible", "mesh_undeclared", "-i", str(path), "-c", "local", "-m", "raw", "-a", "id"
        )
        assert "uid=" not in done.stdout and done.stdout.count("UNREACHABLE") == 2, (
            "nor by another connection"
        )

    def test_a_central_that_does_not_answer_is_no_empty_mesh(
        self, ansible: Ansible, sandbox: Sandbox, write: Write, members: None
    ) -> None:
        path = write(
            central(sandbox, ", when_sick: partial").replace(sandbox.zerotier_token, "wrong-0123456789")
        )
        groups, said = ansible.graph(path)
        assert said.count("[WARNING]") == 1 and "mesh: token:" in said
        assert not groups.get("mesh_undeclared") and groups["mesh"] == {"laptop"}
        assert ansible.variables["ore"]["fleet_mesh"]["members_known"] is False


SHIM = """\
#!/bin/sh
# In the place of ssh: says what it was asked for, and goes to the namespace of the controller.
printf '%s\\n' "$@" > {folder}/ssh-arguments
[ -e {folder}/closed ] && {{ echo "ssh: connect to host: Connection refused" >&2; exit 255; }}
for command in "$@"; do :; done
export PATH={folder}/far:$PATH COMMAND="$command"
exec ip netns exec {namespace} sh -c '
  mount -t tmpfs none /var/lib
  [ -e {folder}/empty ] || {{ mkdir /var/lib/zerotier-one; cp {home}/authtoken.secret /var/lib/zerotier-one; }}
  exec sh -c "$COMMAND"'
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Member]]:
    if reason := zerotier_lab.unable():
        pytest.skip(reason)
    with lab("stand-in", tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


class TestAControllerOfOnesOwn:
    @pytest.fixture
    def shims(self, nodes: list[Member], ansible: Ansible) -> Path:
        """The folder where the shims look what to be."""
        folder = ansible.home
        (folder / "far").mkdir()
        shim = SHIM.format(folder=folder, namespace=nodes[0].namespace, home=nodes[0].home)
        for path, text in (("bin/ssh", shim), ("far/sudo", '#!/bin/sh\nshift\nexec "$@"\n')):
            (folder / path).write_text(text)
            (folder / path).chmod(0o755)
        return folder

    def test_from_nothing_to_a_mesh(
        self,
        nodes: list[Member],
        shims: Path,
        ansible: Ansible,
        sandbox: Sandbox,
        write: Write,
        tmp_path: Path,
    ) -> None:
        controller, other, _third = nodes
        network = f"{controller.id}0000bb"
        path = write(", strict: true", network=network, controller="ore")
        for name in ("key", "key.pub"):
            (tmp_path / name).write_text("ssh-ed25519 AAAA me\n")

        groups, said = ansible.graph(path)
        assert said.count("[WARNING]") == 1 and "the mesh's controller ore does not exist yet" in said
        assert groups["missing"] == {"ore"} and not (shims / "ssh-arguments").exists()

        public = buy(sandbox, "ore")
        (shims / "closed").touch()
        groups, said = ansible.graph(path)
        assert said.count("[WARNING]") == 1 and "Connection refused" in said and groups["running"] == {"ore"}
        instance = ansible.variables["ore"]["fleet_instance"]["id"]
        asked = (shims / "ssh-arguments").read_text().splitlines()
        assert asked[-2] == public and "admin" in asked
        assert {
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={tmp_path / 'known_hosts'}",
            f"HostKeyAlias=gpumesh-minerals-ore-{instance}",
            f"IdentityFile={tmp_path / 'key'}",
        } <= set(asked)

        (shims / "closed").unlink()
        (shims / "empty").touch()
        _groups, said = ansible.graph(path)
        assert said.count("[WARNING]") == 1 and "zerotier-one is not installed" in said

        (shims / "empty").unlink()
        _groups, said = ansible.graph(path)
        assert said.count("[WARNING]") == 1 and "no such network" in said

        play = [
            {
                "hosts": "localhost",
                "gather_facts": False,
                "connection": "local",
                "vars": {"ansible_python_interpreter": sys.executable},
                "tasks": [
                    {"gpumesh.fleet.mesh": {"fleet_file": str(path), "state": "applied"}, "register": "mesh"}
                ],
            }
        ]
        (tmp_path / "play.yml").write_text(json.dumps(play))
        done = ansible.run("ansible-playbook", "-i", "localhost,", "--diff", str(tmp_path / "play.yml"))
        assert "changed=1" in done.stdout, done.stdout + done.stderr
        assert "+  create  (the network)" in done.stdout and "SIMULATED" in done.stdout
        done = ansible.run("ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"))
        assert "changed=0" in done.stdout, done.stdout + done.stderr

        assert other.call("POST", f"/network/{network}", {})[0] == 200
        zerotier_lab.wait(
            lambda: controller.call("GET", f"/controller/network/{network}/member/{other.id}")[0] == 200,
            30,
            "a knock",
        )
        groups, said = ansible.graph(path)
        assert "WARNING" not in said
        assert groups["mesh"] == {"ore", "laptop"} and groups["mesh_undeclared"] == {f"mesh_{other.id}"}
        ore = ansible.variables["ore"]
        assert ore["fleet_mesh_node_id"] == controller.id and "ore" in groups["mesh_online"]
        assert ore["ansible_host"] == ore["fleet_mesh_ip"], "the controller has answered, so it is online"
        assert ore["fleet_mesh_member"]["simulated"] is True
        assert ansible.variables[f"mesh_{other.id}"]["ansible_connection"] == "gpumesh.fleet.refused"
